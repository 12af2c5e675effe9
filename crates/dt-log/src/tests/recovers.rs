//! A temporary failure is temporary, and loses nothing.

use super::*;
use crate::disk::OpenMode;
use dt_sink::record::DeadLetter;

/// The cursor went to the last spare, so no other write tests whether the disk works again.
#[test]
fn events_are_taken_again_although_a_cursor_was_written_meanwhile() {
    let fixture = Fixture::new(8);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    let set = SinkSet::new([sink.number]);
    append(&log, "before", &set).expect("stored");
    until("two spares", &log, || log.shared.files.lock().spares.len() == 2);
    // There is no further spare. The group with the event fails twice, the second time in the new segment; the cursor alone, and
    // whatever the writer does by its own time, succeeds.
    const BIG: usize = 2000;
    fixture.disk.fail(Fault::every(Operation::Create, Errno::IO));
    fixture.disk.fail(Fault { least: BIG, times: 2, ..Fault::every(Operation::Write, Errno::IO) });
    let progress = Progress { sink: sink.number, cursor: 1, checkpoint: None, ends_replay: false };
    log.advance(progress, false).expect("it waits");
    assert!(log.append_blocking(record("meanwhile", BIG), set.clone(), true).is_err());
    until("the cursor is written", &log, || log.sink("one").is_some_and(|sink| sink.cursor == 1));
    fixture.disk.heal();
    until("events are taken", &log, || append(&log, "after", &set).is_ok());
}

#[test]
fn a_copy_of_what_was_recovered_is_answered_once_that_is_durable() {
    let mut fixture = Fixture::new(9);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    append(&log, "1", &SinkSet::new([sink.number])).expect("stored");
    let killed = fixture.disk.kill();
    log.close();
    fixture.disk = killed;
    // The close has stored the id of the event.
    std::fs::remove_file(fixture.path().join("ids.db")).expect("removed");
    // The segment for it cannot be created at first.
    fixture.disk.fail(Fault { path: "spare-".to_owned(), ..Fault::every(Operation::Sync, Errno::IO) });
    let log = fixture.open(options()).expect("opens, and goes on later");
    assert!(log.tail().last_error().is_some());
    fixture.disk.heal();
    let set = SinkSet::new([sink.number]);
    until("a copy is answered", &log, || match append(&log, "1", &set) {
        Ok(appended) => {
            assert_eq!(appended, Appended::Duplicate);
            let newest = log.shared.files.lock().segments.last().map(|segment| segment.number);
            assert_eq!(newest, Some(2), "it was copied before");
            true
        }
        Err(_) => false,
    });
}

#[test]
fn a_replay_whose_cursor_was_not_written_stays_requested() {
    let fixture = Fixture::new(10);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    let set = SinkSet::new([sink.number]);
    append(&log, "1", &set).expect("stored");
    let progress =
        |cursor, ends_replay| Progress { sink: sink.number, cursor, checkpoint: None, ends_replay };
    log.advance(progress(1, false), true).expect("stored");
    log.replay("one", 0).expect("asked for");
    fixture.disk.fail(Fault::every(Operation::Sync, Errno::IO));
    log.advance(progress(0, true), true).expect_err("a disk that fails");
    fixture.disk.heal();
    until("events are taken", &log, || append(&log, "2", &set).is_ok());
    log.advance(progress(1, false), true).expect("stored");
    assert_eq!(log.sink("one").and_then(|sink| sink.replay_after), Some(0));
}

#[test]
fn an_index_that_is_newer_than_the_log_is_rebuilt() {
    let mut fixture = Fixture::new(11);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    let set = SinkSet::new([sink.number]);
    append(&log, "1", &set).expect("stored");
    let older = fixture.disk.kill();
    append(&log, "2", &set).expect("stored");
    log.close();
    fixture.disk = older;
    let log = fixture.open(options()).expect("opens");
    assert!(log.findings().iter().any(|finding| finding.contains("an older log")), "{:?}", log.findings());
    assert_eq!(append(&log, "1", &set).expect("known"), Appended::Duplicate);
    assert_eq!(append(&log, "2", &set).expect("stored"), Appended::New(2));
}

/// The dead letters of a newer `dead.db` refer to events by numbers that the log would reuse.
#[test]
fn a_log_older_than_its_dead_letters_continues_after_their_numbers() {
    let mut fixture = Fixture::new(12);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    let set = SinkSet::new([sink.number]);
    append(&log, "1", &set).expect("stored");
    let older = fixture.disk.kill();
    for id in ["2", "3"] {
        append(&log, id, &set).expect("stored");
    }
    let rejected = |id: &str, seq| {
        DeadLetter::of_record(&record(id, 300), Arc::from("one"), "odd".to_owned(), 1).with_seq(seq)
    };
    let dead_letters = log.dead_letters().add_blocking(vec![rejected("3", 3)]).expect("stored");
    assert_eq!(dead_letters, [Some(1)]);
    log.close();
    fixture.disk = older;
    for again in [false, true] {
        let log = fixture.open(options()).expect("opens");
        let reported = log.findings().iter().any(|finding| finding.contains("dead.db"));
        assert_eq!(reported, !again, "{:?}", log.findings());
        if !again {
            assert_eq!(append(&log, "other", &set).expect("stored"), Appended::New(4));
            let dead_letters = log.dead_letters().add_blocking(vec![rejected("other", 4)]).expect("stored");
            assert_eq!(dead_letters, [Some(2)], "a new dead letter");
        }
        let found = rest(&log, &sink);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 4], "nothing is damaged");
        assert_eq!(ids_of(&found), ["1", "other"]);
        log.close();
    }
}

/// The number in a dead letter comes from a file, and leaves a single sequence number here.
#[test]
fn exhausted_sequence_numbers_refuse_events_and_keep_cursors() {
    let fixture = Fixture::new(15);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    let set = SinkSet::new([sink.number]);
    let rejected = DeadLetter::of_record(&record("1", 300), Arc::from("one"), "odd".to_owned(), 1);
    log.dead_letters().add_blocking(vec![rejected.with_seq(i64::MAX - 3)]).expect("stored");
    log.close();
    let log = fixture.open(options()).expect("opens");
    assert_eq!(append(&log, "last", &set).expect("stored"), Appended::New(i64::MAX - 2));
    let error = append(&log, "too many", &set).expect_err("there is no number");
    assert!(matches!(error, LogError::Exhausted { .. }), "{error}");
    let progress = Progress { sink: sink.number, cursor: i64::MAX - 2, checkpoint: None, ends_replay: false };
    log.advance(progress, true).expect("stored");
    assert_eq!(log.tail().last_seq(), i64::MAX - 2);
}

/// The number of a sink whose registration is unreadable is not reused.
#[test]
fn the_number_of_a_damaged_sink_is_not_reused() {
    let fixture = Fixture::new(13);
    let log = fixture.open(options()).expect("opens");
    sink_of(&log, "one");
    let number = log.shared.files.lock().segments.last().expect("a segment").number;
    let path = segment::path(fixture.path(), number);
    let written = fixture.disk.content(&path).expect("there");
    let at = written.iter().rposition(|byte| *byte != 0).expect("the registration");
    append(&log, "1", &SinkSet::new([1])).expect("stored");
    log.close();
    let file = fixture.disk.open(&path, OpenMode::Write).expect("opens");
    file.write_all_at(&[!written[at]], u64::try_from(at).expect("fits")).expect("written");
    let log = fixture.open(options()).expect("opens");
    assert!(log.sink("one").is_none(), "its registration is damaged");
    assert_eq!(sink_of(&log, "other").number, 2);
}

/// `/readyz` must show it before the first event fails.
#[test]
fn a_full_disk_is_reported_before_an_event_is_refused() {
    let mut fixture = Fixture::new(14);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    let set = SinkSet::new([sink.number]);
    // A start copies the last group. The group before it keeps its segment from becoming a spare.
    append(&log, "0", &set).expect("stored");
    append(&log, "1", &set).expect("stored");
    until("two spares", &log, || log.shared.files.lock().spares.len() == 2);
    assert!(log.shortage().is_none());
    fixture.disk.set_capacity(0);
    until("it is reported", &log, || matches!(log.shortage(), Some(LogError::Full { .. })));
    assert_eq!(log.tail().last_error(), None, "there is room in the segments");
    // Each start uses a spare.
    for starts_left in [1, 0] {
        let killed = fixture.disk.kill();
        log.close();
        fixture.disk = killed;
        fixture.disk.set_capacity(0);
        let log = fixture.open(options()).expect("opens");
        if starts_left == 0 {
            until("events are refused", &log, || {
                log.tail().last_error().is_some_and(|text| text.contains("full"))
            });
            assert!(append(&log, "2", &set).is_err());
        }
        log.close();
    }
}
