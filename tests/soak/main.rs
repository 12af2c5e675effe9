//! A long day in a short time: what 10,000 sensors send in 10 hours, over TLS, while the configuration is reloaded and the
//! certificate replaced again and again. Nobody who sends properly may notice, and nothing may grow.
//!
//! 15 s at 667 events/s; `DT_RECEIVER_TEST_SOAK_SECONDS` sets the length (1200 is the full one) and
//! `DT_RECEIVER_TEST_SOAK_RATE` the rate. A sensor sends its value and a `networkStatus` every 15 minutes: 800,000 events in
//! 10 hours.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test may fail loudly, and tells its figures"
)]

#[path = "../tls/authority.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod authority;
#[path = "../tls/client.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod client;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/events.rs"]
mod events;
mod gauge;
#[path = "../common/sender.rs"]
mod sender;
mod unrest;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustls::ClientConfig;

use crate::authority::Authority;
use crate::client::{Client, trusting};
use crate::common::Receiver;
use crate::events::{parse_id, setting};
use crate::gauge::Gauges;
use crate::unrest::Place;

const CONNECTIONS: u64 = 32;
const DEVICES: u64 = 10_000;
/// After so many events a connection is closed and another one made: with whatever certificate there is then.
const EVENTS_PER_CONNECTION: u64 = 100;
/// How long after the last event everything has to be delivered.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the senders saw.
struct Seen {
    /// From the planned moment of an event to its answer, in microseconds.
    latency: Histogram<u64>,
    /// The certificates that the server showed.
    certificates: BTreeSet<Vec<u8>>,
}

/// The events of one connection after the other, each at its moment. Every one has to be answered with 200.
fn send(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    place: u64,
    total: u64,
    rate: u64,
    begun: Instant,
) -> Seen {
    let connect = || Client::connect(address, config).expect("a handshake");
    let mut seen = Seen { latency: Histogram::new(3).expect("a histogram"), certificates: BTreeSet::new() };
    let (mut client, mut used, devices) = (connect(), 0, DEVICES / CONNECTIONS);
    for (count, planned) in (0..).zip((place..total).step_by(usize::try_from(CONNECTIONS).expect("small"))) {
        let due = Duration::from_micros(planned * 1_000_000 / rate);
        // An open loop: each event has its moment, however long the last one took.
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        if used == EVENTS_PER_CONNECTION {
            (client, used) = (connect(), 0);
        }
        if used == 0 {
            seen.certificates.insert(client.certificate().to_vec());
        }
        used += 1;
        let (device, number) = (place * devices + count % devices, count / devices);
        assert_eq!(client.send(device, number), Ok(200), "dev{device}, {number}");
        let took = begun.elapsed().saturating_sub(due).as_micros();
        seen.latency.record(u64::try_from(took).expect("short")).expect("in range");
    }
    seen
}

/// Does something again and again, until it is over. Gives how often.
fn every(pause: Duration, over: &AtomicBool, act: impl Fn(u64)) -> u64 {
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(pause);
        count += 1;
        act(count);
    }
    count
}

#[test]
fn ten_thousand_sensors_for_ten_hours() {
    let seconds = setting("DT_RECEIVER_TEST_SOAK_SECONDS", 15);
    let rate = setting("DT_RECEIVER_TEST_SOAK_RATE", 667);
    let total = seconds * rate;
    // A short run has its reloads and its certificates as well.
    let (reload_every, swap_every) = match seconds {
        0..120 => (Duration::from_secs(2), Duration::from_secs(3)),
        _ => (Duration::from_secs(5), Duration::from_secs(30)),
    };
    let authority = Authority::new();
    let place = Place::new(&authority);
    let receiver =
        Receiver::start(["--watch", "300ms", "--config", place.config.to_str().expect("text")], &[]);
    let (address, config) = (receiver.listen, trusting(&authority, None));
    let (begun, over) = (Instant::now(), AtomicBool::new(false));
    let gauges = Mutex::new(Gauges::new(receiver.pid(), receiver.admin));
    let (mut latency, mut certificates) = (Histogram::<u64>::new(3).expect("a histogram"), BTreeSet::new());
    let (reloads, swaps) = std::thread::scope(|scope| {
        let (over, receiver, place, authority, gauges) = (&over, &receiver, &place, &authority, &gauges);
        let reloading = scope.spawn(move || {
            every(reload_every, over, |count| {
                place.change(count);
                // Every other change is found by the receiver itself.
                if count.is_multiple_of(2) {
                    receiver.signal("HUP");
                }
            })
        });
        let swapping = scope.spawn(move || every(swap_every, over, |_| place.replace_certificate(authority)));
        scope.spawn(move || every(Duration::from_secs(1), over, |_| gauges.lock().expect("whole").look()));
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                scope.spawn({
                    let config = &config;
                    move || send(address, config, connection, total, rate, begun)
                })
            })
            .collect();
        let seen: Vec<_> = senders.into_iter().map(|sender| sender.join()).collect();
        over.store(true, Ordering::Relaxed);
        for seen in seen {
            let seen = seen.expect("a sender that did not fail");
            latency.add(seen.latency).expect("alike");
            certificates.extend(seen.certificates);
        }
        (reloading.join().expect("it ends"), swapping.join().expect("it ends"))
    });
    let sending = begun.elapsed();
    let mut gauges = gauges.into_inner().expect("whole");
    gauges.wait_until_drained(PATIENCE);
    let (taken, refused) = gauges.reloads();
    let percentile = |percent: f64| Duration::from_micros(latency.value_at_percentile(percent));
    println!(
        "{total} events in {sending:.1?}: p50 {:?}, p99 {:?}, p99.9 {:?}, slowest {:?}",
        percentile(50.0),
        percentile(99.0),
        percentile(99.9),
        percentile(100.0)
    );
    println!(
        "{reloads} changes: {taken} reloads, {refused} refused; {swaps} certificates, {} seen",
        certificates.len()
    );
    println!("{gauges}");
    let ended = receiver.stop();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    // Each event once, in the order of its device.
    let content = fs::read_to_string(&place.file).expect("the file of the sink");
    let mut next = vec![0; usize::try_from(DEVICES).expect("small")];
    for line in content.lines() {
        let (device, number) = parse_id(line).unwrap_or_else(|| panic!("not a line of ours: {line}"));
        let next = &mut next[usize::try_from(device).expect("small")];
        assert_eq!(number, *next, "dev{device}");
        *next += 1;
    }
    assert_eq!(next.iter().sum::<u64>(), total, "not all of them are there");
    assert_eq!(refused, 0, "{}", ended.stderr);
    assert!(taken >= reloads / 2, "{taken} reloads for {reloads} changes");
    // Each was served for a while to somebody who connected.
    assert!(
        u64::try_from(certificates.len()).expect("few") + 1 >= swaps.min(3),
        "of {swaps}, {} seen",
        certificates.len()
    );
    gauges.assert_flat();
}
