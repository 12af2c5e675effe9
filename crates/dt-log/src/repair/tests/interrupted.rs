//! A repair that is interrupted anywhere can be repeated: the second one loses no more than a single one.

use std::ffi::OsString;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::disk::About;

/// A disk that stops working after some changes of names.
#[derive(Debug)]
struct Stopping {
    left: AtomicU64,
}

impl Stopping {
    fn check(&self) -> io::Result<()> {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| io::ErrorKind::StorageFull.into())
    }
}

impl Disk for Stopping {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        if matches!(mode, OpenMode::Create | OpenMode::CreatePrivate) {
            self.check()?;
        }
        SystemDisk.open(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check()?;
        SystemDisk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.check()?;
        SystemDisk.remove_file(path)
    }

    fn create_folder(&self, path: &Path, is_private: bool) -> io::Result<()> {
        self.check()?;
        SystemDisk.create_folder(path, is_private)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.check()?;
        SystemDisk.sync_folder(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        SystemDisk.list(folder)
    }

    fn about(&self, path: &Path) -> io::Result<Option<About>> {
        SystemDisk.about(path)
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        SystemDisk.free_bytes(folder)
    }
}

/// Damages the dead letters, one of which is only in the write-ahead log.
fn add_dead_letters_of_a_killed_process(fixture: &Fixture) {
    let (dead, write_ahead) = (fixture.file("dead.db"), fixture.file("dead.db-wal"));
    let open = || {
        let options = dead::DeadOptions::new(dead::Expect::Anything);
        dead::DeadLetters::open(&dead, options, Arc::new(ManualClock::at(1))).expect("opens")
    };
    let dead_letters = open();
    let dead_letter = DeadLetter::of_record(&Record::sample("x"), Arc::from("ahead"), "odd".to_owned(), 1);
    dead_letters.add_blocking(vec![dead_letter]).expect("stored");
    let killed = [&dead, &write_ahead].map(|path| std::fs::read(path).expect("read"));
    drop(dead_letters);
    std::fs::write(&dead, &killed[0]).expect("written");
    spoil_table(&dead, "refused");
    std::fs::write(&write_ahead, &killed[1]).expect("written");
}

#[test]
fn a_repair_that_is_interrupted_anywhere_can_be_repeated() {
    let whole = Fixture::new();
    // Events and dead letters that can be read, behind headers that cannot.
    spoil(&whole.segment(2), 0..560);
    spoil(&whole.segment(whole.newest()), 0..560);
    add_dead_letters_of_a_killed_process(&whole);
    for changes in 0.. {
        let fixture = whole.copy();
        let disk = Arc::new(Stopping { left: AtomicU64::new(changes) });
        let is_done = plan::propose(disk, fixture.path()).expect("proposed").carry_out().is_ok();
        if fixture.open().is_err() {
            Proposal::new(fixture.path()).expect("proposed").carry_out().expect("done");
        }
        assert_eq!(lost_after(&fixture, "behind", 0), Vec::<i64>::new(), "after {changes} changes");
        let log = fixture.open().expect("opens");
        let dead_letters = log.dead_letters().counts().iter().map(|count| count.dead_letters).sum::<u64>();
        assert_eq!(dead_letters, 2, "after {changes} changes");
        if is_done {
            assert!(changes >= 10, "two segments and a database; only {changes}");
            break;
        }
    }
}

/// A repair that was interrupted has copied the write-ahead log. Then the receiver ran again, which wrote that into the
/// database, and added more.
#[test]
fn what_an_interrupted_repair_has_copied_is_not_applied_to_a_newer_database() {
    for ending in ["-wal", "-journal"] {
        let fixture = Fixture::new();
        add_dead_letters_of_a_killed_process(&fixture);
        let (dead, write_ahead) = (fixture.file("dead.db"), fixture.file("dead.db-wal"));
        let copy = if ending == "-wal" {
            std::fs::read(&write_ahead).expect("read")
        } else {
            let file = rusqlite::Connection::open(fixture.file("old.db")).expect("opens");
            file.execute_batch(
                "CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(100000)); PRAGMA cache_size = 1; BEGIN;
                 UPDATE t SET x = zeroblob(99999)",
            )
            .expect("changed");
            std::fs::read(fixture.file("old.db-journal")).expect("a journal")
        };
        std::fs::write(fixture.file(&format!("dead.db.set-aside-1{ending}")), &copy).expect("written");
        let file = rusqlite::Connection::open(&dead).expect("opens");
        let added = file.execute_batch(
            "INSERT INTO dead SELECT id + 10, reason, connector, sink, NULL, error, attempts, replays, received_at, dead_at,
                 verified_by, event_id, event_type, project, device, request_id, signatures, header_names, crc, NULL, body
             FROM dead;
             PRAGMA wal_checkpoint(TRUNCATE)",
        );
        added.expect("added");
        drop(file);
        assert!(!write_ahead.exists());
        Proposal::new(fixture.path()).expect("proposed").carry_out().expect("done");
        let log = fixture.open().expect("opens");
        let dead_letters = log.dead_letters().counts().iter().map(|count| count.dead_letters).sum::<u64>();
        assert_eq!(dead_letters, 4, "{ending}: the newer ones are there");
        assert_eq!(std::fs::read(fixture.file(&format!("dead.db.set-aside-1{ending}"))).ok(), Some(copy));
    }
}
