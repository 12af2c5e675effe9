//! Dead letters in a topic of Kafka, for receivers in mode `direct` that keep nothing on disk. The value is the body as
//! received; all else is in headers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::Patience;
use crate::failure::Failure;
use crate::message::Message;
use crate::producer::{BATCH_BYTES, Kind, Producer};
use crate::settings::KafkaConfig;
use crate::topics::Topics;
use dt_sink::record::{DeadLetter, Reason};
use dt_sink::{DeadLetterSink, SinkError, SinkReporter};
use dt_verify::event::rfc3339_millis;

/// How long a failure is told of.
const TROUBLE_HOLDS: Duration = Duration::from_secs(10);

/// A topic of dead letters.
pub struct KafkaLetters {
    topic: String,
    /// Held while a letter is on its way: there are few.
    state: Mutex<Letters>,
}

struct Letters {
    config: KafkaConfig,
    patience: Duration,
    reporter: Arc<dyn SinkReporter>,
    producer: Producer,
    topics: Topics,
    last_ticket: u64,
    /// What went wrong last, and when.
    trouble: Option<(Instant, String)>,
}

impl std::fmt::Debug for KafkaLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLetters").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl KafkaLetters {
    /// Letters to this topic, with the brokers of a sink. A letter is waited for as long as `patience`.
    ///
    /// # Errors
    ///
    /// What librdkafka says about the configuration.
    pub fn new(
        config: &KafkaConfig,
        topic: String,
        patience: Duration,
        reporter: Arc<dyn SinkReporter>,
    ) -> Result<Self, String> {
        let producer = make(config, patience, &reporter)?;
        let topics = Topics::new(Arc::new(config.clone()));
        let config = config.clone();
        let state = Letters { config, patience, reporter, producer, topics, last_ticket: 0, trouble: None };
        Ok(Self { topic, state: Mutex::new(state) })
    }
}

fn make(
    config: &KafkaConfig,
    patience: Duration,
    reporter: &Arc<dyn SinkReporter>,
) -> Result<Producer, String> {
    Producer::new(config, Kind::Alone, Patience::Until(patience), BATCH_BYTES, reporter)
}

impl Letters {
    fn send(&mut self, topic: &str, letter: &DeadLetter) -> Result<(), String> {
        let sent = self.try_to_send(topic, letter);
        if sent.is_err() {
            // Whatever it was, the next letter finds out anew.
            self.topics.forget();
            if let Some(failure) = self.producer.fatal_error() {
                self.producer = make(&self.config, self.patience, &self.reporter)?;
                return Err(text(failure));
            }
        }
        sent
    }

    fn try_to_send(&mut self, topic: &str, letter: &DeadLetter) -> Result<(), String> {
        self.topics.ensure(topic, &self.producer)?;
        let message = message_of(topic, letter);
        self.last_ticket = self.last_ticket.saturating_add(1);
        let started = Instant::now();
        match self.producer.send(&message, letter.received_at, self.last_ticket) {
            Ok(true) => {}
            Ok(false) => return Err("the producer's queue is full".to_owned()),
            Err(failure) => return Err(text(failure)),
        }
        while started.elapsed() < self.patience.saturating_add(Duration::from_secs(1)) {
            for (ticket, result) in self.producer.reports(Duration::from_millis(100)) {
                if ticket == self.last_ticket {
                    return result.map_err(text);
                }
            }
        }
        Err(self.producer.trouble().unwrap_or_else(|| "it was not acknowledged in time".to_owned()))
    }
}

impl DeadLetterSink for KafkaLetters {
    fn store(&self, letter: &DeadLetter) -> Result<(), SinkError> {
        let mut state = self.state.lock();
        let sent = state.send(&self.topic, letter);
        let named = sent.map_err(|error| format!("kafka:{}: {error}", self.topic));
        state.trouble = named.as_ref().err().map(|error| (Instant::now(), error.clone()));
        named.map_err(SinkError::from)
    }

    fn last_error(&self) -> Option<String> {
        // Nobody waits here for the letter that is just on its way. After a while the next letter has to find out: where
        // `/readyz` decides who gets requests, none would come otherwise.
        let state = self.state.try_lock()?;
        let (since, error) = state.trouble.as_ref()?;
        (since.elapsed() < TROUBLE_HOLDS).then(|| error.clone())
    }
}

fn message_of(topic: &str, letter: &DeadLetter) -> Message {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
    add("dt-reason", letter.reason.code());
    add("dt-connector", &letter.connector);
    if let Reason::Rejected { sink } = &letter.reason {
        add("dt-sink", sink);
    }
    add("dt-error", &letter.error);
    add("dt-attempts", &letter.attempts.to_string());
    add("dt-received-at", &rfc3339_millis(letter.received_at));
    if let Some(id) = &letter.request_id {
        add("dt-request-id", id.as_str());
    }
    if let Some(id) = &letter.event_id {
        add("dt-event-id", id);
    }
    for (name, value) in &letter.signatures {
        add(name, value);
    }
    add("dt-header-names", &letter.header_names.join(","));
    Message::new(
        topic.to_owned(),
        letter.event_id.as_deref().map(str::to_owned),
        letter.body.to_vec(),
        headers,
    )
}

fn text(failure: Failure) -> String {
    match failure {
        Failure::Purged => "it was taken back".to_owned(),
        Failure::TimedOut(text)
        | Failure::TooLarge(text)
        | Failure::Record(text)
        | Failure::Producer(text)
        | Failure::Place(text) => text,
    }
}
