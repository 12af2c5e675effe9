//! The metrics, by their Prometheus names. Every label has few values: names from the configuration and our own codes,
//! never anything that a request brings along.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use parking_lot::RwLock;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use super::arrivals::ArrivalMetrics;
use super::connector_series::ConnectorSeries;
use super::happenings::RefusedConnection;
use super::kafka_metrics::KafkaMetrics;
use super::machine::MachineMetrics;
use super::reloads::ReloadMetrics;
use super::spool_metrics::SpoolMetrics;
use dt_sink::record::Reason;

pub(super) struct Metrics {
    registry: Registry,
    /// The connectors there are. A request of one that was removed may end later, and must not bring its series back.
    known: RwLock<HashSet<String>>,
    requests: IntCounterVec,
    duration: Histogram,
    last_accepted: IntGaugeVec,
    other_scheme_failed: IntCounterVec,
    pub(super) connections: IntGauge,
    pub(super) connections_refused: IntCounterVec,
    pub(super) connections_evicted: IntCounter,
    pub(super) in_flight: IntGauge,
    pub(super) ready: IntGauge,
    sink_records: IntCounterVec,
    sink_batch: HistogramVec,
    sink_up: IntGaugeVec,
    pub(super) window: IntGaugeVec,
    pub(super) dead_letters: IntCounterVec,
    pub(super) dead_letters_failed: IntCounterVec,
    pub(super) dead_letters_dropped: IntCounterVec,
    pub(super) log_suppressed: IntCounter,
    pub(super) keys_fetched: IntCounter,
    pub(super) keys_failed: IntCounter,
    keys_fetched_at: IntGaugeVec,
    clock_skew: IntGaugeVec,
    pub(super) spool: SpoolMetrics,
    pub(super) kafka: KafkaMetrics,
    pub(super) arrivals: ArrivalMetrics,
    pub(super) reloads: ReloadMetrics,
    pub(super) machine: MachineMetrics,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Makes a metric and registers it.
///
/// The library checks names and labels at run time. Ours are constants, and every one of them is made whenever a
/// service starts, so a bad one cannot get past the first test.
#[expect(clippy::expect_used, reason = "names and labels are constants that every test makes")]
pub(super) fn register<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect("the name and the labels of a metric are valid");
    registry.register(Box::new(metric.clone())).expect("the name of a metric is used once");
    metric
}

/// Removes all series whose label has this value.
pub(super) fn forget<B: MetricVecBuilder>(metrics: &MetricVec<B>, label: &str, value: &str)
where
    MetricVec<B>: Collector,
{
    for family in metrics.collect() {
        for metric in family.get_metric() {
            let labels: HashMap<&str, &str> =
                metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
            if labels.get(label) == Some(&value) {
                // One that is gone already is what is wanted.
                let _gone = metrics.remove(&labels);
            }
        }
    }
}

/// Start time, CPU, memory and file descriptors of this process, under the names that all programs use.
#[cfg(target_os = "linux")]
fn register_process(registry: &Registry) {
    use prometheus::process_collector::ProcessCollector;
    // Fails only if there is one of this name, and the registry is new.
    let _registered = registry.register(Box::new(ProcessCollector::for_self()));
}

#[cfg(not(target_os = "linux"))]
const fn register_process(_: &Registry) {}

impl Metrics {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let counter = |name: &str, help: &str| register(r, IntCounter::with_opts(Opts::new(name, help)));
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(r, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| register(r, IntGauge::with_opts(Opts::new(name, help)));
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(r, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let buckets =
            vec![0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 8.0];
        let duration = HistogramOpts::new(
            "dt_receiver_request_duration_seconds",
            "Time from a request's complete head to its answer.",
        );
        let batch = HistogramOpts::new("dt_receiver_sink_batch_records", "Records given to a sink at once.");
        let batch_buckets = vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0];

        gauges("dt_receiver_build_info", "Always 1; the version is a label.", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        register_process(r);
        let dead_letters = counters("dt_receiver_dead_letters_total", "Deliveries set aside.", &["reason"]);
        for reason in Reason::CODES {
            dead_letters.with_label_values(&[reason]);
        }
        let connections_refused = counters(
            "dt_receiver_connections_refused_total",
            "Connections refused: too many were open, or their address is not allowed.",
            &["reason"],
        );
        for reason in RefusedConnection::ALL {
            connections_refused.with_label_values(&[reason.code()]);
        }
        Self {
            requests: counters(
                "dt_receiver_requests_total",
                "Requests answered, by connector (empty for a path of none), HTTP status and reason.",
                &["connector", "code", "reason"],
            ),
            duration: register(r, Histogram::with_opts(duration.buckets(buckets))),
            last_accepted: gauges(
                "dt_receiver_last_accepted_timestamp_seconds",
                "When the connector last accepted an event, in Unix seconds; 0 if it is not known.",
                &["connector"],
            ),
            other_scheme_failed: counters(
                "dt_receiver_other_scheme_failed_total",
                "Accepted requests whose other signature did not hold (policy `either`).",
                &["connector", "reason"],
            ),
            connections: gauge("dt_receiver_connections", "Open connections."),
            connections_refused,
            connections_evicted: counter(
                "dt_receiver_connections_evicted_total",
                "Connections without a signature that held, closed to make room for others.",
            ),
            in_flight: gauge("dt_receiver_requests_in_flight", "Requests that are being worked on."),
            ready: gauge("dt_receiver_ready", "1 if events can be stored, as /readyz tells; 0 if not."),
            sink_records: counters(
                "dt_receiver_sink_records_total",
                "Records given to a sink, by what became of them.",
                &["sink", "outcome"],
            ),
            sink_batch: register(r, HistogramVec::new(batch.buckets(batch_buckets), &["sink"])),
            sink_up: gauges("dt_receiver_sink_up", "Whether the sink's last delivery went well.", &["sink"]),
            window: gauges(
                "dt_receiver_sink_window_ids",
                "Delivered ids that the sink's window holds.",
                &["sink"],
            ),
            dead_letters,
            dead_letters_failed: counters(
                "dt_receiver_dead_letters_failed_total",
                "Deliveries that could not be set aside.",
                &["reason"],
            ),
            dead_letters_dropped: counters(
                "dt_receiver_dead_letters_dropped_total",
                "Copies of expired or refused requests dropped to make room.",
                &["reason"],
            ),
            clock_skew: gauges(
                "dt_receiver_clock_skew_seconds",
                "The token's iat minus our time, at the event accepted last; delays on the way count in, so it is below 0.",
                &["connector"],
            ),
            spool: SpoolMetrics::new(r),
            kafka: KafkaMetrics::new(r),
            arrivals: ArrivalMetrics::new(r),
            reloads: ReloadMetrics::new(r),
            machine: MachineMetrics::new(r),
            keys_fetched: counter(
                "dt_receiver_key_sets_total",
                "New key sets that were fetched from an issuer.",
            ),
            keys_failed: counter(
                "dt_receiver_key_fetches_failed_total",
                "Times that an issuer of keys could not be asked.",
            ),
            keys_fetched_at: gauges(
                "dt_receiver_key_set_fetched_timestamp_seconds",
                "When the issuer last gave its key set, in Unix seconds; 0 if it is not known.",
                &["issuer"],
            ),
            log_suppressed: counter("dt_receiver_log_lines_suppressed_total", "Log lines held back."),
            known: RwLock::default(),
            registry,
        }
    }

    pub(super) fn know_connector(
        &self,
        name: &str,
        outcomes: &[(StatusCode, &'static str)],
    ) -> ConnectorSeries {
        self.known.write().insert(name.to_owned());
        let counters = self.know_outcomes(name, outcomes).into_iter().zip(outcomes);
        let taken = counters.filter(|(_, (status, _))| status.is_success());
        ConnectorSeries {
            taken: taken.map(|(counter, (_, reason))| (*reason, counter)).collect(),
            last_accepted: self.last_accepted.with_label_values(&[name]),
            clock_skew: OnceLock::new(),
        }
    }

    /// Has a series for each outcome, so that `increase()` sees the first of each.
    pub(super) fn know_outcomes(
        &self,
        connector: &str,
        outcomes: &[(StatusCode, &'static str)],
    ) -> Vec<IntCounter> {
        let counter = |(status, reason): &(StatusCode, &str)| {
            self.requests.with_label_values(&[connector, status.as_str(), reason])
        };
        outcomes.iter().map(counter).collect()
    }

    pub(super) fn accepted_before(&self, connector: &str, at: i64) {
        let gauge = self.last_accepted.with_label_values(&[connector]);
        gauge.set(gauge.get().max(at));
    }

    pub(super) fn know_sink(&self, name: &str) {
        self.sink_up.with_label_values(&[name]).set(1);
        self.sink_batch.with_label_values(&[name]);
        self.window.with_label_values(&[name]);
        for outcome in ["delivered", "rejected", "retry"] {
            self.sink_records.with_label_values(&[name, outcome]);
        }
    }

    /// Counters go as well: otherwise there would be more and more series, one for each name there ever was.
    pub(super) fn forget_connector(&self, name: &str) {
        let mut known = self.known.write();
        known.remove(name);
        forget(&self.requests, "connector", name);
        forget(&self.last_accepted, "connector", name);
        forget(&self.other_scheme_failed, "connector", name);
        forget(&self.clock_skew, "connector", name);
    }

    pub(super) fn forget_sink(&self, name: &str) {
        forget(&self.sink_records, "sink", name);
        forget(&self.sink_batch, "sink", name);
        forget(&self.sink_up, "sink", name);
        forget(&self.window, "sink", name);
        self.kafka.forget(name);
    }

    /// Those of issuers that are not asked any more go.
    pub(super) fn key_sets<'a>(&self, fetched_at: impl Iterator<Item = (&'a str, i64)>) {
        self.keys_fetched_at.reset();
        for (issuer, at) in fetched_at {
            self.keys_fetched_at.with_label_values(&[issuer]).set(at);
        }
    }

    pub(super) fn last_accepted(&self, connector: &str) -> i64 {
        // Asking makes a series, too.
        if !self.known.read().contains(connector) {
            return 0;
        }
        self.last_accepted.with_label_values(&[connector]).get()
    }

    pub(super) fn answered(
        &self,
        connector: &str,
        series: Option<&ConnectorSeries>,
        status: StatusCode,
        reason: &str,
        took: Duration,
        now: i64,
    ) {
        self.duration.observe(took.as_secs_f64());
        if series.is_some_and(|series| series.count(status, reason, now)) {
            return;
        }
        self.of_connector(connector, || {
            self.requests.with_label_values(&[connector, status.as_str(), reason]).inc();
            if reason == "accepted" {
                self.last_accepted.with_label_values(&[connector]).set(now);
            }
        });
    }

    pub(super) fn other_scheme_failed(&self, connector: &str, reason: &str) {
        self.of_connector(connector, || {
            self.other_scheme_failed.with_label_values(&[connector, reason]).inc();
        });
    }

    pub(super) fn clock_skew(&self, connector: &str, series: Option<&ConnectorSeries>, seconds: i64) {
        if let Some(gauge) = series.and_then(|series| series.clock_skew.get()) {
            gauge.set(seconds);
            return;
        }
        self.of_connector(connector, || {
            let gauge = self.clock_skew.with_label_values(&[connector]);
            gauge.set(seconds);
            if let Some(series) = series {
                // Another request may have been first.
                let _known = series.clock_skew.set(gauge);
            }
        });
    }

    /// Counts something of a connector, unless it was removed meanwhile. A path of none has an empty name.
    fn of_connector(&self, name: &str, count: impl FnOnce()) {
        let known = self.known.read();
        if name.is_empty() || known.contains(name) {
            count();
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a batch is far smaller than 2^52 records")]
    pub(super) fn sink_batch(&self, sink: &str, records: u64, delivered: u64, rejected: u64) {
        self.sink_batch.with_label_values(&[sink]).observe(records as f64);
        self.sink_records.with_label_values(&[sink, "delivered"]).inc_by(delivered);
        self.sink_records.with_label_values(&[sink, "rejected"]).inc_by(rejected);
    }

    pub(super) fn sink_retries(&self, sink: &str, records: u64) {
        self.sink_records.with_label_values(&[sink, "retry"]).inc_by(records);
    }

    pub(super) fn sink_failed(&self, sink: &str, records: u64) {
        self.sink_records.with_label_values(&[sink, "retry"]).inc_by(records);
        self.sink_up.with_label_values(&[sink]).set(0);
    }

    pub(super) fn sink_up(&self, sink: &str) {
        self.sink_up.with_label_values(&[sink]).set(1);
    }

    pub(super) fn render(&self) -> String {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8(text).unwrap_or_default(),
            Err(_) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEN: [(StatusCode, &str); 2] = [(StatusCode::OK, "accepted"), (StatusCode::OK, "duplicate")];

    #[test]
    fn a_request_that_ends_after_its_connector_does_not_bring_its_series_back() {
        let metrics = Metrics::new();
        let answer = |name: &str| {
            metrics.answered(name, None, StatusCode::OK, "accepted", Duration::ZERO, 1);
            metrics.clock_skew(name, None, 1);
            metrics.other_scheme_failed(name, "expired");
        };
        for name in ["gone", "stays"] {
            metrics.know_connector(name, &TAKEN);
            answer(name);
        }
        assert_eq!(metrics.last_accepted("gone"), 1);
        metrics.forget_connector("gone");
        ["gone", "stays", ""].into_iter().for_each(answer);
        assert_eq!(metrics.last_accepted("gone"), 0);
        let text = metrics.render();
        assert!(!text.contains("gone"), "{text}");
        assert!(text.contains(r#"code="200",connector="stays",reason="accepted"} 2"#), "{text}");
        assert!(text.contains(r#"code="200",connector="",reason="accepted"} 1"#), "{text}");
        metrics.know_connector("gone", &TAKEN);
        answer("gone");
        assert_eq!(metrics.last_accepted("gone"), 1);
    }

    #[test]
    fn series_that_were_looked_up_count_the_same_and_go_with_their_connector() {
        let metrics = Metrics::new();
        let count = |series: &ConnectorSeries| {
            for code in ["accepted", "duplicate", "other"] {
                metrics.answered("c", Some(series), StatusCode::OK, code, Duration::ZERO, 7);
            }
            metrics.answered("c", Some(series), StatusCode::FORBIDDEN, "accepted", Duration::ZERO, 7);
            metrics.clock_skew("c", Some(series), -2);
        };
        let old = metrics.know_connector("c", &TAKEN);
        count(&old);
        count(&metrics.know_connector("c", &TAKEN));
        let text = metrics.render();
        for code in ["accepted", "duplicate", "other"] {
            assert!(text.contains(&format!(r#"code="200",connector="c",reason="{code}"}} 2"#)), "{text}");
        }
        assert!(text.contains(r#"code="403",connector="c",reason="accepted"} 2"#), "{text}");
        assert!(text.contains(r#"dt_receiver_clock_skew_seconds{connector="c"} -2"#), "{text}");
        assert_eq!(metrics.last_accepted("c"), 7);
        metrics.forget_connector("c");
        count(&old);
        let text = metrics.render();
        assert!(!text.contains(r#"connector="c""#), "{text}");
        let new = metrics.know_connector("c", &TAKEN);
        count(&new);
        assert!(metrics.render().contains(r#"code="200",connector="c",reason="accepted"} 1"#));
    }
}
