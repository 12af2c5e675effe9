//! A spool that cannot be opened: the error names the path and the cure, the program ends with exit code 2, and nothing
//! is deleted or changed to get going.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use dt_receiver::clock::SystemClock;
use dt_receiver::spool::{Spool, SpoolError, SpoolOptions, StartAt};
use rusqlite::Connection;

use crate::events::seed;
use crate::full_disk::Disk;
use crate::server::{Ended, Place, Server, Sinks};

fn open(folder: &Path) -> Result<Spool, SpoolError> {
    Spool::open(folder, SpoolOptions::default(), Arc::new(SystemClock))
}

/// A spool with a sink and nothing else, closed.
fn closed_spool(folder: &Path) {
    let spool = open(folder).expect("opened");
    spool.register(Arc::from("file"), StartAt::Now, BTreeSet::new()).expect("registered");
}

/// Names and contents of all files but the lock and SQLite's shared memory, which hold nothing.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let names = entries.map(|entry| entry.expect("read").file_name().into_string().expect("text"));
    let names = names.filter(|name| name != "spool.lock" && !name.ends_with("-shm"));
    names.map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap_or_default())).collect()
}

/// Opening fails twice in the same way, changes nothing, and the program ends with exit code 2.
fn refused(folder: &Path, data: &Path, words: &[&str]) -> SpoolError {
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
    assert!(matches!(error, SpoolError::Locked { .. }));
}

#[test]
fn a_newer_format() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("spool");
    closed_spool(&data);
    let database = Connection::open(data.join("spool.db")).expect("opened");
    database.pragma_update(None, "user_version", 99).expect("set");
    drop(database);
    let error = refused(folder.path(), &data, &["99", "newer program"]);
    assert!(matches!(error, SpoolError::Newer { found: 99, .. }));
}

#[test]
fn not_a_database_and_not_ours() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("spool");
    fs::create_dir_all(&data).expect("made");
    fs::write(data.join("spool.db"), "some text of somebody, long enough to be no empty database".repeat(50))
        .expect("written");
    let error = refused(folder.path(), &data, &["not a spool", "`data`"]);
    assert!(matches!(error, SpoolError::NotASpool { .. }));
    fs::remove_file(data.join("spool.db")).expect("removed");
    let database = Connection::open(data.join("spool.db")).expect("opened");
    database.execute_batch("CREATE TABLE theirs (a); PRAGMA user_version = 1;").expect("made");
    drop(database);
    let error = refused(folder.path(), &data, &["not a spool"]);
    assert!(matches!(error, SpoolError::NotASpool { .. }));
}

#[test]
fn a_damaged_header_or_counter() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("spool");
    closed_spool(&data);
    let whole = fs::read(data.join("spool.db")).expect("read");
    // The first page but for its header: the list of tables.
    let mut bytes = whole.clone();
    bytes[100..4096].fill(0xAA);
    fs::write(data.join("spool.db"), &bytes).expect("written");
    refused(folder.path(), &data, &["damaged", "spool rebuild"]);
    // A database that was cut off.
    fs::write(data.join("spool.db"), &whole[..whole.len() / 2]).expect("written");
    refused(folder.path(), &data, &["damaged", "spool rebuild"]);
    fs::write(data.join("spool.db"), &whole).expect("written");
    open(&data).expect("whole again");
}

#[test]
fn a_file_in_place_of_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("spool");
    fs::write(&data, "not a folder").expect("written");
    let error = refused(folder.path(), &data, &["making the folder"]);
    assert!(matches!(error, SpoolError::Unusable { .. }));
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
}

#[test]
fn a_cursor_beyond_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("spool");
    closed_spool(&data);
    let database = Connection::open(data.join("spool.db")).expect("opened");
    database.execute("UPDATE sinks SET cursor = 17", []).expect("set");
    drop(database);
    let error = refused(folder.path(), &data, &["sink file", "17", "UPDATE sinks SET cursor = 0"]);
    assert!(matches!(error, SpoolError::CursorBeyondEnd { cursor: 17, last_seq: 0, .. }));
    // The cure in the text works.
    let text = error.to_string();
    let cure = text.split('"').nth(1).expect("quoted");
    Connection::open(data.join("spool.db")).expect("opened").execute(cure, []).expect("cured");
    open(&data).expect("opened");
}

#[test]
fn a_tool_that_writes_for_long_stops_nothing_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), Sinks::File, "");
    let server = Server::bare(&place);
    let mut sender = crate::sender::Sender::connect(server.listen).expect("connected");
    assert_eq!(sender.send(1, 0).expect("an answer").status, 200);
    let database = Connection::open(&place.spool_files()[0]).expect("opened");
    database.busy_timeout(Duration::from_secs(5)).expect("set");
    database.execute_batch("BEGIN IMMEDIATE").expect("held");
    // What comes with every event needs only the journal.
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
fn garbage_in_a_database_never_panics() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("spool");
    closed_spool(&data);
    let whole = fs::read(data.join("spool.db")).expect("read");
    let mut random = crate::events::Random::new(seed());
    for _ in 0..200 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(20) {
            let at = usize::try_from(random.below(bytes.len() as u64)).expect("small");
            bytes[at] = u8::try_from(random.below(256)).expect("a byte");
        }
        fs::write(data.join("spool.db"), &bytes).expect("written");
        if let Err(error) = open(&data) {
            assert!(error.to_string().contains("spool.db"), "{error}");
        }
        for name in ["spool.db-wal", "spool.db-shm"] {
            let _gone = fs::remove_file(data.join(name));
        }
    }
}
