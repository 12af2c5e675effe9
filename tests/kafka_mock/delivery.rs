//! Records that arrive, and brokers that are away for a while.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dt_receiver::record::{Format, Record};
use dt_receiver::sink::{Fate, Sink};
use dt_sink_kafka::DeliveryTimeout;
use hyper::body::Bytes;
use rdkafka::types::RDKafkaApiKey;

use crate::cluster::{DEVICES, Place, Seen, deliver_all, must_hold, record, records};
use crate::errors::{FEW_REPLICAS, NOT_LEADER, OUT_OF_ORDER, TIMED_OUT};

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
        // Their timeouts may end one after the other; a record with a result is not delivered again.
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
