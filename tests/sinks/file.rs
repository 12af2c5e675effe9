//! What is special to the file sink: torn lines, locks, and files that are not what they should be.

use std::fs;
use std::path::Path;

use dt_receiver::record::Format;
use dt_receiver::sink::{Fate, FileSink, OpenError, Sink};

use crate::records::{body, record};

fn opened(path: &Path) -> FileSink {
    let mut sink = FileSink::new(path, Format::Body);
    sink.open(None).expect("opens");
    sink
}

fn refusal(path: &Path) -> String {
    match FileSink::new(path, Format::Body).open(None) {
        Err(OpenError::Unusable(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_last_line_without_end_stays_and_gets_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("events.ndjson");
    for old in ["x", "{\"a\":1}\n{\"b\":", "\0", &"x".repeat(20_000)] {
        fs::write(&path, old).expect("written");
        let mut sink = opened(&path);
        assert_eq!(fs::read_to_string(&path).expect("text"), old, "not before there is an event");
        assert_eq!(sink.deliver(&[record(1)]).fates, [Fate::Delivered]);
        assert_eq!(fs::read_to_string(&path).expect("text"), format!("{old}\n{}\n", body(1)));
    }
}

#[test]
fn a_file_that_ends_well_is_left_alone_and_extended() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("events.ndjson");
    fs::write(&path, "{\"a\":1}\n").expect("written");
    let mut sink = opened(&path);
    assert_eq!(sink.deliver(&[record(1)]).fates, [Fate::Delivered]);
    assert_eq!(fs::read_to_string(&path).expect("text"), format!("{{\"a\":1}}\n{}\n", body(1)));
}

#[test]
fn two_writers_of_one_file_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("events.ndjson");
    let first = opened(&path);
    assert!(refusal(&path).contains("another process or sink writes to it"));
    drop(first);
    opened(&path);
}

#[test]
fn what_can_never_be_a_file_is_refused_with_its_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing").join("events.ndjson");
    assert!(refusal(&missing).starts_with(missing.to_str().expect("text")));
    assert!(refusal(folder.path()).starts_with(folder.path().to_str().expect("text")));
    assert!(refusal(Path::new("/dev/null")).contains("not a regular file"));
}

#[test]
fn a_file_that_was_moved_away_is_followed_by_a_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, rotated) = (folder.path().join("events.ndjson"), folder.path().join("events.ndjson.1"));
    let mut sink = opened(&path);
    sink.deliver(&[record(1)]);
    fs::rename(&path, &rotated).expect("moved");
    assert_eq!(sink.deliver(&[record(2)]).fates, [Fate::Delivered]);
    assert_eq!(fs::read_to_string(&rotated).expect("text"), body(1) + "\n");
    assert_eq!(fs::read_to_string(&path).expect("text"), body(2) + "\n");
}

#[test]
fn a_file_that_somebody_cut_short_is_extended_without_a_hole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("events.ndjson");
    let mut sink = opened(&path);
    sink.deliver(&[record(1)]);
    fs::File::options().write(true).open(&path).expect("there").set_len(0).expect("cut");
    assert_eq!(sink.deliver(&[record(2)]).fates, [Fate::Delivered]);
    assert_eq!(fs::read_to_string(&path).expect("text"), body(2) + "\n");
}

/// Delivers as a worker does that stores every checkpoint at once; returns the last one.
fn deliver(sink: &mut FileSink, numbers: std::ops::Range<usize>) -> Vec<u8> {
    let mut left: Vec<_> = numbers.map(record).collect();
    loop {
        let outcome = sink.deliver(&left);
        let mut fates = outcome.fates.iter();
        left.retain(|_| fates.next() != Some(&Fate::Delivered));
        if left.is_empty() {
            return outcome.checkpoint.expect("a checkpoint");
        }
        assert!(outcome.is_checkpoint_due, "{:?}", outcome.fates);
    }
}

fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| body(number) + "\n").collect()
}

/// A restored backup, or a log whose newest part was deleted.
#[test]
fn lines_that_were_acknowledged_after_the_stored_checkpoint_are_not_cut_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("events.ndjson");
    let mut sink = opened(&path);
    sink.begin();
    let old = deliver(&mut sink, 0..3);
    deliver(&mut sink, 3..6);
    drop(sink);
    let mut sink = FileSink::new(&path, Format::Body);
    sink.open(Some(&old)).expect("opens");
    sink.begin();
    let fates = sink.deliver(&[record(7)]).fates;
    assert!(
        matches!(&fates[..], [Fate::Retry { error }] if error.contains("Move the file away")),
        "{fates:?}"
    );
    assert_eq!(fs::read_to_string(&path).expect("text"), lines(0..6));
}

#[test]
fn a_path_that_was_changed_after_a_crash_doubles_no_batch() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (folder.path().join("old.ndjson"), folder.path().join("new.ndjson"));
    let mut sink = opened(&old);
    let stored = sink.begin().expect("a checkpoint");
    deliver(&mut sink, 0..3);
    drop(sink);
    let mut sink = FileSink::new(&new, Format::Envelope);
    sink.open(Some(&stored)).expect("opens");
    sink.begin();
    deliver(&mut sink, 0..3);
    deliver(&mut sink, 3..4);
    assert_eq!(fs::read_to_string(&old).expect("text"), lines(0..3));
    assert_eq!(fs::read_to_string(&new).expect("text"), crate::records::envelope(&body(3)) + "\n");
}
