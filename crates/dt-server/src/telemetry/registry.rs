//! Registers metrics with the library `prometheus`, by their rows: those of the table, and those that sinks declare.

use std::collections::HashMap;

use parking_lot::RwLock;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Encoder, Error, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, Result, TextEncoder,
};

use dt_sink::{Metric, MetricKind};

/// The only label of a sink's own metrics.
const SINK_LABELS: &[&str] = &["sink"];

/// All series of one metric.
#[derive(Clone)]
pub(super) enum Family {
    Counter(IntCounterVec),
    Gauge(GaugeVec),
    IntGauge(IntGaugeVec),
    Histogram(HistogramVec),
}

impl Family {
    const fn has_kind(&self, kind: &MetricKind) -> bool {
        matches!(
            (self, kind),
            (Self::Counter(_), MetricKind::Counter)
                | (Self::Gauge(_) | Self::IntGauge(_), MetricKind::Gauge)
                | (Self::Histogram(_), MetricKind::Histogram { .. })
        )
    }

    fn remove_series(&self, label: &str, value: &str) {
        match self {
            Self::Counter(family) => remove_series(family, label, value),
            Self::Gauge(family) => remove_series(family, label, value),
            Self::IntGauge(family) => remove_series(family, label, value),
            Self::Histogram(family) => remove_series(family, label, value),
        }
    }
}

fn remove_series<B: MetricVecBuilder>(family: &MetricVec<B>, label: &str, value: &str)
where
    MetricVec<B>: Collector,
{
    for collected in family.collect() {
        for metric in collected.get_metric() {
            let labels: HashMap<&str, &str> =
                metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
            if labels.get(label) == Some(&value) {
                // It fails only if the series is gone already.
                let _gone = family.remove(&labels);
            }
        }
    }
}

/// The handle by which the program counts: one series, or a family of series. It is created when the metric is registered.
pub(super) trait Handle: Sized {
    /// Registers a metric.
    fn register(families: &Families, metric: &Metric) -> Result<Self>;
}

/// Implements [`Handle`] for a family, and for the single series of a family without labels.
macro_rules! handles {
    ($($family:ident of $series:ident: $options:ident, $kind:ident;)+) => {$(
        impl Handle for $family {
            fn register(families: &Families, metric: &Metric) -> Result<Self> {
                let family = Self::new($options(metric), metric.labels)?;
                families.add(metric, family.clone(), Family::$kind(family.clone()))?;
                Ok(family)
            }
        }

        impl Handle for $series {
            fn register(families: &Families, metric: &Metric) -> Result<Self> {
                $family::register(families, metric)?.get_metric_with_label_values::<&str>(&[])
            }
        }
    )+};
}

handles! {
    IntCounterVec of IntCounter: options, Counter;
    GaugeVec of Gauge: options, Gauge;
    IntGaugeVec of IntGauge: options, IntGauge;
    HistogramVec of Histogram: histogram_options, Histogram;
}

fn options(metric: &Metric) -> Opts {
    Opts::new(metric.name, metric.help)
}

fn histogram_options(metric: &Metric) -> HistogramOpts {
    let options = HistogramOpts::new(metric.name, metric.help);
    match metric.kind {
        MetricKind::Histogram { buckets } => options.buckets(buckets.to_vec()),
        MetricKind::Counter | MetricKind::Gauge => options,
    }
}

/// The registered metrics of a service. Two services in one process share no counters.
pub(super) struct Families {
    registry: Registry,
    families: RwLock<Vec<(Metric, Family)>>,
}

impl Families {
    /// Returns a registry with the metrics of the process alone: start time, CPU, memory and file descriptors.
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        register_process(&registry);
        Self { registry, families: RwLock::default() }
    }

    /// Registers a metric of the table.
    ///
    /// The library checks names and labels at run time. Those of the table are constants, and all of them are registered when a
    /// service starts, so that the first test would detect an invalid one.
    #[expect(clippy::expect_used, reason = "names and labels are constants that every test registers")]
    pub(super) fn register<H: Handle>(&self, metric: &Metric) -> H {
        H::register(self, metric).expect("the table of metrics is valid")
    }

    /// Registers a metric that a sink declares, unless another sink of its type has registered it. It is an error if the metric
    /// is invalid, or another metric has the same name.
    pub(super) fn register_for_sink(&self, metric: &Metric) -> Result<Family> {
        if let Some((known, family)) =
            self.families.read().iter().find(|(known, _)| known.name == metric.name)
        {
            return if known == metric { Ok(family.clone()) } else { Err(Error::AlreadyReg) };
        }
        if metric.labels != SINK_LABELS {
            return Err(Error::Msg(format!(
                "found the labels {:?}, expected {SINK_LABELS:?}",
                metric.labels
            )));
        }
        match metric.kind {
            MetricKind::Counter => IntCounterVec::register(self, metric).map(Family::Counter),
            MetricKind::Gauge => GaugeVec::register(self, metric).map(Family::Gauge),
            MetricKind::Histogram { .. } => {
                Err(Error::Msg("found a histogram, expected a counter or a gauge".to_owned()))
            }
        }
    }

    fn add(&self, metric: &Metric, collector: impl Collector + 'static, family: Family) -> Result<()> {
        if !family.has_kind(&metric.kind) {
            return Err(Error::Msg(format!("{}: the handle is no {}", metric.name, metric.kind.name())));
        }
        self.registry.register(Box::new(collector))?;
        self.families.write().push((*metric, family));
        Ok(())
    }

    /// Removes all series, of all metrics, in which the label `label` has the value `value`.
    pub(super) fn remove_series(&self, label: &str, value: &str) {
        for (metric, family) in &*self.families.read() {
            if metric.labels.contains(&label) {
                family.remove_series(label, value);
            }
        }
    }

    /// Returns all metrics in the text format of Prometheus, version 0.0.4.
    pub(super) fn render(&self) -> String {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8(text).unwrap_or_default(),
            Err(_) => String::new(),
        }
    }
}

#[cfg(target_os = "linux")]
fn register_process(registry: &Registry) {
    use prometheus::process_collector::ProcessCollector;
    // It fails only if there is one already, and the registry is new.
    let _registered = registry.register(Box::new(ProcessCollector::for_self()));
}

#[cfg(not(target_os = "linux"))]
const fn register_process(_: &Registry) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_of_another_type_than_its_row_is_refused() {
        let families = Families::new();
        let row = Metric::counter("dt_receiver_test_total", &[], "tests", "Tests.");
        assert!(Gauge::register(&families, &row).is_err());
        assert!(IntCounter::register(&families, &row).is_ok());
        assert!(IntCounter::register(&families, &row).is_err(), "twice");
    }

    #[test]
    fn a_row_of_a_sink_is_registered_once_and_cannot_take_a_name_that_is_used() {
        const ROW: Metric = Metric::gauge("dt_receiver_test_queue", &["sink"], "records", "Records.");
        let families = Families::new();
        assert!(families.register_for_sink(&ROW).is_ok() && families.register_for_sink(&ROW).is_ok());
        for wrong in [
            Metric::counter(ROW.name, &["sink"], "records", "Records."),
            Metric::gauge("dt_receiver_test_other", &[], "records", "Records."),
            Metric::gauge("no name", &["sink"], "records", "Records."),
            Metric::histogram("dt_receiver_test_sizes", &["sink"], "records", "Records.", &[1.0]),
        ] {
            assert!(families.register_for_sink(&wrong).is_err(), "{wrong:?}");
        }
    }
}
