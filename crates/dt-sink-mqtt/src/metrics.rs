//! The metrics that only MQTT sinks have. A new metric is one constant here, an entry in [`ALL`], and the call that reports it.

use dt_sink::Metric;

/// All metrics of an MQTT sink.
pub const ALL: &[Metric] = &[CONNECTED, CONNECTIONS, REJECTED, STATES, OLDER_STATES];

pub const CONNECTED: Metric = Metric::gauge(
    "dt_receiver_mqtt_connected",
    &["sink"],
    "",
    "1 while the sink is connected to the broker.",
);

pub const CONNECTIONS: Metric = Metric::counter(
    "dt_receiver_mqtt_connections_total",
    &["sink"],
    "connections",
    "Connections that the broker accepted.",
);

pub const REJECTED: Metric = Metric::counter(
    "dt_receiver_mqtt_rejected_messages_total",
    &["sink"],
    "messages",
    "Messages that the broker rejected with a reason code of MQTT 5.",
);

pub const STATES: Metric = Metric::counter(
    "dt_receiver_mqtt_states_total",
    &["sink"],
    "messages",
    "States that were published, and that the broker retains.",
);

pub const OLDER_STATES: Metric = Metric::counter(
    "dt_receiver_mqtt_older_states_total",
    &["sink"],
    "messages",
    "States that were not published, because the retained one is newer.",
);
