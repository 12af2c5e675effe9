//! A sink that is down while events keep coming: all are acknowledged, memory stays flat, and afterwards everything is
//! delivered in order, fast.
//!
//! 5 s at 500 events/s; `DT_RECEIVER_TEST_OUTAGE_SECONDS` and `DT_RECEIVER_TEST_OUTAGE_RATE` set the full length.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::child;
use crate::events::{parse_id, setting};
use crate::sender::{Sender, readiness};
use crate::server::{Place, Sinks};

const CONNECTIONS: u64 = 32;

/// Resident memory of a process, in KiB.
fn rss(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("in every status");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
}

fn lines(path: &Path) -> u64 {
    fs::read(path).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count() as u64)
}

#[test]
fn a_sink_that_is_down_costs_nothing_but_disk() {
    let seconds = setting("DT_RECEIVER_TEST_OUTAGE_SECONDS", 5);
    let rate = setting("DT_RECEIVER_TEST_OUTAGE_RATE", 500);
    let total = seconds * rate;
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), Sinks::File, "drain_timeout = '600s'");
    let (ids, outage) = (folder.path().join("ids.txt"), folder.path().join("outage"));
    fs::write(&outage, "").expect("written");
    let server = child::start(&place, &ids, 0, &outage);
    let (address, pid) = (server.listen, server.pid());
    let before = rss(pid);
    let most = AtomicU64::new(before);
    let (begun, slowest) = (Instant::now(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (slowest, most) = (&slowest, &most);
            scope.spawn(move || {
                let mut sender = Sender::connect(address).expect("connected");
                for (number, planned) in (0..).zip((connection..total).step_by(32)) {
                    // An open loop: each event has its moment, however long the last one took.
                    let due = Duration::from_micros(planned * 1_000_000 / rate);
                    std::thread::sleep(due.saturating_sub(begun.elapsed()));
                    let sent = Instant::now();
                    let answer = sender.send(connection, number).expect("an answer");
                    assert_eq!(answer.status, 200, "{answer:?}");
                    let took = u64::try_from(sent.elapsed().as_millis()).expect("short");
                    slowest.fetch_max(took, Ordering::Relaxed);
                    if connection == 0 && number % 64 == 0 {
                        most.fetch_max(rss(pid), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (sending, at_end) = (begun.elapsed(), rss(pid));
    assert_eq!(lines(&ids), 0, "it was down");
    let said = readiness(server.admin);
    assert!(said.contains("sink test: down"), "{said}");
    // Up again. The stop drains what is there, so that its end is the end of the drain.
    fs::remove_file(&outage).expect("removed");
    let drained = Instant::now();
    // New events are acknowledged meanwhile.
    let mut sender = Sender::connect(address).expect("connected");
    let (mut more, mut delivered, mut first) = (0, 0, None);
    while delivered < total {
        assert_eq!(sender.send(CONNECTIONS, more).expect("an answer").status, 200);
        more += 1;
        if more % 64 == 0 || total < 10_000 {
            delivered = lines(&ids);
        }
        if delivered > 0 && first.is_none() {
            first = Some((Instant::now(), delivered));
        }
        assert!(drained.elapsed() < Duration::from_secs(600), "{delivered} of {total} after 10 minutes");
    }
    let (began, of_first) = first.expect("something was delivered");
    let drain = began.elapsed();
    let after = rss(pid);
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for line in fs::read_to_string(&ids).expect("ids").lines() {
        let (device, number) = parse_id(line).expect("an id");
        let next = next.entry(device).or_default();
        assert_eq!(number, *next, "dev{device}");
        *next += 1;
    }
    assert_eq!(next.values().sum::<u64>(), total + more, "each once, and none lost");
    assert_eq!(place.events_in_file().len() as u64, total + more, "the other sink has them as well");
    println!(
        "{total} events in {sending:?} with a sink down, slowest answer {} ms; {} in {drain:?} after ({:.0}/s), {more} new ones \
         acknowledged meanwhile; RSS {before} KiB at the start, {} at most, {at_end} at the end of the outage, {after} after the drain",
        slowest.load(Ordering::Relaxed),
        total.saturating_sub(of_first),
        total.saturating_sub(of_first) as f64 / drain.as_secs_f64(),
        most.load(Ordering::Relaxed),
    );
}
