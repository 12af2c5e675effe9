//! Writes dead letters to a Kafka topic, for receivers in mode `direct` that store nothing on disk. The value of a Kafka record
//! is the body of the request; all other data is in its headers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::DeliveryTimeout;
use crate::error::KafkaSinkError;
use crate::message::Message;
use crate::producer::{BATCH_BYTES, Kind, Producer};
use crate::settings::KafkaConfig;
use crate::topics::Topics;
use dt_sink::record::{DeadLetter, Reason};
use dt_sink::{DeadLetterSink, SinkError, SinkReporter};
use dt_verify::event::rfc3339_millis;

/// How long `last_error` reports a failure.
const LAST_ERROR_MAX_AGE: Duration = Duration::from_secs(10);

/// Writes dead letters to one topic, and waits for the acknowledgement of each.
pub struct KafkaDeadLetters {
    topic: String,
    /// The producer. It is locked until a dead letter is acknowledged, since dead letters are rare.
    state: Mutex<DeadLetterProducer>,
}

struct DeadLetterProducer {
    config: KafkaConfig,
    timeout: Duration,
    reporter: Arc<dyn SinkReporter>,
    producer: Producer,
    topics: Topics,
    last_ticket: u64,
    /// The time of the last failed write and its error; `None` after a success.
    last_error: Option<(Instant, String)>,
}

impl std::fmt::Debug for KafkaDeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaDeadLetters").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl KafkaDeadLetters {
    /// Creates a producer for `topic` with the brokers of `config`. Each dead letter has to be acknowledged within `timeout`.
    ///
    /// # Errors
    ///
    /// [`KafkaSinkError::Configuration`] if librdkafka rejects the configuration.
    pub fn new(
        config: &KafkaConfig,
        topic: String,
        timeout: Duration,
        reporter: Arc<dyn SinkReporter>,
    ) -> Result<Self, KafkaSinkError> {
        let producer = create_producer(config, timeout, &reporter)?;
        let topics = Topics::new(Arc::new(config.clone()));
        let config = config.clone();
        let state = DeadLetterProducer {
            config,
            timeout,
            reporter,
            producer,
            topics,
            last_ticket: 0,
            last_error: None,
        };
        Ok(Self { topic, state: Mutex::new(state) })
    }
}

fn create_producer(
    config: &KafkaConfig,
    timeout: Duration,
    reporter: &Arc<dyn SinkReporter>,
) -> Result<Producer, KafkaSinkError> {
    Producer::new(config, Kind::Alone, DeliveryTimeout::After(timeout), BATCH_BYTES, reporter)
}

impl DeadLetterProducer {
    fn send(&mut self, topic: &str, dead_letter: &DeadLetter) -> Result<(), KafkaSinkError> {
        let sent = self.try_to_send(topic, dead_letter);
        if sent.is_err() {
            // The topic may be the cause, so it is checked again for the next dead letter.
            self.topics.forget();
            if let Some(failure) = self.producer.fatal_error() {
                self.producer = create_producer(&self.config, self.timeout, &self.reporter)?;
                return Err(failure.into());
            }
        }
        sent
    }

    fn try_to_send(&mut self, topic: &str, dead_letter: &DeadLetter) -> Result<(), KafkaSinkError> {
        self.topics.ensure(topic, &self.producer)?;
        let message = message_of(topic, dead_letter);
        self.last_ticket = self.last_ticket.saturating_add(1);
        let started = Instant::now();
        match self.producer.send(&message, dead_letter.received_at, self.last_ticket) {
            Ok(true) => {}
            Ok(false) => return Err(KafkaSinkError::QueueFull),
            Err(failure) => return Err(failure.into()),
        }
        while started.elapsed() < self.timeout.saturating_add(Duration::from_secs(1)) {
            for (ticket, result) in self.producer.reports(Duration::from_millis(100)) {
                if ticket == self.last_ticket {
                    return result.map_err(KafkaSinkError::from);
                }
            }
        }
        Err(self.producer.last_error().map_or(KafkaSinkError::NotAcknowledged, KafkaSinkError::Connection))
    }
}

impl DeadLetterSink for KafkaDeadLetters {
    fn store(&self, dead_letter: &DeadLetter) -> Result<(), SinkError> {
        let mut state = self.state.lock();
        let sent = state.send(&self.topic, dead_letter);
        let named = sent.map_err(|error| format!("kafka:{}: {error}", self.topic));
        state.last_error = named.as_ref().err().map(|error| (Instant::now(), error.clone()));
        named.map_err(SinkError::from)
    }

    fn last_error(&self) -> Option<String> {
        // Does not wait while a dead letter is being sent. The error expires, since a load balancer that follows `/readyz`
        // sends no request, and so no dead letter, that could clear it.
        let state = self.state.try_lock()?;
        let (since, error) = state.last_error.as_ref()?;
        (since.elapsed() < LAST_ERROR_MAX_AGE).then(|| error.clone())
    }
}

fn message_of(topic: &str, dead_letter: &DeadLetter) -> Message {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
    add("dt-reason", dead_letter.reason.code());
    add("dt-connector", &dead_letter.connector);
    if let Reason::Rejected { sink } = &dead_letter.reason {
        add("dt-sink", sink);
    }
    add("dt-error", &dead_letter.error);
    add("dt-attempts", &dead_letter.attempts.to_string());
    add("dt-received-at", &rfc3339_millis(dead_letter.received_at));
    if let Some(id) = &dead_letter.request_id {
        add("dt-request-id", id.as_str());
    }
    if let Some(id) = &dead_letter.event_id {
        add("dt-event-id", id);
    }
    for (name, value) in &dead_letter.signatures {
        add(name, value);
    }
    add("dt-header-names", &dead_letter.header_names.join(","));
    Message::new(
        topic.to_owned(),
        dead_letter.event_id.as_deref().map(str::to_owned),
        dead_letter.body.to_vec(),
        headers,
    )
}
