//! What goes wrong for a moment does not last, and loses nothing.

use super::*;
use crate::disk::OpenMode;
use dt_sink::record::DeadLetter;

/// The cursor went to the last spare, so nothing else asks the disk whether it works again.
#[test]
fn events_are_taken_again_although_a_cursor_was_written_meanwhile() {
    let fixture = Fixture::new(8);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    let set = SinkSet::new([sink.number]);
    append(&log, "before", &set).expect("stored");
    until("two spares", &log, || log.shared.files.lock().spares.len() == 2);
    // No further spare; the group fails, and once more in the new segment; the cursor alone does not.
    fixture.disk.fail(Fault::every(Operation::Create, Errno::IO));
    fixture.disk.fail(Fault::next(Operation::Write, Errno::IO));
    fixture.disk.fail(Fault { after: 1, ..Fault::next(Operation::Write, Errno::IO) });
    let progress = Progress { sink: sink.number, cursor: 1, checkpoint: None, ends_replay: false };
    log.advance(progress, false).expect("it waits");
    assert!(append(&log, "meanwhile", &set).is_err());
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
    // The close had it know the event.
    std::fs::remove_file(fixture.path().join("ids.db")).expect("removed");
    // The segment for it cannot be begun at first.
    fixture.disk.fail(Fault { path: "spare-".to_owned(), ..Fault::every(Operation::Sync, Errno::IO) });
    let log = fixture.open(options()).expect("opens, and goes on later");
    assert!(log.tail().last_error().is_some());
    fixture.disk.heal();
    let set = SinkSet::new([sink.number]);
    until("a copy is answered", &log, || match append(&log, "1", &set) {
        Ok(appended) => {
            assert_eq!(appended, Appended::Duplicate);
            let newest = log.shared.files.lock().segments.last().map(|segment| segment.number);
            assert_eq!(newest, Some(2), "it was written again before");
            true
        }
        Err(_) => false,
    });
}

#[test]
fn a_replay_whose_cursor_was_not_written_is_still_asked_for() {
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
fn an_index_that_knows_more_than_the_log_is_made_anew() {
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
    assert!(log.findings().iter().any(|finding| finding.contains("an older one")), "{:?}", log.findings());
    assert_eq!(append(&log, "1", &set).expect("known"), Appended::Duplicate);
    assert_eq!(append(&log, "2", &set).expect("stored"), Appended::New(2));
}

/// The letters of a newer `dead.db` name events by numbers that the log would give again.
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
            assert_eq!(dead_letters, [Some(2)], "a letter of its own");
        }
        let found = rest(&log, &sink);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 4], "nothing is damaged");
        assert_eq!(ids_of(&found), ["1", "other"]);
        log.close();
    }
}

/// The number of a sink whose registration cannot be read any more is not given to another.
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

/// Before the first event finds out: an operator who looks at `/readyz` has to see it.
#[test]
fn a_full_disk_is_reported_before_an_event_is_refused() {
    let mut fixture = Fixture::new(14);
    let log = fixture.open(options()).expect("opens");
    let sink = sink_of(&log, "one");
    let set = SinkSet::new([sink.number]);
    // A start writes the last group again. The one before it keeps its segment from becoming a spare.
    append(&log, "0", &set).expect("stored");
    append(&log, "1", &set).expect("stored");
    until("two spares", &log, || log.shared.files.lock().spares.len() == 2);
    assert!(log.shortage().is_none());
    fixture.disk.set_capacity(0);
    until("it is reported", &log, || matches!(log.shortage(), Some(LogError::Full { .. })));
    assert_eq!(log.tail().last_error(), None, "there is room in the segments");
    // Each start takes a spare.
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
