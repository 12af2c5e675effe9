//! The description of a metric. Its registration, its row in `docs/metrics.md` and the checks of the dashboard and the alert
//! rules derive from it. It depends on no metrics library, so that a sink's crate can describe its own metrics.

/// A metric: one row of a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// The name in Prometheus, such as `dt_receiver_spool_used_bytes`.
    pub name: &'static str,
    /// The type: counter, gauge or histogram.
    pub kind: MetricKind,
    /// The unit of the value, such as `bytes`; empty for a flag.
    pub unit: &'static str,
    /// The names of the labels. Their values must be few: names from the configuration and codes of the program.
    pub labels: &'static [&'static str],
    /// The description, in one sentence.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricKind {
    /// A count that only grows, until the program is restarted.
    Counter,
    /// A value that may grow and shrink.
    Gauge,
    /// Counts of values by size.
    Histogram {
        /// The upper bound of each bucket, in ascending order. One without an upper bound is added.
        buckets: &'static [f64],
    },
}

impl MetricKind {
    /// Returns the name that Prometheus has for the type.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram { .. } => "histogram",
        }
    }
}

impl Metric {
    /// Describes a counter, a number that only grows. Its name ends with `_total`.
    #[must_use]
    pub const fn counter(
        name: &'static str,
        labels: &'static [&'static str],
        unit: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, kind: MetricKind::Counter, unit, labels, help }
    }

    /// Describes a gauge, a value that may grow and shrink. The parameters are the fields of [`Metric`].
    #[must_use]
    pub const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        unit: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, kind: MetricKind::Gauge, unit, labels, help }
    }

    /// Describes a histogram, which counts values by size. `buckets` are their upper bounds, in ascending order.
    #[must_use]
    pub const fn histogram(
        name: &'static str,
        labels: &'static [&'static str],
        unit: &'static str,
        help: &'static str,
        buckets: &'static [f64],
    ) -> Self {
        Self { name, kind: MetricKind::Histogram { buckets }, unit, labels, help }
    }
}
