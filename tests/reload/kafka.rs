//! A Kafka sink that changes: what is on its way is waited for, and brokers that are gone for good can be replaced.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::events::parse_id;
use crate::load::{Load, assert_all_once_in_order};
use crate::place::{Place, SECRET, until};

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn sink(brokers: &str, topic: &str) -> String {
    format!(
        "[[sink]]\nname = 'kafka'\ntype = 'kafka'\nformat = 'body'\nbrokers = ['{}']\ntopic = '{topic}'\ncreate_topic = false",
        brokers.replace(',', "', '")
    )
}

/// The ids in a topic of one partition, in their order.
fn ids(cluster: &Cluster, topic: &str) -> Vec<(u64, u64)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "test")
        .create()
        .expect("a consumer");
    let (_, end) = consumer.fetch_watermarks(topic, 0, Duration::from_secs(30)).expect("an answer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).expect("added");
    consumer.assign(&list).expect("assigned");
    let (mut ids, begun) = (Vec::new(), Instant::now());
    while i64::try_from(ids.len()).expect("few") < end {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} of {end}", ids.len());
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message.expect("a message");
            let body = String::from_utf8_lossy(message.payload().expect("a body")).into_owned();
            ids.push(parse_id(&body).expect("an event of ours"));
        }
    }
    ids
}

#[test]
fn another_topic_under_load_loses_and_doubles_nothing() {
    for mode in ["spool", "direct"] {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic("one", 1, 1).expect("a topic");
        cluster.create_topic("two", 1, 1).expect("a topic");
        let place = Place::new(mode);
        let to = |topic: &str| {
            let sink = sink(&cluster.bootstrap_servers(), topic);
            place.text("", &[place.connector("default", "/", ""), sink])
        };
        let served = place.serve(&to("one"));
        let load = Load::start(served.receiver.listen);
        until("events are in the first topic", || !ids(&cluster, "one").is_empty());
        load.go_on();
        served.apply(&place, &to("two"));
        load.go_on();
        let sent = load.stop();
        let total = usize::try_from(sent.iter().map(|(_, count)| count).sum::<u64>()).expect("few");
        until("all is there", || ids(&cluster, "one").len() + ids(&cluster, "two").len() >= total);
        assert_eq!(served.readiness(), "ready\n");
        let ended = served.receiver.stop();
        let (mut all, two) = (ids(&cluster, "one"), ids(&cluster, "two"));
        assert!(!all.is_empty() && !two.is_empty(), "{mode}: {} {} {}", all.len(), two.len(), ended.stderr);
        all.extend(two);
        assert_all_once_in_order(&all, &sent);
    }
}

#[test]
fn brokers_that_are_gone_for_good_are_replaced_and_the_backlog_goes_there() {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    cluster.create_topic("one", 1, 1).expect("a topic");
    let place = Place::new("spool");
    let at = |brokers: &str| place.text("", &[place.connector("default", "/", ""), sink(brokers, "one")]);
    // Nobody listens there.
    let served = place.serve(&at("127.0.0.1:1"));
    for number in 0..20 {
        assert_eq!(served.post("/", 1, number, SECRET).status, 200);
    }
    until("it is down", || served.readiness().contains("sink kafka"));
    served.apply(&place, &at(&cluster.bootstrap_servers()));
    until("the backlog is there", || ids(&cluster, "one").len() >= 20);
    assert_eq!(ids(&cluster, "one"), (0..20).map(|number| (1, number)).collect::<Vec<_>>());
    served.receiver.stop();
}
