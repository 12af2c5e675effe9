//! What a repair proposes and does for each loss, and that it removes nothing.

#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tempfile::TempDir;

use super::super::frame::SinkSet;
use super::super::{Appended, Bounds, Log, LogOptions, Progress, StartAt, StoredEvent};
use super::*;
use dt_sink::clock::ManualClock;
use dt_sink::record::{DeadLetter, Record};

const SEGMENT: u64 = 32 << 10;
const EVENTS: i64 = 400;

/// A store with many segments: `behind` has nothing of it, `ahead` has half.
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

    /// All files with their content; those that a reader of a database makes beside it apart.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries =
            std::fs::read_dir(self.path()).expect("listed").map(|entry| entry.expect("an entry").path());
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
        entries.map(|path| (name(&path), std::fs::read(&path).expect("read"))).collect()
    }

    /// Proposes, and sees that nothing changes; then does it, and sees that no bytes are gone. Returns what was proposed.
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
}

fn append(log: &Log, id: &str, sinks: &SinkSet) -> i64 {
    let record = Record { body: vec![b'x'; 300].into(), ..Record::sample(id) };
    match log.append_blocking(Arc::new(record), sinks.clone(), true).expect("stored") {
        Appended::New(seq) => seq,
        Appended::Duplicate => panic!("{id} is a duplicate"),
    }
}

/// What a sink is given: the events' ids, by sequence number. None may be damaged: the repair reports losses.
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

/// Every event that is left, after a sequence number, is given to a sink under its number; and a new one gets a higher
/// number. Returns the events that are not given.
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
fn a_missing_middle_segment_is_gone_without_and_its_events_are_named() {
    let fixture = Fixture::new();
    let numbers = fixture.segments();
    assert!(numbers.len() >= 4, "{numbers:?}");
    for number in &numbers[1..3] {
        std::fs::remove_file(fixture.segment(*number)).expect("removed");
    }
    let steps = fixture.repair();
    let (first, last) = range(&lost_after(&fixture, "behind", 0));
    let told =
        format!("go on without segments {} to {}; events {first} to {last} are lost", numbers[1], numbers[2]);
    assert_eq!(steps[0], told, "{steps:?}");
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
    let told =
        format!("sink behind: go on behind the events 1 to {last}, which it may not have; they are lost");
    assert_eq!(steps[..2], [format!("go on without the oldest segments, 1 to {}", numbers[0]), told]);
    let log = fixture.open().expect("opens");
    let ahead = log.sink("ahead").expect("known");
    assert_eq!((ahead.cursor, ahead.checkpoint.as_deref()), (EVENTS / 2, Some(&b"half"[..])), "it has them");
}

#[test]
fn missing_newest_segments_are_gone_without_and_no_number_is_given_twice() {
    let fixture = Fixture::new();
    let numbers = fixture.segments();
    for number in numbers.iter().rev().take(2) {
        std::fs::remove_file(fixture.segment(*number)).expect("removed");
    }
    let steps = fixture.repair();
    let lost = lost_after(&fixture, "behind", 0);
    let (first, last) = range(&lost);
    assert_eq!(last, EVENTS);
    assert!(
        steps[0].ends_with(&format!("all events from {first} on that were in them are lost")),
        "{steps:?}"
    );
}

#[test]
fn without_any_segment_a_new_one_begins_above_all_numbers() {
    let fixture = Fixture::new();
    for number in fixture.segments() {
        std::fs::remove_file(fixture.segment(number)).expect("removed");
    }
    let steps = fixture.repair();
    assert!(steps[0].contains("all events from 1 on"), "{steps:?}");
    let log = fixture.open().expect("opens");
    let sink = log.register(&Arc::from("behind"), StartAt::Now, Vec::new()).expect("known");
    assert!(append(&log, "new", &SinkSet::new([sink.number])) > EVENTS);
    assert_eq!(log.dead_letters().highest_id(), 1, "the dead letters are those of before");
}

#[test]
fn a_foreign_and_a_newer_segment_are_set_aside() {
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

/// Spoils a table of a database of dead letters, though not that of the letters.
fn spoil_counts(path: &Path) {
    let page: u32 = rusqlite::Connection::open(path)
        .and_then(|file| {
            file.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'counts'", [], |row| row.get(0))
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
    let told = format!("with the sinks as segment {} and what follows it say", newest - 1);
    assert!(steps[0].contains(&told), "{steps:?}");
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
    let error = Proposal::new(fixture.path()).expect_err("nothing to go on with");
    assert!(error.to_string().contains("no segment has a readable list of the sinks"), "{error}");
    assert_eq!(fixture.files(), before);
}

#[test]
fn missing_dead_letters_begin_anew_above_the_highest_id() {
    let fixture = Fixture::new();
    fixture.open().expect("a segment knows of the letter").close();
    std::fs::remove_file(fixture.path().join("dead.db")).expect("removed");
    let steps = fixture.repair();
    assert!(steps[0].ends_with("its first letter gets an id over 1"), "{steps:?}");
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
    fixture.open().expect("a segment knows of the letter").close();
    std::fs::rename(&copy, &dead).expect("put back");
    let steps = fixture.repair();
    assert!(steps[0].starts_with("use this older copy") && steps[0].contains("letters 2 to 2"), "{steps:?}");
    let log = fixture.open().expect("opens");
    assert_eq!(log.dead_letters().highest_id(), 2);
    assert_eq!(log.dead_letters().counts().iter().map(|count| count.dead_letters).sum::<u64>(), 1);
}

#[test]
fn foreign_and_damaged_dead_letters_are_set_aside() {
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
    spoil_counts(&dead);
    let steps = fixture.repair();
    assert!(steps[0].ends_with("dead.db.set-aside-2: dead damaged"), "{steps:?}");
    let log = fixture.open().expect("opens");
    assert_eq!(
        log.dead_letters().counts().iter().map(|count| count.dead_letters).sum::<u64>(),
        1,
        "the letter was saved"
    );
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

/// Copies a file over another.
fn put(from: PathBuf, to: PathBuf) {
    std::fs::write(to, std::fs::read(from).expect("read")).expect("written");
}

/// What follows a start that finds a loss or damage.
enum Then {
    /// It opens. The finding has these words; none is no finding.
    Opens(Option<&'static str>),
    /// It does not. A repair has a step with each of these words, and then it opens.
    Repairs(&'static [&'static str]),
    /// It does not, and no repair can help. It says these words.
    StaysClosed(&'static str),
}

use Then::{Opens, Repairs, StaysClosed};

/// A row of the table in `docs/spool-and-recovery.md`, ways to make it so, and whether events are lost.
type Row = (&'static str, &'static [fn(&Fixture)], Then, Lost);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    Nothing,
    Events,
}

const ROWS: &[Row] = &[
    (
        "segments in the middle",
        &[|fixture| fixture.remove(&[2, 3])],
        Repairs(&["go on without segments 2 to 3; events", "begin segment"]),
        Lost::Events,
    ),
    (
        "the oldest segments",
        &[|fixture| fixture.remove(&[1])],
        Repairs(&["the oldest segments", "go on behind"]),
        Lost::Events,
    ),
    (
        "the newest segments",
        &[|fixture| fixture.remove(&[fixture.newest() - 1, fixture.newest()])],
        Repairs(&["that were in them are lost", "begin segment"]),
        Lost::Events,
    ),
    (
        "all segments",
        &[|fixture| fixture.remove(&fixture.segments())],
        Repairs(&["all events from 1 on"]),
        Lost::Events,
    ),
    (
        "a segment of another spool, or of a newer program",
        &[|fixture| put(Fixture::new().segment(2), fixture.segment(2)), |fixture| fixture.make_newer(2)],
        Repairs(&["segment-0000000002.log.set-aside-1", "go on without segments 2 to 2"]),
        Lost::Events,
    ),
    (
        "the snapshot of the newest segment",
        &[|fixture| spoil(&fixture.segment(fixture.newest()), 540..560)],
        Repairs(&["with the sinks as segment"]),
        Lost::Nothing,
    ),
    (
        "the header of the newest segment",
        &[|fixture| spoil(&fixture.segment(fixture.newest()), 24..40)],
        Repairs(&["set-aside-1", "back under its name, with a new header"]),
        Lost::Nothing,
    ),
    (
        "the header of an older segment",
        &[|fixture| spoil(&fixture.segment(2), 24..40)],
        Opens(Some("its header is damaged")),
        Lost::Nothing,
    ),
    (
        "a segment's header and its first group",
        &[|fixture| spoil(&fixture.segment(2), 0..560)],
        Repairs(&["set-aside-1", "copy segment 2 back"]),
        Lost::Nothing,
    ),
    (
        "the snapshots of all segments, and segment 1 is no longer kept",
        &[|fixture| {
            fixture.remove(&[1]);
            fixture.segments().iter().for_each(|number| spoil(&fixture.segment(*number), 540..560));
        }],
        StaysClosed("no segment has a readable list of the sinks"),
        Lost::Nothing,
    ),
    (
        "a group inside a segment",
        &[|fixture| fixture.spoil_group(fixture.newest(), 1)],
        Opens(Some("are damaged")),
        Lost::Events,
    ),
    (
        "the last group",
        &[|fixture| fixture.spoil_group(fixture.newest(), 0)],
        Opens(Some("possibly acknowledged")),
        Lost::Events,
    ),
    (
        "`dead.db` is missing",
        &[|fixture| std::fs::remove_file(fixture.file("dead.db")).expect("removed")],
        Repairs(&["its first letter gets an id over 2"]),
        Lost::Nothing,
    ),
    (
        "`dead.db` is an older copy",
        &[|fixture| put(fixture.file("older.db"), fixture.file("dead.db"))],
        Repairs(&["use this older copy"]),
        Lost::Nothing,
    ),
    (
        "`dead.db` of another spool, or no database",
        &[
            |fixture| put(Fixture::new().file("dead.db"), fixture.file("dead.db")),
            |fixture| std::fs::write(fixture.file("dead.db"), "no database").expect("written"),
        ],
        Repairs(&["dead.db.set-aside-1", "make a new"]),
        Lost::Nothing,
    ),
    (
        "`dead.db` is damaged",
        &[|fixture| spoil_counts(&fixture.file("dead.db"))],
        Repairs(&["dead.db.set-aside-1", "with the letters that can be read"]),
        Lost::Nothing,
    ),
    (
        "`ids.db` is missing, older, foreign or damaged",
        &[
            |fixture| std::fs::remove_file(fixture.file("ids.db")).expect("removed"),
            |fixture| put(Fixture::new().file("ids.db"), fixture.file("ids.db")),
            |fixture| std::fs::write(fixture.file("ids.db"), "no database").expect("written"),
            |fixture| spoil(&fixture.file("ids.db"), 100..4096),
        ],
        Opens(Some("ids.db")),
        Lost::Nothing,
    ),
    (
        "`spool.lock` is missing",
        &[|fixture| std::fs::remove_file(fixture.file("spool.lock")).expect("removed")],
        Opens(None),
        Lost::Nothing,
    ),
    (
        "the number in `spool.lock` is nonsense",
        &[|fixture| std::fs::write(fixture.file("spool.lock"), "09999999999999999999\n").expect("written")],
        Repairs(&["begin segment"]),
        Lost::Nothing,
    ),
    (
        "the spool of an unreleased first edition (`spool.db`)",
        &[|fixture| std::fs::write(fixture.file("spool.db"), "").expect("written")],
        StaysClosed("move the folder away"),
        Lost::Nothing,
    ),
];

impl Fixture {
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

    /// Makes a segment one of a newer program.
    fn make_newer(&self, number: u64) {
        let path = self.segment(number);
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[8..12].copy_from_slice(&9_u32.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..52]);
        bytes[52..56].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(path, bytes).expect("written");
    }

    /// Spoils a group with events, counted from the last one of a segment. What follows the last one is as after a kill.
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

/// What the documentation says of each loss: what is lost, and the words of the start in the second column, in which `A`, `B`,
/// `N` and `…` stand for anything.
fn documented() -> Vec<(&'static str, Vec<Vec<&'static str>>)> {
    let page = include_str!("../../../../docs/spool-and-recovery.md");
    let table = page.split_once("| what is lost or damaged |").expect("a table").1;
    let mut rows: Vec<(&str, Vec<Vec<&str>>)> = Vec::new();
    for line in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let quoted = cells[1].split('`').skip(1).step_by(2).filter(|words| *words != "spool.lock");
        let anything = |c: char| matches!(c, 'A' | 'B' | 'N' | '…');
        let mut says: Vec<Vec<&str>> = quoted.map(|words| words.split(anything).collect()).collect();
        if cells[1].starts_with("the same") {
            says = rows.last().expect("a row before").1.clone();
        }
        rows.push((cells[0], says));
    }
    rows
}

/// Whether the sink that has had nothing is given fewer events than there were.
fn lost_of(log: &Log) -> Lost {
    let mut intact = 0;
    if let Some(sink) = log.sink("behind") {
        let mut source = log.source(sink);
        while source.position() < log.tail().last_seq() {
            let stored = source.read(7, i64::MAX).expect("read");
            intact += stored.iter().filter(|stored| stored.record.is_ok()).count();
        }
    }
    if intact == usize::try_from(EVENTS + 3).expect("fits") { Lost::Nothing } else { Lost::Events }
}

#[test]
fn each_row_of_the_documentation_is_so() {
    let documented = documented();
    let names: Vec<&str> = documented.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ROWS.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
    let whole = Fixture::new();
    std::fs::copy(whole.file("dead.db"), whole.file("older.db")).expect("copied");
    let log = whole.open().expect("opens");
    let dead_letter = DeadLetter::of_record(&Record::sample("x"), Arc::from("ahead"), "odd".to_owned(), 1);
    log.dead_letters().add_blocking(vec![dead_letter]).expect("stored");
    drop(log);
    // The snapshot of the next segment knows of the letter.
    let log = whole.open().expect("opens");
    let sinks = SinkSet::new([log.sink("behind").expect("known").number]);
    for number in 1..=3 {
        append(&log, &(EVENTS + number).to_string(), &sinks);
    }
    drop(log);
    for ((name, damages, then, lost), (_, says)) in ROWS.iter().zip(&documented) {
        for (which, damage) in damages.iter().enumerate() {
            let (what, fixture) = (format!("{name} ({which})"), whole.copy());
            damage(&fixture);
            let said = |text: &str| {
                let is_said = |words: &Vec<&str>| words.iter().all(|word| text.contains(word));
                assert!(says.is_empty() || says.iter().any(is_said), "{what}: {says:?} is not in: {text}");
            };
            match then {
                Opens(finding) => {
                    let log = fixture.open().unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(lost_of(&log), *lost, "{what}");
                    let found = log.findings().join("\n");
                    assert_eq!(found.is_empty(), finding.is_none(), "{what}: {found}");
                    assert!(finding.is_none_or(|words| found.contains(words)), "{what}: {found}");
                    for finding in log.findings() {
                        let (_, remedy) = finding.split_once("; ").unwrap_or_default();
                        assert!(!remedy.is_empty(), "{what}: no remedy in: {finding}");
                    }
                    said(&found);
                }
                Repairs(words) => {
                    said(&fixture.open().map(drop).expect_err(&what).to_string());
                    let steps = fixture.repair().join("\n");
                    for word in *words {
                        assert!(steps.contains(word), "{what}: \"{word}\" is not in: {steps}");
                    }
                    let log = fixture.open().unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(lost_of(&log), *lost, "{what}");
                }
                StaysClosed(words) => {
                    let before = fixture.files();
                    let start = fixture.open().map(drop).expect_err(&what).to_string();
                    said(&start);
                    let repair = Proposal::new(fixture.path()).map(drop).expect_err(&what).to_string();
                    assert!(repair.contains(words), "{what}: {repair}");
                    assert_eq!(fixture.files(), before, "{what}: something was changed");
                }
            }
        }
    }
}
