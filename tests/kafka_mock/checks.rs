//! What `check --connect` and the check of the sink find.

use std::time::{Duration, Instant};

use dt_receiver::record::Format;
use dt_receiver::sink::{Sink, SinkContext, SinkSettings};
use dt_sink_kafka::{DeliveryTimeout, KafkaConfig, KafkaSink};

use crate::cluster::{Place, TOPIC};

/// What `check --connect` finds.
fn probe(place: &Place, config: &KafkaConfig) -> Result<String, String> {
    let mut context = SinkContext::new(Format::Body, place.reporter());
    context.give_up_after = Some(Duration::from_secs(10));
    let begun = Instant::now();
    let probed = config.probe(context).expect("it can be checked").map_err(|error| error.to_string());
    assert!(begun.elapsed() < Duration::from_secs(12), "it took {:?}", begun.elapsed());
    println!("{probed:?}");
    probed
}

#[test]
fn a_check_finds_the_topic_and_creates_none() {
    let place = Place::new(1, 1);
    let config = |topic: &str| {
        let mut config = place.config();
        config.topic = topic.parse().expect("a topic");
        config
    };
    let found = probe(&place, &config(TOPIC)).expect("it works");
    assert!(found.contains("has the topic dt.events"), "{found}");
    let found = probe(&place, &config("dt.{eventType}")).expect("it works");
    assert!(found.contains("placeholders"), "{found}");
    assert_eq!(place.numbers(), [[0; 0]], "nothing is written");
}

#[test]
fn a_check_names_what_is_wrong_with_the_cluster() {
    let place = Place::new(1, 1);
    for (brokers, part) in [
        ("127.0.0.1:1", "cannot connect; check `brokers`, and that they run"),
        ("name.invalid:9092", "cannot be resolved; check `brokers`"),
    ] {
        let config = KafkaConfig::new(brokers.to_owned(), TOPIC.parse().expect("a topic"));
        let error = probe(&place, &config).expect_err("no cluster");
        assert!(error.contains(part) && error.contains(brokers), "{error}");
    }
    // No Kafka broker: it takes the connection, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    let brokers = silent.local_addr().expect("an address").to_string();
    let config = KafkaConfig::new(brokers.clone(), TOPIC.parse().expect("a topic"));
    let error = probe(&place, &config).expect_err("no answer");
    assert!(error.contains(&brokers), "{error}");
}

#[test]
fn a_cluster_that_is_not_there_is_named() {
    let place = Place::new(1, 1);
    let mut config = place.config();
    // Somebody listened there a moment ago.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    config.brokers = format!("127.0.0.1:{port}");
    let mut sink = KafkaSink::new(config, Format::Body, DeliveryTimeout::Unlimited, place.reporter());
    sink.open(None).expect("it may come up later");
    let error = sink.check().expect_err("nobody listens").to_string();
    assert!(error.contains(&port.to_string()), "{error}");
}
