//! `kill -9` at random moments under load: a ledger on the sender's side against what the sinks hold. The file has
//! each event exactly once, a flaky sink at least once, both in order per device.
//!
//! 100 kills; `DT_RECEIVER_TEST_MATRIX_KILLS` sets another count. Every tenth life begins with an empty folder, since the
//! first moments of a spool are the oddest.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tokio::sync::watch;

use crate::child;
use crate::events::{Random, parse_id, seed, setting};
use crate::sender::Sender;
use crate::server::{Place, Sinks};

const CONNECTIONS: u64 = 32;
const DEVICES_PER_CONNECTION: u64 = 3;
/// How many lives a folder has.
const LIVES: u64 = 10;

/// What a connection knows: the next number of each of its devices; all before it were answered 200.
struct Book {
    connection: u64,
    next: [u64; 3],
    random: Random,
}

/// Sends on one connection until it breaks, and counts what was answered 200. An event is sent again until it is.
fn send_until_killed(address: SocketAddr, book: &mut Book, count: &watch::Sender<u64>) {
    let Some(mut sender) = Sender::connect(address) else { return };
    loop {
        let slot = book.random.below(DEVICES_PER_CONNECTION);
        let next = &mut book.next[usize::try_from(slot).expect("small")];
        let device = book.connection * DEVICES_PER_CONNECTION + slot;
        match sender.send(device, *next) {
            Some(answer) if answer.status == 200 => {
                *next += 1;
                count.send_modify(|count| *count += 1);
            }
            Some(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
            None => return,
        }
    }
}

/// The ids in the flaky sink's file, checked for order: a crash may repeat, but the first copies come in order.
fn check_flaky(path: &Path, books: &[Book]) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for line in text.lines() {
        // A kill can tear the last line of a life, which then runs into the next one.
        let line = line.rsplit_once("ev").map_or(line, |(_, rest)| &line[line.len() - rest.len() - 2..]);
        let Some((device, number)) = parse_id(line) else { continue };
        let next = next.entry(device).or_default();
        assert!(number <= *next, "dev{device}: {number} before {next}");
        *next = (*next).max(number + 1);
    }
    for (device, acknowledged) in acknowledged(books) {
        let there = next.get(&device).copied().unwrap_or(0);
        assert!(there >= acknowledged, "dev{device}: {acknowledged} were answered 200, {there} delivered");
    }
    text.lines().count() as u64
}

fn acknowledged(books: &[Book]) -> impl Iterator<Item = (u64, u64)> {
    books.iter().flat_map(|book| {
        (0..).zip(book.next).map(|(slot, next)| (book.connection * DEVICES_PER_CONNECTION + slot, next))
    })
}

/// One folder's lives; gives how many events were acknowledged, and how many lines the flaky sink has.
fn lives(kills: u64, random: &mut Random) -> (u64, u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), Sinks::File, "drain_timeout = '60s'");
    let (flaky, never) = (folder.path().join("flaky.txt"), folder.path().join("no-outage"));
    let mut books: Vec<Book> = (0..CONNECTIONS)
        .map(|connection| Book { connection, next: [0; 3], random: Random::new(random.below(u64::MAX)) })
        .collect();
    for life in 0..kills {
        let server = child::start(&place, &flaky, 10, &never);
        let (address, count) = (server.listen, watch::Sender::new(0));
        // The first life of a folder ends early, sometimes before its first event.
        let moment = if life == 0 { random.below(5) } else { random.below(600) };
        let spin = random.below(200_000);
        std::thread::scope(|scope| {
            for book in &mut books {
                let count = &count;
                scope.spawn(move || send_until_killed(address, book, count));
            }
            let mut reached = count.subscribe();
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(reached.wait_for(|count| *count >= moment)).expect("the count is there");
            for _ in 0..spin {
                std::hint::spin_loop();
            }
            server.kill();
        });
        server.wait();
    }
    // The last life delivers everything.
    let server = child::start(&place, &flaky, 0, &never);
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    let file = place.events_in_file();
    for (device, count) in acknowledged(&books) {
        for number in 0..count {
            assert_eq!(file.get(&(device, number)), Some(&1), "dev{device}, {number}, of {count}: {ended:?}");
        }
    }
    let lines = check_flaky(&flaky, &books);
    (acknowledged(&books).map(|(_, count)| count).sum(), lines)
}

#[test]
fn whenever_it_is_killed_every_200_is_in_the_file_once_and_in_a_flaky_sink_in_order() {
    let kills = setting("DT_RECEIVER_TEST_MATRIX_KILLS", 100);
    let mut random = Random::new(seed());
    let (mut left, mut events, mut lines) = (kills, 0, 0);
    while left > 0 {
        let now = left.min(LIVES);
        let (more, more_lines) = lives(now, &mut random);
        (left, events, lines) = (left - now, events + more, lines + more_lines);
    }
    println!(
        "{kills} kills, {events} events answered 200, all of them in the file once; {lines} lines in the flaky sink"
    );
}
