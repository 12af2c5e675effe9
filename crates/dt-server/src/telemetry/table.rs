//! The table of metrics. A new metric is one entry here, and the call that counts, such as
//! `telemetry.metrics.accepts_failed.inc()`. The registration, `docs/metrics.md` and the checks of the dashboard and the
//! alert rules derive from the entry. Afterwards run `dt-receiver config metrics > docs/metrics.md`.
//!
//! An entry is `NAME: HANDLE = ROW;`. The handle is the field of [`Metrics`] to count with: `IntCounter`, `Gauge`, `IntGauge`
//! or `Histogram` for a single series, which is shown as 0 from the start; with `Vec` for one series for each combination of
//! labels, each shown once it is used. A sink declares the metrics that only it has in its own crate.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

use super::registry::Families;
use dt_sink::Metric;

/// Defines [`METRICS`] and [`Metrics`] from one list of entries.
macro_rules! metric_table {
    ($($section:literal { $($name:ident: $handle:ty = $row:expr;)+ })+) => {
        /// The metrics of every receiver, by section. Those that a sink declares are not among them.
        pub const METRICS: &[(&str, &[Metric])] = &[$(($section, &[$($row),+])),+];

        /// The handles of the metrics of the table.
        pub(crate) struct Metrics {
            $($(pub(crate) $name: $handle,)+)+
        }

        impl Metrics {
            pub(super) fn register(families: &Families) -> Self {
                Self { $($($name: families.register(&$row),)+)+ }
            }
        }
    };
}

metric_table! {
    "Requests" {
        requests: IntCounterVec = Metric::counter(
            "dt_receiver_requests_total",
            &["connector", "code", "reason"],
            "requests",
            "Answered requests, by connector (empty for a path of no connector), HTTP status and reason.",
        );
        request_duration: Histogram = Metric::histogram(
            "dt_receiver_request_duration_seconds",
            &[],
            "seconds",
            "Time from the complete head of a request to its answer.",
            &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 8.0],
        );
        in_flight: Gauge = Metric::gauge(
            "dt_receiver_requests_in_flight",
            &[],
            "requests",
            "Requests that are being processed.",
        );
        last_accepted: IntGaugeVec = Metric::gauge(
            "dt_receiver_last_accepted_timestamp_seconds",
            &["connector"],
            "Unix seconds",
            "Time at which the connector accepted its last event; 0 if unknown.",
        );
        other_scheme_failed: IntCounterVec = Metric::counter(
            "dt_receiver_other_scheme_failed_total",
            &["connector", "reason"],
            "requests",
            "Accepted requests whose second signature was invalid (policy `either`).",
        );
        clock_skew: IntGaugeVec = Metric::gauge(
            "dt_receiver_clock_skew_seconds",
            &["connector"],
            "seconds",
            "The token's `iat` minus the receiver's time, at the last accepted event. It includes the delivery delay, so it is usually negative.",
        );
        clock_suspected_skew: IntGauge = Metric::gauge(
            "dt_receiver_clock_suspected_skew_seconds",
            &[],
            "seconds",
            "DT's clock minus the receiver's clock, estimated from authentic tokens that are rejected only for their time; 0 if no skew is suspected.",
        );
    }

    "Connections" {
        connections: Gauge = Metric::gauge("dt_receiver_connections", &[], "connections", "Open connections.");
        connections_refused: IntCounterVec = Metric::counter(
            "dt_receiver_connections_refused_total",
            &["reason"],
            "connections",
            "Refused connections: the limit is reached, or the address is not allowed.",
        );
        connections_evicted: IntCounter = Metric::counter(
            "dt_receiver_connections_evicted_total",
            &[],
            "connections",
            "Unauthenticated connections that were closed to make room for others.",
        );
        accepts_failed: IntCounter = Metric::counter(
            "dt_receiver_accepts_failed_total",
            &[],
            "attempts",
            "Failed accepts of a connection, for example because no file descriptor is left.",
        );
        handshakes_failed: IntCounterVec = Metric::counter(
            "dt_receiver_tls_handshakes_failed_total",
            &["reason"],
            "connections",
            "Connections that were closed because the TLS handshake failed.",
        );
        proxy_headers_refused: IntCounterVec = Metric::counter(
            "dt_receiver_proxy_headers_refused_total",
            &["reason"],
            "connections",
            "Connections that were closed because they had no valid PROXY header from a trusted proxy.",
        );
        certificate_expiry: GaugeVec = Metric::gauge(
            "dt_receiver_tls_certificate_expiry_timestamp_seconds",
            &[],
            "Unix seconds",
            "Time at which the active certificate expires; absent without TLS.",
        );
        certificate_reloads: IntCounterVec = Metric::counter(
            "dt_receiver_tls_reloads_total",
            &["outcome"],
            "reloads",
            "Reloads of changed certificate files: `changed` if the new certificate is active, `failed` if the old one was kept.",
        );
    }

    "Keys of issuers" {
        keys_fetched: IntCounter = Metric::counter(
            "dt_receiver_key_sets_total",
            &[],
            "key sets",
            "New key sets that were fetched from an issuer.",
        );
        keys_failed: IntCounter = Metric::counter(
            "dt_receiver_key_fetches_failed_total",
            &[],
            "attempts",
            "Failed fetches of a key set from an issuer.",
        );
        keys_fetched_at: IntGaugeVec = Metric::gauge(
            "dt_receiver_key_set_fetched_timestamp_seconds",
            &["issuer"],
            "Unix seconds",
            "Time at which the key set was last fetched from the issuer; 0 if unknown.",
        );
    }

    "Spool" {
        spool_commit_duration: Histogram = Metric::histogram(
            "dt_receiver_spool_commit_duration_seconds",
            &[],
            "seconds",
            "Time of a commit to the spool, including its sync.",
            &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0],
        );
        spool_batch: Histogram = Metric::histogram(
            "dt_receiver_spool_batch_commands",
            &[],
            "commands",
            "Events, dead letters and cursor moves in one commit.",
            &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0],
        );
        spool_used: Gauge = Metric::gauge(
            "dt_receiver_spool_used_bytes",
            &[],
            "bytes",
            "Bytes that count towards `spool.max_size`.",
        );
        spool_removable: Gauge = Metric::gauge(
            "dt_receiver_spool_removable_bytes",
            &[],
            "bytes",
            "Of these, the bytes of events that every sink has: `spool.retain` keeps them until there is no room.",
        );
        spool_max: Gauge = Metric::gauge(
            "dt_receiver_spool_max_bytes",
            &[],
            "bytes",
            "The setting `spool.max_size`; 0 without a spool.",
        );
        spool_free: Gauge = Metric::gauge(
            "dt_receiver_spool_free_bytes",
            &[],
            "bytes",
            "Free bytes on the spool's disk; 0 without a spool.",
        );
        spool_sink_backlog: GaugeVec = Metric::gauge(
            "dt_receiver_spool_sink_backlog_records",
            &["sink"],
            "records",
            "Records after the sink's position in the log, those that other sinks get included.",
        );
        spool_sink_oldest: GaugeVec = Metric::gauge(
            "dt_receiver_spool_sink_oldest_seconds",
            &["sink"],
            "seconds",
            "Age of the oldest undelivered record; 0 if there is none.",
        );
        spool_dead_letters: GaugeVec = Metric::gauge(
            "dt_receiver_spool_dead_letters",
            &["reason"],
            "dead letters",
            "Stored dead letters, by reason.",
        );
    }

    "Sinks" {
        sink_records: IntCounterVec = Metric::counter(
            "dt_receiver_sink_records_total",
            &["sink", "outcome"],
            "records",
            "Records that were given to the sink, by outcome: `delivered`, `rejected`, `retry`.",
        );
        sink_batch: HistogramVec = Metric::histogram(
            "dt_receiver_sink_batch_records",
            &["sink"],
            "records",
            "Records in one batch for the sink.",
            &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0],
        );
        sink_up: GaugeVec = Metric::gauge(
            "dt_receiver_sink_up",
            &["sink"],
            "",
            "1 if the sink's last delivery succeeded, 0 if it failed.",
        );
        sink_window: GaugeVec = Metric::gauge(
            "dt_receiver_sink_window_ids",
            &["sink"],
            "event ids",
            "Delivered event ids in the sink's de-duplication cache (mode `direct`).",
        );
    }

    "Dead letters" {
        dead_letters: IntCounterVec = Metric::counter(
            "dt_receiver_dead_letters_total",
            &["reason"],
            "deliveries",
            "Deliveries that were moved to the dead letters.",
        );
        dead_letters_failed: IntCounterVec = Metric::counter(
            "dt_receiver_dead_letters_failed_total",
            &["reason"],
            "deliveries",
            "Deliveries that could not be moved to the dead letters.",
        );
        dead_letters_dropped: IntCounterVec = Metric::counter(
            "dt_receiver_dead_letters_dropped_total",
            &["reason"],
            "copies",
            "Copies of expired or refused requests that were dropped to make room.",
        );
    }

    "DT's cloud" {
        cloud_up: GaugeVec = Metric::gauge(
            "dt_receiver_cloud_up",
            &["project"],
            "",
            "1 if the monitor's last check of the project at DT succeeded, 0 if it failed.",
        );
        cloud_checked: IntGaugeVec = Metric::gauge(
            "dt_receiver_cloud_checked_timestamp_seconds",
            &["project"],
            "Unix seconds",
            "Time of the monitor's last successful check of the project at DT.",
        );
        cloud_status: GaugeVec = Metric::gauge(
            "dt_receiver_cloud_connector_status",
            &["connector", "project", "status"],
            "",
            "1 for the current status of the connector's Data Connector at DT, 0 for others: `ACTIVE`, `USER_DISABLED`, `SYSTEM_DISABLED`, `NOT_FOUND`, `OTHER`.",
        );
        cloud_successes: GaugeVec = Metric::gauge(
            "dt_receiver_cloud_connector_successes",
            &["connector", "project"],
            "deliveries",
            "Successful deliveries in the last 24 hours, as DT counts them.",
        );
        cloud_errors: GaugeVec = Metric::gauge(
            "dt_receiver_cloud_connector_errors",
            &["connector", "project"],
            "attempts",
            "Failed delivery attempts in the last 24 hours, as DT counts them.",
        );
        cloud_latency: GaugeVec = Metric::gauge(
            "dt_receiver_cloud_connector_latency_seconds",
            &["connector", "project"],
            "seconds",
            "Time within which 99 % of the deliveries in the last 24 hours were answered, as DT measures it.",
        );
        cloud_last_success: GaugeVec = Metric::gauge(
            "dt_receiver_cloud_connector_last_success_timestamp_seconds",
            &["connector", "project"],
            "Unix seconds",
            "Time of the last successful delivery that the monitor knows of; absent if there was none.",
        );
        cloud_disable_left: GaugeVec = Metric::gauge(
            "dt_receiver_cloud_connector_disable_seconds",
            &["connector", "project"],
            "seconds",
            "Time until DT disables the Data Connector if no delivery succeeds: 5 days since the last success; 5 days while no attempt fails.",
        );
        cloud_enabled: IntCounterVec = Metric::counter(
            "dt_receiver_cloud_connector_enable_attempts_total",
            &["connector", "project"],
            "attempts",
            "Attempts of the monitor to set a Data Connector that DT disabled to `ACTIVE`.",
        );
        stream_up: GaugeVec = Metric::gauge(
            "dt_receiver_stream_up",
            &["source"],
            "",
            "1 while the stream of the source is open, 0 while it is not.",
        );
        stream_opened: IntCounterVec = Metric::counter(
            "dt_receiver_stream_opened_total",
            &["source"],
            "streams",
            "Streams that were opened. Each time after the first, the connection broke, and the time between is fetched from the history.",
        );
        stream_events: IntCounterVec = Metric::counter(
            "dt_receiver_stream_events_total",
            &["source"],
            "events",
            "Events of the stream that were stored.",
        );
        backfill_filled: IntCounter = Metric::counter(
            "dt_receiver_backfill_events_total",
            &[],
            "events",
            "Missed events that were fetched from DT's event history and stored.",
        );
        backfill_windows: Gauge = Metric::gauge(
            "dt_receiver_backfill_open_windows",
            &[],
            "windows",
            "Windows of time that are yet to be fetched from DT's event history.",
        );
        backfill_missing: Gauge = Metric::gauge(
            "dt_receiver_backfill_missing_events",
            &[],
            "events",
            "Events that were answered 503 and have not come back yet.",
        );
        backfill_checked: Gauge = Metric::gauge(
            "dt_receiver_backfill_checked_timestamp_seconds",
            &[],
            "Unix seconds",
            "Time of the last complete comparison with DT's device lists; 0 before the first.",
        );
    }

    "Program" {
        ready: Gauge = Metric::gauge(
            "dt_receiver_ready",
            &[],
            "",
            "1 if events can be stored, 0 if not; the same as `/readyz`.",
        );
        build_info: GaugeVec = Metric::gauge(
            "dt_receiver_build_info",
            &["version"],
            "",
            "Always 1; the version is a label.",
        );
        config_reloads: IntCounterVec = Metric::counter(
            "dt_receiver_config_reloads_total",
            &["outcome"],
            "reloads",
            "Reloads of the configuration, by outcome: `applied`, `unchanged`, `invalid`, `needs_restart`, `refused`.",
        );
        config_reload_successful: Gauge = Metric::gauge(
            "dt_receiver_config_last_reload_successful",
            &[],
            "",
            "1 if the configuration that was read last is active, 0 if it was refused.",
        );
        config_reloaded_at: Gauge = Metric::gauge(
            "dt_receiver_config_last_reload_success_timestamp_seconds",
            &[],
            "Unix seconds",
            "Time at which a configuration was last applied or found unchanged.",
        );
        log_suppressed: IntCounter = Metric::counter(
            "dt_receiver_log_lines_suppressed_total",
            &[],
            "lines",
            "Log lines that were suppressed.",
        );
    }
}
