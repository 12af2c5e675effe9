//! The sink `kafka` under the contract that all sinks keep, with librdkafka's mock cluster as its target.

use crate::contract::UnderTest;
use dt_receiver::record::Format;

#[cfg(not(feature = "kafka"))]
pub(crate) fn under_test(_: Format) -> Option<UnderTest> {
    None
}

#[cfg(feature = "kafka")]
pub(crate) fn under_test(format: Format) -> Option<UnderTest> {
    use std::sync::Arc;
    use std::time::Duration;

    use dt_receiver::clock::SystemClock;
    use dt_receiver::telemetry::Telemetry;
    use dt_sink_kafka::{DeliveryTimeout, KafkaConfig, KafkaSink};
    use rdkafka::mocking::MockCluster;

    const TOPIC: &str = "dt.events";
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic(TOPIC, 1, 1).expect("a topic");
    let brokers = cluster.bootstrap_servers();
    let mut config = KafkaConfig::new(brokers.clone(), TOPIC.parse().expect("a topic"));
    config.create_topic = None;
    let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
    // As in mode `direct`: what is not there in time is to be tried again. Longer than the pause before it connects again.
    let timeout = DeliveryTimeout::After(Duration::from_secs(4));
    let reporter = telemetry.sink_reporter("kafka", KafkaSink::METRICS);
    let sink = KafkaSink::new(config, format, timeout, reporter);
    let set_broken = move |is_broken| {
        let set = if is_broken { cluster.broker_down(1) } else { cluster.broker_up(1) };
        set.expect("set");
    };
    Some(UnderTest {
        name: "kafka",
        sink: Box::new(sink),
        lines: Box::new(move || values(&brokers, TOPIC)),
        set_broken: Box::new(set_broken),
        is_lines: false,
    })
}

/// The values in the topic.
#[cfg(feature = "kafka")]
fn values(brokers: &str, topic: &str) -> Vec<String> {
    use std::time::Duration;

    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::Message;
    use rdkafka::{ClientConfig, Offset, TopicPartitionList};

    let wait = Duration::from_secs(10);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "test")
        .create()
        .expect("a consumer");
    let (_, end) = consumer.fetch_watermarks(topic, 0, wait).expect("an answer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).expect("added");
    consumer.assign(&list).expect("assigned");
    let mut values = Vec::new();
    for _ in 0..end {
        let message = consumer.poll(wait).expect("in time").expect("a message");
        values.push(String::from_utf8(message.payload().unwrap_or_default().to_vec()).expect("text"));
    }
    values
}
