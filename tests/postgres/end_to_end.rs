//! Events over HTTP, through the spool, into the tables, read back by `psql`: every event once, byte for byte, and in the order
//! of its device at any moment.
//!
//! 5,000 events; `DT_RECEIVER_TEST_POSTGRES_EVENTS` sets the full count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::events::{body, id, parse_id, setting};
use crate::load::{Ledger, Load};
use crate::server::{Server, shared};
use crate::setup::Setup;

const DEVICES: u64 = 32;

/// The rows are what was acknowledged: each event once, its body byte for byte, and one sample each.
pub(crate) fn assert_exact(server: &Server, database: &str, ledger: &Ledger) {
    let mut seen = BTreeSet::new();
    for line in server.rows(database, "SELECT event_id, device, convert_from(body, 'UTF8') FROM dt_events") {
        let mut columns = line.splitn(3, '|');
        let (Some(event_id), Some(device), Some(text)) = (columns.next(), columns.next(), columns.next())
        else {
            panic!("no row: {line}")
        };
        let (number_of_device, number) =
            parse_id(event_id).unwrap_or_else(|| panic!("no event of ours: {line}"));
        assert_eq!(text, body(number_of_device, number));
        assert_eq!((device, event_id), (&*format!("dev{number_of_device}"), &*id(number_of_device, number)));
        assert!(seen.insert((number_of_device, number)), "{event_id} is there twice");
    }
    let lost: Vec<_> = ledger.accepted.difference(&seen).collect();
    assert!(lost.is_empty(), "{} acknowledged events are lost: {lost:?}", lost.len());
    assert_samples(server, database, &seen);
    let latest: BTreeMap<u64, u64> = seen.into_iter().collect();
    let latest: Vec<String> = latest
        .into_iter()
        .map(|(device, number)| format!("dev{device}|{number}|{}", id(device, number)))
        .collect();
    let states = "SELECT device, value, event_id FROM dt_devices ORDER BY substr(device, 4)::int";
    assert_eq!(server.rows(database, states), latest, "the latest state of each device");
}

/// Each event has its two samples: the number of the event at its time, and -1.5 a minute before it.
fn assert_samples(server: &Server, database: &str, events: &BTreeSet<(u64, u64)>) {
    let samples = "SELECT event_id, device, quantity, unit, extract(epoch FROM time)::bigint, value, text FROM dt_samples";
    let mut found = server.rows(database, samples);
    found.sort_unstable();
    let mut expected: Vec<String> = events
        .iter()
        .flat_map(|(device, number)| {
            let (id, time) = (id(*device, *number), 1_700_000_000 + 120 * number);
            let sample = |time: u64, value: &str| format!("{id}|dev{device}|temperature|°C|{time}|{value}|");
            [sample(time - 60, "-1.5"), sample(time, &number.to_string())]
        })
        .collect();
    expected.sort_unstable();
    let odd = found.iter().zip(&expected).find(|(found, expected)| found != expected);
    assert!(odd.is_none() && found.len() == expected.len(), "{} samples: {odd:?}", found.len());
}

/// Reads the events of each device, as one moment shows them, until `end`: they must be the first ones that were sent.
fn watch_order(server: &Server, database: &str, end: &AtomicBool) -> usize {
    let mut looks = 0;
    while !end.load(Ordering::Relaxed) {
        let sql = "SELECT device, count(*), max(substr(event_id, 8, 8)::int) FROM dt_events GROUP BY device";
        let output = server.try_psql(database, sql);
        // The tables may not be there yet.
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let columns: Vec<&str> = line.split('|').collect();
            let (count, last): (u64, u64) =
                (columns[1].parse().expect("a number"), columns[2].parse().expect("a number"));
            assert_eq!(count, last + 1, "an event of {} is there before an earlier one", columns[0]);
            looks += 1;
        }
    }
    looks
}

#[test]
fn every_event_is_there_once_as_it_was_sent_and_in_order() {
    let Some(server) = shared("events from end to end") else { return };
    let events = setting("DT_RECEIVER_TEST_POSTGRES_EVENTS", 5_000);
    let database = server.database();
    let setup = Setup::new("", &server.url(&database), "");
    let receiver = setup.start();
    let (begun, end) = (Instant::now(), AtomicBool::new(false));
    let (ledger, looks) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch_order(server, &database, &end));
        let ledger = Load::of(receiver.listen, 0..DEVICES, events.div_ceil(DEVICES)).send();
        receiver.drain();
        end.store(true, Ordering::Relaxed);
        (ledger, watching.join().expect("the order holds"))
    });
    let took = begun.elapsed();
    assert!(looks > 0);
    receiver.stop();
    assert_exact(server, &database, &ledger);
    assert!(setup.dead_letters().is_empty());
    println!("{} events in {took:?}, each once and in order ({looks} looks)", ledger.count());
}

#[test]
fn two_connectors_and_two_sinks_store_an_event_once() {
    let Some(server) = shared("two connectors of one project") else { return };
    let database = server.database();
    let sink = "[[sink]]\nname = 'again'\ntype = 'postgres'\nurl = { env = 'DT_RECEIVER_TEST_SINK_SECRET' }\n\
                [[connector]]\nname = 'other'\npath = '/other'\nsecrets = [{ env = 'DT_SIGNATURE_SECRET' }]";
    let setup = Setup::new("", &server.url(&database), sink);
    let receiver = setup.start();
    for number in 0..50 {
        let body = body(1, number);
        for path in ["/", "/other"] {
            let mut sender = crate::sender::Sender::connect(receiver.listen).expect("it listens");
            let token = crate::events::token(&body, crate::events::now());
            assert_eq!(sender.post(path, &body, &token).expect("an answer").status, 200);
        }
    }
    receiver.drain();
    // Four deliveries of each event: two connectors to two sinks, which also made the tables at the same time.
    assert_eq!(receiver.duplicates(), 150);
    receiver.stop();
    assert_eq!(server.psql(&database, "SELECT count(*) FROM dt_events"), "50");
    assert_eq!(server.psql(&database, "SELECT count(*) FROM dt_samples"), "100");
    assert_eq!(server.psql(&database, "SELECT count(*), max(version) FROM dt_schema"), "1|1");
}
