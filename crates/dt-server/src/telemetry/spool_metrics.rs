//! The metrics of mode `spool`.

use std::time::Duration;

use prometheus::{Gauge, GaugeVec, Histogram, HistogramOpts, IntGauge, IntGaugeVec, Opts, Registry};

use super::metrics::register;

pub(super) struct SpoolMetrics {
    commit: Histogram,
    batch: Histogram,
    pub(super) used: IntGauge,
    pub(super) max: IntGauge,
    pub(super) free: IntGauge,
    depth: IntGaugeVec,
    oldest: GaugeVec,
    pub(super) dead_letters: IntGaugeVec,
}

impl SpoolMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
        };
        let gauges = |name: &str, help: &str, label: &str| {
            register(registry, IntGaugeVec::new(Opts::new(name, help), &[label]))
        };
        Self {
            commit: histogram(
                "dt_receiver_spool_commit_duration_seconds",
                "Time of a commit of the spool, with its sync.",
                vec![0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0],
            ),
            batch: histogram(
                "dt_receiver_spool_batch_commands",
                "Events, dead letters and cursor moves that one commit stored.",
                vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0],
            ),
            used: register(
                registry,
                IntGauge::new("dt_receiver_spool_used_bytes", "Bytes that count against max_size."),
            ),
            max: register(
                registry,
                IntGauge::new("dt_receiver_spool_max_bytes", "The setting max_size; 0 without a spool."),
            ),
            free: register(
                registry,
                IntGauge::new(
                    "dt_receiver_spool_free_bytes",
                    "Bytes that are free on the spool's disk; 0 without a spool.",
                ),
            ),
            depth: gauges(
                "dt_receiver_spool_sink_backlog_records",
                "Records that a sink has not passed yet.",
                "sink",
            ),
            oldest: register(
                registry,
                GaugeVec::new(
                    Opts::new(
                        "dt_receiver_spool_sink_oldest_seconds",
                        "How long the first record has waited that a sink has not passed; 0 if there is none.",
                    ),
                    &["sink"],
                ),
            ),
            dead_letters: gauges(
                "dt_receiver_spool_dead_letters",
                "Dead letters that are there now, by reason.",
                "reason",
            ),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a batch is far smaller than 2^52 commands")]
    pub(super) fn commit(&self, took: Duration, commands: usize) {
        self.commit.observe(took.as_secs_f64());
        self.batch.observe(commands as f64);
    }

    pub(super) fn forget_sinks(&self) {
        self.depth.reset();
        self.oldest.reset();
    }

    pub(super) fn sink(&self, sink: &str, backlog: i64, oldest: Duration) {
        self.depth.with_label_values(&[sink]).set(backlog);
        let gauge: Gauge = self.oldest.with_label_values(&[sink]);
        gauge.set(oldest.as_secs_f64());
    }
}
