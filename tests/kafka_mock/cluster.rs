//! The mock cluster with a topic, records, and what has to be in the topic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dt_receiver::clock::SystemClock;
use dt_receiver::record::{Format, KeptHeaders, Record};
use dt_receiver::sink::{Fate, Sink, SinkReporter};
use dt_receiver::telemetry::Telemetry;
use dt_receiver::verify::VerifiedBy;
use dt_sink_kafka::{DeliveryTimeout, KafkaConfig, KafkaSink};
use hyper::body::Bytes;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

pub(crate) const TOPIC: &str = "dt.events";
pub(crate) const DEVICES: usize = 5;

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// A cluster with the topic, and a sink that writes to it.
pub(crate) struct Place {
    pub(crate) cluster: Cluster,
    telemetry: Arc<Telemetry>,
}

impl Place {
    pub(crate) fn new(brokers: i32, partitions: i32) -> Self {
        let cluster = MockCluster::new(brokers).expect("a mock cluster");
        cluster.create_topic(TOPIC, partitions, brokers.min(3)).expect("a topic");
        Self { cluster, telemetry: Arc::new(Telemetry::new(Arc::new(SystemClock))) }
    }

    pub(crate) fn config(&self) -> KafkaConfig {
        let mut config = KafkaConfig::new(self.cluster.bootstrap_servers(), TOPIC.parse().expect("a topic"));
        config.create_topic = None;
        config
    }

    pub(crate) fn reporter(&self) -> Arc<dyn SinkReporter> {
        self.telemetry.sink_reporter("kafka", KafkaSink::METRICS)
    }

    pub(crate) fn sink(&self, format: Format, timeout: DeliveryTimeout) -> KafkaSink {
        let mut sink = KafkaSink::new(self.config(), format, timeout, self.reporter());
        sink.open(None).expect("a good configuration");
        sink
    }

    /// How many producers were made anew.
    pub(crate) fn renewed(&self) -> u64 {
        let line = "dt_receiver_kafka_producers_renewed_total{sink=\"kafka\"} ";
        let text = self.telemetry.render();
        text.lines()
            .find_map(|found| found.strip_prefix(line))
            .map_or(0, |count| count.parse().expect("a number"))
    }

    /// The numbers of the events in the topic, in the order of their partitions.
    pub(crate) fn numbers(&self) -> Vec<Vec<usize>> {
        let number = |message: &Seen| message.value.parse().expect("a number");
        self.messages().iter().map(|partition| partition.iter().map(number).collect()).collect()
    }

    pub(crate) fn messages(&self) -> Vec<Vec<Seen>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "test")
            .set("enable.partition.eof", "false")
            .create()
            .expect("a consumer");
        let wait = Duration::from_secs(10);
        let metadata = consumer.fetch_metadata(Some(TOPIC), wait).expect("an answer");
        let partitions = metadata.topics()[0].partitions().len();
        let mut seen = Vec::new();
        for partition in 0..i32::try_from(partitions).expect("few") {
            let (_, end) = consumer.fetch_watermarks(TOPIC, partition, wait).expect("an answer");
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(TOPIC, partition, Offset::Beginning).expect("added");
            consumer.assign(&list).expect("assigned");
            let mut messages = Vec::new();
            let begun = Instant::now();
            while i64::try_from(messages.len()).expect("few") < end {
                assert!(begun.elapsed() < Duration::from_secs(30), "{} of {end}", messages.len());
                if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                    messages.push(Seen::of(&message.expect("a message")));
                }
            }
            seen.push(messages);
        }
        seen
    }
}

/// A record as it is in the topic.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) key: Option<String>,
    pub(crate) value: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Seen {
    fn of(message: &impl Message) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        Self {
            key: message.key().map(text),
            value: text(message.payload().unwrap_or_default()),
            headers: headers.map(|h| (h.key.to_owned(), text(h.value.unwrap_or_default()))).collect(),
        }
    }
}

pub(crate) fn record(number: usize) -> Arc<Record> {
    Arc::new(Record {
        connector: Arc::from("plant"),
        received_at: 1_700_000_000_123,
        provenance: VerifiedBy::Secret { label: Arc::from("a") }.into(),
        event_id: format!("id{number}").into(),
        event_type: "touch".into(),
        project: Some("p".into()),
        device: Some(format!("d{}", number % DEVICES).into()),
        request_id: None,
        headers: KeptHeaders::default(),
        body: Bytes::from(number.to_string()),
    })
}

pub(crate) fn records(numbers: std::ops::Range<usize>) -> Vec<Arc<Record>> {
    numbers.map(record).collect()
}

/// Delivers as the worker does: what is pending or has to be tried again comes again. Gives what was rejected.
pub(crate) fn deliver_all(sink: &mut KafkaSink, records: &[Arc<Record>]) -> Vec<(String, String)> {
    let mut window = records.to_vec();
    let mut rejected = Vec::new();
    let begun = Instant::now();
    while !window.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} are left", window.len());
        let outcome = sink.deliver(&window);
        assert_eq!(outcome.fates.len(), window.len());
        let mut fates = outcome.fates.into_iter();
        window.retain(|record| match fates.next().expect("one fate each") {
            Fate::Delivered => false,
            Fate::Rejected { error } => {
                rejected.push((record.event_id.to_string(), error));
                false
            }
            Fate::Retry { .. } | Fate::Pending { .. } => true,
        });
    }
    rejected
}

/// Every event is there, and each device's are in order, counted by when they come first.
pub(crate) fn must_hold(partitions: &[Vec<usize>], numbers: std::ops::Range<usize>) {
    let mut firsts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut place_of: BTreeMap<usize, usize> = BTreeMap::new();
    for (place, partition) in partitions.iter().enumerate() {
        for number in partition {
            let device = number % DEVICES;
            assert_eq!(*place_of.entry(device).or_insert(place), place, "a device stays in its partition");
            let seen = firsts.entry(device).or_default();
            if !seen.contains(number) {
                seen.push(*number);
            }
        }
    }
    for (device, seen) in &firsts {
        let wrong = seen.windows(2).find(|pair| pair[0] > pair[1]);
        assert_eq!(wrong, None, "device {device}: the first comes before the second");
    }
    let mut all: Vec<usize> = firsts.into_values().flatten().collect();
    all.sort_unstable();
    assert_eq!(all, numbers.collect::<Vec<_>>());
}
