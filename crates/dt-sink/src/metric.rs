//! The description of a metric. Its registration, its row in `docs/metrics.md` and the checks of the dashboard and the alert
//! rules derive from it. It depends on no metrics library, so that a sink's crate can describe its own metrics.

/// The description of a metric: one row of a table of metrics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// The name in Prometheus, such as `dt_receiver_spool_used_bytes`.
    pub name: &'static str,
    /// The type: counter, gauge or histogram.
    pub kind: MetricKind,
    /// The unit of the value, such as `bytes`; empty for a flag.
    pub unit: &'static str,
    /// The names of the labels. A label must have few values: names from the configuration, or codes of the program.
    pub labels: &'static [&'static str],
    /// The description, in one sentence.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricKind {
    /// A count that only increases, until the program is restarted.
    Counter,
    /// A value that can increase and decrease.
    Gauge,
    /// The distribution of values over buckets.
    Histogram {
        /// The upper bounds of the buckets, in ascending order. A bucket without an upper bound is added.
        buckets: &'static [f64],
    },
}

impl MetricKind {
    /// Returns the name of the type in Prometheus: `counter`, `gauge` or `histogram`.
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
    /// Describes a counter, whose value only increases. Its name ends with `_total`. The parameters are the fields of [`Metric`].
    #[must_use]
    pub const fn counter(
        name: &'static str,
        labels: &'static [&'static str],
        unit: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, kind: MetricKind::Counter, unit, labels, help }
    }

    /// Describes a gauge, whose value can increase and decrease. The parameters are the fields of [`Metric`].
    #[must_use]
    pub const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        unit: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, kind: MetricKind::Gauge, unit, labels, help }
    }

    /// Describes a histogram, which counts values by bucket. `buckets` are the upper bounds of the buckets, in ascending order.
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
