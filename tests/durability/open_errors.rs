//! A spool that cannot be opened: the error names the path and the remedy, the program ends with exit code 2, and nothing
//! is deleted or changed to get going.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use dt_receiver::log::LogError;
use dt_receiver::log::dead::DeadError;
use rusqlite::Connection;

use crate::events::seed;
use crate::full_disk::Disk;
use crate::server::{Ended, Place, Server, Sinks};
use crate::spools::{self, contents, open};

/// A spool with a sink and a few events, closed.
fn closed_spool(folder: &Path) {
    spools::add(folder, 0..5);
}

/// The path of the newest segment.
fn newest(folder: &Path) -> std::path::PathBuf {
    let names = contents(folder).into_keys().filter(|name| name.starts_with("segment-"));
    folder.join(names.max().expect("a segment"))
}

/// Opening fails twice in the same way, changes nothing, and the program ends with exit code 2.
fn refused(folder: &Path, data: &Path, words: &[&str]) -> LogError {
    let before = contents(data);
    let first = open(data).expect_err("it opened");
    let second = open(data).expect_err("it opened");
    assert_eq!(first.to_string(), second.to_string());
    for word in words {
        assert!(first.to_string().contains(word), "\"{word}\" is not in: {first}");
    }
    assert!(first.to_string().contains(&data.display().to_string()), "no path: {first}");
    let ended = served(folder, data);
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "\"{word}\" is not in: {ended:?}");
    }
    assert_eq!(contents(data), before, "something was changed");
    first
}

/// The program with its spool in `spool`, which has to be named so.
fn served(folder: &Path, spool: &Path) -> Ended {
    let data = spool.parent().expect("a parent");
    let place = Place::with(folder, data, &folder.join("events.ndjson"), Sinks::File, "");
    match Server::start(place.serve(), Stdio::null()) {
        Err(ended) => ended,
        Ok(_server) => panic!("it started"),
    }
}

#[test]
fn a_folder_of_another_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("spool");
    closed_spool(&data);
    // Only the lock: whoever has more of it would go on to change it.
    let held = fs::File::options().write(true).open(data.join("spool.lock")).expect("opened");
    held.try_lock().expect("locked");
    let error = refused(folder.path(), &data, &["another process", "`data`"]);
    assert!(matches!(error, LogError::Locked { .. }));
}

#[test]
fn a_newer_format() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("spool");
    closed_spool(&data);
    let path = newest(&data);
    let whole = fs::read(&path).expect("read");
    let mut bytes = whole.clone();
    bytes[8..12].copy_from_slice(&99_u32.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..52]);
    bytes[52..56].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).expect("written");
    let error = refused(folder.path(), &data, &["version 99", "newer program"]);
    assert!(matches!(error, LogError::Newer { found: 99, .. }));
    fs::write(&path, whole).expect("written");
    let database = Connection::open(data.join("dead.db")).expect("opened");
    database.pragma_update(None, "user_version", 99).expect("set");
    drop(database);
    let error = refused(folder.path(), &data, &["version 99", "newer program", "dead.db"]);
    assert!(matches!(error, LogError::DeadLetters(DeadError::Newer { found: 99, .. })));
}

#[test]
fn a_spool_of_the_first_edition() {
    for name in ["spool.db", "spool.journal"] {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("spool");
        fs::create_dir_all(&data).expect("made");
        fs::write(data.join(name), "what the first edition wrote").expect("written");
        let error = refused(folder.path(), &data, &[name, "unreleased edition", "move the folder away"]);
        assert!(matches!(error, LogError::FirstEdition { .. }));
    }
}

#[test]
fn files_that_are_not_ours() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("spool");
    closed_spool(&data);
    let text = "some text of somebody, long enough to be no empty file".repeat(50);
    let path = data.join("dead.db");
    let whole = fs::read(&path).expect("read");
    fs::write(&path, &text).expect("written");
    let error = refused(folder.path(), &data, &["dead.db", "not a database", "move it away"]);
    assert!(matches!(error, LogError::DeadLetters(DeadError::NotOurs { .. })));
    fs::remove_file(&path).expect("removed");
    let database = Connection::open(&path).expect("opened");
    database.execute_batch("CREATE TABLE theirs (a); PRAGMA user_version = 1;").expect("made");
    drop(database);
    refused(folder.path(), &data, &["dead.db", "another program's database"]);
    fs::write(&path, whole).expect("written");
    fs::write(newest(&data), &text).expect("written");
    let error = refused(folder.path(), &data, &["segment-", "damaged", "header", "spool repair"]);
    assert!(matches!(error, LogError::Damaged { .. }));
}

#[test]
fn a_damaged_or_empty_dead_letter_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("spool");
    closed_spool(&data);
    let path = data.join("dead.db");
    let whole = fs::read(&path).expect("read");
    // The first page but for its header: the list of tables.
    let mut bytes = whole.clone();
    bytes[100..4096].fill(0xAA);
    fs::write(&path, &bytes).expect("written");
    refused(folder.path(), &data, &["dead.db", "damaged", "spool repair"]);
    fs::write(&path, "").expect("written");
    refused(folder.path(), &data, &["dead.db", "missing"]);
    fs::write(&path, &whole).expect("written");
    open(&data).expect("whole again");
}

#[test]
fn a_file_in_place_of_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("spool");
    fs::write(&data, "not a folder").expect("written");
    let error = refused(folder.path(), &data, &[]);
    assert!(matches!(error, LogError::Io { .. }), "{error}");
    assert_eq!(fs::read(&data).expect("still there"), b"not a folder");
}

#[test]
fn a_read_only_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("spool");
    fs::create_dir_all(&data).expect("made");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o500)).expect("set");
    if fs::write(data.join("probe"), "").is_err() {
        refused(folder.path(), &data, &["spool.lock", "denied"]);
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("set");
}

#[test]
fn a_read_only_file_system() {
    // Permissions do not stop root, who alone may mount; a file system does.
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = Disk::mount(folder.path().join("disk"), "4m") else { return };
    let data = disk.path.join("spool");
    closed_spool(&data);
    disk.make_read_only();
    refused(folder.path(), &data, &["spool.lock", "Read-only"]);
}

#[test]
fn a_missing_folder_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("a").join("b").join("spool");
    closed_spool(&data);
    let mode = fs::metadata(&data).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "it holds signatures: nobody else may read it");
    for name in contents(&data).into_keys() {
        let mode = fs::metadata(data.join(&name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}

#[test]
fn a_first_start_that_was_interrupted_before_the_first_segment_is_done_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("spool");
    closed_spool(&data);
    // What is there before the first segment is.
    for name in contents(&data).into_keys().filter(|name| name.starts_with("segment-")) {
        fs::remove_file(data.join(name)).expect("removed");
    }
    let lock = fs::read(data.join("spool.lock")).expect("read");
    fs::write(data.join("spool.lock"), "").expect("written");
    spools::add(&data, 0..5);
    // Where there was a segment once, or nobody can tell, it is a loss.
    for name in contents(&data).into_keys().filter(|name| name.starts_with("segment-")) {
        fs::remove_file(data.join(name)).expect("removed");
    }
    fs::write(data.join("spool.lock"), lock).expect("written");
    let error = refused(folder.path(), &data, &["missing", "put them back"]);
    assert!(matches!(error, LogError::Missing { first: 1, .. }));
    fs::remove_file(data.join("spool.lock")).expect("removed");
    let error = open(&data).expect_err("it opened");
    assert!(matches!(error, LogError::Missing { first: 1, .. }));
}

#[test]
fn a_tool_that_writes_dead_letters_for_long_stops_nothing_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), Sinks::File, "");
    let server = Server::bare(&place);
    let mut sender = crate::sender::Sender::connect(server.listen).expect("connected");
    assert_eq!(sender.send(1, 0).expect("an answer").status, 200);
    let database = Connection::open(place.spool_file("dead.db")).expect("opened");
    database.execute_batch("BEGIN IMMEDIATE").expect("held");
    // Events need only the log.
    assert_eq!(sender.send(1, 1).expect("an answer").status, 200);
    let odd = "authentic, and no event";
    let token = crate::events::token(odd, crate::events::now());
    let answer = sender.post("/", odd, &token).expect("an answer");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(crate::sender::readiness(server.admin).contains("locked"));
    database.execute_batch("ROLLBACK").expect("let go");
    assert_eq!(sender.post("/", odd, &token).expect("an answer").status, 200);
    assert_eq!(sender.send(1, 2).expect("an answer").status, 200);
    server.stop();
    assert_eq!(place.events_in_file().len(), 3);
}

#[test]
fn garbage_in_a_segment_or_a_database_never_panics_and_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, data) = (folder.path().join("whole"), folder.path().join("spool"));
    closed_spool(&whole);
    let mut random = crate::events::Random::new(seed());
    for round in 0..60 {
        spools::copy(&whole, &data);
        let path = match round % 3 {
            0 => data.join("dead.db"),
            1 => data.join("ids.db"),
            _ => newest(&data),
        };
        let mut bytes = fs::read(&path).expect("read");
        let used = bytes.iter().rposition(|byte| *byte != 0).expect("not empty") as u64;
        for _ in 0..=random.below(20) {
            let at = usize::try_from(random.below(used)).expect("small");
            bytes[at] = u8::try_from(random.below(256)).expect("a byte");
        }
        fs::write(&path, &bytes).expect("written");
        if let Err(error) = open(&data) {
            let name = path.file_name().expect("a name").to_string_lossy();
            assert!(error.to_string().contains(&*name), "{error}");
            assert_eq!(fs::read(&path).expect("still there"), bytes);
        }
        fs::remove_dir_all(&data).expect("removed");
    }
}
