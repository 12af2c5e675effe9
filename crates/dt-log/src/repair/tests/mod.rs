//! What a repair proposes and does for each loss, and that it removes nothing. `documented.rs` compares it with the documentation.

#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

mod documented;
mod durable;
mod interrupted;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tempfile::TempDir;

use super::super::frame::SinkSet;
use super::super::{Appended, Bounds, Log, LogOptions, Progress, Reader, StartAt, StoredEvent};
use super::*;
use dt_sink::clock::ManualClock;
use dt_sink::record::{DeadLetter, Record};

const SEGMENT: u64 = 32 << 10;
const EVENTS: i64 = 400;

/// A store with many segments. The sink `behind` has received nothing, `ahead` half of the events.
struct Fixture(TempDir);

impl Fixture {
    fn new() -> Self {
        let fixture = Self(tempfile::tempdir().expect("a folder"));
        let log = fixture.open().expect("opens");
        let register = |name: &str| log.register(&Arc::from(name), StartAt::Now, Vec::new()).expect("known");
        let (behind, ahead) = (register("behind"), register("ahead"));
        let sinks = SinkSet::new([behind.number, ahead.number]);
        let dead_letter =
            DeadLetter::of_record(&Record::sample("old"), Arc::from("ahead"), "odd".to_owned(), 1);
        log.dead_letters().add_blocking(vec![dead_letter.with_seq(1)]).expect("stored");
        for number in 1..=EVENTS {
            append(&log, &number.to_string(), &sinks);
            if number == EVENTS / 2 {
                let (sink, checkpoint) = (ahead.number, Some(b"half".to_vec()));
                let progress = Progress { sink, cursor: number, checkpoint, ends_replay: false };
                log.advance(progress, true).expect("stored");
            }
        }
        log.close();
        fixture
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn open(&self) -> Result<Log, LogError> {
        let bounds = Bounds { max_size: 1 << 40, min_free: 0, retain: Duration::ZERO };
        let options = LogOptions { bounds, segment_bytes: SEGMENT, ..LogOptions::default() };
        Log::open(self.path(), options, Arc::new(ManualClock::at(1_000_000)))
    }

    fn segments(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.files().keys().filter_map(|name| segment::number_of(name)).collect();
        numbers.sort_unstable();
        numbers
    }

    fn segment(&self, number: u64) -> PathBuf {
        segment::path(self.path(), number)
    }

    /// Returns all files with their content, without those that SQLite creates for readers.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries =
            std::fs::read_dir(self.path()).expect("listed").map(|entry| entry.expect("an entry").path());
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
        entries.map(|path| (name(&path), std::fs::read(&path).expect("read"))).collect()
    }

    /// Proposes a repair, which must change nothing, and carries it out, which must remove no content. Returns the proposed
    /// steps.
    fn repair(&self) -> Vec<String> {
        let before = self.files();
        assert!(self.open().is_err(), "the log opens as it is");
        let proposal = Proposal::new(self.path()).expect("proposed");
        let steps: Vec<String> = proposal.steps().iter().map(ToString::to_string).collect();
        assert_eq!(self.files(), before, "a proposal changes nothing");
        proposal.carry_out().expect("done");
        let after: BTreeSet<Vec<u8>> = self.files().into_values().collect();
        for (name, content) in
            before.iter().filter(|(name, _)| !name.contains("spool.lock") && !name.contains("dead.db"))
        {
            assert!(after.contains(content), "{name} is gone");
        }
        let again = Proposal::new(self.path()).expect("proposed");
        assert_eq!(again.steps(), [], "a second repair has nothing to do");
        steps
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn copy(&self) -> Self {
        let copy = Self(tempfile::tempdir().expect("a folder"));
        for (name, content) in self.files() {
            std::fs::write(copy.file(&name), content).expect("written");
        }
        copy
    }

    fn newest(&self) -> u64 {
        *self.segments().last().expect("some")
    }

    fn remove(&self, numbers: &[u64]) {
        numbers.iter().for_each(|number| std::fs::remove_file(self.segment(*number)).expect("removed"));
    }

    /// Changes the version of a segment to a newer one.
    fn make_newer(&self, number: u64) {
        let path = self.segment(number);
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[8..12].copy_from_slice(&9_u32.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..52]);
        bytes[52..56].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(path, bytes).expect("written");
    }

    /// Damages a group with events, counted from the last one of a segment. The bytes after the last one are zeros, as
    /// after a kill.
    fn spoil_group(&self, number: u64, from_last: usize) {
        let path = self.segment(number);
        let mut bytes = std::fs::read(&path).expect("read");
        let is_group = |at: &usize| bytes[*at..].starts_with(b"DTgr");
        let has_events = |at: &usize| bytes[at + 12..at + 16] != [0; 4];
        let groups: Vec<usize> = (0..bytes.len()).filter(is_group).filter(has_events).collect();
        let last = *groups.last().expect("groups");
        let length = u32::from_le_bytes(bytes[last + 8..last + 12].try_into().expect("four bytes"));
        bytes[last + 24 + usize::try_from(length).expect("fits")..].fill(0);
        bytes[groups[groups.len() - 1 - from_last] + 40] ^= 1;
        std::fs::write(path, bytes).expect("written");
    }
}

fn append(log: &Log, id: &str, sinks: &SinkSet) -> i64 {
    let record = Record { body: vec![b'x'; 300].into(), ..Record::sample(id) };
    match log.append_blocking(Arc::new(record), sinks.clone(), true).expect("stored") {
        Appended::New(seq) => seq,
        Appended::Duplicate => panic!("{id} is a duplicate"),
    }
}

/// Returns the event ids that a sink gets, by sequence number. None may be damaged, because the repair reports losses.
fn given(log: &Log, sink: &str) -> BTreeMap<i64, String> {
    let mut source = log.source(log.sink(sink).expect("known"));
    let mut all = BTreeMap::new();
    while source.position() < log.tail().last_seq() {
        for StoredEvent { seq, record } in source.read(7, i64::MAX).expect("read") {
            all.insert(seq, record.expect("intact").event_id.to_string());
        }
    }
    all
}

/// Checks that a sink gets every remaining event after a sequence number under its number, and that a new event gets a
/// higher number. Returns the events that are lost.
fn lost_after(fixture: &Fixture, sink: &str, cursor: i64) -> Vec<i64> {
    let log = fixture.open().expect("opens again");
    let found = given(&log, sink);
    assert!(found.iter().all(|(seq, id)| seq.to_string() == *id), "{found:?}");
    let number = log.sink(sink).expect("known").number;
    let new = append(&log, "new", &SinkSet::new([number]));
    assert!(new > EVENTS, "the number {new} was used before");
    assert_eq!(given(&log, sink).last_key_value(), Some((&new, &"new".to_owned())));
    (cursor + 1..=EVENTS).filter(|seq| !found.contains_key(seq)).collect()
}

fn range(events: &[i64]) -> (i64, i64) {
    let (first, last) = (events[0], events[events.len() - 1]);
    assert_eq!(events.len(), usize::try_from(last - first + 1).expect("fits"), "{events:?}");
    (first, last)
}

#[test]
fn a_log_without_a_fault_and_a_folder_without_a_log_need_no_repair() {
    let fixture = Fixture::new();
    assert_eq!(Proposal::new(fixture.path()).expect("proposed").steps(), []);
    let log = fixture.open().expect("opens");
    let error = Proposal::new(fixture.path()).expect_err("a server has it");
    assert!(matches!(error, LogError::Locked { .. }), "{error}");
    drop(log);
    let empty = tempfile::tempdir().expect("a folder");
    assert_eq!(Proposal::new(empty.path()).expect("proposed").steps(), []);
}

#[test]
fn a_missing_middle_segment_is_replaced_and_its_events_are_named() {
    let fixture = Fixture::new();
    let numbers = fixture.segments();
    assert!(numbers.len() >= 4, "{numbers:?}");
    for number in &numbers[1..3] {
        std::fs::remove_file(fixture.segment(*number)).expect("removed");
    }
    let steps = fixture.repair();
    let (first, last) = range(&lost_after(&fixture, "behind", 0));
    let expected = format!(
        "continue without segments {} to {}; events {first} to {last} are lost",
        numbers[1], numbers[2]
    );
    assert_eq!(steps[0], expected, "{steps:?}");
    assert_eq!(steps.len(), 2, "{steps:?}");
}

#[test]
fn missing_oldest_segments_move_the_cursors_that_need_them() {
    let fixture = Fixture::new();
    let numbers = fixture.segments();
    std::fs::remove_file(fixture.segment(numbers[0])).expect("removed");
    let steps = fixture.repair();
    let (first, last) = range(&lost_after(&fixture, "behind", 0));
    assert_eq!(first, 1);
    let expected =
        format!("sink behind: continue after the events 1 to {last}; those that it does not have are lost");
    assert_eq!(steps[..2], [format!("continue without the oldest segments, 1 to {}", numbers[0]), expected]);
    let log = fixture.open().expect("opens");
    let ahead = log.sink("ahead").expect("known");
    assert_eq!((ahead.cursor, ahead.checkpoint.as_deref()), (EVENTS / 2, Some(&b"half"[..])), "it has them");
}

#[test]
fn missing_newest_segments_are_replaced_and_no_number_is_reused() {
    let fixture = Fixture::new();
    let numbers = fixture.segments();
    for number in numbers.iter().rev().take(2) {
        std::fs::remove_file(fixture.segment(*number)).expect("removed");
    }
    let steps = fixture.repair();
    let lost = lost_after(&fixture, "behind", 0);
    let (first, last) = range(&lost);
    assert_eq!(last, EVENTS);
    assert!(steps[0].ends_with(&format!("all events in them from {first} on are lost")), "{steps:?}");
}

/// There would be a segment for each number before it.
#[test]
fn a_file_with_the_name_of_a_far_segment_is_only_renamed() {
    let fixture = Fixture::new();
    std::fs::write(fixture.segment(1_000_000), "no segment").expect("written");
    let proposal = Proposal::new(fixture.path()).expect("a proposal");
    let steps: Vec<String> = proposal.steps().iter().map(ToString::to_string).collect();
    assert!(steps[0].contains("segment-0001000000.log.set-aside-1"), "{steps:?}");
    assert_eq!(steps.len(), 1, "{steps:?}");
    drop(proposal);
    fixture.repair();
    assert_eq!(given(&fixture.open().expect("opens"), "behind").len(), usize::try_from(EVENTS).expect("few"));
}

#[test]
fn without_any_segment_a_new_one_begins_above_all_numbers() {
    let fixture = Fixture::new();
    for number in fixture.segments() {
        std::fs::remove_file(fixture.segment(number)).expect("removed");
    }
    let steps = fixture.repair();
    assert!(steps[0].contains("all events in them from 1 on"), "{steps:?}");
    let log = fixture.open().expect("opens");
    let sink = log.register(&Arc::from("behind"), StartAt::Now, Vec::new()).expect("known");
    assert!(append(&log, "new", &SinkSet::new([sink.number])) > EVENTS);
    assert_eq!(log.dead_letters().highest_id(), 1, "the dead letters are those of before");
}

#[test]
fn a_foreign_and_a_newer_segment_are_renamed() {
    let (fixture, other) = (Fixture::new(), Fixture::new());
    let numbers = fixture.segments();
    std::fs::copy(other.segment(numbers[1]), fixture.segment(numbers[1])).expect("copied");
    fixture.make_newer(numbers[2]);
    let steps = fixture.repair();
    assert!(steps[0].contains(".set-aside-1: it belongs to another spool"), "{steps:?}");
    assert!(steps[1].contains("its format is version 9, of a newer program"), "{steps:?}");
    let (first, last) = range(&lost_after(&fixture, "behind", 0));
    assert!(steps[2].ends_with(&format!("events {first} to {last} are lost")), "{steps:?}");
}

/// Overwrites a part of a file.
fn spoil(path: &Path, range: std::ops::Range<usize>) {
    let mut bytes = std::fs::read(path).expect("read");
    bytes[range].fill(0xAA);
    std::fs::write(path, bytes).expect("written");
}

/// Damages a table of a database of dead letters.
fn spoil_table(path: &Path, name: &str) {
    let page: u32 = rusqlite::Connection::open(path)
        .and_then(|file| {
            file.query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [name], |row| row.get(0))
        })
        .expect("a page");
    let page = usize::try_from(page).expect("fits");
    spoil(path, (page - 1) * 4096..page * 4096);
}

#[test]
fn a_damaged_newest_snapshot_is_made_again_from_what_came_before() {
    let fixture = Fixture::new();
    let newest = *fixture.segments().last().expect("some");
    spoil(&fixture.segment(newest), 540..560);
    let steps = fixture.repair();
    assert_eq!(steps.len(), 1, "{steps:?}");
    let expected = format!("with the state of the sinks from segment {} and later ones", newest - 1);
    assert!(steps[0].contains(&expected), "{steps:?}");
    assert_eq!(lost_after(&fixture, "behind", 0), Vec::<i64>::new(), "no event is lost");
    let log = fixture.open().expect("opens");
    let ahead = log.sink("ahead").expect("known");
    assert_eq!((ahead.cursor, ahead.checkpoint.as_deref()), (EVENTS / 2, Some(&b"half"[..])));
}

#[test]
fn a_segment_without_a_readable_beginning_keeps_its_events() {
    for which in [1, usize::MAX] {
        let fixture = Fixture::new();
        let numbers = fixture.segments();
        let number = numbers[which.min(numbers.len() - 1)];
        spoil(&fixture.segment(number), 0..560);
        let steps = fixture.repair();
        assert!(
            steps[0].contains("neither its header nor its first group") || steps[0].contains("header"),
            "{steps:?}"
        );
        assert!(steps[1].starts_with(&format!("copy segment {number} back")), "{steps:?}");
        assert_eq!(lost_after(&fixture, "behind", 0), Vec::<i64>::new(), "no event is lost");
    }
}

#[test]
fn without_any_list_of_the_sinks_nothing_is_done() {
    let fixture = Fixture::new();
    for number in fixture.segments() {
        match number {
            1 => std::fs::remove_file(fixture.segment(1)).expect("removed"),
            _ => spoil(&fixture.segment(number), 540..560),
        }
    }
    let before = fixture.files();
    let error = Proposal::new(fixture.path()).expect_err("nothing to continue with");
    assert!(error.to_string().contains("no segment has a readable list of the sinks"), "{error}");
    assert_eq!(fixture.files(), before);
}

#[test]
fn missing_dead_letters_begin_anew_above_the_highest_id() {
    let fixture = Fixture::new();
    fixture.open().expect("a segment records the dead letter").close();
    std::fs::remove_file(fixture.path().join("dead.db")).expect("removed");
    let steps = fixture.repair();
    assert!(steps[0].ends_with("its first dead letter gets an id above 1"), "{steps:?}");
    let log = fixture.open().expect("opens");
    let dead_letter = DeadLetter::of_record(&Record::sample("x"), Arc::from("ahead"), "odd".to_owned(), 1);
    assert_eq!(log.dead_letters().add_blocking(vec![dead_letter]).expect("stored"), [Some(2)]);
}

#[test]
fn an_older_copy_of_the_dead_letters_is_used_and_keeps_its_content() {
    let fixture = Fixture::new();
    let (dead, copy) = (fixture.path().join("dead.db"), fixture.path().join("copy"));
    std::fs::copy(&dead, &copy).expect("copied");
    let log = fixture.open().expect("opens");
    let dead_letter = DeadLetter::of_record(&Record::sample("x"), Arc::from("ahead"), "odd".to_owned(), 1);
    log.dead_letters().add_blocking(vec![dead_letter]).expect("stored");
    log.close();
    drop(log);
    fixture.open().expect("a segment records the dead letter").close();
    std::fs::rename(&copy, &dead).expect("put back");
    let steps = fixture.repair();
    assert!(
        steps[0].starts_with("use this older copy") && steps[0].contains("dead letters 2 to 2"),
        "{steps:?}"
    );
    let log = fixture.open().expect("opens");
    assert_eq!(log.dead_letters().highest_id(), 2);
    assert_eq!(log.dead_letters().counts().iter().map(|count| count.dead_letters).sum::<u64>(), 1);
}

#[test]
fn foreign_and_damaged_dead_letters_are_renamed() {
    let (fixture, other) = (Fixture::new(), Fixture::new());
    let dead = fixture.path().join("dead.db");
    let own = std::fs::read(&dead).expect("read");
    std::fs::copy(other.path().join("dead.db"), &dead).expect("copied");
    let steps = fixture.repair();
    assert!(steps[0].ends_with("dead.db.set-aside-1: dead foreign"), "{steps:?}");
    assert_eq!(
        std::fs::read(fixture.path().join("dead.db.set-aside-1")).ok(),
        std::fs::read(other.path().join("dead.db")).ok()
    );
    std::fs::remove_file(&dead).expect("removed");
    std::fs::write(&dead, own).expect("put back");
    spoil_table(&dead, "counts");
    let steps = fixture.repair();
    assert!(steps[0].ends_with("dead.db.set-aside-2: dead damaged"), "{steps:?}");
    let log = fixture.open().expect("opens");
    assert_eq!(
        log.dead_letters().counts().iter().map(|count| count.dead_letters).sum::<u64>(),
        1,
        "the dead letter was copied"
    );
}

#[test]
fn a_damaged_highest_id_of_the_dead_letters_leaves_ids_after_a_repair() {
    let fixture = Fixture::new();
    let file = rusqlite::Connection::open(fixture.file("dead.db")).expect("opens");
    file.execute("UPDATE store SET highest_id = ?1", [i64::MAX]).expect("changed");
    drop(file);
    let dead_letter = || {
        let record = Record::sample("new");
        vec![DeadLetter::of_record(&record, Arc::from("ahead"), "odd".to_owned(), 1).with_seq(2)]
    };
    let log = fixture.open().expect("opens, and begins a segment");
    let error = log.dead_letters().add_blocking(dead_letter()).expect_err("no id is left");
    assert!(error.to_string().contains("`dt-receiver spool repair`"), "{error}");
    drop(log);
    let proposal = Proposal::new(fixture.path()).expect("proposed");
    assert!(matches!(proposal.steps().last(), Some(Step::NewDeadLetters { above: 1, .. })), "{proposal:?}");
    let saved = proposal.carry_out().expect("done");
    assert_eq!((saved.dead_letters, saved.unreadable), (1, 0));
    let log = fixture.open().expect("opens");
    assert_eq!(log.dead_letters().add_blocking(dead_letter()).expect("stored"), [Some(2)]);
}

#[test]
fn dead_letters_that_no_store_has_claimed_are_no_loss() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixture = Fixture(folder);
    let direct = dead::DeadOptions::new(dead::Expect::Anything);
    let dead_letters =
        dead::DeadLetters::open(fixture.path().join("dead.db"), direct, Arc::new(ManualClock::at(1)));
    let dead_letter = DeadLetter::of_record(&Record::sample("x"), Arc::from("ahead"), "odd".to_owned(), 1);
    dead_letters.expect("made").add_blocking(vec![dead_letter]).expect("stored");
    let log = fixture.open().expect("a new store takes what mode direct made");
    assert_eq!(log.dead_letters().highest_id(), 1);
}

#[test]
fn a_check_reads_the_index_of_ids() {
    let fixture = Fixture::new();
    let check = || Reader::open(fixture.path()).and_then(|reader| reader.check(|_| {})).expect("checked");
    assert_eq!(check(), [] as [String; 0]);
    let file = rusqlite::Connection::open(fixture.file("ids.db")).expect("opens");
    assert_eq!(file.execute("UPDATE pages_1 SET crc = crc + 1 WHERE page = 0", []).expect("changed"), 1);
    drop(file);
    let findings = check();
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert!(finding.starts_with("ids.db: damaged (") && finding.contains("accepted as new"), "{finding}");
    std::fs::remove_file(fixture.file("ids.db")).expect("removed");
    assert!(check()[0].starts_with("ids.db: the file is missing; "));
}
