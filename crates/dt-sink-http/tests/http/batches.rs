//! Several events in one request: how they are joined, how a rejected batch is halved, and that order holds.

use std::collections::BTreeSet;

use dt_sink::{Fate, Format, Sink};

use crate::driver::{Driver, Files, config, error_of, id_of, is_rejected, is_retry, record, records};
use crate::target::{Reply, Target};

const LINES: &str = "batch = { format = 'ndjson', max_events = 100 }";

fn ids(body: &str) -> Vec<&str> {
    body.lines().map(id_of).collect()
}

#[test]
fn events_share_a_request_in_the_order_of_their_device() {
    let target = Target::start(|_| Reply::Status(200));
    let mut driver = Driver::new(&target.url(), LINES);
    let fates = driver.deliver(&records(7, 50));
    assert!(fates.iter().all(|fate| *fate == Fate::Delivered));
    let arrived = target.take();
    assert_eq!(arrived.len(), 4, "100, 100, 100 and 50 events");
    let mut all: Vec<&str> = Vec::new();
    for request in &arrived {
        assert_eq!(request.header("content-type"), "application/x-ndjson");
        all.extend(ids(&request.body));
    }
    assert_eq!(all.len(), 350);
    for device in 0..7 {
        let of_device: Vec<&str> =
            all.iter().copied().filter(|id| id.starts_with(&format!("dev{device}-"))).collect();
        assert_eq!(of_device, (0..50).map(|number| format!("dev{device}-{number}")).collect::<Vec<_>>());
    }
    let keys: BTreeSet<&str> = arrived.iter().map(|arrived| arrived.header("idempotency-key")).collect();
    assert_eq!(keys.len(), 4);
}

#[test]
fn an_array_holds_all_events_as_json() {
    let target = Target::start(|_| Reply::Status(200));
    let batch = "batch = { format = 'json-array' }";
    for (format, content_type) in [
        (Format::Body, "application/json"),
        (Format::Envelope, "application/json"),
        (Format::CloudEvents, "application/cloudevents-batch+json"),
    ] {
        let keys = format!("url = '{}'\n{batch}", target.url());
        let mut driver = Driver::with(config(&keys, &Files::default()), format);
        driver.deliver(&records(3, 2));
        let arrived = target.take();
        let [request] = &arrived[..] else { panic!("{arrived:?}") };
        let events: Vec<serde_json::Value> = serde_json::from_str(&request.body).expect("an array");
        assert_eq!((events.len(), request.header("content-type")), (6, content_type));
    }
}

#[test]
fn of_a_rejected_batch_only_the_events_at_fault_are_rejected() {
    let target = Target::start(|arrived| {
        let has_bad = ids(&arrived.body).iter().any(|id| ["dev0-3", "dev2-1", "dev2-2"].contains(id));
        Reply::Status(if has_bad { 400 } else { 200 })
    });
    let mut driver = Driver::new(&target.url(), LINES);
    let batch = records(4, 16);
    let fates = driver.deliver(&batch);
    for (record, fate) in batch.iter().zip(&fates) {
        let is_bad = ["dev0-3", "dev2-1", "dev2-2"].contains(&&*record.event_id);
        assert_eq!(is_rejected(fate), is_bad, "{} {fate:?}", record.event_id);
        assert_eq!(*fate == Fate::Delivered, !is_bad, "{} {fate:?}", record.event_id);
    }
    let arrived = target.take();
    assert!(arrived.len() < 40, "{} requests for 64 events, 3 of them bad", arrived.len());
    // What was accepted: each once, in order.
    let accepted: Vec<String> = arrived
        .iter()
        .map(|arrived| ids(&arrived.body))
        .filter(|ids| !ids.iter().any(|id| ["dev0-3", "dev2-1", "dev2-2"].contains(id)))
        .flat_map(|ids| ids.into_iter().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let once: BTreeSet<&String> = accepted.iter().collect();
    assert_eq!((accepted.len(), once.len()), (61, 61));
    for device in 0..4 {
        let prefix = format!("dev{device}-");
        let numbers: Vec<usize> = accepted
            .iter()
            .filter_map(|id| id.strip_prefix(&prefix))
            .map(|n| n.parse().expect("a number"))
            .collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
}

#[test]
fn a_target_that_rejects_every_batch_gets_ten_events_rejected() {
    let target = Target::start(|_| Reply::Status(413));
    let mut driver = Driver::new(&target.url(), LINES);
    let fates = driver.deliver(&records(50, 10));
    assert_eq!(fates.iter().filter(|fate| is_rejected(fate)).count(), 10);
    assert_eq!(fates.iter().filter(|fate| is_retry(fate)).count(), 490);
    // Then events are sent alone, until one is accepted.
    target.take();
    driver.deliver(&records(50, 10));
    assert!(target.bodies().iter().all(|body| body.lines().count() == 1));
    target.set(|_| Reply::Status(200));
    assert!(driver.insist(&records(50, 10)).iter().all(Option::is_none));
    assert!(target.bodies().iter().any(|body| body.lines().count() == 100));
}

#[test]
fn a_failure_amid_a_rejected_batch_leaves_the_rest_in_order() {
    // The whole batch is rejected, its first half accepted, and then the target is busy.
    let mut answers = [422, 200, 503].into_iter();
    let target = Target::start(move |_| Reply::Status(answers.next().unwrap_or(200)));
    let mut driver = Driver::new(&target.url(), LINES);
    let batch = records(1, 10);
    let fates = driver.deliver(&batch);
    assert!(fates[..5].iter().all(|fate| *fate == Fate::Delivered), "{fates:?}");
    assert!(fates[5..].iter().all(is_retry), "{fates:?}");
    assert!(driver.insist(&batch[5..]).iter().all(Option::is_none));
    let bodies = target.bodies();
    assert_eq!(ids(&bodies[3]), (5..10).map(|number| format!("dev0-{number}")).collect::<Vec<_>>());
}

#[test]
fn the_largest_batch_suffices_for_all_requests() {
    let url = "http://127.0.0.1:1/";
    assert_eq!(Driver::new(url, "concurrency = 1").sink.max_batch(), 16);
    assert_eq!(Driver::new(url, "").sink.max_batch(), 512);
    assert_eq!(Driver::new(url, "concurrency = 1024").sink.max_batch(), 1024);
    assert_eq!(Driver::new(url, LINES).sink.max_batch(), 1024);
    assert_eq!(Driver::new(url, "batch = { format = 'ndjson', max_events = 1000 }").sink.max_batch(), 4000);
    let mut driver = Driver::new(url, "");
    assert!(is_retry(&driver.deliver_one(record("a", 1))));
}

/// The engine logs an error that differs from the last one.
#[test]
fn a_target_that_fails_has_one_text_however_many_events_wait() {
    let target = Target::start(|_| Reply::With(500, None, "text".to_owned()));
    let mut driver = Driver::new(&target.url(), LINES);
    let texts: BTreeSet<String> =
        [1, 2, 7, 40].map(|each| error_of(&driver.deliver(&records(3, each))[0]).to_owned()).into();
    let expected =
        format!("http://{}: status 500 Internal Server Error, for event dev0-0 of dev0", target.address);
    assert_eq!(texts, BTreeSet::from([expected]));
}
