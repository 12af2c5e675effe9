//! The metrics of the sink `kafka`, from librdkafka's statistics.

use std::time::Duration;

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::metrics::{forget, register};

/// How a producer of Kafka is doing.
#[derive(Debug, Clone, Copy, Default)]
pub struct KafkaState {
    /// Records that wait or are on their way.
    pub queued_records: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// Brokers that are connected.
    pub brokers_up: i64,
    /// Requests that were sent again since it was told last.
    pub new_retries: u64,
    /// The 99th percentile of the time to the slowest broker and back.
    pub round_trip: Duration,
}

pub(super) struct KafkaMetrics {
    queued: IntGaugeVec,
    queued_bytes: IntGaugeVec,
    brokers_up: IntGaugeVec,
    round_trip: GaugeVec,
    retries: IntCounterVec,
    pub(super) renewed: IntCounterVec,
}

impl KafkaMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauges =
            |name: &str, help: &str| register(registry, IntGaugeVec::new(Opts::new(name, help), &["sink"]));
        let counters =
            |name: &str, help: &str| register(registry, IntCounterVec::new(Opts::new(name, help), &["sink"]));
        Self {
            queued: gauges(
                "dt_receiver_kafka_queued_records",
                "Records that wait in the producer or are on their way.",
            ),
            queued_bytes: gauges("dt_receiver_kafka_queued_bytes", "Bytes of the records in the producer."),
            brokers_up: gauges("dt_receiver_kafka_brokers_up", "Brokers that are connected."),
            round_trip: register(
                registry,
                GaugeVec::new(
                    Opts::new(
                        "dt_receiver_kafka_round_trip_seconds",
                        "The 99th percentile of the time to the slowest broker and back.",
                    ),
                    &["sink"],
                ),
            ),
            retries: counters("dt_receiver_kafka_request_retries_total", "Requests that were sent again."),
            renewed: counters(
                "dt_receiver_kafka_producers_renewed_total",
                "Producers that were made anew after a failure.",
            ),
        }
    }

    pub(super) fn forget(&self, sink: &str) {
        for gauges in [&self.queued, &self.queued_bytes, &self.brokers_up] {
            forget(gauges, "sink", sink);
        }
        forget(&self.round_trip, "sink", sink);
        forget(&self.retries, "sink", sink);
        forget(&self.renewed, "sink", sink);
    }

    pub(super) fn state(&self, sink: &str, state: &KafkaState) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.queued.with_label_values(&[sink]).set(gauge(state.queued_records));
        self.queued_bytes.with_label_values(&[sink]).set(gauge(state.queued_bytes));
        self.brokers_up.with_label_values(&[sink]).set(state.brokers_up);
        self.round_trip.with_label_values(&[sink]).set(state.round_trip.as_secs_f64());
        self.retries.with_label_values(&[sink]).inc_by(state.new_retries);
    }
}
