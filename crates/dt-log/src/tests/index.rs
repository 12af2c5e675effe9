//! The index of event ids breaks while the log is open: it is created anew from the log, without a restart.

use super::*;

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
        renamed(&fixture) == 1 && log.ids().stored_up_to() >= 500 && log.tail().damage().is_none()
    });
    for number in 1..=500 {
        assert!(is_known(&log, &number.to_string()), "{number}");
    }
    assert_eq!(renamed(&fixture), 1);
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
        log.ids().path().exists() && log.ids().stored_up_to() >= 1000 && log.tail().damage().is_none()
    });
    for number in 1..=1000 {
        assert!(is_known(&log, &number.to_string()), "{number}");
    }
    assert_eq!(renamed(&fixture), 0);
}

#[test]
fn a_start_without_an_index_keeps_few_ids_in_memory() {
    const EVENTS: usize = 230_000;
    let fixture = Fixture::new(32);
    let open = || {
        let bounds = Bounds { retain: Duration::MAX, ..options().bounds };
        fixture.open(LogOptions { bounds, segment_bytes: 1 << 20, ..options() }).expect("opens")
    };
    let log = open();
    let set = SinkSet::new([sink_of(&log, "one").number]);
    // At once, which is faster than one by one.
    {
        let mut queue = log.shared.queue.lock();
        queue.appends.extend((0..EVENTS).map(|number| {
            let event = Some((record(&number.to_string(), 1), set.clone()));
            Append { event, key: None, ticket: 0, reply: oneshot::channel().0 }
        }));
        queue.bytes = queue.appends.iter().map(Append::bytes).sum();
    }
    log.flush();
    until("all events", &log, || log.tail().last_seq() == 230_000);
    log.close();
    drop(log);
    std::fs::remove_file(fixture.path().join("ids.db")).expect("removed");
    let log = open();
    let stored_up_to = log.ids().stored_up_to();
    assert!(stored_up_to >= 131_072, "{stored_up_to}");
    let capacity = log.shared.queue.lock().recent.capacity();
    assert!(capacity < EVENTS, "all were in memory at once: {capacity}");
    for number in [0, EVENTS / 2, EVENTS - 1] {
        assert!(is_known(&log, &number.to_string()), "{number}");
    }
}
