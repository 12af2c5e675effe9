//! The index of event ids breaks while the log is open: it is created anew from the log, without a restart.

use super::*;
use crate::maintenance::Maintenance;

/// Opens a log that retains all events. Its index has twelve periods of a hundred ids.
fn open(fixture: &Fixture) -> Arc<Log> {
    let bounds = Bounds { retain: Duration::MAX, ..options().bounds };
    fixture.open(LogOptions { bounds, dedup_max: 1200, ..options() }).expect("opens")
}

/// Adds events, enough for several segments.
fn fill(log: &Log, first: i64, last: i64) -> SinkState {
    let sink = sink_of(log, "one");
    for number in first..=last {
        append(log, &number.to_string(), &SinkSet::new([sink.number])).expect("stored");
    }
    sink
}

fn is_known(log: &Log, id: &str) -> bool {
    append(log, id, &SinkSet::new([1])).expect("an answer") == Appended::Duplicate
}

/// Returns the number of files that an index was renamed to.
fn renamed(fixture: &Fixture) -> usize {
    names(fixture.path()).iter().filter(|name| name.to_string_lossy().contains("ids.db.damaged")).count()
}

#[test]
fn a_damaged_page_that_a_look_up_finds_is_repaired_while_the_log_is_open() {
    let fixture = Fixture::new(30);
    let log = open(&fixture);
    fill(&log, 1, 500);
    log.close();
    drop(log);
    let file = rusqlite::Connection::open(fixture.path().join("ids.db")).expect("opens");
    // Of a period that is closed: no later id goes there.
    assert!(file.execute("UPDATE pages_1 SET crc = crc + 1", []).expect("changed") > 0);
    drop(file);
    let log = open(&fixture);
    assert!(!is_known(&log, "1"), "an event that cannot be looked up is not lost");
    until("the index has all ids again", &log, || {
        renamed(&fixture) == 1 && log.ids().stored_up_to() >= 500 && log.ids().damage().is_none()
    });
    for number in 1..=500 {
        assert!(is_known(&log, &number.to_string()), "{number}");
    }
    assert_eq!(renamed(&fixture), 1);
}

#[test]
fn an_event_whose_id_cannot_be_looked_up_is_not_filled() {
    let find = |log: &Log| log.find_received("default", "1");
    let fill_again = |log: &Log| {
        let filled = log.append_all_blocking(vec![(record("1", 300), SinkSet::new([1]))])?;
        Ok(filled == [Appended::Duplicate])
    };
    type LookUp<'a> = &'a dyn Fn(&Log) -> Result<bool, LogError>;
    let ways: [LookUp<'_>; 2] = [&find, &fill_again];
    for is_known in ways {
        let fixture = Fixture::new(40);
        let log = open(&fixture);
        fill(&log, 1, 100);
        log.close();
        drop(log);
        let file = rusqlite::Connection::open(fixture.path().join("ids.db")).expect("opens");
        assert!(file.execute("UPDATE pages_1 SET crc = crc + 1", []).expect("changed") > 0);
        drop(file);
        let log = open(&fixture);
        let error = is_known(&log).expect_err("damage");
        assert!(matches!(error, LogError::Ids(_)), "{error}");
        assert_eq!(log.tail().last_seq(), 100);
        until("it is known again", &log, || is_known(&log).is_ok_and(|known| known));
    }
}

#[test]
fn a_queued_event_is_not_known_before_it_is_durable() {
    let fixture = Fixture::new(41);
    let log = open(&fixture);
    fill(&log, 1, 1);
    assert!(log.find_received("default", "1").expect("found"));
    log.shared.queue.lock().recent.insert(Key::new("default", "2"), u64::MAX);
    assert!(matches!(log.find_received("default", "2"), Err(LogError::Overloaded)));
    assert!(!log.has_received("default", "2"));
}

#[test]
fn an_index_that_was_moved_away_is_created_anew_while_the_log_is_open() {
    let fixture = Fixture::new(31);
    let log = open(&fixture);
    fill(&log, 1, 500);
    log.close();
    let log = open(&fixture);
    let sink = fill(&log, 501, 1000);
    let progress = Progress { sink: sink.number, cursor: 1000, checkpoint: None, ends_replay: false };
    log.advance(progress, true).expect("stored");
    std::fs::rename(fixture.path().join("ids.db"), fixture.path().join("moved")).expect("moved");
    // Segments that only the index needs make the maintenance thread store the ids.
    log.set_bounds(options().bounds);
    until("the index has all ids again", &log, || {
        log.ids().path().exists() && log.ids().stored_up_to() >= 1000 && log.ids().damage().is_none()
    });
    for number in 1..=1000 {
        assert!(is_known(&log, &number.to_string()), "{number}");
    }
    assert_eq!(renamed(&fixture), 0);
}

#[test]
fn the_time_since_which_every_copy_is_recognised_follows_the_log_that_the_index_is_rebuilt_from() {
    let fixture = Fixture::new(38);
    let log = open(&fixture);
    assert_eq!(log.ids_complete_since(), Some(1_000_000), "of a new log: now");
    let sink = sink_of(&log, "one");
    for number in 1..=500_i64 {
        let record =
            Record { received_at: number * 1000, ..Record::clone(&record(&number.to_string(), 300)) };
        log.append_blocking(Arc::new(record), SinkSet::new([sink.number]), true).expect("stored");
    }
    let store = log.shared.store.0;
    log.close();
    drop(log);
    assert_eq!(ids::complete_since(&fixture.path().join("ids.db"), store), Some(1_000_000));
    std::fs::remove_file(fixture.path().join("ids.db")).expect("removed");
    let log = open(&fixture);
    assert_eq!(log.ids_complete_since(), Some(1000), "when the oldest event was received");

    let moves_away = |name: &str| {
        std::fs::rename(log.ids().path(), fixture.path().join(name)).expect("moved");
        append(&log, name, &SinkSet::new([sink.number])).expect("stored");
        // Storing ids finds that the file is gone.
        log.shared.queue.lock().lacks_earlier = true;
        assert_eq!(log.ids_complete_since(), None, "ids are missing");
        log.shared.maintain();
        until("the index has all ids again", &log, || {
            log.ids().path().exists() && log.ids().stored_up_to() >= 500 && log.ids_complete_since().is_some()
        });
    };
    moves_away("first");
    assert_eq!(log.ids_complete_since(), Some(1000));
    let progress = Progress { sink: sink.number, cursor: 400, checkpoint: None, ends_replay: false };
    log.advance(progress, true).expect("stored");
    log.set_bounds(options().bounds);
    until("delivered events are removed", &log, || log.shared.before(0) > 300);
    assert_eq!(log.ids_complete_since(), Some(1000), "the index still has their ids");
    moves_away("second");
    let oldest = (log.shared.before(0) + 1) * 1000;
    assert_eq!(log.ids_complete_since(), Some(oldest + ids::RECEIPT_SPREAD));
    log.shared.lookups_fail.store(true, Ordering::Relaxed);
    assert_eq!(log.ids_complete_since(), None, "copies may be accepted as new");
}

#[test]
fn ids_are_complete_since_the_last_event_if_the_log_has_no_event_any_more() {
    let fixture = Fixture::new(42);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    // Later than the clock says, which was set back since.
    let last = Record { received_at: 5_000_000, ..Record::clone(&record("1", 300)) };
    log.append_blocking(Arc::new(last), SinkSet::new([sink.number]), true).expect("stored");
    let progress = Progress { sink: sink.number, cursor: 1, checkpoint: None, ends_replay: false };
    log.advance(progress, true).expect("stored");
    log.close();
    drop(log);
    let log = fixture.open(options()).expect("opens");
    until("delivered events are removed", &log, || log.shared.before(0) == 1);
    log.close();
    drop(log);
    std::fs::remove_file(fixture.path().join("ids.db")).expect("removed");
    let log = fixture.open(options()).expect("opens");
    assert_eq!(log.ids_complete_since(), Some(5_000_000 + ids::RECEIPT_SPREAD));
}

/// Opens a log with segments of 1 MiB that retains all events.
fn open_large(fixture: &Fixture) -> Arc<Log> {
    let bounds = Bounds { retain: Duration::MAX, ..options().bounds };
    fixture.open(LogOptions { bounds, segment_bytes: 1 << 20, ..options() }).expect("opens")
}

/// Adds events at once, which is faster than one by one.
fn fill_at_once(log: &Log, events: usize) {
    let set = SinkSet::new([sink_of(log, "one").number]);
    {
        let mut queue = log.shared.queue.lock();
        queue.appends.extend((0..events).map(|number| {
            let event = Some((record(&number.to_string(), 1), set.clone()));
            Append { event, key: None, ticket: 0, reply: oneshot::channel().0 }
        }));
        queue.bytes = queue.appends.iter().map(Append::bytes).sum();
    }
    log.flush();
    until("all events", log, || usize::try_from(log.tail().last_seq()) == Ok(events));
}

#[test]
fn a_start_without_an_index_keeps_few_ids_in_memory() {
    const EVENTS: usize = 230_000;
    let fixture = Fixture::new(32);
    let log = open_large(&fixture);
    fill_at_once(&log, EVENTS);
    log.close();
    drop(log);
    std::fs::remove_file(fixture.path().join("ids.db")).expect("removed");
    let log = open_large(&fixture);
    let stored_up_to = log.ids().stored_up_to();
    assert!(stored_up_to >= 131_072, "{stored_up_to}");
    let capacity = log.shared.queue.lock().recent.capacity();
    assert!(capacity < EVENTS, "all were in memory at once: {capacity}");
    for number in [0, EVENTS / 2, EVENTS - 1] {
        assert!(is_known(&log, &number.to_string()), "{number}");
    }
}

/// The log retains no delivered event, so only the index knows the ids of the last 72 hours.
#[test]
fn what_a_damaged_page_costs_is_reported() {
    let fixture = Fixture::new(34);
    let open = || fixture.open(options()).expect("opens");
    let log = open();
    let sink = fill(&log, 1, 1000);
    let progress = Progress { sink: sink.number, cursor: 1000, checkpoint: None, ends_replay: false };
    log.advance(progress, true).expect("stored");
    log.close();
    drop(log);
    let log = open();
    log.advance(Progress { sink: sink.number, cursor: 1000, checkpoint: None, ends_replay: false }, true)
        .expect("stored");
    until("delivered events are removed", &log, || log.shared.before(0) > 900);
    log.close();
    drop(log);
    let file = rusqlite::Connection::open(fixture.path().join("ids.db")).expect("opens");
    assert_eq!(file.execute("UPDATE pages_1 SET crc = crc + 1 WHERE page = 1", []).expect("changed"), 1);
    drop(file);
    let log = open();
    let key = |number: &i64| Key::new("default", &number.to_string());
    let is_damaged = |number: &i64| log.ids().contains(key(number)).is_err_and(|error| error.is_damage());
    assert!((1..=1000).any(|number| is_damaged(&number)), "a look-up finds it");
    until("the index is replaced", &log, || renamed(&fixture) == 1 && log.ids().damage().is_none());
    // First, that its ids are being stored again.
    until("it is reported", &log, || {
        log.tail().damage().iter().any(|found| found.contains("copies of earlier events are accepted as new"))
    });
}

/// Damages the index so that only the next ids to be stored find it.
fn spoil_runs(fixture: &Fixture) {
    let file = rusqlite::Connection::open(fixture.path().join("ids.db")).expect("opens");
    file.execute_batch("DROP TABLE runs; UPDATE store SET up_to_seq = 0").expect("changed");
}

/// Returns whether a finding is that of an index whose damage was found later than at the opening of the file.
fn is_of_runs(found: &str) -> bool {
    found.contains("no such table: runs") && found.contains("accepted as new")
}

#[test]
fn an_index_is_completed_one_segment_at_a_time() {
    let fixture = Fixture::new(39);
    let log = open(&fixture);
    fill(&log, 1, 500);
    // The test does what the maintenance thread does otherwise.
    log.close();
    spoil_runs(&fixture);
    log.ids().store(&[Key::new("default", "another")], 500, 0).expect_err("damage");
    let mut maintenance = Maintenance::new(&log.shared);
    let firsts = log.shared.files.lock().segments.iter().map(|segment| segment.first_seq).collect::<Vec<_>>();
    assert!(firsts.len() > 3, "{firsts:?}");
    for next in firsts.into_iter().skip(1).chain([501]) {
        maintenance.store_ids();
        assert_eq!(log.ids().stored_up_to(), next - 1);
    }
    assert_eq!((renamed(&fixture), log.ids().count()), (1, 500));
}

#[test]
fn an_index_that_a_start_replaces_after_its_other_checks_is_reported() {
    // So many that the start itself stores the ids.
    const EVENTS: usize = 140_000;
    let fixture = Fixture::new(38);
    let log = open_large(&fixture);
    fill_at_once(&log, EVENTS);
    log.close();
    drop(log);
    spoil_runs(&fixture);
    let log = open_large(&fixture);
    assert_eq!(renamed(&fixture), 1);
    until("it is reported", &log, || matches!(&log.tail().damage()[..], [found] if is_of_runs(found)));
}

#[test]
fn a_finding_of_a_start_and_a_later_one_are_reported_each_for_a_day() {
    const HOUR: i64 = 3_600_000;
    let fixture = Fixture::new(37);
    let log = open(&fixture);
    fill(&log, 1, 10);
    log.close();
    drop(log);
    std::fs::remove_file(fixture.path().join("ids.db")).expect("removed");
    let clock = Arc::new(ManualClock::at(HOUR));
    let disk = Arc::new(fixture.disk.clone());
    let log = Log::open_on(disk, fixture.path(), options(), Arc::clone(&clock) as Arc<dyn Clock>);
    let log = log.expect("opens");
    spoil_runs(&fixture);
    clock.set(2 * HOUR);
    // The maintenance thread finds it when it stores ids.
    log.shared.queue.lock().lacks_earlier = true;
    log.shared.maintain();
    until("both are reported", &log, || {
        let found = log.tail().damage();
        matches!(&found[..], [first, second] if first.contains("the file is missing") && is_of_runs(second))
    });
    clock.set(25 * HOUR);
    log.shared.maintain();
    until(
        "the first is no longer reported",
        &log,
        || matches!(&log.tail().damage()[..], [second] if is_of_runs(second)),
    );
    clock.set(26 * HOUR);
    log.shared.maintain();
    until("the second is no longer reported", &log, || log.tail().damage().is_empty());
}

#[test]
fn a_finding_of_a_start_is_reported_for_a_day() {
    let fixture = Fixture::new(35);
    let log = open(&fixture);
    fill(&log, 1, 10);
    log.close();
    drop(log);
    std::fs::remove_file(fixture.path().join("ids.db")).expect("removed");
    let clock = Arc::new(ManualClock::at(1_000_000));
    let disk = Arc::new(fixture.disk.clone());
    let log = Log::open_on(disk, fixture.path(), options(), Arc::clone(&clock) as Arc<dyn Clock>);
    let log = log.expect("opens");
    let maintained = || {
        log.shared.maintain();
        until("the files are maintained", &log, || !log.shared.files.lock().is_due);
        log.tail().damage().concat()
    };
    assert!(maintained().contains("the file is missing"));
    clock.set(1_000_000 + 23 * 3_600_000);
    assert!(maintained().contains("the file is missing"));
    clock.set(1_000_000 + 24 * 3_600_000);
    until("it is no longer reported", &log, || maintained().is_empty());
    assert!(log.findings().iter().any(|finding| finding.contains("accepted as new")), "the log has it");
}

/// Collects the warnings of its thread.
struct Warnings(std::sync::Mutex<Vec<String>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, about: &tracing::Metadata<'_>) -> bool {
        *about.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                self.0.push_str(&format!("{field}={value:?} "));
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().expect("no panic").push(text.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn events_that_are_no_longer_in_the_log_are_reported_once_by_the_sink_that_misses_them() {
    let fixture = Fixture::new(36);
    let log = open(&fixture);
    let sink = fill(&log, 1, 300);
    log.close();
    drop(log);
    // None of them is in memory any more.
    let log = open(&fixture);
    let second = {
        let mut files = log.shared.files.lock();
        files.segments.remove(0);
        files.segments[0].first_seq
    };
    let warnings = Arc::new(Warnings(std::sync::Mutex::default()));
    let read = tracing::subscriber::with_default(Arc::clone(&warnings), || {
        for _ in 0..3 {
            log.sink_statuses().expect("read");
            log.owed(&sink).expect("read");
            log.connector_use("another").expect("read");
        }
        assert!(warnings.0.lock().expect("no panic").is_empty(), "{:?}", warnings.0);
        rest(&log, &sink)
    });
    assert_eq!(read.keys().next(), Some(&second));
    let warnings = warnings.0.lock().expect("no panic");
    let [only] = &warnings[..] else { panic!("{warnings:?}") };
    for part in ["sink=\"one\"".to_owned(), "first=1".to_owned(), format!("last={}", second - 1)] {
        assert!(only.contains(&part), "{only}");
    }
}
