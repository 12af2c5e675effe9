//! The metrics that only Kafka sinks have, from librdkafka's statistics. A new metric is one constant here, an entry in
//! [`ALL`], and the call that reports it.

use dt_sink::Metric;

/// All metrics of a Kafka sink.
pub const ALL: &[Metric] =
    &[QUEUED_RECORDS, QUEUED_BYTES, BROKERS_UP, ROUND_TRIP, REQUEST_RETRIES, PRODUCERS_RENEWED];

pub const QUEUED_RECORDS: Metric = Metric::gauge(
    "dt_receiver_kafka_queued_records",
    &["sink"],
    "records",
    "Records in the producer: queued, or sent and not acknowledged.",
);

pub const QUEUED_BYTES: Metric = Metric::gauge(
    "dt_receiver_kafka_queued_bytes",
    &["sink"],
    "bytes",
    "Bytes of the records in the producer.",
);

pub const BROKERS_UP: Metric =
    Metric::gauge("dt_receiver_kafka_brokers_up", &["sink"], "brokers", "Connected brokers.");

pub const ROUND_TRIP: Metric = Metric::gauge(
    "dt_receiver_kafka_round_trip_seconds",
    &["sink"],
    "seconds",
    "99th percentile of the round-trip time to the slowest broker.",
);

pub const REQUEST_RETRIES: Metric = Metric::counter(
    "dt_receiver_kafka_request_retries_total",
    &["sink"],
    "requests",
    "Requests that were sent again.",
);

pub const PRODUCERS_RENEWED: Metric = Metric::counter(
    "dt_receiver_kafka_producers_renewed_total",
    &["sink"],
    "producers",
    "Producers that were replaced after a failure.",
);
