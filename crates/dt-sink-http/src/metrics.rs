//! The metrics that only HTTP sinks have. A new metric is one constant here, an entry in [`ALL`], and the call that reports
//! it.

use dt_sink::Metric;

/// All metrics of an HTTP sink.
pub const ALL: &[Metric] = &[REQUESTS_ACCEPTED, REQUESTS_REJECTED, REQUESTS_FAILED, REQUESTS_SIGNED];

pub const REQUESTS_ACCEPTED: Metric = Metric::counter(
    "dt_receiver_http_requests_accepted_total",
    &["sink"],
    "requests",
    "Requests that the target answered with 2xx.",
);

pub const REQUESTS_REJECTED: Metric = Metric::counter(
    "dt_receiver_http_requests_rejected_total",
    &["sink"],
    "requests",
    "Requests that the target answered with 400, 413, 415 or 422.",
);

pub const REQUESTS_FAILED: Metric = Metric::counter(
    "dt_receiver_http_requests_failed_total",
    &["sink"],
    "requests",
    "Requests without an answer, or with another status; their records are sent again.",
);

pub const REQUESTS_SIGNED: Metric = Metric::counter(
    "dt_receiver_http_requests_signed_total",
    &["sink"],
    "requests",
    "Requests that were signed with the secret of `sign`, instead of with DT's own token.",
);
