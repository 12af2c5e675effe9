//! Files of the spool that went bad, or were taken away or restored, while it was down: what the program says, its exit code,
//! and that it destroys nothing. A damaged event becomes a dead letter, and the events behind it go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dt_receiver::record::{DeadLetter, Reason};

use crate::events::{SECRET, body, id};
use crate::sender::{Answer, Sender, readiness};
use crate::server::{Ended, Place, Server, Sinks};
use crate::spools::{self, contents};

const EVENTS: u64 = 200;
/// The event whose bytes are damaged.
const BAD: u64 = 100;

/// A place whose spool has several short segments with events for its file, which has none of them.
fn with_segments(folder: &Path) -> Place {
    let place = Place::new(folder, Sinks::File, "");
    spools::add(&place.spool(), 0..EVENTS);
    assert!(place.segments().len() >= 5, "{:?}", place.segments());
    place
}

/// Another store with as many segments.
fn another(folder: &Path) -> Place {
    let folder = folder.join("another");
    fs::create_dir(&folder).expect("made");
    with_segments(&folder)
}

fn tool(place: &Place, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dt-receiver"));
    command.args(arguments).arg("--config").arg(&place.config).env("DT_SIGNATURE_SECRET", SECRET);
    command.output().expect("it runs")
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn send(server: &Server, device: u64, number: u64) -> Answer {
    Sender::connect(server.listen).and_then(|mut sender| sender.send(device, number)).expect("an answer")
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::yield_now();
    }
}

/// The program refuses to start with exit code 2 and these words, `spool check` says the same, and nothing changes.
fn refused(place: &Place, words: &[&str]) {
    let before = contents(&place.spool());
    for _ in 0..2 {
        let ended = match Server::start(place.serve(), Stdio::null()) {
            Err(ended) => ended,
            Ok(_) => panic!("it started, without {words:?}"),
        };
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        let checked = tool(place, &["spool", "check"]);
        assert!(matches!(checked.status.code(), Some(1 | 2)), "{checked:?}");
        for word in words {
            assert!(ended.stderr.contains(word), "\"{word}\" is not in: {ended:?}");
            assert!(text(&checked.stderr).contains(word), "\"{word}\" is not in: {checked:?}");
        }
    }
    assert_eq!(contents(&place.spool()), before, "something was changed");
}

/// Serves until everything is in the file that can be, then stops. `missing` are the events of device 1 that cannot.
fn delivers_all_but(place: &Place, missing: &[u64]) -> Ended {
    let server = Server::bare(place);
    assert_eq!(send(&server, 2, 0).status, 200, "events are accepted");
    // Events come in order, so the last one tells of the others.
    let last = id(2, 0);
    wait_for("the last event", || fs::read_to_string(&place.file).unwrap_or_default().contains(&last));
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    let delivered = place.events_in_file();
    let of_one = delivered.iter().filter(|((device, _), _)| *device == 1);
    assert!(delivered.values().all(|count| *count == 1), "{delivered:?}");
    let of_one: Vec<u64> = of_one.map(|((_, number), _)| *number).collect();
    assert_eq!(of_one, (0..EVENTS).filter(|number| !missing.contains(number)).collect::<Vec<_>>());
    ended
}

#[test]
fn a_deleted_segment_is_named_and_nothing_starts_without_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = with_segments(folder.path());
    let segments = place.segments();
    let (oldest, newest) = (segments[0], segments[segments.len() - 1]);
    let aside = folder.path().join("aside");
    for number in [oldest, segments[segments.len() / 2], newest] {
        fs::rename(place.segment(number), &aside).expect("moved");
        refused(
            &place,
            &[&format!("segments {number} to {number} are missing"), "put them back", "spool repair"],
        );
        fs::rename(&aside, place.segment(number)).expect("moved back");
    }
    // All of them: this is not a new spool.
    fs::create_dir(&aside).expect("made");
    for number in &segments {
        fs::rename(place.segment(*number), aside.join(number.to_string())).expect("moved");
    }
    refused(&place, &["are missing", "put them back"]);
    for number in &segments {
        fs::rename(aside.join(number.to_string()), place.segment(*number)).expect("moved back");
    }
    delivers_all_but(&place, &[]);
}

#[test]
fn a_foreign_or_renamed_segment_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (place, other) = (with_segments(folder.path()), another(folder.path()));
    let segments = place.segments();
    let aside = folder.path().join("aside");
    for number in [segments[0], segments[segments.len() / 2]] {
        fs::rename(place.segment(number), &aside).expect("moved");
        fs::copy(other.segment(number), place.segment(number)).expect("copied");
        refused(&place, &[&format!("segment-{number:010}.log"), "belongs to another spool"]);
        fs::copy(&aside, place.segment(number)).expect("copied");
        fs::copy(place.segment(segments[1]), place.segment(number)).expect("copied");
        if number != segments[1] {
            refused(&place, &[&format!("under the name of segment {number}"), "damaged"]);
        }
        fs::rename(&aside, place.segment(number)).expect("moved back");
    }
    // A foreign newest one says whose store it is; then the others are foreign.
    let newest = segments[segments.len() - 1];
    fs::rename(place.segment(newest), &aside).expect("moved");
    fs::copy(other.segment(newest), place.segment(newest)).expect("copied");
    refused(&place, &["segment-", "belongs to another spool"]);
    fs::rename(&aside, place.segment(newest)).expect("moved back");
    delivers_all_but(&place, &[]);
}

#[test]
fn missing_older_and_foreign_dead_letters_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (place, other) = (with_segments(folder.path()), another(folder.path()));
    let path = place.spool_file("dead.db");
    let (older, newer) = (folder.path().join("older.db"), folder.path().join("newer.db"));
    fs::copy(&path, &older).expect("copied");
    let log = spools::open(&place.spool()).expect("opens");
    let (connector, error, body) = ("default".into(), "why".to_owned(), Bytes::from("not JSON"));
    let letter = DeadLetter::of_request(connector, Reason::Unreadable, error, 0, body);
    log.dead_letters().add_blocking(vec![letter]).expect("stored");
    log.close();
    drop(log);
    // The next segment tells of it.
    spools::add(&place.spool(), 0..0);
    fs::rename(&path, &newer).expect("moved");
    refused(&place, &["dead.db", "missing", "spool repair"]);
    fs::copy(&older, &path).expect("copied");
    refused(&place, &["dead.db", "an older copy", "expected 1 or higher", "spool repair"]);
    fs::copy(other.spool_file("dead.db"), &path).expect("copied");
    refused(&place, &["dead.db", "belongs to store", "spool repair"]);
    fs::copy(&newer, &path).expect("copied");
    delivers_all_but(&place, &[]);
    let letters = json(&tool(&place, &["spool", "status", "--json"]));
    assert_eq!(letters["deadLetters"]["unreadable"], 1, "{letters}");
}

#[test]
fn missing_older_and_foreign_ids_are_made_again_from_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), Sinks::File, "");
    spools::add(&place.spool(), 0..1);
    let older = folder.path().join("older.db");
    fs::copy(place.spool_file("ids.db"), &older).expect("copied");
    spools::add(&place.spool(), 1..EVENTS);
    let (whole, other) = (folder.path().join("whole"), another(folder.path()));
    spools::copy(&place.spool(), &whole);
    for (what, file, says) in [
        ("missing", None, "ids.db"),
        ("foreign", Some(other.spool_file("ids.db")), "ids.db"),
        ("no database", Some(place.config.clone()), "ids.db"),
        // It says itself up to where it goes; what follows is in the log.
        ("older", Some(older), ""),
    ] {
        fs::remove_dir_all(place.spool()).expect("removed");
        spools::copy(&whole, &place.spool());
        fs::remove_file(place.spool_file("ids.db")).expect("removed");
        let put = file.as_ref().map(|file| fs::read(file).expect("read"));
        if let Some(put) = &put {
            fs::write(place.spool_file("ids.db"), put).expect("written");
        }
        let server = Server::bare(&place);
        for number in [0, 1, EVENTS / 2, EVENTS - 1] {
            let answer = send(&server, 1, number);
            assert!(answer.body.contains("duplicate"), "{what}: {number}: {answer:?}");
        }
        assert!(readiness(server.admin).contains(says), "{what}: {}", readiness(server.admin));
        let ended = server.stop();
        assert!(ended.stderr.contains(says), "{what}: {ended:?}");
        if what == "foreign" || what == "no database" {
            let names = contents(&place.spool());
            let kept = names.iter().find(|(name, _)| name.starts_with("ids.db.damaged-"));
            let (_, kept) = kept.unwrap_or_else(|| panic!("{what}: it is not kept"));
            assert_eq!(Some(kept), put.as_ref(), "{what}: it is kept as it was");
        }
        assert_eq!(place.events_in_file().len() as u64, EVENTS, "{what}");
        fs::remove_file(&place.file).expect("removed");
    }
}

/// The bytes of a file from the first place on where `needle` stands.
fn place_of(path: &Path, needle: &str) -> Option<(Vec<u8>, usize)> {
    let bytes = fs::read(path).expect("read");
    let at = bytes.windows(needle.len()).position(|found| found == needle.as_bytes())?;
    Some((bytes, at))
}

/// Flips a bit of the segment that has `needle`, so far behind it. Returns its path.
fn flip(place: &Place, needle: &str, behind: usize) -> PathBuf {
    for number in place.segments() {
        let path = place.segment(number);
        if let Some((mut bytes, at)) = place_of(&path, needle) {
            bytes[at + behind] ^= 1;
            fs::write(&path, bytes).expect("written");
            return path;
        }
    }
    panic!("{needle} is not there");
}

#[test]
fn a_flipped_bit_costs_the_events_of_its_group_which_become_dead_letters() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = with_segments(folder.path());
    let path = flip(&place, &id(1, BAD), 0);
    let before = fs::read(&path).expect("read");
    let checked = tool(&place, &["spool", "check"]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let said = text(&checked.stderr);
    assert!(said.contains(&format!("event {}", BAD + 1)) && said.contains("segment-"), "{said}");
    assert_eq!(fs::read(&path).expect("still there"), before, "a check changes nothing");
    delivers_all_but(&place, &[BAD]);
    let listed = text(&tool(&place, &["dead", "list", "--reason", "damaged", "--json"]).stdout);
    assert!(listed.contains(&format!("event {} cannot be read", BAD + 1)), "{listed}");
    assert_eq!(json(&tool(&place, &["spool", "status", "--json"]))["deadLetters"]["damaged"], 1);
}

#[test]
fn a_flipped_bit_in_a_header_is_reported_and_costs_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = with_segments(folder.path());
    let segments = place.segments();
    for number in [segments[0], segments[segments.len() / 2]] {
        let mut bytes = fs::read(place.segment(number)).expect("read");
        bytes[30] ^= 1;
        fs::write(place.segment(number), bytes).expect("written");
    }
    let checked = tool(&place, &["spool", "check"]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    assert!(text(&checked.stderr).contains("its header is damaged"), "{checked:?}");
    let ended = delivers_all_but(&place, &[]);
    assert!(ended.stderr.contains("its header is damaged"), "{ended:?}");
}

#[test]
fn a_damaged_snapshot_of_the_newest_segment_does_not_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = with_segments(folder.path());
    let newest = *place.segments().last().expect("a segment");
    let whole = fs::read(place.segment(newest)).expect("read");
    for at in [30, 520, 560] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(place.segment(newest), bytes).expect("written");
        refused(&place, &[&format!("segment-{newest:010}.log"), "damaged", "spool repair"]);
    }
    fs::write(place.segment(newest), whole).expect("written");
    delivers_all_but(&place, &[]);
}

/// Where the last group begins, and where what is used of a segment ends.
fn last_group(path: &Path) -> (Vec<u8>, usize, usize) {
    let bytes = fs::read(path).expect("read");
    let at = bytes.windows(4).rposition(|found| found == b"DTgr").expect("a group");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    (bytes, at, end)
}

/// Leaves a spool as a kill does, with an event in its last group: the seal of a clean stop is taken away.
fn unsealed(place: &Place) -> PathBuf {
    let newest = place.segment(*place.segments().last().expect("a segment"));
    loop {
        let (mut bytes, at, _) = last_group(&newest);
        if u32::from_le_bytes(bytes[at + 12..at + 16].try_into().expect("four bytes")) > 0 {
            return newest;
        }
        bytes[at..].fill(0);
        fs::write(&newest, bytes).expect("written");
    }
}

#[test]
fn a_last_group_that_cannot_be_read_is_reported_as_possibly_acknowledged_and_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = with_segments(folder.path());
    let path = unsealed(&place);
    let (mut bytes, at, _) = last_group(&path);
    bytes[at + 40] ^= 1;
    fs::write(&path, &bytes).expect("written");
    let checked = tool(&place, &["spool", "check"]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    assert!(text(&checked.stderr).contains("possibly acknowledged"), "{checked:?}");
    let server = Server::bare(&place);
    let said = readiness(server.admin);
    assert!(said.starts_with("ready, but: spool:") && said.contains("possibly acknowledged"), "{said}");
    assert_eq!(fs::read(&path).expect("still there"), bytes, "it is not cut off");
    server.stop();
    let ended = delivers_all_but(&place, &[EVENTS - 1]);
    drop(ended);
}

#[test]
fn a_truncated_last_segment_is_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = with_segments(folder.path());
    let path = unsealed(&place);
    let (bytes, at, end) = last_group(&path);
    // Within the last group, and exactly before it.
    for length in [(at + end) / 2, at] {
        fs::write(&path, &bytes[..length]).expect("written");
        let checked = tool(&place, &["spool", "check"]);
        assert_eq!(checked.status.code(), Some(1), "{length}: {checked:?}");
        assert!(text(&checked.stderr).contains(&path.display().to_string()), "{length}: {checked:?}");
    }
    let server = Server::bare(&place);
    let said = readiness(server.admin);
    assert!(said.starts_with("ready, but: spool:") && said.contains("segment-"), "{said}");
    server.stop();
    delivers_all_but(&place, &[EVENTS - 1]);
}

#[test]
fn a_restored_backup_loses_only_what_it_does_not_hold_and_destroys_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), Sinks::File, "");
    let serve = |numbers: std::ops::Range<u64>| {
        let server = Server::bare(&place);
        for number in numbers {
            assert_eq!(send(&server, 1, number).status, 200);
        }
        server.stop();
    };
    serve(0..10);
    let backup = folder.path().join("backup");
    spools::copy(&place.spool(), &backup);
    serve(10..20);
    let delivered = fs::read(&place.file).expect("read");
    fs::remove_dir_all(place.spool()).expect("removed");
    spools::copy(&backup, &place.spool());
    // The backup does not know of the second ten, which are in the file.
    let server = Server::bare(&place);
    assert_eq!(send(&server, 3, 0).status, 200);
    wait_for("the sink says so", || readiness(server.admin).contains("sink file:"));
    let said = readiness(server.admin);
    let path = place.file.display().to_string();
    assert!(said.starts_with("ready, but: sink file:") && said.contains(&path), "{said}");
    assert_eq!(fs::read(&place.file).expect("still there"), delivered, "no line is cut off or written over");
    // The remedy.
    let aside = folder.path().join("aside.ndjson");
    fs::rename(&place.file, &aside).expect("moved");
    let last = id(3, 0);
    wait_for("the event", || fs::read_to_string(&place.file).unwrap_or_default().contains(&last));
    server.stop();
    assert_eq!(fs::read(&aside).expect("still there"), delivered);
    assert_eq!(place.events_in_file().into_keys().collect::<Vec<_>>(), [(3, 0)]);
}

#[test]
fn a_damaged_event_whose_body_is_whole_is_let_in_again_and_another_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::with_backlog(folder.path(), EVENTS);
    // Of one, the id beside the body; of the other, the body, where the signature tells that it is not what DT sent.
    flip(&place, &id(1, BAD), 0);
    flip(&place, &format!("\"eventId\":\"{}", id(1, BAD + 1)), 20);
    delivers_all_but(&place, &[BAD, BAD + 1]);
    let report = json(&tool(&place, &["dead", "replay", "--reason", "damaged", "--json"]));
    assert_eq!((&report["failed"], &report["accepted"]), (&1.into(), &1.into()), "{report}");
    assert!(report["notes"].to_string().contains("checksum_mismatch"), "{report}");
    let before = place.events_in_file();
    Server::bare(&place).stop();
    let mut after = fs::read_to_string(&place.file).expect("read");
    let came = after.split_off(after.trim_end().rfind('\n').expect("a line") + 1);
    assert_eq!(came.trim_end(), body(1, BAD), "as it was sent");
    assert_eq!(after.lines().count(), before.len());
    assert_eq!(json(&tool(&place, &["spool", "status", "--json"]))["deadLetters"]["damaged"], 1);
}
