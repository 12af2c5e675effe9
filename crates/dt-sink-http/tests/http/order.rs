//! Order and concurrency: one request of a device at a time, several devices at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use dt_sink::{Fate, Record, Sink};

use crate::driver::{Driver, error_of, id_of, is_retry, record, records, until};
use crate::target::{Reply, Target};

/// Sorts ids such as `dev3-17` by device, in the order of arrival.
fn by_device(bodies: &[String]) -> BTreeMap<String, Vec<usize>> {
    let mut devices: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for body in bodies {
        let (device, number) = id_of(body).rsplit_once('-').expect("an id");
        devices.entry(device.to_owned()).or_default().push(number.parse().expect("a number"));
    }
    devices
}

#[test]
fn events_of_a_device_arrive_in_order_and_devices_at_once() {
    // The later events are answered sooner, so that two of a device at a time would change places.
    let target = Target::start(|arrived| {
        let number: u64 = id_of(&arrived.body).rsplit_once('-').expect("an id").1.parse().expect("a number");
        Reply::Late(std::time::Duration::from_millis(4 - number % 4), 200)
    });
    let mut driver = Driver::new(&target.url(), "concurrency = 8");
    let fates = driver.deliver(&records(20, 30));
    assert!(fates.iter().all(|fate| *fate == Fate::Delivered));
    let arrived = by_device(&target.bodies());
    assert_eq!(arrived.len(), 20);
    assert!(arrived.values().all(|numbers| *numbers == (0..30).collect::<Vec<_>>()), "{arrived:?}");
    let most = target.most_in_flight();
    assert!((2..=8).contains(&most), "{most}");
}

#[test]
fn one_device_has_one_request_at_a_time_and_so_have_those_without_a_device() {
    let target = Target::start(|_| Reply::Late(std::time::Duration::from_millis(1), 200));
    let mut driver = Driver::new(&target.url(), "concurrency = 32");
    let of_one = records(1, 30);
    let without: Vec<_> = (0..30)
        .map(|number| Arc::new(Record { device: None, ..(*record("none", number)).clone() }))
        .collect();
    for batch in [&of_one, &without] {
        driver.deliver(batch);
        let expected: Vec<String> =
            batch.iter().map(|record| String::from_utf8(record.body.to_vec()).expect("text")).collect();
        assert_eq!(target.bodies(), expected);
        assert_eq!(target.most_in_flight(), 1);
    }
}

#[test]
fn after_an_event_that_failed_the_later_ones_of_its_device_wait() {
    let target =
        Target::start(
            |arrived| if id_of(&arrived.body) == "dev1-3" { Reply::Status(500) } else { Reply::Status(200) },
        );
    let mut driver = Driver::new(&target.url(), "");
    let batch = records(4, 10);
    let fates = driver.deliver(&batch);
    for (record, fate) in batch.iter().zip(&fates) {
        let (device, number) = record.event_id.rsplit_once('-').expect("an id");
        let waits = device == "dev1" && number.parse::<usize>().expect("a number") >= 3;
        assert_eq!(is_retry(fate), waits, "{} {fate:?}", record.event_id);
        assert_eq!(*fate == Fate::Delivered, !waits, "{} {fate:?}", record.event_id);
    }
    let arrived = by_device(&target.bodies());
    assert_eq!(arrived["dev1"], [0, 1, 2, 3], "none is sent after the one that failed");
    assert!(arrived.iter().filter(|(device, _)| *device != "dev1").all(|(_, numbers)| numbers.len() == 10));
}

#[test]
fn with_a_target_that_fails_everything_few_requests_are_made() {
    let target = Target::start(|_| Reply::Status(500));
    let mut driver = Driver::new(&target.url(), "concurrency = 2");
    let fates = driver.deliver(&records(100, 2));
    assert!(fates.iter().all(is_retry));
    let count = target.take().len();
    assert!((10..=12).contains(&count), "{count}");
    // A status that shows that the target is misconfigured ends the attempt at once.
    target.set(|_| Reply::Status(404));
    let fates = driver.deliver(&records(100, 2));
    assert!(fates.iter().all(is_retry));
    let count = target.take().len();
    assert!((1..=2).contains(&count), "{count}");
}

#[test]
fn a_slow_event_holds_up_no_other_device_and_is_sent_once() {
    let target = Target::start(|arrived| {
        if id_of(&arrived.body).starts_with("slow") { Reply::Held(200) } else { Reply::Status(200) }
    });
    let mut driver = Driver::new(&target.url(), "concurrency = 4");
    let mut batch = vec![record("slow", 0), record("slow", 1)];
    batch.extend(records(2, 3));
    let mut done = BTreeSet::new();
    let left = Mutex::new(batch.clone());
    let mut turn = |driver: &mut Driver| {
        let given = left.lock().unwrap().clone();
        let fates = driver.sink.deliver(&given).fates;
        let mut still = Vec::new();
        for (record, fate) in given.into_iter().zip(fates) {
            match fate {
                Fate::Delivered => drop(done.insert(record.event_id.to_string())),
                Fate::Pending { .. } => still.push(record),
                other => panic!("{other:?}"),
            }
        }
        *left.lock().unwrap() = still;
        done.len()
    };
    while turn(&mut driver) < 6 {}
    // The engine adds further records of the slow device, which wait for the first one.
    left.lock().unwrap().push(record("slow", 2));
    for _ in 0..2 {
        assert_eq!(turn(&mut driver), 6);
    }
    target.release();
    while turn(&mut driver) < 9 {}
    let arrived = by_device(&target.bodies());
    assert_eq!(arrived["slow"], [0, 1, 2], "once each, in order");
    assert_eq!(arrived.values().map(Vec::len).sum::<usize>(), 9);
}

#[test]
fn requests_in_flight_are_done_before_the_engine_pauses() {
    let target = Target::start(|arrived| match id_of(&arrived.body) {
        "a-0" => Reply::Held(200),
        "b-0" => Reply::Status(401),
        _ => Reply::Status(200),
    });
    let mut driver = Driver::new(&target.url(), "concurrency = 2");
    let releasing = std::thread::scope(|scope| {
        scope.spawn(|| {
            until("both have arrived", || target.most_in_flight() >= 1 && target.connections() >= 2);
            target.release();
        });
        driver.deliver(&[record("a", 0), record("b", 0), record("c", 0)])
    });
    assert_eq!(releasing[0], Fate::Delivered);
    assert!(is_retry(&releasing[1]) && is_retry(&releasing[2]), "{releasing:?}");
    assert_eq!(error_of(&releasing[1]), error_of(&releasing[2]));
    assert_eq!(target.take().len(), 2, "none is started after the failure");
}

#[test]
fn a_sink_that_is_opened_again_sends_again_what_was_in_flight() {
    let target = Target::start(|_| Reply::Held(200));
    let mut driver = Driver::new(&target.url(), "");
    let batch = [record("a", 0)];
    while target.most_in_flight() == 0 {
        assert_eq!(driver.sink.deliver(&batch).fates, [Fate::Pending { last_error: None }]);
    }
    driver.sink.close();
    assert!(is_retry(&driver.sink.deliver(&batch).fates[0]), "it is closed");
    driver.sink.open(None).expect("opens");
    target.release();
    assert_eq!(driver.deliver(&batch), [Fate::Delivered]);
    assert_eq!(target.take().len(), 2);
}

#[test]
fn records_that_the_engine_adds_one_by_one_are_gathered_for_requests_at_once() {
    let target = Target::start(|_| Reply::Late(std::time::Duration::from_millis(20), 200));
    let mut driver = Driver::new(&target.url(), "concurrency = 8");
    // As the engine does after an outage in which each record had a group of its own.
    let mut log = records(40, 5).into_iter();
    let (mut batch, mut calls) = (Vec::new(), 0);
    loop {
        batch.extend(log.next().filter(|_| batch.len() < driver.sink.max_batch()));
        if batch.is_empty() {
            break;
        }
        let fates = driver.sink.deliver(&batch).fates;
        let mut fates = fates.into_iter();
        batch.retain(|_| !matches!(fates.next(), Some(Fate::Delivered)));
        calls += 1;
    }
    assert_eq!(target.most_in_flight(), 8, "{calls} calls");
    assert_eq!(target.take().len(), 200);
}
