//! A producer of librdkafka: how it is set up, what it sends, and the reports, errors, logs and statistics that come back.

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

use crate::Patience;
use crate::failure::{self, Failure};
use crate::message::Message;
use crate::metrics;
use crate::proven::Proven;
use crate::settings::KafkaConfig;
use dt_sink::{LogPermit, SinkReporter};

/// The most bytes of a batch, unless a topic takes less: librdkafka's own default.
pub(super) const BATCH_BYTES: usize = 1_000_000;
/// How often librdkafka tells how it is doing.
const STATISTICS_MS: &str = "5000";

/// What a producer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Many records in order: it stops where one fails.
    Ordered,
    /// One record at a time, of which each may fail.
    Alone,
}

/// What became of a record.
pub(super) type Report = (u64, Result<(), Failure>);

/// One producer. It is dropped for another one after a failure.
pub(super) struct Producer {
    /// It polls on a thread of its own: polled from here, the wrapper spins through the last millisecond of each wait.
    producer: ThreadedProducer<Context>,
    kind: Kind,
    is_purged: bool,
    /// Whose records it may send without waiting.
    pub(super) proven: Proven,
}

/// What the callbacks leave behind.
pub(super) struct Context {
    reporter: Arc<dyn SinkReporter>,
    reports: Mutex<Vec<Report>>,
    reported: Condvar,
    /// What librdkafka said last about what is wrong.
    trouble: Mutex<Option<String>>,
    /// How many requests were sent again so far.
    retries: Mutex<u64>,
}

impl Producer {
    /// Makes a producer; it connects when there is something to send.
    pub(super) fn new(
        config: &KafkaConfig,
        kind: Kind,
        patience: Patience,
        batch_bytes: usize,
        reporter: &Arc<dyn SinkReporter>,
    ) -> Result<Self, String> {
        let context = Context {
            reporter: Arc::clone(reporter),
            reports: Mutex::new(Vec::new()),
            reported: Condvar::new(),
            trouble: Mutex::new(None),
            retries: Mutex::new(0),
        };
        let settings = settings(config, kind, patience, batch_bytes);
        let producer = settings.create_with_context(context).map_err(|error| readable(&error))?;
        Ok(Self { producer, kind, is_purged: false, proven: Proven::default() })
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) const fn is_purged(&self) -> bool {
        self.is_purged
    }

    pub(super) const fn inner(&self) -> &ThreadedProducer<Context> {
        &self.producer
    }

    /// Hands a message over; `false` when the queue is full.
    pub(super) fn send(&self, message: &Message, timestamp: i64, ticket: u64) -> Result<bool, Failure> {
        let mut headers = OwnedHeaders::new_with_capacity(message.header_count());
        for (key, value) in message.headers() {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        // 64 bits, where usize has as many.
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
            Err((error, _)) => Err(error
                .rdkafka_error_code()
                .map_or_else(|| Failure::Place(error.to_string()), |code| failure::of(code, &message.topic))),
        }
    }

    /// Takes the reports that have come; waits for them if there are none.
    pub(super) fn reports(&self, wait: Duration) -> Vec<Report> {
        let context = Arc::clone(self.producer.context());
        let mut waiting = context.reports.lock();
        if waiting.is_empty() && !wait.is_zero() {
            // Whether any came shows in what is there.
            let _timed_out = context.reported.wait_for(&mut waiting, wait);
        }
        let reports = std::mem::take(&mut *waiting);
        drop(waiting);
        if reports.iter().any(|(_, result)| result.is_ok()) {
            *self.producer.context().trouble.lock() = None;
        }
        reports
    }

    /// Takes back all that has no report. Whether this is the first time.
    pub(super) fn purge(&mut self) -> bool {
        let is_first = !self.is_purged;
        if is_first {
            self.is_purged = true;
            self.producer.purge(PurgeConfig::default().queue().inflight());
        }
        is_first
    }

    /// Why it is of no more use, if it is not.
    pub(super) fn fatal_error(&self) -> Option<Failure> {
        self.producer.client().fatal_error().map(|(code, text)| failure::of_producer(code, &text))
    }

    /// What librdkafka says is wrong.
    pub(super) fn trouble(&self) -> Option<String> {
        self.producer.context().trouble.lock().clone()
    }

    /// The cluster answered: what was wrong is over.
    pub(super) fn answered(&self) {
        *self.producer.context().trouble.lock() = None;
    }
}

fn settings(config: &KafkaConfig, kind: Kind, patience: Patience, batch_bytes: usize) -> ClientConfig {
    let mut settings = ClientConfig::new();
    // What an operator may set otherwise.
    settings.set("client.id", "dt-receiver");
    settings.set("reconnect.backoff.max.ms", "2000");
    settings.set("socket.keepalive.enable", "true");
    settings.set("linger.ms", if patience == Patience::Endless { "5" } else { "1" });
    settings.set("statistics.interval.ms", STATISTICS_MS);
    for (key, value) in config.settings() {
        settings.set(key, value);
    }
    // What nobody may.
    settings.set("acks", "all");
    settings.set("enable.idempotence", "true");
    settings.set("enable.gapless.guarantee", if kind == Kind::Ordered { "true" } else { "false" });
    settings.set("partitioner", "murmur2_random");
    if kind == Kind::Alone {
        // There is nothing to wait for.
        settings.set("linger.ms", "0");
    }
    settings.set("allow.auto.create.topics", "false");
    let timeout = match patience {
        Patience::Endless => 0,
        Patience::Until(most) => most.as_millis().max(1),
    };
    settings.set("message.timeout.ms", timeout.to_string());
    if batch_bytes < BATCH_BYTES {
        settings.set("batch.size", batch_bytes.to_string());
    }
    settings.set_log_level(RDKafkaLogLevel::Info);
    settings
}

/// An error of librdkafka without the words of the wrapper.
pub(super) fn readable(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, text, key, _) => format!("property {key}: {text}"),
        KafkaError::ClientCreation(text) => text.clone(),
        other => other.to_string(),
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // The one property that is always set, and has a warning for everybody who sets it.
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
        let mut trouble = self.trouble.lock();
        // It says less than what came before it.
        if code != Some(RDKafkaErrorCode::AllBrokersDown) || trouble.is_none() {
            *trouble = Some(failure::of_connection(code, reason));
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
                || Failure::Place(error.to_string()),
                |code| failure::of(code, message.topic()),
            )),
        };
        self.reports.lock().push((ticket, result));
        self.reported.notify_one();
    }
}
