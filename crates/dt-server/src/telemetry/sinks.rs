//! The metrics of sinks: those that every sink has, and those that the type of a sink declares and the sink reports itself.

use std::fmt;
use std::sync::Arc;

use super::Telemetry;
use super::registry::Family;
use dt_sink::{LogPermit, Metric, SinkReporter};

impl Telemetry {
    /// Registers a sink, so that it has its series from the start.
    pub fn register_sink(&self, name: &str) {
        let metrics = &self.metrics;
        metrics.sink_up.with_label_values(&[name]).set(1.0);
        metrics.sink_batch.with_label_values(&[name]);
        metrics.sink_window.with_label_values(&[name]);
        for outcome in ["delivered", "rejected", "retry"] {
            metrics.sink_records.with_label_values(&[name, outcome]);
        }
    }

    /// Removes the series of a removed sink, including those that it reported itself.
    pub fn unregister_sink(&self, name: &str) {
        self.families.remove_series("sink", name);
    }

    /// Registers the metrics that a type of sink declares, and returns the reporter for a sink of this type with this name. A
    /// metric that cannot be registered is logged and not shown.
    pub fn sink_reporter(self: &Arc<Self>, sink: &str, metrics: &[Metric]) -> Arc<dyn SinkReporter> {
        let mut families = Vec::with_capacity(metrics.len());
        for metric in metrics {
            match self.families.register_for_sink(metric) {
                Ok(family) => families.push((metric.name, family)),
                Err(error) => {
                    tracing::error!(sink, metric = metric.name, %error, "a sink's metric cannot be registered");
                }
            }
        }
        Arc::new(Reporter { telemetry: Arc::clone(self), sink: sink.into(), families })
    }

    /// Counts a batch that was passed to a sink, and its results.
    pub fn sink_batch(&self, sink: &str, records: u64, delivered: u64, rejected: u64) {
        let metrics = &self.metrics;
        metrics.sink_batch.with_label_values(&[sink]).observe(records as f64);
        metrics.sink_records.with_label_values(&[sink, "delivered"]).inc_by(delivered);
        metrics.sink_records.with_label_values(&[sink, "rejected"]).inc_by(rejected);
    }

    /// Counts records that a sink did not accept and that will be retried.
    pub fn sink_retries(&self, sink: &str, records: u64) {
        self.metrics.sink_records.with_label_values(&[sink, "retry"]).inc_by(records);
    }
}

/// The reporter of one sink.
struct Reporter {
    telemetry: Arc<Telemetry>,
    sink: Arc<str>,
    /// The metrics that the sink's type declares, by name.
    families: Vec<(&'static str, Family)>,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").field("sink", &self.sink).finish_non_exhaustive()
    }
}

impl Reporter {
    fn family(&self, metric: &Metric) -> Option<&Family> {
        self.families.iter().find(|(name, _)| *name == metric.name).map(|(_, family)| family)
    }
}

impl SinkReporter for Reporter {
    fn sink(&self) -> &str {
        &self.sink
    }

    fn set(&self, metric: &Metric, value: f64) {
        if let Some(Family::Gauge(gauges)) = self.family(metric) {
            gauges.with_label_values(&[&self.sink]).set(value);
        }
    }

    fn add(&self, metric: &Metric, count: u64) {
        if let Some(Family::Counter(counters)) = self.family(metric) {
            counters.with_label_values(&[&self.sink]).inc_by(count);
        }
    }

    fn log_permit(&self) -> Option<LogPermit> {
        let suppressed = self.telemetry.may_log(&self.telemetry.budgets.sink_libraries)?;
        Some(LogPermit { suppressed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dt_sink::clock::SystemClock;

    const QUEUE: Metric = Metric::gauge("dt_receiver_test_queue_records", &["sink"], "records", "Records.");
    const SENT: Metric = Metric::counter("dt_receiver_test_sent_total", &["sink"], "records", "Records.");
    const OTHER: Metric = Metric::gauge("dt_receiver_test_other", &["sink"], "records", "Records.");

    #[test]
    fn what_sinks_report_is_shown_by_sink_and_goes_with_it() {
        let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
        let reporters = ["a", "b"].map(|sink| telemetry.sink_reporter(sink, &[QUEUE, SENT]));
        for reporter in &reporters {
            reporter.set(&QUEUE, 2.5);
            reporter.add(&SENT, 3);
            reporter.add(&SENT, 4);
            // Neither of these is a metric of theirs.
            reporter.set(&OTHER, 1.0);
            reporter.set(&SENT, 1.0);
        }
        let text = telemetry.render();
        for sink in ["a", "b"] {
            assert!(
                text.contains(&format!("dt_receiver_test_queue_records{{sink=\"{sink}\"}} 2.5\n")),
                "{text}"
            );
            assert!(text.contains(&format!("dt_receiver_test_sent_total{{sink=\"{sink}\"}} 7\n")), "{text}");
        }
        assert!(!text.contains("test_other"), "{text}");
        telemetry.unregister_sink("a");
        let text = telemetry.render();
        assert!(!text.contains("sink=\"a\"") && text.contains("sink=\"b\""), "{text}");
    }

    #[test]
    fn a_client_library_that_repeats_itself_gets_few_lines() {
        let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
        let reporter = telemetry.sink_reporter("a", &[]);
        let permits = (0..1000).filter(|_| reporter.log_permit().is_some()).count();
        assert!((10..100).contains(&permits), "{permits}");
        assert_eq!(telemetry.metrics.log_suppressed.get(), 1000 - u64::try_from(permits).expect("fits"));
    }
}
