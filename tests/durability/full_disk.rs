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
use dt_receiver::deliver::{Backoff, WorkerHandle, WorkerParts};
use dt_receiver::log::{Bounds, Log, LogOptions, SinkSet, StartAt};
use dt_receiver::record::{KeptHeaders, Record};
use dt_receiver::sink::{Fate, OpenError, Outcome, Sink};
use dt_receiver::telemetry::Telemetry;
use dt_receiver::verify::VerifiedBy;
use hyper::body::Bytes;

use crate::events::{LONG, is_there};
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

/// Sends long events until the answer is that status, at most so often; returns how many were answered 200.
fn send_until(sender: &mut Sender, next: &mut u64, status: u16, at_most: u64) -> u64 {
    let mut accepted = 0;
    for _ in 0..at_most {
        let answer = sender.send(LONG, *next).expect("an answer");
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
        if sender.send(LONG, *next).expect("an answer").status == 200 {
            *next += 1;
            return since.elapsed();
        }
    }
    panic!("there is room, and it is still full");
}

fn all_delivered(place: &Place, device: u64, count: u64) {
    let delivered = place.events_in_file();
    for number in 0..count {
        assert_eq!(delivered.get(&(device, number)), Some(&1), "event {number} of {count} was answered 200");
    }
}

/// A disk of its own for the spool, a file elsewhere, and a second sink that is down as long as `outage` is there: it holds
/// the segments, which would otherwise be used again.
fn on_a_disk(folder: &Path, limits: &str) -> Option<(Disk, Place, PathBuf)> {
    let disk = Disk::mount(folder.join("disk"), "192m")?;
    let file = folder.join("events.ndjson");
    let more = format!("drain_timeout = '60s'\n[spool]\n{limits}");
    let place = Place::with(folder, &disk.path.join("data"), &file, Sinks::File, &more);
    let outage = folder.join("outage");
    fs::write(&outage, "").expect("written");
    Some((disk, place, outage))
}

fn start(place: &Place, outage: &Path) -> Server {
    crate::child::start(place, &outage.with_extension("ids"), 0, outage)
}

/// Fills the disk but for `left` bytes, and empties it, three times. While it is full, `/readyz` says `why`.
fn fills_and_empties(limits: &str, left: u64, why: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let Some((disk, place, outage)) = on_a_disk(folder.path(), limits) else { return };
    let server = start(&place, &outage);
    let mut sender = Sender::connect(server.listen).expect("connected");
    let mut next = 0;
    let mut full = 0;
    for round in 0..3 {
        assert_eq!(sender.send(LONG, next).expect("an answer").status, 200);
        next += 1;
        disk.fill(left);
        send_until(&mut sender, &mut next, 503, 10_000);
        let said = readiness(server.admin);
        assert!(said.starts_with("not ready: spool:") && said.contains(why), "round {round}: {said}");
        for _ in 0..100 {
            assert_eq!(sender.send(LONG, next).expect("an answer").status, 503, "round {round}");
            full += 1;
        }
        disk.empty();
        let room = until_there_is_room(&mut sender, &mut next);
        println!("round {round}: {next} answered 200, {full} answered 503, room after {room:?}");
        for _ in 0..50 {
            assert_eq!(sender.send(LONG, next).expect("an answer").status, 200);
            next += 1;
        }
        let said = readiness(server.admin);
        assert!(!said.starts_with("not ready"), "round {round}: {said}");
    }
    fs::remove_file(&outage).expect("removed");
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    all_delivered(&place, LONG, next);
    let database = rusqlite::Connection::open(place.spool_file("dead.db")).expect("opened");
    let whole: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
    assert_eq!(whole, "ok");
}

#[test]
fn a_disk_with_less_than_min_free_means_503_and_nothing_is_lost() {
    fills_and_empties("min_free = '4MiB'", 3 << 20, "`spool.min_free` is 4194304");
}

#[test]
fn a_disk_without_any_room_means_503_and_nothing_is_lost() {
    fills_and_empties("min_free = 0", 200 << 10, "free on the disk");
}

#[test]
fn a_full_disk_does_not_refuse_the_start_and_events_come_back_by_themselves() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some((disk, place, outage)) = on_a_disk(folder.path(), "min_free = 0") else { return };
    let server = start(&place, &outage);
    let mut sender = Sender::connect(server.listen).expect("connected");
    let mut next = 0;
    for _ in 0..50 {
        assert_eq!(sender.send(LONG, next).expect("an answer").status, 200);
        next += 1;
    }
    disk.fill(0);
    server.kill();
    server.wait();
    // Each start uses up a spare, until there is none.
    let mut was_refused = false;
    for _ in 0..4 {
        let server = start(&place, &outage);
        let answer = Sender::connect(server.listen).and_then(|mut sender| sender.send(LONG, next));
        let answer = answer.expect("an answer");
        if answer.status == 200 {
            next += 1;
        } else {
            assert_eq!(answer.status, 503, "{answer:?}");
            let said = readiness(server.admin);
            assert!(said.starts_with("not ready: spool:") && said.contains("free on the disk"), "{said}");
            was_refused = true;
        }
        server.kill();
        server.wait();
    }
    assert!(was_refused, "the disk was never full");
    // The first request on a full disk does not find a server that calls itself ready.
    let server = start(&place, &outage);
    let said = readiness(server.admin);
    assert!(said.starts_with("not ready: spool:"), "{said}");
    let mut sender = Sender::connect(server.listen).expect("connected");
    assert_eq!(sender.send(LONG, next).expect("an answer").status, 503);
    disk.empty();
    until_there_is_room(&mut sender, &mut next);
    let answer = sender.send(LONG, 0).expect("an answer");
    assert!(answer.body.contains("duplicate"), "{answer:?}");
    let said = readiness(server.admin);
    assert!(!said.starts_with("not ready"), "{said}");
    fs::remove_file(&outage).expect("removed");
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    all_delivered(&place, LONG, next);
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
    all_delivered(&place, 1, 500);
}

#[test]
fn a_spool_at_its_max_size_means_503_until_there_is_room() {
    const MAX: u64 = 64 << 20;
    let folder = tempfile::tempdir().expect("a folder");
    let outage = folder.path().join("outage");
    fs::write(&outage, "").expect("written");
    let place = Place::new(folder.path(), Sinks::File, "[spool]\nmax_size = '64MiB'\nmin_free = 0");
    let server = start(&place, &outage);
    let mut sender = Sender::connect(server.listen).expect("connected");
    let mut next = 0;
    send_until(&mut sender, &mut next, 503, 10_000);
    for _ in 0..200 {
        assert_eq!(sender.send(LONG, next).expect("an answer").status, 503, "nothing has made room");
        let used = spool_bytes(&place);
        assert!(used <= MAX, "{used} bytes");
    }
    let said = readiness(server.admin);
    assert!(said.starts_with("not ready: spool:") && said.contains("max_size"), "{said}");
    fs::remove_file(&outage).expect("removed");
    until_there_is_room(&mut sender, &mut next);
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    println!("full with {next} events in {} bytes; room again without a restart", spool_bytes(&place));
    all_delivered(&place, LONG, next);
}

/// What the segments and spares take.
fn spool_bytes(place: &Place) -> u64 {
    let entries = fs::read_dir(place.spool()).expect("read").filter_map(Result::ok);
    let names = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("segment-") || name.starts_with("spare-")
    });
    names.map(|entry| entry.metadata().map_or(0, |about| about.len())).sum()
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
        // Longer than the write-ahead log is by now, so that it has to grow.
        let fate = Fate::Rejected { error: "never ".repeat(40_000) };
        Outcome { fates: vec![fate; batch.len()], ..Outcome::default() }
    }
}

#[test]
fn what_a_sink_rejects_while_the_disk_is_full_becomes_one_dead_letter_and_is_not_given_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = Disk::mount(folder.path().join("disk"), "8m") else { return };
    let (disk, calls) = (Arc::new(disk), Arc::new(AtomicU64::new(0)));
    let data = disk.path.join("spool");
    let bounds = Bounds { min_free: 0, ..LogOptions::default().bounds };
    let options = LogOptions { bounds, segment_bytes: 256 << 10, ..LogOptions::default() };
    let log = Arc::new(Log::open(&data, options, Arc::new(SystemClock)).expect("opened"));
    let state = log.register(&Arc::from("s"), StartAt::Now, Vec::new()).expect("registered");
    let set = SinkSet::new([state.number]);
    let sink = Box::new(Rejecting { disk: Arc::downgrade(&disk), calls: Arc::clone(&calls) });
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20), 1).expect("good");
    let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
    let parts = WorkerParts { log: Arc::clone(&log), backoff, telemetry, filter: Arc::default() };
    let worker = WorkerHandle::start(sink, state, parts).expect("started");
    let record = Record {
        connector: Arc::from("default"),
        received_at: 0,
        provenance: VerifiedBy::Secret { label: Arc::from("s") }.into(),
        event_id: "id".into(),
        event_type: "touch".into(),
        project: None,
        device: None,
        request_id: None,
        headers: KeptHeaders::default(),
        body: Bytes::from("body"),
    };
    log.append_blocking(Arc::new(record), set, true).expect("stored");
    let since = Instant::now();
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        while !is_so() {
            assert!(since.elapsed() < Duration::from_secs(60), "never: {what}");
            std::thread::yield_now();
        }
    };
    until("it is full", &|| worker.last_error().is_some_and(|error| error.contains("no space left")));
    assert_eq!(log.sink("s").expect("known").cursor, 0, "no cursor moves before its dead letter is stored");
    disk.empty();
    until("the cursor moves", &|| log.sink("s").is_some_and(|sink| sink.cursor == 1));
    let letters: u64 = log.dead_letters().counts().iter().map(|count| count.dead_letters).sum();
    assert_eq!(letters, 1);
    assert_eq!(calls.load(Ordering::SeqCst), 1, "it has it already");
    log.tail().stop(Instant::now());
    worker.join();
    log.close();
}
