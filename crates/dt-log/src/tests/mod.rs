//! The log in crashes, power losses and disk failures: it contains exactly the acknowledged events, in order.
//!
//! `DT_RECEIVER_TEST_LOG_SEEDS` sets how many seeds a test takes, `DT_RECEIVER_TEST_SEED` the first one.

#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

mod behind;
mod index;
mod kept;
mod maintained;
mod recovers;
mod room;
#[cfg(feature = "_shuttle")]
mod schedules;

use std::collections::BTreeMap;
use std::path::Path;

use rustix::io::Errno;
use tempfile::TempDir;

use super::*;
use crate::disk::Disk;
use crate::disk::fake::{FakeDisk, Fault, Operation, Random};
use crate::ids::Key;
use crate::shared::Append;
use crate::sync::atomic::Ordering;
use dt_sink::clock::{Clock, ManualClock};
use dt_sink::record::Record;

const SEGMENT: u64 = 32 << 10;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

fn options() -> LogOptions {
    let bounds = Bounds { max_size: 1 << 40, min_free: 0, retain: Duration::ZERO };
    LogOptions { bounds, segment_bytes: SEGMENT, ..LogOptions::default() }
}

/// A fake disk, and a real folder for the databases.
struct Fixture {
    disk: FakeDisk,
    folder: TempDir,
}

impl Fixture {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = FakeDisk::new(seed);
        crate::disk::create_folders(&disk, folder.path(), true).expect("made");
        Self { disk, folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self, options: LogOptions) -> Result<Arc<Log>, LogError> {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(1_000_000));
        Log::open_on(Arc::new(self.disk.clone()), self.path(), options, clock).map(Arc::new)
    }
}

fn record(id: &str, bytes: usize) -> Arc<Record> {
    Arc::new(Record { body: vec![b'x'; bytes].into(), ..Record::sample(id) })
}

fn sink_of(log: &Log, name: &str) -> SinkState {
    log.register(&Arc::from(name), StartAt::Now, Vec::new()).expect("known")
}

fn append(log: &Log, id: &str, sinks: &SinkSet) -> Result<Appended, LogError> {
    log.append_blocking(record(id, 300), sinks.clone(), true)
}

/// Returns the ids of all events after a sink's cursor, by sequence number; `None` for damaged ones.
fn rest(log: &Log, sink: &SinkState) -> BTreeMap<i64, Option<String>> {
    let mut source = log.source(sink.clone());
    let mut all = BTreeMap::new();
    while source.position() < log.tail().last_seq() {
        for StoredEvent { seq, record } in source.read(7, i64::MAX).expect("read") {
            let before = all.insert(seq, record.ok().map(|record| record.event_id.to_string()));
            assert!(before.is_none(), "{seq} came twice");
        }
    }
    all
}

fn ids_of(all: &BTreeMap<i64, Option<String>>) -> Vec<&str> {
    all.values().map(|id| id.as_deref().unwrap_or("damaged")).collect()
}

#[test]
fn what_was_answered_is_there_after_a_clean_stop_and_known_as_a_duplicate() {
    let fixture = Fixture::new(1);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    let other = sink_of(&log, "two");
    let (one, both) = (SinkSet::new([sink.number]), SinkSet::new([sink.number, other.number]));
    for number in 0..200 {
        let sinks = if number % 2 == 0 { &one } else { &both };
        let appended = append(&log, &number.to_string(), sinks).expect("stored");
        assert_eq!(appended, Appended::New(number + 1));
        assert_eq!(append(&log, &number.to_string(), sinks).expect("known"), Appended::Duplicate);
    }
    for again in [false, true] {
        let log = if again { fixture.open(options()).expect("opens again") } else { Arc::clone(&log) };
        assert_eq!(rest(&log, &sink).len(), 200);
        let of_other = rest(&log, &other);
        assert_eq!(
            of_other.keys().copied().collect::<Vec<_>>(),
            (1..=200).filter(|seq| seq % 2 == 0).collect::<Vec<_>>()
        );
        assert_eq!(append(&log, "7", &one).expect("known"), Appended::Duplicate);
        log.close();
    }
}

/// The new segment makes the place of the recovered group void, so it must contain that group as soon as it has its name.
#[test]
fn a_start_that_is_interrupted_anywhere_loses_nothing() {
    let mut fixture = Fixture::new(7);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    for id in ["1", "2", "3"] {
        append(&log, id, &SinkSet::new([sink.number])).expect("stored");
    }
    let killed = fixture.disk.kill();
    log.close();
    let mut random = Random::new(7);
    for operations in 0.. {
        let disk = killed.kill();
        disk.stop_after(disk.operations() + operations);
        fixture.disk = disk.clone();
        let opened = fixture.open(options());
        let is_whole = opened.as_ref().is_ok_and(|log| log.tail().last_error().is_none());
        drop(opened);
        for disk in [disk.kill(), disk.crash(&mut random)] {
            fixture.disk = disk;
            let log = fixture.open(options()).unwrap_or_else(|error| panic!("after {operations}: {error}"));
            assert_eq!(ids_of(&rest(&log, &sink)), ["1", "2", "3"], "after {operations} operations");
            log.close();
        }
        if is_whole {
            assert!(operations >= 4, "a write, a sync, a name and its sync; only {operations}");
            break;
        }
    }
}

#[test]
fn segments_that_every_sink_has_passed_go_and_those_that_are_retained_stay() {
    segments_go(&Fixture::new(2), false);
}

#[test]
fn segments_go_on_to_go_when_a_sync_has_failed_once() {
    segments_go(&Fixture::new(2), true);
}

fn segments_go(fixture: &Fixture, is_sync_failing: bool) {
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    let set = SinkSet::new([sink.number]);
    for number in 0..500 {
        append(&log, &number.to_string(), &set).expect("stored");
    }
    let segments = || log.shared.files.lock().segments.len();
    assert!(segments() > 5, "{}", segments());
    let mut syncs = 0;
    if is_sync_failing {
        until("all spares", &log, || log.shared.files.lock().spares.len() == 2);
        syncs = fixture.disk.count(Operation::SyncFolder);
        fixture.disk.fail(Fault::every(Operation::SyncFolder, Errno::MFILE));
    }
    log.advance(Progress { sink: sink.number, cursor: 490, checkpoint: None, ends_replay: false }, true)
        .expect("stored");
    if is_sync_failing {
        until("one has failed", &log, || fixture.disk.count(Operation::SyncFolder) > syncs);
        fixture.disk.heal();
    }
    let started = Instant::now();
    while segments() > 2 {
        log.shared.maintain();
        assert!(started.elapsed() < Duration::from_secs(20), "{} are left", segments());
        std::thread::yield_now();
    }
    let sink = log.sink("one").expect("known");
    assert_eq!(rest(&log, &sink).len(), 10);
    log.close();
    let bounds = Bounds { retain: Duration::MAX, ..options().bounds };
    let log = fixture.open(LogOptions { bounds, ..options() }).expect("opens again");
    assert_eq!(rest(&log, &sink).len(), 10);
    // Before the oldest event comes that event, and not the end.
    let first = log.shared.before(0) + 1;
    assert!(first > 1, "no segment has gone");
    let found = rest(&log, &SinkState { cursor: 0, ..sink });
    assert_eq!(found.into_keys().collect::<Vec<_>>(), (first..=500).collect::<Vec<_>>());
}

#[test]
fn a_replay_and_a_new_sink_start_with_what_is_retained() {
    let fixture = Fixture::new(3);
    let retained = Bounds { retain: Duration::from_secs(3600), ..options().bounds };
    let log = fixture.open(LogOptions { bounds: retained, ..options() }).expect("opens");
    let sink = sink_of(&log, "one");
    let set = SinkSet::new([sink.number]);
    for number in 0..100 {
        append(&log, &number.to_string(), &set).expect("stored");
    }
    let progress =
        |cursor, ends_replay| Progress { sink: sink.number, cursor, checkpoint: None, ends_replay };
    log.advance(progress(100, false), true).expect("stored");
    assert_eq!(log.replay("one", 40).expect("asked"), 60);
    assert!(matches!(log.replay("unknown", 40), Err(LogError::UnknownSink { .. })));
    assert_eq!(log.sink("one").expect("known").replay_after, Some(40));
    log.advance(progress(40, true), true).expect("stored");
    let state = log.sink("one").expect("known");
    assert_eq!((state.cursor, state.replay_after), (40, None));
    assert_eq!(rest(&log, &state).len(), 60);
    let connectors = vec![Arc::from("default")];
    let new = log.register(&Arc::from("new"), StartAt::Retained, connectors).expect("known");
    assert_eq!(rest(&log, &new).len(), 100);
    let others = vec![Arc::from("another")];
    let new = log.register(&Arc::from("newer"), StartAt::Retained, others).expect("known");
    assert_eq!(rest(&log, &new).len(), 0, "events of connectors that are not its own");
    assert!(log.forget("new").expect("done") && !log.forget("new").expect("done"));
}

#[test]
fn a_full_disk_refuses_events_keeps_cursors_and_takes_events_again() {
    let fixture = Fixture::new(4);
    let bounds = Bounds { max_size: 6 * SEGMENT, ..options().bounds };
    let log = fixture.open(LogOptions { bounds, ..options() }).expect("opens");
    let sink = sink_of(&log, "one");
    let set = SinkSet::new([sink.number]);
    let mut stored = 0;
    let full = loop {
        match append(&log, &stored.to_string(), &set) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 10_000, "it is never full");
    };
    assert!(matches!(full, LogError::Full { .. }), "{full}");
    assert!(log.tail().last_error().is_some_and(|last_error| last_error.contains("max_size")));
    // The sink advances, which makes room.
    let cursor = log.tail().last_seq();
    assert_eq!(cursor, stored);
    log.advance(
        Progress { sink: sink.number, cursor, checkpoint: Some(b"here".to_vec()), ends_replay: false },
        true,
    )
    .expect("stored");
    let started = Instant::now();
    while append(&log, "next", &set).is_err() {
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", log.tail().last_error());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(log.tail().last_error(), None);
    assert_eq!(log.sink("one").expect("known").checkpoint.as_deref(), Some(&b"here"[..]));
}

#[test]
fn other_bounds_make_room_at_once() {
    let fixture = Fixture::new(8);
    let small = Bounds { max_size: 6 * SEGMENT, ..options().bounds };
    let log = fixture.open(LogOptions { bounds: small, ..options() }).expect("opens");
    let sink = sink_of(&log, "one");
    let set = SinkSet::new([sink.number]);
    let mut stored = 0;
    while append(&log, &stored.to_string(), &set).is_ok() {
        stored += 1;
        assert!(stored < 10_000, "it is never full");
    }
    log.set_bounds(options().bounds);
    let started = Instant::now();
    while append(&log, "next", &set).is_err() {
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", log.tail().last_error());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_disk_is_no_reason_not_to_start() {
    let fixture = Fixture::new(5);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    for number in 0..50 {
        append(&log, &number.to_string(), &SinkSet::new([sink.number])).expect("stored");
    }
    log.close();
    fixture.disk.set_capacity(0);
    for _ in 0..4 {
        let log = fixture.open(options()).expect("opens on a full disk");
        assert_eq!(append(&log, "7", &SinkSet::new([sink.number])).ok(), Some(Appended::Duplicate));
        assert_eq!(rest(&log, &sink).len(), if log.tail().last_seq() >= 50 { 50 } else { 49 });
        log.close();
    }
}

#[test]
fn one_failed_write_or_sync_fails_no_append() {
    for operation in [Operation::Write, Operation::Sync] {
        let fixture = Fixture::new(6);
        let log = fixture.open(options()).expect("opens");
        let sink = sink_of(&log, "one");
        let set = SinkSet::new([sink.number]);
        for number in 0..100 {
            if number % 10 == 0 {
                fixture.disk.fail(Fault { path: "segment-".to_owned(), ..Fault::next(operation, Errno::IO) });
            }
            append(&log, &number.to_string(), &set).unwrap_or_else(|error| panic!("{number}: {error}"));
        }
        log.close();
        let log = fixture.open(options()).expect("opens again");
        let all = rest(&log, &sink);
        assert_eq!(ids_of(&all), (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn a_disk_that_fails_refuses_events_until_it_works_again() {
    let fixture = Fixture::new(7);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    let set = SinkSet::new([sink.number]);
    append(&log, "before", &set).expect("stored");
    fixture.disk.fail(Fault::every(Operation::Sync, Errno::IO));
    assert!(append(&log, "meanwhile", &set).is_err());
    assert!(log.tail().last_error().is_some());
    fixture.disk.heal();
    let started = Instant::now();
    while append(&log, "after", &set).is_err() {
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", log.tail().last_error());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(matches!(append(&log, "meanwhile", &set), Ok(Appended::New(_))), "it was not stored before");
    assert_eq!(ids_of(&rest(&log, &sink)), ["before", "after", "meanwhile"]);
}

fn until(what: &str, log: &Log, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "in vain: {what}: {:?}",
            log.tail().last_error()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a sender knows about its events.
#[derive(Default)]
struct Ledger {
    /// The acknowledged events.
    answered: BTreeMap<String, Appended>,
    /// The highest cursor that may be stored, and the lowest one that must be.
    cursor: (i64, i64),
    sent: u64,
}

/// Sends events from several threads, and moves the cursor, until the disk stops.
fn live(log: &Arc<Log>, sink: &SinkState, ledger: &mut Ledger, random: &mut Random, events: u64) {
    let set = SinkSet::new([sink.number]);
    let ids: Vec<String> = (0..events).map(|number| format!("e{}", ledger.sent + number)).collect();
    ledger.sent += events;
    let next = std::sync::atomic::AtomicUsize::new(0);
    let answered: Vec<(String, Appended)> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut answered = Vec::new();
                    while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                        match append(log, id, &set) {
                            Ok(appended) => answered.push((id.clone(), appended)),
                            Err(_) => break,
                        }
                    }
                    answered
                })
            })
            .collect();
        senders.into_iter().flat_map(|sender| sender.join().expect("no panic")).collect()
    });
    ledger.answered.extend(answered);
    let cursor = ledger.cursor.1 + i64::try_from(random.below(events + 1)).expect("small");
    let cursor = cursor.min(log.tail().last_seq());
    if cursor > ledger.cursor.1 {
        let wait = random.below(2) == 0;
        let progress = Progress { sink: sink.number, cursor, checkpoint: None, ends_replay: false };
        ledger.cursor.0 = ledger.cursor.0.max(cursor);
        if log.advance(progress, wait).is_ok() && wait {
            ledger.cursor.1 = cursor;
        }
    }
}

fn check(log: &Log, ledger: &mut Ledger, context: &str) -> SinkState {
    let sink = log.sink("one").unwrap_or_else(|| panic!("{context}: the sink is not known"));
    assert!(
        (ledger.cursor.1..=ledger.cursor.0).contains(&sink.cursor),
        "{context}: cursor {} is not within {:?}",
        sink.cursor,
        ledger.cursor
    );
    (ledger.cursor.0, ledger.cursor.1) = (sink.cursor, sink.cursor);
    let there = rest(log, &sink);
    let numbers: Vec<i64> = there.keys().copied().collect();
    assert!(there.values().all(Option::is_some), "{context}: damaged: {there:?}");
    assert_eq!(numbers, (sink.cursor + 1..=log.tail().last_seq()).collect::<Vec<_>>(), "{context}");
    for (id, appended) in &ledger.answered {
        if let Appended::New(seq) = appended
            && *seq > sink.cursor
        {
            let found = there.get(seq).cloned().flatten();
            assert_eq!(found.as_ref(), Some(id), "{context}: event {seq} was answered");
        }
    }
    sink
}

#[test]
fn whatever_is_lost_with_the_power_what_was_answered_is_there() {
    let first = setting("DT_RECEIVER_TEST_SEED", 1);
    let seeds = setting("DT_RECEIVER_TEST_LOG_SEEDS", 60);
    let (mut crashes, mut events) = (0_u64, 0_usize);
    for seed in first..first + seeds {
        let mut random = Random::new(seed);
        let mut fixture = Fixture::new(seed);
        let mut ledger = Ledger::default();
        let log = fixture.open(options()).expect("opens");
        sink_of(&log, "one");
        log.close();
        drop(log);
        for life in 0..4 {
            let context = format!("seed {seed}, life {life}");
            let is_in_opening = random.below(4) == 0;
            if is_in_opening {
                fixture.disk.stop_after(fixture.disk.operations() + random.below(12));
            }
            if let Ok(log) = fixture.open(options()) {
                let sink = log.sink("one").expect("known");
                fixture.disk.stop_after(fixture.disk.operations() + random.below(400));
                live(&log, &sink, &mut ledger, &mut random, 100);
                log.close();
            }
            crashes += 1;
            let disk =
                if random.below(4) == 0 { fixture.disk.kill() } else { fixture.disk.crash(&mut random) };
            fixture.disk = disk;
            let log = fixture.open(options()).unwrap_or_else(|error| panic!("{context}: {error}"));
            let sink = check(&log, &mut ledger, &context);
            // A retry of an acknowledged event is a duplicate; the event must be durable then.
            let set = SinkSet::new([sink.number]);
            for id in ledger.answered.keys().rev().take(3) {
                assert_eq!(append(&log, id, &set).expect("known"), Appended::Duplicate, "{context}: {id}");
            }
            let retried = format!("e{}", ledger.sent.saturating_sub(1));
            let appended = append(&log, &retried, &set).expect("stored or known");
            if let Appended::New(_) = appended {
                ledger.answered.insert(retried, appended);
            } else {
                let at = rest(&log, &sink).into_iter().find(|(_, id)| id.as_deref() == Some(&retried));
                ledger.answered.extend(at.map(|(seq, _)| (retried, Appended::New(seq))));
            }
            // The power fails at once: the event must survive.
            let disk = fixture.disk.crash(&mut random);
            log.close();
            drop(log);
            fixture.disk = disk;
            let log = fixture.open(options()).unwrap_or_else(|error| panic!("{context}, again: {error}"));
            check(&log, &mut ledger, &format!("{context}, again"));
            log.close();
        }
        events += ledger.answered.len();
    }
    println!("{seeds} seeds, {crashes} crashes, {events} events answered, none lost");
}

#[test]
fn a_flipped_bit_is_reported_and_loses_only_its_group() {
    let mut random = Random::new(setting("DT_RECEIVER_TEST_SEED", 9));
    for round in 0..setting("DT_RECEIVER_TEST_LOG_SEEDS", 20) {
        let folder = tempfile::tempdir().expect("a folder");
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(1_000_000));
        let open = || Log::open(folder.path(), options(), Arc::clone(&clock));
        let log = open().expect("opens");
        let sink = sink_of(&log, "one");
        for number in 0..150 {
            append(&log, &number.to_string(), &SinkSet::new([sink.number])).expect("stored");
        }
        // The empty group that proves that the last one was durable.
        log.close();
        drop(log);
        let mut segments: Vec<_> = std::fs::read_dir(folder.path())
            .expect("read")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect();
        segments.sort();
        let index = usize::try_from(random.below(segments.len() as u64)).expect("small");
        let mut bytes = std::fs::read(&segments[index]).expect("read");
        // Somewhere in the used part.
        let end = bytes.iter().rposition(|byte| *byte != 0).expect("not empty") as u64;
        let bit = random.below(end * 8);
        bytes[usize::try_from(bit / 8).expect("small")] ^= 1 << (bit % 8);
        std::fs::write(&segments[index], bytes).expect("written");
        let context = format!("round {round}, bit {bit} of segment {index} of {}", segments.len());
        match open() {
            Ok(log) => {
                let all = rest(&log, &sink);
                assert_eq!(
                    all.keys().copied().collect::<Vec<_>>(),
                    (1..=150).collect::<Vec<_>>(),
                    "{context}"
                );
                let damaged = all.values().filter(|id| id.is_none()).count();
                for (seq, id) in all.iter().filter_map(|(seq, id)| Some((seq, id.as_ref()?))) {
                    assert_eq!(*id, (seq - 1).to_string(), "{context}");
                }
                assert!(damaged <= 3, "{context}: {damaged} damaged");
            }
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains(&segments[index].display().to_string()), "{context}: {said}");
            }
        }
    }
}

#[test]
fn segments_that_are_missing_or_foreign_do_not_open() {
    let fill = |folder: &Path| {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(1_000_000));
        let log = Log::open(folder, options(), clock).expect("opens");
        let sink = sink_of(&log, "one");
        for number in 0..200 {
            append(&log, &number.to_string(), &SinkSet::new([sink.number])).expect("stored");
        }
    };
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    fill(folder.path());
    fill(other.path());
    let open = || Log::open(folder.path(), options(), Arc::new(ManualClock::at(0))).map(drop);
    open().expect("it is whole");
    let newest = Log::open(folder.path(), options(), Arc::new(ManualClock::at(0))).expect("opens");
    let numbers: Vec<u64> =
        newest.shared.files.lock().segments.iter().map(|segment| segment.number).collect();
    drop(newest);
    let (first, middle, last) = (numbers[0], numbers[numbers.len() / 2], numbers[numbers.len() - 1]);
    for number in [first, middle, last] {
        let path = segment::path(folder.path(), number);
        let moved = folder.path().join("aside");
        std::fs::rename(&path, &moved).expect("moved");
        let before = names(folder.path());
        let error = open().expect_err("one is missing");
        assert!(matches!(error, LogError::Missing { first, .. } if first == number), "{number}: {error}");
        std::fs::copy(segment::path(other.path(), 2), &path).expect("copied");
        let error = open().expect_err("one is foreign");
        assert!(matches!(error, LogError::Foreign { .. } | LogError::Damaged { .. }), "{number}: {error}");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(names(folder.path()), before, "nothing is removed to get going");
        std::fs::rename(&moved, &path).expect("moved back");
    }
    open().expect("it is whole again");
    std::fs::remove_file(folder.path().join("ids.db")).expect("removed");
    let log = Log::open(folder.path(), options(), Arc::new(ManualClock::at(0))).expect("it is rebuilt");
    assert!(log.findings().iter().any(|finding| finding.contains("ids.db")), "{:?}", log.findings());
    let set = SinkSet::new([1]);
    assert_eq!(append(&log, "7", &set).expect("known"), Appended::Duplicate);
    drop(log);
    std::fs::write(folder.path().join("spool.db"), "").expect("written");
    assert!(matches!(open(), Err(LogError::FirstEdition { .. })));
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    let mut names = SystemDiskNames::list(folder);
    names.sort();
    names
}

struct SystemDiskNames;

impl SystemDiskNames {
    fn list(folder: &Path) -> Vec<std::ffi::OsString> {
        crate::disk::SystemDisk.list(folder).expect("read")
    }
}
