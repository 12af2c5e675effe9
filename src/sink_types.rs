//! The types of sinks in this build, one line each. This is the only file that depends on which features add which type.

use dt_server::sink::{MissingType, SinkTypes, standard_types};

/// Returns all types of sinks in this build: `stdout`, `file`, and those that features add.
///
/// # Examples
///
/// An embedder adds its own by [`SinkTypes::with`].
///
/// ```
/// assert!(dt_receiver::sink_types().names().contains(&"kafka"));
/// ```
#[must_use]
pub fn sink_types() -> SinkTypes {
    let types = standard_types();
    #[cfg(feature = "http")]
    let types = types.with::<dt_sink_http::HttpConfig>();
    #[cfg(feature = "kafka")]
    let types = types.with::<dt_sink_kafka::KafkaConfig>();
    #[cfg(feature = "mqtt")]
    let types = types.with::<dt_sink_mqtt::MqttConfig>();
    #[cfg(feature = "postgres")]
    let types = types.with::<dt_sink_postgres::PostgresConfig>();
    types.or_left_out(HTTP).or_left_out(KAFKA).or_left_out(MQTT).or_left_out(POSTGRES)
}

const HTTP: MissingType =
    MissingType { name: "http", title: "HTTP", feature: "http", place: Some("URL"), dead_letters: None };

const KAFKA: MissingType = MissingType {
    name: "kafka",
    title: "Kafka",
    feature: "kafka",
    place: Some("HOST:PORT[,HOST:PORT]/TOPIC"),
    dead_letters: Some("TOPIC"),
};

const MQTT: MissingType = MissingType {
    name: "mqtt",
    title: "MQTT",
    feature: "mqtt",
    place: Some("HOST:PORT[/TOPIC]"),
    dead_letters: None,
};

const POSTGRES: MissingType = MissingType {
    name: "postgres",
    title: "PostgreSQL",
    feature: "postgres",
    place: Some("VARIABLE"),
    dead_letters: None,
};
