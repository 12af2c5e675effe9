//! Records, batches and users that the cluster refuses.

use std::time::{Duration, Instant};

use dt_receiver::record::Format;
use dt_receiver::sink::{Fate, Sink};
use dt_sink_kafka::{DeliveryTimeout, KafkaSink, RecordKey};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::cluster::{DEVICES, Place, TOPIC, deliver_all, must_hold, record, records};
use crate::errors::{CLUSTER_DENIED, DENIED, INVALID, NO_TOPIC, TOO_LARGE};

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
