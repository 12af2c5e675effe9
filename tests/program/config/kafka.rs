//! The keys of a sink of type `kafka`.

use super::problems;
#[cfg(feature = "kafka")]
use super::{Config, Fixed, sink_types};

const KAFKA: &str = r#"
[[connector]]
name = "a"
secrets = [{ env = "NEW" }]

[[sink]]
name = "kafka"
type = "kafka"
brokers = ["kafka-1:9092", "[::1]:9092"]
topic = "dt.{eventType}"
key = "project"
format = "cloudevents"
create_topic = { partitions = 6, replication = 3 }

[sink.tls]
ca = "old.txt"
certificate = "old.txt"
key = "old.txt"
key_password = { env = "HEADER" }

[sink.sasl]
mechanism = "SCRAM-SHA-256"
username = "dt"
password = { env = "NEW" }

[sink.properties]
"linger.ms" = 20
"compression.type" = "lz4"
"socket.nagle.disable" = true
"#;

#[cfg(feature = "kafka")]
#[test]
fn a_kafka_sink_without_tls_needs_no_more_than_brokers_and_a_topic() {
    let bare = KAFKA.split("key = ").next().expect("the first keys");
    let config = Config::from_toml(bare, &Fixed, &sink_types()).expect("a good configuration");
    let kafka = config.sinks[0].settings.get::<dt_sink_kafka::KafkaConfig>().expect("a Kafka sink");
    assert_eq!(kafka.brokers, "kafka-1:9092,[::1]:9092");
    assert_eq!(kafka.create_topic, None, "only the command line makes topics unasked");
    let direct = format!("mode = 'direct'\ndead_letters = 'kafka:dead'\n{bare}");
    let config = Config::from_toml(&direct, &Fixed, &sink_types()).expect("a good configuration");
    let letters = config.dead_letter_place().expect("a place");
    assert_eq!((letters.sink_type, letters.place), ("kafka", "dead"));
    // In a topic, copies that anybody can send would have no bound.
    let found = problems(&format!("quarantine_refused = true\n{direct}")).join("\n");
    assert!(found.contains("quarantine_refused: is true") && found.contains("`dead.db` only"), "{found}");
}

#[cfg(any(feature = "kafka-tls", feature = "kafka-tls-vendored"))]
#[test]
fn every_key_of_a_kafka_sink_is_read() {
    let config = Config::from_toml(KAFKA, &Fixed, &sink_types()).unwrap_or_else(|error| panic!("{error}"));
    let kafka = config.sinks[0].settings.get::<dt_sink_kafka::KafkaConfig>().expect("a Kafka sink");
    let settings = kafka.settings();
    for (key, value) in [
        ("bootstrap.servers", "kafka-1:9092,[::1]:9092"),
        ("security.protocol", "sasl_ssl"),
        ("ssl.ca.location", "old.txt"),
        ("ssl.certificate.location", "old.txt"),
        ("sasl.mechanism", "SCRAM-SHA-256"),
        ("sasl.username", "dt"),
        ("linger.ms", "20"),
        ("socket.nagle.disable", "true"),
    ] {
        assert!(settings.contains(&(key.to_owned(), value.to_owned())), "{key}");
    }
    let shown = format!("{config:?}");
    assert!(!shown.contains("some-good-secret"), "{shown}");
}

#[cfg(feature = "kafka")]
#[test]
fn each_mistake_in_a_kafka_sink_names_its_key_and_the_cure() {
    let mistakes: &[(&str, &str, &[&str])] = &[
        ("[\"kafka-1:9092\", \"[::1]:9092\"]", "[]", &["sink.kafka.brokers", "empty", "HOST:PORT"]),
        ("\"kafka-1:9092\"", "\"kafka-1\"", &["sink.kafka.brokers", "kafka-1", "kafka-1:9092"]),
        ("\"kafka-1:9092\"", "\"kafka-1:99999\"", &["sink.kafka.brokers", "99999"]),
        ("\"kafka-1:9092\"", "\"http://kafka:9092\"", &["sink.kafka.brokers", "http:"]),
        ("brokers = [\"kafka-1:9092\", \"[::1]:9092\"]", "", &["sink.kafka.brokers", "missing"]),
        ("topic = \"dt.{eventType}\"", "", &["sink.kafka.topic", "missing"]),
        ("dt.{eventType}", "dt/events", &["sink.kafka.topic", "dt/events", "letters, digits"]),
        ("dt.{eventType}", "dt.{device}", &["sink.kafka.topic", "{device}", "{eventType}"]),
        (
            "format = \"cloudevents\"",
            "format = \"line-protocol\"",
            &["sink.kafka.format", "line-protocol", "type \"kafka\" takes body, envelope, cloudevents"],
        ),
        ("key = \"project\"", "key = \"id\"", &["sink.kafka.key", "id", "device, project, connector, none"]),
        ("{ partitions = 6, replication = 3 }", "6", &["sink.kafka.create_topic", "true, false or a table"]),
        ("partitions = 6", "partitions = 0", &["sink.kafka.create_topic.partitions", "0"]),
        ("partitions = 6", "partition = 6", &["sink.kafka.create_topic.partition", "unknown key"]),
        (
            "[sink.properties]",
            "[sink.properties]\nacks = 1",
            &["sink.kafka.properties.\"acks\"", "cannot be set"],
        ),
        (
            "[sink.properties]",
            "[sink.properties]\n\"enable.idempotence\" = false",
            &["sink.kafka.properties.\"enable.idempotence\"", "cannot be set"],
        ),
        (
            "[sink.properties]",
            "[sink.properties]\n\"max.in.flight.requests.per.connection\" = 6",
            &["sink.kafka.properties.\"max.in.flight.requests.per.connection\"", "1 to 5"],
        ),
        (
            "[sink.properties]",
            "[sink.properties]\n\"sasl.password\" = \"hunter2\"",
            &["sink.kafka.properties.\"sasl.password\"", "[sink.sasl]"],
        ),
        (
            "[sink.properties]",
            "[sink.properties]\n\"lingr.ms\" = 5",
            &["sink.kafka.properties.\"lingr.ms\"", "No such configuration property"],
        ),
        (
            "\"linger.ms\" = 20",
            "\"linger.ms\" = \"soon\"",
            &["sink.kafka.properties.\"linger.ms\"", "Invalid value"],
        ),
    ];
    // Without the parts that a build may lack.
    let plain = KAFKA.split("[sink.tls]").next().expect("a part").to_owned()
        + "[sink.properties]"
        + KAFKA.split("[sink.properties]").nth(1).expect("a part");
    assert_eq!(problems(&plain), Vec::<String>::new());
    for (old, new, says) in mistakes {
        assert!(plain.contains(old), "{old}");
        let found = problems(&plain.replacen(old, new, 1)).join("\n");
        for word in *says {
            assert!(found.contains(word), "{old} -> {new}: {found:?} does not say {word:?}");
        }
        assert!(!found.contains("hunter2"), "{found}");
    }
}

#[cfg(any(feature = "kafka-tls", feature = "kafka-tls-vendored"))]
#[test]
fn each_mistake_in_a_kafka_sinks_security_names_its_key_and_the_cure() {
    let mistakes: &[(&str, &str, &[&str])] = &[
        ("ca = \"old.txt\"", "ca = \"gone.pem\"", &["sink.kafka.tls.ca", "gone.pem", "not found"]),
        ("certificate = \"old.txt\"\n", "", &["sink.kafka.tls.certificate", "missing"]),
        ("SCRAM-SHA-256", "GSSAPI", &["sink.kafka.sasl.mechanism", "GSSAPI", "SCRAM-SHA-512"]),
        ("username = \"dt\"\n", "", &["sink.kafka.sasl.username", "missing"]),
        ("password = { env = \"NEW\" }", "password = \"hunter2\"", &["sink.kafka.sasl.password", "env"]),
        (
            "password = { env = \"NEW\" }",
            "password = { env = \"GONE\" }",
            &["sink.kafka.sasl.password.env", "not set"],
        ),
        ("password = { env = \"NEW\" }", "", &["sink.kafka.sasl.password", "missing"]),
    ];
    for (old, new, says) in mistakes {
        assert!(KAFKA.contains(old), "{old}");
        let found = problems(&KAFKA.replacen(old, new, 1)).join("\n");
        for word in *says {
            assert!(found.contains(word), "{old} -> {new}: {found:?} does not say {word:?}");
        }
        assert!(!found.contains("hunter2"), "{found}");
    }
}

#[cfg(all(feature = "kafka", not(any(feature = "kafka-tls", feature = "kafka-tls-vendored"))))]
#[test]
fn a_build_without_tls_for_kafka_says_so() {
    let found = problems(KAFKA).join("\n");
    assert!(found.contains("sink.kafka.tls") && found.contains("`kafka-tls`"), "{found}");
}

#[cfg(not(feature = "kafka"))]
#[test]
fn a_build_without_kafka_says_so() {
    let found = problems(KAFKA).join("\n");
    assert!(found.contains("sink.kafka.type") && found.contains("`kafka`"), "{found}");
}
