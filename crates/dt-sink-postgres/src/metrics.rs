//! The metrics that only PostgreSQL sinks have. A new metric is one constant here, an entry in [`ALL`], and the call that
//! reports it.

use dt_sink::Metric;

/// All metrics of a PostgreSQL sink.
pub const ALL: &[Metric] = &[CONNECTIONS, DUPLICATES, INCOMPLETE];

pub const CONNECTIONS: Metric = Metric::counter(
    "dt_receiver_postgres_connections_total",
    &["sink"],
    "connections",
    "Connections that were made to the server.",
);

pub const DUPLICATES: Metric = Metric::counter(
    "dt_receiver_postgres_duplicates_total",
    &["sink"],
    "records",
    "Records whose event was in `dt_events` already.",
);

pub const INCOMPLETE: Metric = Metric::counter(
    "dt_receiver_postgres_incomplete_total",
    &["sink"],
    "records",
    "Records that a column cannot hold in full. `dt_events.incomplete` says why; the body is exact.",
);
