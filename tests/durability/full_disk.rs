//! Full disks, real ones: a small file system for the spool, and one for the file.
//!
//! Mounting needs root.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use dt_receiver::clock::SystemClock;
use dt_receiver::deliver::{Backoff, WorkerHandle};
use dt_receiver::record::{KeptHeaders, Record};
use dt_receiver::sink::{Fate, OpenError, Outcome, Sink};
use dt_receiver::spool::{Spool, SpoolOptions, StartAt};
use dt_receiver::telemetry::Telemetry;
use dt_receiver::verify::VerifiedBy;
use hyper::body::Bytes;

use crate::events::is_there;
use crate::sender::{Sender, readiness};
use crate::server::{Place, Server, Sinks};

/// A small file system; unmounted when it goes.
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
}

impl Disk {
    /// Mounts one; `None` where that is not allowed.
    pub(crate) fn mount(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&path).expect("made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "dt-receiver-test"])
            .arg(&path)
            .stderr(Stdio::null())
            .status();
        let there = mounted.is_ok_and(|status| status.success());
        is_there(there, "the right to mount", "full disks of their own").then_some(Self { path })
    }

    /// Fills it but for so many bytes.
    fn fill(&self, but: u64) {
        let free = rustix::fs::statvfs(&self.path).map(|disk| disk.f_bavail * disk.f_frsize).expect("known");
        let mut ballast = fs::File::create(self.path.join("ballast")).expect("made");
        let block = vec![1; 4096];
        for _ in 0..free.saturating_sub(but) / 4096 {
            if ballast.write_all(&block).is_err() {
                break;
            }
        }
    }

    pub(crate) fn make_read_only(&self) {
        let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.path).status();
        assert!(remounted.expect("mount runs").success());
    }

    fn empty(&self) {
        fs::remove_file(self.path.join("ballast")).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Sends until the answer is that status, at most so often; gives how many were answered 200.
fn send_until(sender: &mut Sender, next: &mut u64, status: u16, at_most: u64) -> u64 {
    let mut accepted = 0;
    for _ in 0..at_most {
        let answer = sender.send(1, *next).expect("an answer");
        if answer.status == 200 {
            *next += 1;
            accepted += 1;
        } else {
            assert_eq!(answer.status, 503, "{answer:?}");
        }
        if answer.status == status {
            return accepted;
        }
    }
    panic!("never a {status} in {at_most}");
}

/// Sends the same event until it is accepted: how a full spool is tried again.
fn until_there_is_room(sender: &mut Sender, next: &mut u64) -> Duration {
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(30) {
        if sender.send(1, *next).expect("an answer").status == 200 {
            *next += 1;
            return since.elapsed();
        }
    }
    panic!("there is room, and it is still full");
}

fn all_delivered(place: &Place, count: u64) {
    let delivered = place.events_in_file();
    for number in 0..count {
        assert_eq!(delivered.get(&(1, number)), Some(&1), "event {number} of {count} was answered 200");
    }
}

/// Fills the disk but for `left` bytes, and empties it, three times. While it is full, `/readyz` says `why`.
fn fills_and_empties(limits: &str, left: u64, why: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = Disk::mount(folder.path().join("disk"), "16m") else { return };
    let file = folder.path().join("events.ndjson");
    let place = Place::with(folder.path(), &disk.path.join("data"), &file, Sinks::File, limits);
    let server = Server::bare(&place);
    let mut sender = Sender::connect(server.listen).expect("connected");
    let mut next = 0;
    let mut full = 0;
    for round in 0..3 {
        assert_eq!(sender.send(1, next).expect("an answer").status, 200);
        next += 1;
        disk.fill(left);
        send_until(&mut sender, &mut next, 503, 100_000);
        let said = readiness(server.admin);
        assert!(said.starts_with("not ready: spool:") && said.contains(why), "round {round}: {said}");
        for _ in 0..100 {
            // Some may find room, as what was delivered makes place.
            let answer = sender.send(1, next).expect("an answer");
            if answer.status == 200 {
                next += 1;
            } else {
                full += 1;
            }
        }
        disk.empty();
        let room = until_there_is_room(&mut sender, &mut next);
        println!("round {round}: {next} answered 200, {full} answered 503, room after {room:?}");
        for _ in 0..50 {
            assert_eq!(sender.send(1, next).expect("an answer").status, 200);
            next += 1;
        }
        let said = readiness(server.admin);
        // The worker of the file may still wait before it tries again to move its cursor.
        assert!(!said.starts_with("not ready: spool:"), "round {round}: {said}");
    }
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    all_delivered(&place, next);
    let database = rusqlite::Connection::open(&place.spool_files()[0]).expect("opened");
    let whole: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
    assert_eq!(whole, "ok");
}

#[test]
fn a_disk_with_less_than_min_free_means_503_and_nothing_is_lost() {
    fills_and_empties("[spool]\nmin_free = '4MiB'", 3 << 20, "min_free");
}

#[test]
fn a_disk_without_any_room_means_503_and_nothing_is_lost() {
    fills_and_empties("[spool]\nmin_free = 0", 200 << 10, "disk is full");
}

#[test]
fn a_full_disk_of_the_file_alone_delays_no_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = Disk::mount(folder.path().join("disk"), "4m") else { return };
    let file = disk.path.join("events.ndjson");
    let place =
        Place::with(folder.path(), &folder.path().join("data"), &file, Sinks::File, "drain_timeout = '60s'");
    let server = Server::bare(&place);
    let mut sender = Sender::connect(server.listen).expect("connected");
    assert_eq!(sender.send(1, 0).expect("an answer").status, 200);
    disk.fill(0);
    let mut slowest = Duration::ZERO;
    for number in 1..500 {
        let sent = Instant::now();
        assert_eq!(sender.send(1, number).expect("an answer").status, 200);
        slowest = slowest.max(sent.elapsed());
    }
    let said = readiness(server.admin);
    assert!(said.starts_with("ready, but: sink file:") && said.contains("No space"), "{said}");
    disk.empty();
    println!("500 answers with the file's disk full, the slowest in {slowest:?}");
    // A stop ends the pause of a sink that was down, so the rest goes with the next start.
    server.stop();
    let server = Server::bare(&place);
    server.stop();
    all_delivered(&place, 500);
}

#[test]
fn a_spool_at_its_max_size_means_503_until_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let ids = folder.path().join("ids.txt");
    let outage = folder.path().join("outage");
    fs::write(&outage, "").expect("written");
    let place = Place::new(folder.path(), Sinks::File, "[spool]\nmax_size = '1MiB'\nmin_free = 0");
    let server = crate::child::start(&place, &ids, 0, &outage);
    let mut sender = Sender::connect(server.listen).expect("connected");
    let mut next = 0;
    send_until(&mut sender, &mut next, 503, 100_000);
    // What the log held counts only until it is written back, so this may take some more.
    let mut refused = 0;
    while refused < 1_000 {
        match sender.send(1, next).expect("an answer").status {
            200 => (next, refused) = (next + 1, 0),
            _ => refused += 1,
        }
    }
    let used = spool_bytes(&place);
    let said = readiness(server.admin);
    assert!(said.contains("max_size"), "{said}");
    fs::remove_file(&outage).expect("removed");
    until_there_is_room(&mut sender, &mut next);
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    println!("full with {next} events in {used} bytes; room again without a restart");
    all_delivered(&place, next);
}

fn spool_bytes(place: &Place) -> u64 {
    let size = |path: &Path| fs::metadata(path).map_or(0, |about| about.len());
    size(&place.spool_files()[0]) + size(&place.spool_files()[1])
}

/// A sink that rejects everything, at a moment when the disk is full.
struct Rejecting {
    /// Not the disk itself: a test that fails leaves its worker behind, and must not leave a mount.
    disk: Weak<Disk>,
    calls: Arc<AtomicU64>,
}

impl Sink for Rejecting {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        if self.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            self.disk.upgrade().expect("mounted").fill(0);
        }
        // Longer than the log is by now, so that it has to grow.
        let fate = Fate::Rejected { error: "never ".repeat(40_000) };
        Outcome { fates: vec![fate; batch.len()], ..Outcome::default() }
    }
}

#[test]
fn what_a_sink_rejects_while_the_disk_is_full_is_buried_once_and_not_given_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = Disk::mount(folder.path().join("disk"), "8m") else { return };
    let (disk, calls) = (Arc::new(disk), Arc::new(AtomicU64::new(0)));
    let data = disk.path.join("spool");
    let options = SpoolOptions { min_free: 0, ..SpoolOptions::default() };
    let spool = Arc::new(Spool::open(&data, options, Arc::new(SystemClock)).expect("opened"));
    let sink = Box::new(Rejecting { disk: Arc::downgrade(&disk), calls: Arc::clone(&calls) });
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20), 1).expect("good");
    let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
    let worker = WorkerHandle::start(
        Arc::from("s"),
        sink,
        dt_receiver::deliver::Skips::new(),
        StartAt::Now,
        backoff,
        Arc::clone(&spool),
        telemetry,
    );
    let worker = worker.expect("started");
    let record = Record {
        connector: Arc::from("default"),
        received_at: 0,
        verified_by: VerifiedBy::Secret { label: Arc::from("s") },
        event_id: "id".into(),
        event_type: "touch".into(),
        project: None,
        device: None,
        request_id: None,
        headers: KeptHeaders::default(),
        body: Bytes::from("body"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(spool.append(Arc::new(record), true)).expect("stored");
    let since = Instant::now();
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        while !is_so() {
            assert!(since.elapsed() < Duration::from_secs(60), "never: {what}");
            std::thread::yield_now();
        }
    };
    until("it is full", &|| worker.trouble().is_some_and(|trouble| trouble.contains("full")));
    disk.empty();
    let database = rusqlite::Connection::open(data.join("spool.db")).expect("opened");
    let number = |sql: &str| -> i64 { database.query_row(sql, [], |row| row.get(0)).expect("read") };
    until("the cursor moves", &|| number("SELECT cursor FROM sinks") == 1);
    assert_eq!(number("SELECT count(*) FROM dead WHERE reason = 'rejected'"), 1);
    assert_eq!(calls.load(Ordering::SeqCst), 1, "it has it already");
    drop(database);
    spool.tail().stop(Instant::now());
    worker.join();
    spool.close();
}
