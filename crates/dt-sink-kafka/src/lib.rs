//! The sink `kafka`: writes records to topics. A record is delivered once all in-sync replicas have acknowledged it.
//!
//! # Delivery
//!
//! The producer is idempotent: librdkafka repeats requests without duplicating or reordering records. In mode `spool` it
//! repeats them without a time limit, through an outage of any length. Up to 2,048 records are in flight at once;
//! delivery reports may arrive in any order.
//!
//! # When a record fails
//!
//! With `enable.gapless.guarantee`, the producer stops with a fatal error when a record fails, before it sends the records
//! that follow. The sink purges all records without a report, creates a new producer, and continues with the first record
//! that is not delivered. `failure.rs` classifies the error:
//!
//! - The record may be invalid, such as too large. Kafka rejects the whole batch for one record, so a second producer sends
//!   each record of the batch alone, in order, until one is acknowledged. Only a record that fails alone is rejected.
//! - The destination may be at fault (missing topic, missing permission, wrong password). No record is rejected; the error
//!   is reported to the worker, which tries again.
//!
//! A new producer sends one record of each device, and the next ones after the first is acknowledged: see `order_gate.rs`.

mod batch_size;
mod dead_letters;
mod error;
mod failure;
mod message;
mod metrics;
mod order_gate;
mod producer;
mod security;
mod settings;
mod topics;
mod window;

use std::sync::Arc;
use std::time::{Duration, Instant};

use batch_size::BatchSize;
pub use dead_letters::KafkaDeadLetters;
pub use error::KafkaSinkError;
use failure::Failure;
use message::Message;
use producer::{Kind, Producer};
pub use security::{KafkaSasl, KafkaTls};
pub use settings::{CreateTopic, KafkaConfig, RecordKey, UnknownKey};
use topics::Topics;
use window::{State, Window};

use dt_sink::record::{Format, Record};
use dt_sink::{Fate, Metric, OpenError, Outcome, Sink, SinkReporter};

/// The largest number of records in flight: enough for 40,000 records per second at 50 ms per acknowledgement. A larger
/// window costs memory and response time at full load.
const MAX_WINDOW: usize = 2048;
/// How long `deliver` works on a batch of which no record has reached a final state.
const TURN: Duration = Duration::from_millis(500);
/// How long `deliver` works on a batch of which some records have reached a final state.
const SHORT_TURN: Duration = Duration::from_millis(20);
/// The longest time of one wait for delivery reports.
const REPORT_WAIT: Duration = Duration::from_millis(10);
/// The longest time to wait for the reports of purged records.
const PURGE_WAIT: Duration = Duration::from_secs(5);
/// The time without an acknowledgement after which an error is reported.
const STALLED: Duration = Duration::from_secs(3);
/// The number of consecutive records that may be rejected alone before the topic is assumed to be the cause.
const MAX_REJECTED_ALONE: usize = 1000;
/// The interval at which the cluster is checked while there is nothing to deliver.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// How long a probe waits for the cluster, unless there is another limit.
const PROBE_WAIT: Duration = Duration::from_secs(10);

/// The time limit for the acknowledgement of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryTimeout {
    /// No limit, in mode `spool`.
    Unlimited,
    /// This time after the record was passed to librdkafka, in mode `direct`, where a request waits for the record.
    After(Duration),
}

/// A sink that writes records to Kafka.
pub struct KafkaSink {
    config: Arc<KafkaConfig>,
    format: Format,
    timeout: DeliveryTimeout,
    reporter: Arc<dyn SinkReporter>,
    /// The records of the current batch, and those in flight.
    window: Window,
    /// The current producer; `None` if none was created yet. A producer of kind `Alone` replaces it while records are sent alone.
    producer: Option<Producer>,
    /// The ticket up to which all unsent records wait for an earlier record of their device.
    scanned_to: u64,
    topics: Topics,
    batch_size: BatchSize,
    /// The number of consecutive records that were rejected alone.
    rejected_alone: usize,
    /// The number of consecutive producers that stopped before a record was acknowledged.
    failed_producers: usize,
    /// Why nothing is sent until the next call of `deliver` or `check`; `None` if records may be sent.
    blocked: Option<String>,
    /// The time from which a stall is measured: the last acknowledgement, the last rejection of a record that was sent alone,
    /// the last `check`, or the last `deliver` with nothing in flight.
    last_progress: Instant,
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
    /// The metrics that a Kafka sink reports.
    pub const METRICS: &'static [Metric] = metrics::ALL;

    /// Creates a sink. It connects when it is opened.
    #[must_use]
    pub fn new(
        config: KafkaConfig,
        format: Format,
        timeout: DeliveryTimeout,
        reporter: Arc<dyn SinkReporter>,
    ) -> Self {
        let config = Arc::new(config);
        Self {
            topics: Topics::new(Arc::clone(&config)),
            config,
            format,
            timeout,
            reporter,
            window: Window::default(),
            producer: None,
            scanned_to: 0,
            batch_size: BatchSize::default(),
            rejected_alone: 0,
            failed_producers: 0,
            blocked: None,
            last_progress: Instant::now(),
            message: Message::default(),
        }
    }

    /// Checks at the cluster whether records could be written, without a change there, and returns the result in words.
    pub(crate) fn probe(&self) -> Result<String, KafkaSinkError> {
        let limit = match self.timeout {
            DeliveryTimeout::Unlimited => PROBE_WAIT,
            DeliveryTimeout::After(limit) => limit,
        };
        let batch_bytes = self.batch_size.bytes();
        let producer = Producer::new(&self.config, Kind::Ordered, self.timeout, batch_bytes, &self.reporter)?;
        let probed = self.topics.probe(&producer, limit);
        match producer.fatal_error() {
            Some(failure) => Err(failure.into()),
            None => probed,
        }
    }

    /// Returns the producer of this kind. A producer of the other kind is replaced, and must have nothing in flight.
    fn producer(&mut self, kind: Kind) -> Result<&mut Producer, KafkaSinkError> {
        if self.producer.as_ref().is_some_and(|producer| producer.kind() != kind) {
            self.producer = None;
        }
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => Producer::new(&self.config, kind, self.timeout, self.batch_size.bytes(), &self.reporter)?,
        };
        Ok(self.producer.insert(producer))
    }

    /// Sends the records of the window that may be sent now.
    fn send(&mut self) -> Result<(), KafkaSinkError> {
        let is_alone = self.producer.as_ref().is_some_and(|producer| producer.kind() == Kind::Alone);
        // After a rejected record the next ones are sent alone too: they are likely to be rejected, and a new producer takes
        // up to a second.
        if self.window.has_suspects() || (is_alone && self.rejected_alone > 0) {
            // One record in flight at a time shows which one is rejected.
            return match self.window.first_unsent() {
                Some(ticket) if self.window.in_flight() == 0 => self.send_one(ticket, Kind::Alone),
                _ => Ok(()),
            };
        }
        if is_alone && self.window.in_flight() > 0 {
            // Waits for the last record that was sent alone.
            return Ok(());
        }
        if is_alone {
            // Only a producer of kind `Ordered` may be used from here on; its order gate starts empty.
            self.producer = None;
            self.scanned_to = 0;
        }
        self.batch_size.conclude();
        while self.window.in_flight() < MAX_WINDOW {
            let Some(ticket) = self.window.next_unsent(self.scanned_to) else { break };
            let order_key = self.window.order_key(ticket);
            if self.producer.as_ref().is_none_or(|producer| producer.order_gate.may_send(order_key)) {
                self.send_one(ticket, Kind::Ordered)?;
                if !self.window.is_sent(ticket) {
                    // The producer's queue is full, or the producer stopped.
                    break;
                }
            }
            self.scanned_to = ticket;
        }
        Ok(())
    }

    fn send_one(&mut self, ticket: u64, kind: Kind) -> Result<(), KafkaSinkError> {
        let Some(record) = self.window.record(ticket) else { return Ok(()) };
        self.message.fill(&record, &self.config, self.format);
        self.producer(kind)?;
        let Some(producer) = &mut self.producer else { return Ok(()) };
        self.topics.ensure(&self.message.topic, producer)?;
        match producer.send(&self.message, record.received_at, ticket) {
            Ok(true) => {
                producer.order_gate.sent(self.window.order_key(ticket));
                self.window.sent(ticket, self.message.size());
            }
            Ok(false) => {}
            Err(failure) => self.failed(ticket, failure, kind),
        }
        Ok(())
    }

    /// Handles the delivery reports. If there are none, waits up to `wait` for the first one.
    fn take_reports(&mut self, wait: Duration) {
        let Some(producer) = &self.producer else { return };
        let kind = producer.kind();
        let reports = producer.reports(wait);
        let fatal = producer.fatal_error();
        for (ticket, result) in reports {
            match result {
                Ok(()) => {
                    self.last_progress = Instant::now();
                    (self.rejected_alone, self.failed_producers) = (0, 0);
                    if let Some(producer) = &mut self.producer
                        && producer.order_gate.acknowledged(self.window.order_key(ticket))
                    {
                        self.scanned_to = 0;
                    }
                    self.window.finish(ticket, State::Delivered);
                }
                Err(failure) => self.failed(ticket, failure, kind),
            }
        }
        match fatal {
            None => {}
            Some(Failure::Destination(error)) => {
                self.renew(&error);
                self.blocked = Some(error);
            }
            Some(Failure::Producer(error)) => {
                if self.renew(&error) {
                    self.failed_producers = self.failed_producers.saturating_add(1);
                }
                // The first failure may concern a single batch; repeated ones wait for the worker's back-off.
                if self.failed_producers > 1 {
                    self.blocked = Some(error);
                }
            }
            Some(failure) => {
                self.renew(&format!("{failure:?}"));
            }
        }
    }

    fn failed(&mut self, ticket: u64, failure: Failure, kind: Kind) {
        let Some(record) = self.window.record(ticket) else { return };
        self.scanned_to = 0;
        match failure {
            Failure::Purged => self.window.unsent(ticket),
            // Without a time limit the record is sent again, before those that follow.
            Failure::TimedOut(error) if self.timeout == DeliveryTimeout::Unlimited => {
                self.window.unsent(ticket);
                self.renew(&error);
            }
            // The producer stops at this gap. It is replaced, so that other records need not wait.
            Failure::TimedOut(error) => {
                self.renew(&error);
                self.window.finish(ticket, State::Failed(error));
            }
            Failure::Record(error) if message::key(&record, &self.config).is_none() => self.failed(
                ticket,
                Failure::Destination(format!(
                    "{error}; a topic with cleanup.policy=compact takes no record without a key; set `key`"
                )),
                kind,
            ),
            Failure::Record(error) | Failure::TooLarge(error)
                if kind == Kind::Alone && self.rejected_alone >= MAX_REJECTED_ALONE =>
            {
                self.window.unsent(ticket);
                self.blocked = Some(format!(
                    "{error}; {MAX_REJECTED_ALONE} records in a row failed like this; check the topic"
                ));
            }
            Failure::Record(error) | Failure::TooLarge(error) if kind == Kind::Alone => {
                self.last_progress = Instant::now();
                self.rejected_alone = self.rejected_alone.saturating_add(1);
                self.failed_producers = 0;
                self.batch_size.rejected_alone();
                self.window.finish(ticket, State::Rejected(error));
            }
            Failure::TooLarge(error) => {
                let bytes = self.window.suspect(ticket);
                self.batch_size.rejected(bytes);
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
            Failure::Destination(error) => {
                self.window.unsent(ticket);
                self.topics.forget();
                self.blocked = Some(error.clone());
                self.renew(&error);
            }
        }
    }

    /// Purges the producer, so that the next producer continues with the first record that was not delivered. Returns whether the
    /// producer was not purged before.
    fn renew(&mut self, why: &str) -> bool {
        let is_first = self.producer.as_mut().is_some_and(Producer::purge);
        if is_first {
            tracing::debug!(sink = self.reporter.sink(), why, "the producer is replaced");
            self.reporter.add(&metrics::PRODUCERS_RENEWED, 1);
        }
        is_first
    }

    /// Waits up to 5 s for the reports of a purged producer, and drops it.
    fn finish_purge(&mut self) {
        if !self.producer.as_ref().is_some_and(Producer::is_purged) {
            return;
        }
        let started = Instant::now();
        while self.window.in_flight() > 0 && started.elapsed() < PURGE_WAIT {
            self.take_reports(Duration::from_millis(5));
        }
        // A record without a report may have been written; it is sent again with the same event id.
        self.window.unsend_all();
        self.scanned_to = 0;
        self.producer = None;
    }

    /// Drops the producer if a lowered batch limit has expired. Call this only with nothing in flight.
    fn renew_for_larger_batches(&mut self) {
        if self.batch_size.take_expired() {
            self.producer = None;
        }
    }

    /// Returns why records are not acknowledged: the last connection error, or that there was no progress for 3 s.
    fn last_error(&self) -> Option<String> {
        let stalled = self.last_progress.elapsed();
        let cause = self.producer.as_ref().and_then(Producer::last_error);
        match cause {
            Some(cause) => Some(cause),
            // A constant text, so that the log has it once.
            None if stalled >= STALLED => Some(
                "no record is acknowledged; check that enough replicas are in sync (min.insync.replicas)"
                    .to_owned(),
            ),
            None => None,
        }
    }

    /// Sends a batch and handles reports, until half of the records are final or the time for this call has expired.
    fn work(&mut self, tickets: &[u64]) {
        let started = Instant::now();
        loop {
            self.finish_purge();
            if self.blocked.is_some() {
                return;
            }
            if let Err(error) = self.send() {
                // Records in flight may still be acknowledged.
                self.blocked = Some(error.to_string());
                self.take_reports(Duration::ZERO);
                continue;
            }
            self.take_reports(REPORT_WAIT);
            let (pending, all) = (self.window.pending(), tickets.len());
            // Half a batch is enough for the worker to store; the rest stays in flight.
            let turn = if pending == all { TURN } else { SHORT_TURN };
            let is_done = pending <= all / 2 || started.elapsed() >= turn;
            if is_done && !self.producer.as_ref().is_some_and(Producer::is_purged) {
                return;
            }
        }
    }
}

impl Sink for KafkaSink {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        // After a panic the state of the last producer is unknown.
        self.producer = None;
        self.window.unsend_all();
        // The producer connects in the background; errors in the configuration show here.
        self.producer(Kind::Ordered).map(drop).map_err(OpenError::from)
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        self.blocked = None;
        if self.window.in_flight() == 0 {
            self.last_progress = Instant::now();
            self.renew_for_larger_batches();
        }
        let (topic, template) = (&mut self.message.topic, &self.config.topic);
        let tickets = self.window.present(batch, |record| {
            template.render(record, topic);
            order_gate::order_key(topic, record.device.as_deref())
        });
        self.work(&tickets);
        let blocked = self.blocked.take();
        let last_error = if blocked.is_none() { self.last_error() } else { None };
        let fate = |ticket: &u64| match self.window.take_final(*ticket) {
            Some(State::Delivered) => Fate::Delivered,
            Some(State::Rejected(error)) => Fate::Rejected { error },
            Some(State::Failed(error)) => Fate::Retry { error },
            _ if self.window.is_sent(*ticket) => {
                Fate::Pending { last_error: blocked.clone().or_else(|| last_error.clone()) }
            }
            _ => match &blocked {
                Some(error) => Fate::Retry { error: error.clone() },
                None => Fate::Pending { last_error: last_error.clone() },
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
        self.last_progress = Instant::now();
        // Records may be in flight whose requests have timed out.
        self.take_reports(Duration::ZERO);
        self.finish_purge();
        if let Some(error) = self.blocked.take() {
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
        // Records without a report are sent again after the next start.
        self.producer = None;
    }
}
