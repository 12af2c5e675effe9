//! The sink `kafka`: records to topics, each acknowledged by all in-sync replicas before it counts as delivered.
//!
//! # How a record gets there
//!
//! The producer is idempotent, so librdkafka may send a request again without a record coming twice or out of order, and in
//! mode `spool` it does so for as long as it takes: an outage of any length is waited for inside it. Up to
//! [`MAX_WINDOW`] records are on their way at once; a report of a record's delivery settles it, in whatever order reports
//! come.
//!
//! # When a record fails
//!
//! librdkafka's order ends where a record fails for good, so the producer has a "gapless guarantee": it stops with a fatal
//! error then, before it sends what follows. Everything that has no report is purged, the producer is made anew, and it
//! goes on with the first record that was not delivered. What the failure means is decided in `failure.rs`:
//!
//! - A record may be at fault (too large, say). Kafka refuses a whole batch for one record, so each record of the batch is
//!   tried alone, in order, by a producer that stands in for the other meanwhile, until one is acknowledged. Only what
//!   fails alone is rejected.
//! - The place may be at fault (no such topic, no permission, a wrong password). No record is rejected for that: the worker
//!   is told, and tries again.
//!
//! A producer that is new sends one record of each device until that is acknowledged: see `proven.rs`.

mod batch_size;
mod failure;
mod letters;
mod message;
mod metrics;
mod producer;
mod proven;
mod security;
mod settings;
mod topics;
mod window;

use std::sync::Arc;
use std::time::{Duration, Instant};

use batch_size::BatchSize;
use failure::Failure;
pub use letters::KafkaLetters;
use message::Message;
use producer::{Kind, Producer};
pub use security::{KafkaSasl, KafkaTls};
pub use settings::{CreateTopic, KafkaConfig, RecordKey, UnknownKey};
use topics::Topics;
use window::{State, Window};

use dt_sink::record::{Format, Record};
use dt_sink::{Fate, Metric, OpenError, Outcome, Sink, SinkReporter};

/// How many records may be on their way: enough for 40,000 a second to a broker that takes 50 ms. With four times as many,
/// 6 MiB more are held at full load, and 1 % of the answers take 15 ms instead of 8 (`benches/compare`, spool -> Kafka).
const MAX_WINDOW: usize = 2048;
/// How long a batch is worked on before the worker hears how far it is.
const TURN: Duration = Duration::from_millis(500);
/// How long it is worked on once enough is settled for the worker to store.
const SHORT_TURN: Duration = Duration::from_millis(20);
/// How long reports are waited for before the time is looked at.
const REPORT_WAIT: Duration = Duration::from_millis(10);
/// How long purged records are waited for.
const PURGE_WAIT: Duration = Duration::from_secs(5);
/// How long nothing may be acknowledged before that is called a trouble.
const STALLED: Duration = Duration::from_secs(3);
/// After so many records in a row that are refused alone it is no fault of a record any more.
const MAX_REFUSED_ALONE: usize = 1000;
/// How often the cluster is looked at while there is nothing to deliver.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// How long a record may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As long as it takes: mode `spool`.
    Endless,
    /// So long, from when it is given to Kafka: mode `direct`, where a request waits for it.
    Until(Duration),
}

/// Writes records to Kafka.
pub struct KafkaSink {
    config: Arc<KafkaConfig>,
    format: Format,
    patience: Patience,
    reporter: Arc<dyn SinkReporter>,
    /// Records that are on their way, or have been since they were given last.
    window: Window,
    /// The producer that sends; the other kind stands in while records are tried alone.
    producer: Option<Producer>,
    /// Records up to this ticket that are not sent wait for others of their devices.
    looked_to: u64,
    topics: Topics,
    batch_size: BatchSize,
    /// How many records in a row were refused alone.
    refused_alone: usize,
    /// How many producers in a row ended without a record acknowledged.
    ended: usize,
    /// Why nothing can be delivered until the worker tries again.
    held: Option<String>,
    /// When something was acknowledged last, or there was nothing to wait for.
    moved: Instant,
    message: Message,
}

impl std::fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSink")
            .field("reporter", &self.reporter)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl KafkaSink {
    /// The metrics that a sink of Kafka reports.
    pub const METRICS: &'static [Metric] = metrics::ALL;

    /// Creates a sink. It connects when it is opened.
    #[must_use]
    pub fn new(
        config: KafkaConfig,
        format: Format,
        patience: Patience,
        reporter: Arc<dyn SinkReporter>,
    ) -> Self {
        let config = Arc::new(config);
        Self {
            topics: Topics::new(Arc::clone(&config)),
            config,
            format,
            patience,
            reporter,
            window: Window::default(),
            producer: None,
            looked_to: 0,
            batch_size: BatchSize::default(),
            refused_alone: 0,
            ended: 0,
            held: None,
            moved: Instant::now(),
            message: Message::default(),
        }
    }

    /// The producer of this kind; makes it if the one there is of another kind, which must have nothing on its way.
    fn producer(&mut self, kind: Kind) -> Result<&mut Producer, String> {
        if self.producer.as_ref().is_some_and(|producer| producer.kind() != kind) {
            self.producer = None;
        }
        let made = match self.producer.take() {
            Some(producer) => producer,
            None => {
                Producer::new(&self.config, kind, self.patience, self.batch_size.bytes(), &self.reporter)?
            }
        };
        Ok(self.producer.insert(made))
    }

    /// Hands over what may be sent now.
    fn send(&mut self) -> Result<(), String> {
        let is_alone = self.producer.as_ref().is_some_and(|producer| producer.kind() == Kind::Alone);
        // What follows a refused record is likely to be refused as well, and making a producer takes up to a second.
        if self.window.has_suspects() || (is_alone && self.refused_alone > 0) {
            // One at a time, so that it is known which one is refused.
            return match self.window.first_unsent() {
                Some(ticket) if self.window.in_flight() == 0 => self.send_one(ticket, Kind::Alone),
                _ => Ok(()),
            };
        }
        if is_alone && self.window.in_flight() > 0 {
            // The last one that was tried alone; nobody waits for the others any more.
            return Ok(());
        }
        if is_alone {
            // Which devices are proven is known of the other kind only: one whose last record was refused never is here.
            self.producer = None;
            self.looked_to = 0;
        }
        self.batch_size.conclude();
        while self.window.in_flight() < MAX_WINDOW {
            let Some(ticket) = self.window.next_unsent(self.looked_to) else { break };
            let lane = self.window.lane(ticket);
            if self.producer.as_ref().is_none_or(|producer| producer.proven.may_send(lane)) {
                self.send_one(ticket, Kind::Ordered)?;
                if !self.window.is_sent(ticket) {
                    // The producer's queue is full, or it is of no more use.
                    break;
                }
            }
            self.looked_to = ticket;
        }
        Ok(())
    }

    fn send_one(&mut self, ticket: u64, kind: Kind) -> Result<(), String> {
        let Some(record) = self.window.record(ticket) else { return Ok(()) };
        self.message.fill(&record, &self.config, self.format);
        self.producer(kind)?;
        let Some(producer) = &mut self.producer else { return Ok(()) };
        self.topics.ensure(&self.message.topic, producer)?;
        match producer.send(&self.message, record.received_at, ticket) {
            Ok(true) => {
                producer.proven.sent(self.window.lane(ticket));
                self.window.sent(ticket, self.message.size());
            }
            Ok(false) => {}
            Err(failure) => self.failed(ticket, failure, kind),
        }
        Ok(())
    }

    /// Takes the reports that have come.
    fn take_reports(&mut self, wait: Duration) {
        let Some(producer) = &self.producer else { return };
        let kind = producer.kind();
        let reports = producer.reports(wait);
        let fatal = producer.fatal_error();
        for (ticket, result) in reports {
            match result {
                Ok(()) => {
                    self.moved = Instant::now();
                    (self.refused_alone, self.ended) = (0, 0);
                    if let Some(producer) = &mut self.producer
                        && producer.proven.acknowledged(self.window.lane(ticket))
                    {
                        self.looked_to = 0;
                    }
                    self.window.settle(ticket, State::Delivered);
                }
                Err(failure) => self.failed(ticket, failure, kind),
            }
        }
        match fatal {
            None => {}
            Some(Failure::Place(error)) => {
                self.renew(&error);
                self.held = Some(error);
            }
            Some(Failure::Producer(error)) => {
                if self.renew(&error) {
                    self.ended = self.ended.saturating_add(1);
                }
                // The first one may be the end of a single batch; the worker's back-off is for those that follow.
                if self.ended > 1 {
                    self.held = Some(error);
                }
            }
            Some(failure) => {
                self.renew(&format!("{failure:?}"));
            }
        }
    }

    fn failed(&mut self, ticket: u64, failure: Failure, kind: Kind) {
        let Some(record) = self.window.record(ticket) else { return };
        self.looked_to = 0;
        match failure {
            Failure::Purged => self.window.unsent(ticket),
            // Where there is no hurry it is tried again, before what follows it.
            Failure::TimedOut(error) if self.patience == Patience::Endless => {
                self.window.unsent(ticket);
                self.renew(&error);
            }
            // The producer stops at this gap, as it would at any other; nobody else may wait for it.
            Failure::TimedOut(error) => {
                self.renew(&error);
                self.window.settle(ticket, State::Failed(error));
            }
            Failure::Record(error) if message::key(&record, &self.config).is_none() => self.failed(
                ticket,
                Failure::Place(format!(
                    "{error}; a topic with cleanup.policy=compact takes no record without a key; set `key`"
                )),
                kind,
            ),
            Failure::Record(error) | Failure::TooLarge(error)
                if kind == Kind::Alone && self.refused_alone >= MAX_REFUSED_ALONE =>
            {
                self.window.unsent(ticket);
                self.held = Some(format!(
                    "{error}; so were {MAX_REFUSED_ALONE} records before it, so mend the topic"
                ));
            }
            Failure::Record(error) | Failure::TooLarge(error) if kind == Kind::Alone => {
                self.moved = Instant::now();
                self.refused_alone = self.refused_alone.saturating_add(1);
                self.ended = 0;
                self.batch_size.was_a_record();
                self.window.settle(ticket, State::Rejected(error));
            }
            Failure::TooLarge(error) => {
                let bytes = self.window.suspect(ticket);
                self.batch_size.refused(bytes);
                self.renew(&error);
            }
            Failure::Record(error) => {
                self.window.suspect(ticket);
                self.renew(&error);
            }
            Failure::Producer(error) => {
                self.window.unsent(ticket);
                self.renew(&error);
            }
            Failure::Place(error) => {
                self.window.unsent(ticket);
                self.topics.forget();
                self.held = Some(error.clone());
                self.renew(&error);
            }
        }
    }

    /// Takes back whatever is on its way; the next producer goes on from the first record that was not delivered. Whether
    /// that is not under way already.
    fn renew(&mut self, why: &str) -> bool {
        let is_first = self.producer.as_mut().is_some_and(Producer::purge);
        if is_first {
            tracing::debug!(sink = self.reporter.sink(), why, "the producer is replaced");
            self.reporter.add(&metrics::PRODUCERS_RENEWED, 1);
        }
        is_first
    }

    /// Waits until nothing is on its way from a producer that was purged, and lets go of it.
    fn finish_purge(&mut self) {
        if !self.producer.as_ref().is_some_and(Producer::is_purged) {
            return;
        }
        let started = Instant::now();
        while self.window.in_flight() > 0 && started.elapsed() < PURGE_WAIT {
            self.take_reports(Duration::from_millis(5));
        }
        // What has no report may have arrived; it is sent again, with the same event id.
        self.window.unsend_all();
        self.looked_to = 0;
        self.producer = None;
    }

    /// With nothing on its way: limits may have been raised since batches were made smaller.
    fn renew_for_larger_batches(&mut self) {
        if self.batch_size.is_over() {
            self.producer = None;
        }
    }

    /// What holds things up, if anything does.
    fn trouble(&self) -> Option<String> {
        let stalled = self.moved.elapsed();
        let cause = self.producer.as_ref().and_then(Producer::trouble);
        match cause {
            Some(cause) => Some(cause),
            // Always in the same words, so that the log has it once.
            None if stalled >= STALLED => {
                Some("nothing is acknowledged; are enough replicas in sync (min.insync.replicas)?".to_owned())
            }
            None => None,
        }
    }

    /// Works on a batch until enough of it is settled, or its turn is over.
    fn work(&mut self, tickets: &[u64]) {
        let started = Instant::now();
        loop {
            self.finish_purge();
            if self.held.is_some() {
                return;
            }
            if let Err(error) = self.send() {
                // What is on its way may still arrive.
                self.held = Some(error);
                self.take_reports(Duration::ZERO);
                continue;
            }
            self.take_reports(REPORT_WAIT);
            let (open, all) = (self.window.open(), tickets.len());
            // Half of it is enough to store: what is on its way goes on meanwhile.
            let turn = if open == all { TURN } else { SHORT_TURN };
            let is_over = open <= all / 2 || started.elapsed() >= turn;
            if is_over && !self.producer.as_ref().is_some_and(Producer::is_purged) {
                return;
            }
        }
    }
}

impl Sink for KafkaSink {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        // After a panic nobody knows what the last producer was about.
        self.producer = None;
        self.window.unsend_all();
        // It connects by itself; what is wrong with the configuration shows here.
        self.producer(Kind::Ordered).map(drop).map_err(OpenError::Unusable)
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        self.held = None;
        if self.window.in_flight() == 0 {
            self.moved = Instant::now();
            self.renew_for_larger_batches();
        }
        let (topic, template) = (&mut self.message.topic, &self.config.topic);
        let tickets = self.window.present(batch, |record| {
            template.render(record, topic);
            proven::lane(topic, record.device.as_deref())
        });
        self.work(&tickets);
        let held = self.held.take();
        let trouble = if held.is_none() { self.trouble() } else { None };
        let fate = |ticket: &u64| match self.window.take_settled(*ticket) {
            Some(State::Delivered) => Fate::Delivered,
            Some(State::Rejected(error)) => Fate::Rejected { error },
            Some(State::Failed(error)) => Fate::Retry { error },
            _ if self.window.is_sent(*ticket) => {
                Fate::Pending { last_error: held.clone().or_else(|| trouble.clone()) }
            }
            _ => match &held {
                Some(error) => Fate::Retry { error: error.clone() },
                None => Fate::Pending { last_error: trouble.clone() },
            },
        };
        Outcome { fates: tickets.iter().map(fate).collect(), ..Outcome::default() }
    }

    fn max_batch(&self) -> usize {
        MAX_WINDOW
    }

    fn check_every(&self) -> Option<Duration> {
        Some(CHECK_EVERY)
    }

    fn check(&mut self) -> Result<(), dt_sink::SinkError> {
        self.moved = Instant::now();
        // There may be records on their way whose requests were given up.
        self.take_reports(Duration::ZERO);
        self.finish_purge();
        if let Some(error) = self.held.take() {
            return Err(error.into());
        }
        if self.window.in_flight() == 0 {
            self.renew_for_larger_batches();
            self.producer(Kind::Ordered)?;
        }
        let Some(producer) = &self.producer else { return Ok(()) };
        Ok(self.topics.check(producer)?)
    }

    fn close(&mut self) {
        // Whoever waited has waited long enough; what has no report is sent again after the next start.
        self.producer = None;
    }
}
