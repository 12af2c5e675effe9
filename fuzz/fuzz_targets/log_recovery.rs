//! Opening a log of which anything may be damaged. The bytes are a folder of segments (`src/segments.rs`).
//!
//! Nothing panics. What is given back is what an independent reader of the format finds intact: no event more, and, where
//! no writer contradicts another, none less. A log that does not open stays as it is, to the byte; one that opens has the
//! same events behind it, and has removed no segment but at its old end.
#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use dt_log::{Log, LogError, LogOptions, Reader};
use dt_receiver_fuzz::segments::{Event, Folder, SEGMENT_BYTES, STORE, events, intact};
use dt_sink::clock::SystemClock;
use libfuzzer_sys::{Corpus, fuzz_target};
use tempfile::TempDir;

/// The dead letters of the store that all inputs are of.
const DEAD_LETTERS: &[u8] = include_bytes!("../../tests/spools/v2/dead.db");

/// Where folders are made: in memory, where there is such a place, as a sync there costs nothing.
static PARENT: LazyLock<PathBuf> = LazyLock::new(|| {
    let in_memory = Path::new("/dev/shm");
    if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() }
});

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some(folder) = Folder::of(input) else { return Corpus::Reject };
    if folder.segments.is_empty() {
        return Corpus::Reject;
    }
    let place = TempDir::new_in(&*PARENT).expect("a folder");
    fs::write(place.path().join("dead.db"), DEAD_LETTERS).expect("written");
    fs::write(place.path().join("spool.lock"), format!("{:020}\n", folder.marked)).expect("written");
    for (number, content) in &folder.segments {
        fs::write(place.path().join(name(*number)), content).expect("written");
    }

    let before = read(place.path());
    if let Ok(before) = &before {
        what_is_read_is_intact(&folder, before);
        nothing_is_passed_over(&folder, before);
    }
    let options = LogOptions { segment_bytes: SEGMENT_BYTES as u64, ..LogOptions::for_repair() };
    let opened = Log::open(place.path(), options, Arc::new(SystemClock));
    match opened {
        Ok(log) => {
            let trouble = log.tail().last_error();
            log.close();
            drop(log);
            let before = before.expect("what opens can be read");
            let after = read(place.path()).expect("what was opened can be read");
            if trouble.is_none() {
                no_event_is_lost(&folder, &intact_events(&before), &intact_events(&after));
            }
            only_the_oldest_went(&folder, place.path());
        }
        Err(_) => {
            for (number, content) in &folder.segments {
                assert!(fs::read(place.path().join(name(*number))).is_ok_and(|found| found == *content));
            }
        }
    }
    Corpus::Keep
});

/// Events by their numbers; those that are damaged are `None`.
type Events = BTreeMap<i64, Option<Event>>;

fn name(number: u64) -> String {
    format!("segment-{number:010}.log")
}

fn read(folder: &Path) -> Result<Events, LogError> {
    let reader = Reader::open(folder)?;
    let mut events = Events::new();
    reader.events(i64::MIN, |seen| {
        let event = seen.stored.record.as_ref().ok().map(|record| Event {
            received_at: record.received_at,
            connector: record.connector.to_string(),
            event_id: record.event_id.to_string(),
            event_type: record.event_type.to_string(),
            body: record.body.to_vec(),
        });
        assert!(events.insert(seen.stored.seq, event).is_none(), "event {} came twice", seen.stored.seq);
        true
    })?;
    Ok(events)
}

fn intact_events(events: &Events) -> BTreeMap<i64, &Event> {
    events.iter().filter_map(|(seq, event)| Some((*seq, event.as_ref()?))).collect()
}

/// A start loses no event; it brings none back either, unless numbers go back behind a skip, which no writer does.
fn no_event_is_lost(folder: &Folder, before: &BTreeMap<i64, &Event>, after: &BTreeMap<i64, &Event>) {
    for (seq, event) in before {
        assert_eq!(after.get(seq), Some(event), "a start lost event {seq}");
    }
    let groups = folder.segments.iter().flat_map(|(number, content)| intact(content, *number));
    let has_skips = groups.filter_map(|group| group.frames).any(|frames| frames.skips_to.is_some());
    assert!(has_skips || before == after, "a start brought events back: {after:?}, not {before:?}");
}

fn what_is_read_is_intact(folder: &Folder, read: &Events) {
    let groups: Vec<_> =
        folder.segments.iter().flat_map(|(number, content)| intact(content, *number)).collect();
    for (seq, event) in intact_events(read) {
        let has_it = groups.iter().any(|group| {
            let place = usize::try_from(seq - group.first_seq).ok();
            let frames = group.frames.as_ref();
            place.zip(frames).is_some_and(|(place, frames)| frames.events.get(place) == Some(event))
        });
        assert!(has_it, "no intact group has event {seq}: {event:?}");
    }
}

/// Reads the segments one after the other, each up to the number with which the next one begins.
fn nothing_is_passed_over(folder: &Folder, read: &Events) {
    let headers: Option<Vec<_>> =
        folder.segments.iter().map(|(number, content)| Some((*number, first_seq(content)?))).collect();
    // Without a header, what it says is taken from the first group; numbers that go back contradict each other.
    let Some(headers) = headers.filter(|headers| headers.is_sorted_by_key(|(_, first_seq)| *first_seq))
    else {
        return;
    };
    let (Some(first), Some(last)) = (read.keys().next(), read.keys().next_back()) else { return };
    let mut expected = BTreeMap::new();
    for (place, (number, first_seq)) in headers.iter().enumerate() {
        let void_from = headers.get(place + 1).map_or(i64::MAX, |(_, next)| *next);
        let found = events(&folder.segments[number], *number, *first_seq);
        expected.extend(found.into_iter().filter(|(seq, _)| *seq < void_from));
    }
    // Where it begins and ends depends on what the newest segment says.
    expected.retain(|seq, _| (first..=last).contains(&seq));
    assert_eq!(intact_events(read), expected.iter().map(|(seq, event)| (*seq, event)).collect());
}

/// The number in an intact header of this store and version.
fn first_seq(content: &[u8]) -> Option<i64> {
    let (header, crc) = content.get(..56)?.split_at(52);
    let is_ours = header[8..12] == 2_u32.to_le_bytes() && header[12..28] == STORE;
    let is_intact = crc32fast::hash(header).to_le_bytes() == crc;
    (is_ours && is_intact).then(|| i64::from_le_bytes(header[36..44].try_into().expect("eight bytes")))
}

fn only_the_oldest_went(folder: &Folder, place: &Path) {
    let is_there =
        |number: u64, content: &[u8]| fs::read(place.join(name(number))).is_ok_and(|found| found == *content);
    let mut are_newer_there = true;
    for (number, content) in folder.segments.iter().rev() {
        let is_there = is_there(*number, content);
        assert!(are_newer_there || !is_there, "segment {number} is older than one that went");
        are_newer_there &= is_there;
    }
    let (newest, content) = folder.segments.last_key_value().expect("there is one");
    assert!(is_there(*newest, content), "the newest segment went");
}
