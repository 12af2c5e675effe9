//! The sink `kafka` against the mock cluster that librdkafka brings along: brokers that refuse, vanish and forget, as the
//! wire protocol has it. The real brokers are in `tests/kafka`.
//!
//! `DT_RECEIVER_TEST_SEED` repeats a random run, `DT_RECEIVER_TEST_KAFKA_FAULTS` sets how many faults it has.

// Everything here is a test, helpers included: they may fail loudly.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dt_receiver::clock::SystemClock;
use dt_receiver::record::{DeadLetter, Format, KeptHeaders, Reason, Record};
use dt_receiver::sink::{DeadLetterSink, Fate, Sink, SinkContext, SinkReporter, SinkSettings};
use dt_receiver::telemetry::Telemetry;
use dt_receiver::verify::VerifiedBy;
use dt_sink_kafka::{DeliveryTimeout, KafkaConfig, KafkaDeadLetters, KafkaSink, RecordKey};
use hyper::body::Bytes;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use RDKafkaRespErr::{
    RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED as CLUSTER_DENIED,
    RD_KAFKA_RESP_ERR_INVALID_RECORD as INVALID, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as TOO_LARGE,
    RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS as FEW_REPLICAS,
    RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION as NOT_LEADER,
    RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER as OUT_OF_ORDER,
    RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT as TIMED_OUT, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED as DENIED,
    RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as NO_TOPIC,
};

const TOPIC: &str = "dt.events";
const DEVICES: usize = 5;

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// A cluster with the topic, and a sink that writes to it.
struct Place {
    cluster: Cluster,
    telemetry: Arc<Telemetry>,
}

impl Place {
    fn new(brokers: i32, partitions: i32) -> Self {
        let cluster = MockCluster::new(brokers).expect("a mock cluster");
        cluster.create_topic(TOPIC, partitions, brokers.min(3)).expect("a topic");
        Self { cluster, telemetry: Arc::new(Telemetry::new(Arc::new(SystemClock))) }
    }

    fn config(&self) -> KafkaConfig {
        let mut config = KafkaConfig::new(self.cluster.bootstrap_servers(), TOPIC.parse().expect("a topic"));
        config.create_topic = None;
        config
    }

    fn reporter(&self) -> Arc<dyn SinkReporter> {
        self.telemetry.sink_reporter("kafka", KafkaSink::METRICS)
    }

    fn sink(&self, format: Format, timeout: DeliveryTimeout) -> KafkaSink {
        let mut sink = KafkaSink::new(self.config(), format, timeout, self.reporter());
        sink.open(None).expect("a good configuration");
        sink
    }

    /// How many producers were made anew.
    fn renewed(&self) -> u64 {
        let line = "dt_receiver_kafka_producers_renewed_total{sink=\"kafka\"} ";
        let text = self.telemetry.render();
        text.lines()
            .find_map(|found| found.strip_prefix(line))
            .map_or(0, |count| count.parse().expect("a number"))
    }

    /// The numbers of the events in the topic, in the order of their partitions.
    fn numbers(&self) -> Vec<Vec<usize>> {
        let number = |message: &Seen| message.value.parse().expect("a number");
        self.messages().iter().map(|partition| partition.iter().map(number).collect()).collect()
    }

    fn messages(&self) -> Vec<Vec<Seen>> {
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
struct Seen {
    key: Option<String>,
    value: String,
    headers: BTreeMap<String, String>,
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

fn record(number: usize) -> Arc<Record> {
    Arc::new(Record {
        connector: Arc::from("plant"),
        received_at: 1_700_000_000_123,
        verified_by: VerifiedBy::Secret { label: Arc::from("a") },
        event_id: format!("id{number}").into(),
        event_type: "touch".into(),
        project: Some("p".into()),
        device: Some(format!("d{}", number % DEVICES).into()),
        request_id: None,
        headers: KeptHeaders::default(),
        body: Bytes::from(number.to_string()),
    })
}

fn records(numbers: std::ops::Range<usize>) -> Vec<Arc<Record>> {
    numbers.map(record).collect()
}

/// Delivers as the worker does: what is pending or has to be tried again comes again. Gives what was rejected.
fn deliver_all(sink: &mut KafkaSink, records: &[Arc<Record>]) -> Vec<(String, String)> {
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
fn must_hold(partitions: &[Vec<usize>], numbers: std::ops::Range<usize>) {
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

#[test]
fn records_arrive_once_in_order_with_key_and_headers() {
    let place = Place::new(1, 3);
    let mut sink = place.sink(Format::Body, DeliveryTimeout::Unlimited);
    assert_eq!(deliver_all(&mut sink, &records(0..5000)), []);
    let partitions = place.messages();
    let all: Vec<&Seen> = partitions.iter().flatten().collect();
    assert_eq!(all.len(), 5000, "each once");
    for message in all {
        let number: usize = message.value.parse().expect("a number");
        assert_eq!(message.key, Some(format!("d{}", number % DEVICES)));
        let expected = [
            ("dt-connector", "plant".to_owned()),
            ("dt-event-id", format!("id{number}")),
            ("dt-event-type", "touch".to_owned()),
            ("dt-received-at", "2023-11-14T22:13:20.123Z".to_owned()),
        ];
        let expected = expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(message.headers, expected);
    }
    must_hold(&place.numbers(), 0..5000);
    assert_eq!(place.renewed(), 0);
}

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
fn cloudevents_are_in_binary_mode() {
    let place = Place::new(1, 1);
    let mut sink = place.sink(Format::CloudEvents, DeliveryTimeout::Unlimited);
    let body =
        r#"{"event":{"targetName":"projects/p/devices/d1","timestamp":"2021-05-16T08:13:15.361624Z"}}"#;
    let record = Arc::new(Record { body: Bytes::from(body), ..Record::clone(&record(1)) });
    deliver_all(&mut sink, &[record]);
    let message = &place.messages()[0][0];
    assert_eq!(message.value, body, "the received bytes");
    for (name, value) in [
        ("content-type", "application/json"),
        ("ce_specversion", "1.0"),
        ("ce_id", "id1"),
        ("ce_source", "//disruptive-technologies.com/projects/p"),
        ("ce_type", "com.disruptive-technologies.touch"),
        ("ce_subject", "projects/p/devices/d1"),
        ("ce_time", "2021-05-16T08:13:15.361624Z"),
    ] {
        assert_eq!(message.headers.get(name).map(String::as_str), Some(value), "{name}: {message:?}");
    }
}

#[test]
fn what_passes_by_itself_costs_nothing() {
    let place = Place::new(3, 2);
    let mut sink = place.sink(Format::Body, DeliveryTimeout::Unlimited);
    deliver_all(&mut sink, &records(0..10));
    place.cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[NOT_LEADER, FEW_REPLICAS, TIMED_OUT, NOT_LEADER, FEW_REPLICAS],
    );
    assert_eq!(deliver_all(&mut sink, &records(10..500)), []);
    must_hold(&place.numbers(), 0..500);
    assert_eq!(place.renewed(), 0, "librdkafka has seen to it");
}

#[test]
fn brokers_that_are_away_are_waited_for() {
    let place = Place::new(1, 1);
    let mut sink = place.sink(Format::Body, DeliveryTimeout::Unlimited);
    deliver_all(&mut sink, &records(0..10));
    place.cluster.broker_down(1).expect("down");
    let batch = records(10..300);
    let begun = Instant::now();
    let mut troubled = false;
    while begun.elapsed() < Duration::from_secs(4) {
        let fates = sink.deliver(&batch).fates;
        assert!(fates.iter().all(|fate| matches!(fate, Fate::Pending { .. })), "{fates:?}");
        troubled |= fates.iter().any(|fate| matches!(fate, Fate::Pending { last_error: Some(_) }));
    }
    assert!(troubled, "`/readyz` is told");
    place.cluster.broker_up(1).expect("up");
    assert_eq!(deliver_all(&mut sink, &batch), []);
    must_hold(&place.numbers(), 0..300);
}

#[test]
fn in_mode_direct_a_record_has_its_time_and_no_more() {
    let place = Place::new(1, 1);
    let mut sink = place.sink(Format::Body, DeliveryTimeout::After(Duration::from_millis(700)));
    deliver_all(&mut sink, &records(0..10));
    place.cluster.broker_down(1).expect("down");
    let (mut waiting, begun) = (records(10..20), Instant::now());
    while !waiting.is_empty() {
        // Their time may be over one after the other; whoever was told is not given again.
        let mut fates = sink.deliver(&waiting).fates.into_iter();
        waiting.retain(|_| match fates.next().expect("one fate each") {
            Fate::Pending { .. } => true,
            Fate::Retry { .. } => false,
            fate => panic!("{fate:?} without a broker"),
        });
        assert!(begun.elapsed() < Duration::from_secs(30), "{} still wait", waiting.len());
    }
    place.cluster.broker_up(1).expect("up");
    let again = records(10..20);
    deliver_all(&mut sink, &again);
    // Order is for what is delivered in its time; on a slow machine, that may be over for one of the first as well.
    let arrived: BTreeSet<usize> = place.numbers().into_iter().flatten().collect();
    assert_eq!(arrived, (0..20).collect());
}

#[test]
fn a_fatal_error_makes_a_new_producer_that_goes_on_where_the_old_one_was() {
    let place = Place::new(1, 2);
    let mut sink = place.sink(Format::Body, DeliveryTimeout::Unlimited);
    deliver_all(&mut sink, &records(0..10));
    place.cluster.request_errors(RDKafkaApiKey::Produce, &[OUT_OF_ORDER]);
    assert_eq!(deliver_all(&mut sink, &records(10..500)), []);
    must_hold(&place.numbers(), 0..500);
    assert!(place.renewed() >= 1);
}

#[test]
fn a_batch_that_is_refused_costs_no_innocent_record() {
    for refusal in [TOO_LARGE, INVALID] {
        let place = Place::new(1, 1);
        let mut sink = place.sink(Format::Body, DeliveryTimeout::Unlimited);
        deliver_all(&mut sink, &records(0..10));
        place.cluster.request_errors(RDKafkaApiKey::Produce, &[refusal]);
        assert_eq!(deliver_all(&mut sink, &records(10..60)), [], "{refusal:?}");
        must_hold(&place.numbers(), 0..60);
        assert!(place.renewed() >= 1);
    }
}

#[test]
fn what_is_refused_alone_is_rejected_with_kafkas_reason_and_nothing_else_is() {
    let place = Place::new(1, 1);
    let mut sink = place.sink(Format::Body, DeliveryTimeout::Unlimited);
    deliver_all(&mut sink, &records(0..10));
    // The batch, then the first record of it that is tried alone.
    place.cluster.request_errors(RDKafkaApiKey::Produce, &[TOO_LARGE, TOO_LARGE]);
    let rejected = deliver_all(&mut sink, &records(10..40));
    assert_eq!(rejected.len(), 1, "{rejected:?}");
    assert_eq!(rejected[0].0, "id10");
    assert!(
        rejected[0].1.contains("Message size too large") && rejected[0].1.contains(TOPIC),
        "{rejected:?}"
    );
    let left: Vec<usize> = place.numbers().into_iter().flatten().collect();
    assert_eq!(left, (0..10).chain(11..40).collect::<Vec<_>>(), "each once, in order");
}

#[test]
fn a_permission_that_is_missing_moves_nothing_to_the_dead_letters() {
    for (refusal, says) in [(DENIED, "ACL: WRITE"), (CLUSTER_DENIED, "IDEMPOTENT_WRITE")] {
        let place = Place::new(1, 1);
        let mut sink = place.sink(Format::Body, DeliveryTimeout::Unlimited);
        deliver_all(&mut sink, &records(0..10));
        place.cluster.request_errors(RDKafkaApiKey::Produce, &[refusal; 20]);
        let batch = records(10..100);
        let begun = Instant::now();
        let mut retried = false;
        while !retried {
            let fates = sink.deliver(&batch).fates;
            assert!(!fates.iter().any(|fate| matches!(fate, Fate::Rejected { .. })), "{fates:?}");
            retried = fates.iter().any(|f| matches!(f, Fate::Retry { error } if error.contains(says)));
            assert!(begun.elapsed() < Duration::from_secs(20), "{fates:?}");
        }
        place.cluster.clear_request_errors(RDKafkaApiKey::Produce);
        assert_eq!(deliver_all(&mut sink, &batch), []);
        must_hold(&place.numbers(), 0..100);
    }
}

#[test]
fn a_topic_that_is_missing_is_named_and_asked_for_again() {
    let place = Place::new(1, 1);
    place.cluster.topic_error(TOPIC, NO_TOPIC).expect("set");
    let mut sink = place.sink(Format::Body, DeliveryTimeout::Unlimited);
    let error = sink.check().expect_err("it is missing").to_string();
    assert!(error.contains("topic dt.events does not exist") && error.contains("`create_topic`"), "{error}");
    let batch = records(0..10);
    let fates = sink.deliver(&batch).fates;
    let says = |fate: &Fate| matches!(fate, Fate::Retry { error } if error.contains("does not exist"));
    assert!(fates.iter().all(says), "{fates:?}");
    place.cluster.topic_error(TOPIC, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).expect("set");
    assert_eq!(deliver_all(&mut sink, &batch), []);
    assert_eq!(sink.check(), Ok(()));
    must_hold(&place.numbers(), 0..10);
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

#[test]
fn a_dead_letter_is_in_the_topic_once_it_is_buried() {
    let place = Place::new(1, 1);
    let letters =
        KafkaDeadLetters::new(&place.config(), TOPIC.to_owned(), Duration::from_secs(5), place.reporter())
            .expect("made");
    let letter = DeadLetter::of_record(&record(7), Arc::from("archive"), "never".to_owned(), 3);
    letters.store(&letter).expect("stored");
    assert_eq!(letters.last_error(), None);
    let message = &place.messages()[0][0];
    assert_eq!((&*message.value, message.key.as_deref()), ("7", Some("id7")));
    for (name, value) in
        [("dt-reason", "rejected"), ("dt-sink", "archive"), ("dt-error", "never"), ("dt-attempts", "3")]
    {
        assert_eq!(message.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    place.cluster.request_errors(RDKafkaApiKey::Produce, &[DENIED; 20]);
    let letter = DeadLetter { reason: Reason::Unreadable, ..letter };
    let error = letters.store(&letter).expect_err("refused").to_string();
    assert!(error.contains("kafka:dt.events") && error.contains("ACL"), "{error}");
    assert_eq!(letters.last_error(), Some(error));
    place.cluster.clear_request_errors(RDKafkaApiKey::Produce);
    letters.store(&letter).expect("stored, now that it may be");
    assert_eq!(letters.last_error(), None);
    // A producer that ended does not end the letters.
    let letters =
        KafkaDeadLetters::new(&place.config(), TOPIC.to_owned(), Duration::from_secs(2), place.reporter());
    let letters = letters.expect("made");
    place.cluster.request_errors(RDKafkaApiKey::InitProducerId, &[CLUSTER_DENIED; 50]);
    letters.store(&letter).expect_err("it may not write");
    place.cluster.clear_request_errors(RDKafkaApiKey::InitProducerId);
    let begun = Instant::now();
    while letters.store(&letter).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", letters.last_error());
    }
}

/// As Kafka says it to a user who may describe the topic and not write: before any record is sent.
#[test]
fn a_user_who_may_not_write_at_all_is_told_so_and_not_asked_for_ever() {
    let place = Place::new(1, 1);
    place.cluster.request_errors(RDKafkaApiKey::InitProducerId, &[CLUSTER_DENIED; 100]);
    let mut sink = place.sink(Format::Body, DeliveryTimeout::Unlimited);
    let (batch, begun) = (records(0..10), Instant::now());
    loop {
        let fates = sink.deliver(&batch).fates;
        let says = |fate: &Fate| matches!(fate, Fate::Retry { error } if error.contains("ACL: WRITE"));
        if fates.iter().all(says) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{fates:?}");
    }
    assert!(place.renewed() <= 3, "{} producers were made anew", place.renewed());
    place.cluster.clear_request_errors(RDKafkaApiKey::InitProducerId);
    assert_eq!(deliver_all(&mut sink, &batch), []);
    must_hold(&place.numbers(), 0..10);
}

#[test]
fn a_topic_that_takes_no_record_without_a_key_is_at_fault_itself() {
    let place = Place::new(1, 1);
    let mut config = place.config();
    config.key = RecordKey::None;
    let mut sink = KafkaSink::new(config, Format::Body, DeliveryTimeout::Unlimited, place.reporter());
    sink.open(None).expect("a good configuration");
    deliver_all(&mut sink, &records(0..5));
    place.cluster.request_errors(RDKafkaApiKey::Produce, &[INVALID; 10]);
    let fates = sink.deliver(&records(5..10)).fates;
    let says = |fate: &Fate| matches!(fate, Fate::Retry { error } if error.contains("set `key`"));
    assert!(fates.iter().all(says), "{fates:?}");
}

/// Nothing of the device was acknowledged since the refusal, which must not keep what follows waiting for ever.
#[test]
fn a_device_goes_on_after_all_that_was_tried_alone_was_refused() {
    let place = Place::new(1, 1);
    let mut sink = place.sink(Format::Body, DeliveryTimeout::Unlimited);
    deliver_all(&mut sink, &records(0..5));
    // Once in its batch, once alone.
    let (refused, next) = ([record(5)], [record(6), record(5 + DEVICES)]);
    place.cluster.request_errors(RDKafkaApiKey::Produce, &[TOO_LARGE; 2]);
    assert_eq!(deliver_all(&mut sink, &refused).len(), 1);
    assert_eq!(deliver_all(&mut sink, &next), []);
}

#[test]
fn a_limit_that_refuses_every_record_stops_the_stream_before_it_is_all_set_aside() {
    let place = Place::new(1, 1);
    let mut sink = place.sink(Format::Body, DeliveryTimeout::Unlimited);
    deliver_all(&mut sink, &records(0..5));
    place.cluster.request_errors(RDKafkaApiKey::Produce, &[TOO_LARGE; 3000]);
    let (mut window, mut rejected, begun) = (records(5..1500), 0, Instant::now());
    let held = loop {
        let mut fates = sink.deliver(&window).fates.into_iter();
        let mut held = None;
        window.retain(|_| match fates.next() {
            Some(Fate::Rejected { .. }) => {
                rejected += 1;
                false
            }
            Some(Fate::Retry { error }) => {
                held = Some(error);
                true
            }
            _ => true,
        });
        if let Some(held) = held {
            break held;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{rejected} rejected");
    };
    assert_eq!(rejected, 1000);
    assert!(held.contains("check the topic"), "{held}");
    place.cluster.clear_request_errors(RDKafkaApiKey::Produce);
    assert_eq!(deliver_all(&mut sink, &window), []);
}

/// A small generator of random numbers (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % limit).expect("small")
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// Faults at random, each while records are on their way. Only a refusal of a record alone may cost it, so that those are
/// told apart by how often they come.
#[test]
fn whatever_fails_nothing_is_lost_and_devices_keep_their_order() {
    let seed = setting("DT_RECEIVER_TEST_SEED", u64::from(std::process::id()) << 20 | 1);
    println!("DT_RECEIVER_TEST_SEED={seed}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let faults = setting("DT_RECEIVER_TEST_KAFKA_FAULTS", 30);
    let place = Place::new(3, 4);
    let mut sink = place.sink(Format::Body, DeliveryTimeout::Unlimited);
    let mut next = 0;
    for _fault in 0..faults {
        let some = 1 + random.below(300);
        let batch = records(next..next + some);
        next += some;
        let down = 1 + i32::try_from(random.below(3)).expect("small");
        match random.below(6) {
            0 => place.cluster.request_errors(RDKafkaApiKey::Produce, &[OUT_OF_ORDER]),
            1 => place.cluster.request_errors(RDKafkaApiKey::Produce, &[TOO_LARGE]),
            2 => place.cluster.request_errors(RDKafkaApiKey::Produce, &[DENIED]),
            3 => place.cluster.request_errors(RDKafkaApiKey::Produce, &[NOT_LEADER, TIMED_OUT]),
            4 => place.cluster.request_errors(RDKafkaApiKey::Produce, &[INVALID]),
            _ => place.cluster.broker_down(down).expect("down"),
        }
        // Some of it is on its way when the brokers come back.
        sink.deliver(&batch);
        (1..=3).for_each(|broker| place.cluster.broker_up(broker).expect("up"));
        let rejected = deliver_all(&mut sink, &batch);
        assert_eq!(rejected, [], "each was refused in company only");
        place.cluster.clear_request_errors(RDKafkaApiKey::Produce);
    }
    must_hold(&place.numbers(), 0..next);
    println!("{faults} faults, {} producers made anew, {next} records", place.renewed());
}
