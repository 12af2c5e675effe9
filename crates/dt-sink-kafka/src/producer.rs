//! Wraps a producer of librdkafka: its settings, sending, delivery reports, errors, logs and statistics.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};
use rdkafka::{ClientContext, Message as _, Statistics};

use crate::DeliveryTimeout;
use crate::error::KafkaSinkError;
use crate::failure::{self, Failure};
use crate::message::Message;
use crate::metrics;
use crate::order_gate::OrderGate;
use crate::settings::KafkaConfig;
use dt_sink::{LogPermit, SinkReporter};

/// The largest size of a batch in bytes: librdkafka's default. Topics may accept less: see `batch_size.rs`.
pub const BATCH_BYTES: usize = 1_000_000;
/// The interval of librdkafka's statistics, in milliseconds.
const STATISTICS_MS: &str = "5000";

/// The way in which a producer sends records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Many records at once, in order. The producer stops at the first record that fails.
    Ordered,
    /// One record at a time. A failed record does not stop the producer.
    Alone,
}

/// The ticket of a record, and whether the record was acknowledged.
pub type Report = (u64, Result<(), Failure>);

/// A producer of librdkafka. It is replaced after a failure.
pub struct Producer {
    /// The producer of the `rdkafka` crate. It polls on its own thread: `BaseProducer::poll` busy-waits through the last
    /// millisecond of each wait.
    producer: ThreadedProducer<Context>,
    kind: Kind,
    is_purged: bool,
    /// The devices whose records may be sent without waiting for an acknowledgement.
    pub order_gate: OrderGate,
}

/// The state that the callbacks of librdkafka write.
pub struct Context {
    reporter: Arc<dyn SinkReporter>,
    reports: Mutex<Vec<Report>>,
    reported: Condvar,
    /// The last connection error; `None` if the cluster has answered since.
    last_error: Mutex<Option<String>>,
    /// The number of retried requests according to the last statistics.
    retries: Mutex<u64>,
}

impl Producer {
    /// Creates a producer, which connects in the background.
    ///
    /// # Errors
    ///
    /// [`KafkaSinkError::Configuration`] if librdkafka rejects the settings.
    pub fn new(
        config: &KafkaConfig,
        kind: Kind,
        timeout: DeliveryTimeout,
        batch_bytes: usize,
        reporter: &Arc<dyn SinkReporter>,
    ) -> Result<Self, KafkaSinkError> {
        let context = Context {
            reporter: Arc::clone(reporter),
            reports: Mutex::new(Vec::new()),
            reported: Condvar::new(),
            last_error: Mutex::new(None),
            retries: Mutex::new(0),
        };
        let settings = settings(config, kind, timeout, batch_bytes);
        let producer = settings
            .create_with_context(context)
            .map_err(|error| KafkaSinkError::Configuration(readable(&error)))?;
        Ok(Self { producer, kind, is_purged: false, order_gate: OrderGate::default() })
    }

    /// Returns how this producer sends.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns whether [`purge`](Self::purge) was called.
    pub const fn is_purged(&self) -> bool {
        self.is_purged
    }

    /// Returns the producer of the `rdkafka` crate.
    pub const fn inner(&self) -> &ThreadedProducer<Context> {
        &self.producer
    }

    /// Queues a message. Returns `false` if the queue is full. `timestamp` is in Unix milliseconds; 0 for none.
    ///
    /// # Errors
    ///
    /// The class of the error, if librdkafka does not accept the message.
    pub fn send(&self, message: &Message, timestamp: i64, ticket: u64) -> Result<bool, Failure> {
        let mut headers = OwnedHeaders::new_with_capacity(message.header_count());
        for (key, value) in message.headers() {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        // Lossless where `usize` has 64 bits.
        let opaque = usize::try_from(ticket).unwrap_or(usize::MAX);
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&message.topic, opaque)
            .payload(message.value())
            .headers(headers);
        if let Some(key) = message.key() {
            record = record.key(key);
        }
        if timestamp > 0 {
            record = record.timestamp(timestamp);
        }
        match self.producer.send(record) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(error.rdkafka_error_code().map_or_else(
                || Failure::Destination(error.to_string()),
                |code| failure::of(code, &message.topic),
            )),
        }
    }

    /// Returns the delivery reports. If there are none, waits up to `wait` for the first one.
    pub fn reports(&self, wait: Duration) -> Vec<Report> {
        let context = Arc::clone(self.producer.context());
        let mut waiting = context.reports.lock();
        if waiting.is_empty() && !wait.is_zero() {
            // The list shows whether a report arrived.
            let _timed_out = context.reported.wait_for(&mut waiting, wait);
        }
        let reports = std::mem::take(&mut *waiting);
        drop(waiting);
        if reports.iter().any(|(_, result)| result.is_ok()) {
            *self.producer.context().last_error.lock() = None;
        }
        reports
    }

    /// Drops all records without a report, whether queued or in flight. Returns whether this is the first call.
    pub fn purge(&mut self) -> bool {
        let is_first = !self.is_purged;
        if is_first {
            self.is_purged = true;
            self.producer.purge(PurgeConfig::default().queue().inflight());
        }
        is_first
    }

    /// Returns the class of the fatal error that stopped the producer; `None` if it has not stopped.
    pub fn fatal_error(&self) -> Option<Failure> {
        self.producer.client().fatal_error().map(|(code, text)| failure::of_producer(code, &text))
    }

    /// Returns the last connection error; `None` if the cluster has answered since.
    pub fn last_error(&self) -> Option<String> {
        self.producer.context().last_error.lock().clone()
    }

    /// Clears the last connection error, since the cluster has answered.
    pub fn answered(&self) {
        *self.producer.context().last_error.lock() = None;
    }
}

fn settings(config: &KafkaConfig, kind: Kind, timeout: DeliveryTimeout, batch_bytes: usize) -> ClientConfig {
    let mut settings = ClientConfig::new();
    // Defaults that `properties` may override.
    settings.set("client.id", "dt-receiver");
    settings.set("reconnect.backoff.max.ms", "2000");
    settings.set("socket.keepalive.enable", "true");
    settings.set("linger.ms", if timeout == DeliveryTimeout::Unlimited { "5" } else { "1" });
    settings.set("statistics.interval.ms", STATISTICS_MS);
    for (key, value) in config.settings() {
        settings.set(key, value);
    }
    // Settings that delivery and order depend on; `check` rejects them in `properties`.
    settings.set("acks", "all");
    settings.set("enable.idempotence", "true");
    settings.set("enable.gapless.guarantee", if kind == Kind::Ordered { "true" } else { "false" });
    settings.set("partitioner", "murmur2_random");
    if kind == Kind::Alone {
        // A single record has no batch to wait for.
        settings.set("linger.ms", "0");
    }
    settings.set("allow.auto.create.topics", "false");
    let timeout = match timeout {
        DeliveryTimeout::Unlimited => 0,
        DeliveryTimeout::After(most) => most.as_millis().max(1),
    };
    settings.set("message.timeout.ms", timeout.to_string());
    if batch_bytes < BATCH_BYTES {
        settings.set("batch.size", batch_bytes.to_string());
    }
    settings.set_log_level(RDKafkaLogLevel::Info);
    settings
}

/// Returns the message of librdkafka's error, without the prefix of the `rdkafka` crate.
pub fn readable(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, text, key, _) => format!("property {key}: {text}"),
        KafkaError::ClientCreation(text) => text.clone(),
        other => other.to_string(),
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka warns about this property whenever it is set, and the sink always sets it.
        let is_ours = facility == "CONFWARN" && message.contains("enable.gapless.guarantee");
        let is_problem = !is_ours
            && matches!(
                level,
                RDKafkaLogLevel::Emerg
                    | RDKafkaLogLevel::Alert
                    | RDKafkaLogLevel::Critical
                    | RDKafkaLogLevel::Error
                    | RDKafkaLogLevel::Warning
            );
        let sink = self.reporter.sink();
        if !is_problem {
            tracing::debug!(target: "librdkafka", sink, facility, message);
        } else if let Some(LogPermit { suppressed }) = self.reporter.log_permit() {
            tracing::warn!(target: "librdkafka", sink, facility, message, suppressed);
        }
    }

    fn stats(&self, statistics: Statistics) {
        let brokers = statistics.brokers.values().filter(|broker| broker.nodeid >= 0);
        let (mut up, mut retries, mut slowest) = (0_u32, 0_u64, 0_i64);
        for broker in brokers {
            up = up.saturating_add(u32::from(broker.state == "UP"));
            retries = retries.saturating_add(broker.txretries);
            slowest = slowest.max(broker.rtt.as_ref().map_or(0, |rtt| rtt.p99));
        }
        let before = std::mem::replace(&mut *self.retries.lock(), retries);
        let round_trip = Duration::from_micros(u64::try_from(slowest).unwrap_or(0));
        let reporter = &self.reporter;
        reporter.set(&metrics::QUEUED_RECORDS, statistics.msg_cnt as f64);
        reporter.set(&metrics::QUEUED_BYTES, statistics.msg_size as f64);
        reporter.set(&metrics::BROKERS_UP, f64::from(up));
        reporter.set(&metrics::ROUND_TRIP, round_trip.as_secs_f64());
        reporter.add(&metrics::REQUEST_RETRIES, retries.saturating_sub(before));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let mut last_error = self.last_error.lock();
        // `AllBrokersDown` follows the error that caused it, and says less.
        if code != Some(RDKafkaErrorCode::AllBrokersDown) || last_error.is_none() {
            *last_error = Some(failure::of_connection(code, reason));
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: usize) {
        let ticket = u64::try_from(ticket).unwrap_or(u64::MAX);
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, message)) => Err(error.rdkafka_error_code().map_or_else(
                || Failure::Destination(error.to_string()),
                |code| failure::of(code, message.topic()),
            )),
        };
        self.reports.lock().push((ticket, result));
        self.reported.notify_one();
    }
}
