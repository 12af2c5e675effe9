//! What the service tells about itself. One struct per thing that can happen, in `happenings.rs`; emitting it makes the
//! log line and the metric together. The registry is our own: two services in one process share no counters.

mod arrivals;
mod connector_series;
mod happenings;
mod kafka_metrics;
mod log_budget;
mod machine;
mod metrics;
mod reloads;
mod spool_metrics;

use std::sync::Arc;
use std::time::Duration;

pub use arrivals::{CertificateInForce, CertificateRefused, HandshakeFailed, ProxyHeaderRefused};
pub use connector_series::ConnectorSeries;
pub use happenings::{
    Answered, ConnectionEvicted, ConnectionRefused, DeadLetterBuried, DeadLetterFailed, KafkaLogged,
    KeysFailed, KeysFetched, OtherSchemeFailed, RefusedConnection, SinkFailed, SinkRecovered,
};
use http::StatusCode;
pub use kafka_metrics::KafkaState;
use log_budget::LogBudget;
pub use machine::{AcceptFailed, ClockDoubted, ClockTrusted};
use metrics::Metrics;
pub use reloads::{ConfigChanged, ConfigRefused, ConfigReloaded};

use dt_sink::clock::Clock;

/// Something that can happen: it knows its log line and its metrics.
pub trait Happening {
    /// Writes the log line and counts.
    fn emit(&self, telemetry: &Telemetry);
}

/// Metrics, and the bounds of the log.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Metrics,
    /// Whoever can reach the port can make these.
    refusals: LogBudget,
    /// Our own 503s, which refused requests must not hide.
    unavailable: LogBudget,
    dead_letters: LogBudget,
    failures: LogBudget,
    /// librdkafka says the same again and again, and must not keep out others.
    kafka: LogBudget,
    /// Whoever can reach the port can make these.
    arrivals: LogBudget,
    /// Nor must a storm of signals.
    reloads: LogBudget,
    connections: LogBudget,
    clock: Arc<dyn Clock>,
}

impl Telemetry {
    /// A registry of its own, with all metrics at zero.
    ///
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let metrics = Metrics::new();
        // What is read at the start is taken, or there is no service.
        metrics.reloads.succeeded(clock.unix_seconds());
        Self {
            metrics,
            refusals: LogBudget::new(10, 50),
            unavailable: LogBudget::new(1, 10),
            dead_letters: LogBudget::new(1, 10),
            failures: LogBudget::new(1, 10),
            kafka: LogBudget::new(1, 10),
            arrivals: LogBudget::new(1, 10),
            reloads: LogBudget::new(1, 10),
            connections: LogBudget::new(1, 10),
            clock,
        }
    }

    /// Whether a line of a kind may be written now, and how many were held back before it, if any were.
    fn may_log(&self, budget: &LogBudget) -> Option<Option<u64>> {
        let suppressed = budget.take(self.clock.unix_millis());
        if suppressed.is_none() {
            self.metrics.log_suppressed.inc();
        }
        suppressed.map(|lines| (lines > 0).then_some(lines))
    }

    /// Writes a line on how many others were held back and not told of yet, if any were: after the last of them there may
    /// be no next one that would tell.
    pub fn tell_suppressed(&self) {
        for (about, budget) in [
            ("refused requests", &self.refusals),
            ("requests answered 503", &self.unavailable),
            ("dead letters", &self.dead_letters),
            ("failures", &self.failures),
            ("librdkafka", &self.kafka),
            ("connections", &self.connections),
            ("handshakes and PROXY headers", &self.arrivals),
            ("reloads", &self.reloads),
        ] {
            let suppressed = budget.take_suppressed();
            if suppressed > 0 {
                tracing::warn!(about, suppressed, "log lines were held back");
            }
        }
    }

    /// Tells logs and metrics that something happened.
    pub fn emit(&self, happening: &impl Happening) {
        happening.emit(self);
    }

    /// Names a connector, so that it has its series from the start, and gives these. `outcomes` are all that a request may
    /// come to: status and reason.
    pub fn know_connector(&self, name: &str, outcomes: &[(StatusCode, &'static str)]) -> ConnectorSeries {
        self.metrics.know_connector(name, outcomes)
    }

    /// Has series for what is answered on a path of no connector.
    pub fn know_no_connector(&self, outcomes: &[(StatusCode, &'static str)]) {
        self.metrics.know_outcomes("", outcomes);
    }

    /// A connector had accepted its last event, before this process began, at this time in Unix seconds.
    pub fn accepted_before(&self, connector: &str, at: i64) {
        self.metrics.accepted_before(connector, at);
    }

    /// When each issuer last gave its keys, in Unix seconds: all there are.
    pub fn key_sets<'a>(&self, fetched_at: impl Iterator<Item = (&'a str, i64)>) {
        self.metrics.key_sets(fetched_at);
    }

    /// Whether events can be stored.
    pub fn ready(&self, ready: bool) {
        self.metrics.ready.set(i64::from(ready));
    }

    /// Names a sink, so that it has its series from the start.
    pub fn know_sink(&self, name: &str) {
        self.metrics.know_sink(name);
    }

    /// Forgets a connector that was removed: a series of it would look like one that fell silent.
    pub fn forget_connector(&self, name: &str) {
        self.metrics.forget_connector(name);
    }

    /// Forgets a sink that was removed.
    pub fn forget_sink(&self, name: &str) {
        self.metrics.forget_sink(name);
    }

    /// When a connector accepted an event last, in Unix seconds; 0 if not since the start.
    #[must_use]
    pub fn last_accepted(&self, connector: &str) -> i64 {
        self.metrics.last_accepted(connector)
    }

    /// Counts a batch that a sink was given.
    pub fn sink_batch(&self, sink: &str, records: u64, delivered: u64, rejected: u64) {
        self.metrics.sink_batch(sink, records, delivered, rejected);
    }

    /// Counts records that a sink did not take and that will be tried again.
    pub fn sink_retries(&self, sink: &str, records: u64) {
        self.metrics.sink_retries(sink, records);
    }

    /// How many connections are open.
    pub fn connections(&self, count: usize) {
        self.metrics.connections.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// How many requests are being worked on.
    pub fn in_flight(&self, count: usize) {
        self.metrics.in_flight.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// How many ids a sink's window holds.
    pub fn window_len(&self, sink: &str, count: usize) {
        self.metrics.window.with_label_values(&[sink]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a commit of the spool: how long it took, and how many commands it had.
    pub fn spool_commit(&self, took: Duration, commands: usize) {
        self.metrics.spool.commit(took, commands);
    }

    /// How many bytes the spool uses.
    pub fn spool_used(&self, bytes: u64) {
        self.metrics.spool.used.set(to_gauge(bytes));
    }

    /// How many bytes are free on the spool's disk.
    pub fn spool_free(&self, bytes: u64) {
        self.metrics.spool.free.set(to_gauge(bytes));
    }

    /// How many bytes the spool may use.
    pub fn spool_max(&self, bytes: u64) {
        self.metrics.spool.max.set(to_gauge(bytes));
    }

    /// How many records a sink has not passed, and how long the first of them has waited.
    pub fn spool_sink(&self, sink: &str, backlog: u64, oldest: Duration) {
        self.metrics.spool.sink(sink, to_gauge(backlog), oldest);
    }

    /// Before the sinks are told anew: those that were forgotten have no series any more.
    pub fn spool_forget_sinks(&self) {
        self.metrics.spool.forget_sinks();
    }

    /// How many dead letters there are of a reason.
    pub fn spool_dead_letters(&self, reason: &str, count: u64) {
        self.metrics.spool.dead_letters.with_label_values(&[reason]).set(to_gauge(count));
    }

    /// Counts copies of requests that were dropped to make room.
    pub fn dead_letters_dropped(&self, reason: &str, count: u64) {
        self.metrics.dead_letters_dropped.with_label_values(&[reason]).inc_by(count);
    }

    /// How a producer of Kafka is doing.
    pub fn kafka_state(&self, sink: &str, state: &KafkaState) {
        self.metrics.kafka.state(sink, state);
    }

    /// Counts a producer of Kafka that was made anew.
    pub fn kafka_renewed(&self, sink: &str) {
        self.metrics.kafka.renewed.with_label_values(&[sink]).inc();
    }

    /// How far DT's clock was ahead of ours when a connector accepted an event last, by its token's `iat`.
    pub fn clock_skew(&self, connector: &str, series: Option<&ConnectorSeries>, seconds: i64) {
        self.metrics.clock_skew(connector, series, seconds);
    }

    /// All metrics in the text format of Prometheus (version 0.0.4).
    #[must_use]
    pub fn render(&self) -> String {
        self.metrics.render()
    }
}

fn to_gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
