//! When workers rest, for how long, and when they end; what becomes of rejected and damaged records, and of a replay.

use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc;

use super::*;
use crate::config::SinkFilter;
use crate::sink::{Fate, Outcome};
use dt_log::dead::{Filter, StoredDeadLetter};
use dt_log::{Bounds, LogOptions, SinkSet, StartAt};
use dt_sink::clock::{Clock, SystemClock};
use dt_sink::record::{ApiSource, Provenance, Record};

const LONG: Duration = Duration::from_secs(3600);

fn open(folder: &Path) -> Arc<Log> {
    let bounds = Bounds { min_free: 0, ..LogOptions::default().bounds };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // A rest is counted from a batch on, and a segment of the usual length takes a while to be made.
    let options = LogOptions { bounds, segment_bytes: 256 << 10, ..LogOptions::default() };
    Arc::new(Log::open(folder, options, clock).expect("opens"))
}

fn sink_of(log: &Log) -> SinkState {
    log.register(&Arc::from("sink"), StartAt::Now, Vec::new()).expect("known")
}

fn append(log: &Log, id: &str) {
    let sinks = SinkSet::new(log.sinks().iter().map(|sink| sink.number));
    log.append_blocking(Arc::new(Record::sample(id)), sinks, true).expect("stored");
}

/// A worker for the sink that tries again after so long, and rests for so long.
fn worker(log: &Arc<Log>, sink: Box<dyn Sink>, again: Duration, rest: Duration) -> WorkerHandle {
    let backoff = Backoff::new(again, again, 0).expect("good");
    let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
    let parts = WorkerParts { log: Arc::clone(log), backoff, telemetry, filter: Arc::default() };
    WorkerHandle::start_with_rest(sink, sink_of(log), parts, rest).expect("starts")
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn end(log: &Log, worker: &WorkerHandle) {
    log.tail().stop(Instant::now());
    worker.join();
    log.close();
}

fn dead_letters(log: &Log) -> Vec<StoredDeadLetter> {
    log.dead_letters().list(&Filter::default(), 0, 10, true).expect("read")
}

/// Is not reachable.
struct Down;

impl Sink for Down {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Err(OpenError::Down("not reachable".to_owned()))
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        Outcome::retry(batch.len(), "not reachable")
    }
}

/// Says of each batch what was in it. Five at a time. Rejects what is called `odd`.
struct Telling(mpsc::Sender<Vec<String>>);

impl Sink for Telling {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        self.0.send(batch.iter().map(|record| record.event_id.to_string()).collect()).expect("heard");
        let fate = |record: &Arc<Record>| match &*record.event_id {
            "odd" => Fate::Rejected { error: "too odd".to_owned() },
            _ => Fate::Delivered,
        };
        Outcome { fates: batch.iter().map(fate).collect(), ..Outcome::default() }
    }

    fn max_batch(&self) -> usize {
        5
    }
}

/// A worker with a sink that says what it is given.
fn telling(log: &Arc<Log>, rest: Duration) -> (WorkerHandle, impl Fn() -> Vec<String> + use<>) {
    let (sender, batches) = mpsc::channel();
    let worker = worker(log, Box::new(Telling(sender)), Duration::from_millis(10), rest);
    (worker, move || batches.recv_timeout(Duration::from_secs(30)).expect("a batch"))
}

/// Only ever wants its checkpoint to be stored, and counts how often it is called.
struct Asking(Arc<AtomicU32>);

impl Sink for Asking {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        self.0.fetch_add(1, Ordering::SeqCst);
        let fates = vec![Fate::Pending { last_error: None }; batch.len()];
        Outcome { fates, checkpoint: Some(b"the same".to_vec()), is_checkpoint_due: true }
    }
}

/// Otherwise the cursors that are stored for it fill the spool.
#[test]
fn a_sink_that_only_asks_for_its_checkpoint_is_reported_and_has_to_pause() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path());
    sink_of(&log);
    append(&log, "owed");
    let calls = Arc::new(AtomicU32::new(0));
    let worker = worker(&log, Box::new(Asking(Arc::clone(&calls))), LONG, Duration::ZERO);
    until("the sink's error is known", || worker.last_error().is_some());
    assert!(calls.load(Ordering::SeqCst) <= 10, "{calls:?} calls without a pause");
    end(&log, &worker);
}

#[test]
fn a_sink_that_is_forgotten_ends_though_it_has_not_had_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path());
    sink_of(&log);
    append(&log, "owed");
    let worker = worker(&log, Box::new(Down), LONG, REST);
    worker.leave_after(1);
    until("the sink's error is known", || worker.last_error().is_some());
    assert!(!worker.is_finished(), "it is owed an event");
    assert!(log.forget("sink").expect("forgotten"));
    log.tail().wake();
    until("it waits for what it cannot get any more", || worker.is_finished());
    log.close();
}

#[test]
fn a_removed_sink_leaves_and_is_forgotten_once_it_has_had_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path());
    let (worker, next) = telling(&log, Duration::ZERO);
    append(&log, "one");
    assert_eq!(next(), ["one"]);
    worker.leave_after(2);
    append(&log, "two");
    assert_eq!(next(), ["two"]);
    until("it is forgotten", || log.sink("sink").is_none());
    until("its worker ends", || worker.is_finished());
    log.close();
}

#[test]
fn a_worker_that_rests_takes_a_full_batch_and_what_is_left_when_the_service_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path());
    let (worker, next) = telling(&log, LONG);
    append(&log, "first");
    assert_eq!(next(), ["first"], "one that comes after a quiet time is not held back");
    (0..7).for_each(|number| append(&log, &number.to_string()));
    assert_eq!(next(), ["0", "1", "2", "3", "4"]);
    log.tail().stop(Instant::now().checked_add(LONG).expect("a time"));
    assert_eq!(next(), ["5", "6"]);
    worker.join();
    log.close();
}

#[test]
fn a_rest_ends_by_itself_and_when_an_operator_wants_something() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path());
    sink_of(&log);
    let (short, next) = telling(&log, Duration::from_millis(1));
    for id in ["a", "b", "c"] {
        append(&log, id);
        assert_eq!(next(), [id]);
    }
    end(&log, &short);
    drop((short, log));
    let log = open(folder.path());
    let (long, next) = telling(&log, LONG);
    append(&log, "d");
    assert_eq!(next(), ["d"], "one that comes after a quiet time is not held back");
    append(&log, "e");
    log.tail().wake();
    assert_eq!(next(), ["e"]);
    append(&log, "f");
    long.stop();
    long.join();
    log.close();
}

#[test]
fn a_replay_begins_once_the_sink_has_what_was_there_and_is_done_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path());
    let sink = sink_of(&log);
    ["one", "two", "three"].iter().for_each(|id| append(&log, id));
    // It had the first one when an operator asked for all again.
    log.advance(Progress { sink: sink.number, cursor: 1, checkpoint: None, ends_replay: false }, true)
        .expect("stored");
    assert_eq!(log.replay("sink", 0).expect("noted"), 1);
    let (worker, next) = telling(&log, Duration::ZERO);
    assert_eq!(next(), ["two", "three"]);
    assert_eq!(next(), ["one", "two", "three"]);
    until("its cursor is stored", || log.sink("sink").is_some_and(|sink| sink.cursor == 3));
    assert_eq!(log.sink("sink").expect("known").replay_after, None);
    end(&log, &worker);
}

#[test]
fn what_a_sink_rejects_is_a_dead_letter_before_the_cursor_passes_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path());
    sink_of(&log);
    let (worker, next) = telling(&log, Duration::ZERO);
    // As long as no dead letter can be stored, the cursor stays.
    let dead = log.dead_letters().path().to_owned();
    let moved = dead.with_extension("moved");
    std::fs::rename(&dead, &moved).expect("moved");
    append(&log, "odd");
    assert_eq!(next(), ["odd"]);
    until("the failure is known", || worker.last_error().is_some());
    append(&log, "next");
    assert_eq!(log.sink("sink").expect("known").cursor, 0);
    std::fs::rename(&moved, &dead).expect("moved back");
    assert_eq!(next(), ["next"], "what was rejected is not delivered again");
    until("the cursor passes", || log.sink("sink").is_some_and(|sink| sink.cursor == 2));
    let found = dead_letters(&log);
    let [stored] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&*stored.dead_letter.error, stored.dead_letter.seq), ("too odd", Some(1)));
    assert_eq!(stored.dead_letter.reason.code(), "rejected");
    end(&log, &worker);
}

#[test]
fn what_is_damaged_is_a_dead_letter_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path());
    sink_of(&log);
    ["one", "marker-of-two", "three"].iter().for_each(|id| append(&log, id));
    log.close();
    drop(log);
    let segments =
        std::fs::read_dir(folder.path()).expect("listed").map(|entry| entry.expect("an entry").path());
    for path in segments.filter(|path| path.extension().is_some_and(|ending| ending == "log")) {
        let mut bytes = std::fs::read(&path).expect("read");
        let marker = b"marker-of-two";
        if let Some(place) = bytes.windows(marker.len()).position(|found| found == marker) {
            bytes[place] ^= 1;
            std::fs::write(&path, bytes).expect("written");
        }
    }
    let log = open(folder.path());
    let (worker, next) = telling(&log, Duration::ZERO);
    let mut given = next();
    while given.last().is_none_or(|last| last != "three") {
        given.extend(next());
    }
    assert_eq!(given, ["one", "three"]);
    until("the cursor passes", || log.sink("sink").is_some_and(|sink| sink.cursor == 3));
    let found = dead_letters(&log);
    let [stored] = &found[..] else { panic!("{found:?}") };
    assert_eq!((stored.dead_letter.reason.code(), stored.dead_letter.seq), ("damaged", Some(2)));
    end(&log, &worker);
}

/// Lets only the events of one device pass.
fn only(device: &str) -> RecordFilter {
    let mut filter = SinkFilter::default();
    filter.devices.insert(device.to_owned());
    filter.into()
}

fn append_of(log: &Log, device: &'static str, id: &str) {
    let sinks = SinkSet::new(log.sinks().iter().map(|sink| sink.number));
    let record = Record { device: Some(device.into()), ..Record::sample(id) };
    log.append_blocking(Arc::new(record), sinks, true).expect("stored");
}

#[test]
fn records_that_do_not_pass_the_filter_are_done_and_a_replay_uses_the_filter_of_now() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path());
    sink_of(&log);
    let (worker, next) = telling(&log, Duration::ZERO);
    worker.set_filter(only("a"));
    append_of(&log, "b", "b1");
    until("the cursor passes it", || log.sink("sink").is_some_and(|sink| sink.cursor == 1));
    append_of(&log, "a", "a2");
    assert_eq!(next(), ["a2"]);
    append_of(&log, "b", "b3");
    until("the cursor passes it", || log.sink("sink").is_some_and(|sink| sink.cursor == 3));
    assert_eq!(log.owed(&log.sink("sink").expect("known")).expect("counted"), 0);
    worker.set_filter(only("b"));
    log.replay("sink", 0).expect("noted");
    log.tail().wake();
    let mut given = next();
    while given.len() < 2 {
        given.extend(next());
    }
    assert_eq!(given, ["b1", "b3"]);
    until("the cursor is at the end", || log.sink("sink").is_some_and(|sink| sink.cursor == 3));
    assert!(dead_letters(&log).is_empty());
    end(&log, &worker);
}

#[test]
fn a_sink_without_backfill_passes_backfilled_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path());
    sink_of(&log);
    let (worker, next) = telling(&log, Duration::ZERO);
    let filter = |skips_backfilled| RecordFilter { skips_backfilled, ..RecordFilter::default() };
    let append_from = |provenance: Provenance, id: &str| {
        let sinks = SinkSet::new(log.sinks().iter().map(|sink| sink.number));
        let record = Record { provenance, ..Record::sample(id) };
        log.append_blocking(Arc::new(record), sinks, true).expect("stored");
    };
    worker.set_filter(filter(true));
    append_from(Provenance::Api(ApiSource::Backfill), "filled");
    until("the cursor passes it", || log.sink("sink").is_some_and(|sink| sink.cursor == 1));
    append_from(Provenance::Api(ApiSource::Stream), "streamed");
    assert_eq!(next(), ["streamed"]);
    append(&log, "pushed");
    assert_eq!(next(), ["pushed"]);
    worker.set_filter(filter(false));
    append_from(Provenance::Api(ApiSource::Backfill), "filled later");
    assert_eq!(next(), ["filled later"]);
    end(&log, &worker);
}

/// Delivers a record in the second call, and says of each call what was in it. Has a checkpoint.
struct Slow(mpsc::Sender<Vec<String>>, bool);

impl Sink for Slow {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn begin(&mut self) -> Option<Vec<u8>> {
        Some(b"compares".to_vec())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        self.0.send(batch.iter().map(|record| record.event_id.to_string()).collect()).expect("heard");
        if std::mem::replace(&mut self.1, true) {
            return Outcome::delivered(batch.len());
        }
        Outcome::retry(batch.len(), "not yet")
    }
}

#[test]
fn a_new_filter_waits_for_the_records_that_a_sink_with_a_checkpoint_is_being_given() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path());
    sink_of(&log);
    let (sender, batches) = mpsc::channel();
    let next = || batches.recv_timeout(Duration::from_secs(30)).expect("a batch");
    append_of(&log, "a", "a1");
    let worker = worker(&log, Box::new(Slow(sender, false)), Duration::from_millis(100), Duration::ZERO);
    assert_eq!(next(), ["a1"]);
    // It is tried again, although it would not pass any more, and nothing joins it.
    worker.set_filter(only("b"));
    append_of(&log, "a", "a2");
    append_of(&log, "b", "b3");
    assert_eq!(next(), ["a1"]);
    assert_eq!(next(), ["b3"]);
    until("the cursor is at the end", || log.sink("sink").is_some_and(|sink| sink.cursor == 3));
    end(&log, &worker);
}

/// Never delivers the record `a1`, and says of each call what was in it. Has no checkpoint.
struct Without(mpsc::Sender<Vec<String>>);

impl Sink for Without {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        self.0.send(batch.iter().map(|record| record.event_id.to_string()).collect()).expect("heard");
        let fate = |record: &Arc<Record>| match &*record.event_id {
            "a1" => Fate::Retry { error: "never".to_owned() },
            _ => Fate::Delivered,
        };
        Outcome { fates: batch.iter().map(fate).collect(), ..Outcome::default() }
    }
}

/// Otherwise one record that is retried for ever would stop the sink.
#[test]
fn a_new_filter_applies_although_a_record_is_retried() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path());
    sink_of(&log);
    let (sender, batches) = mpsc::channel();
    let next = || batches.recv_timeout(Duration::from_secs(30)).expect("a batch");
    append_of(&log, "a", "a1");
    let worker = worker(&log, Box::new(Without(sender)), Duration::from_millis(10), Duration::ZERO);
    assert_eq!(next(), ["a1"]);
    worker.set_filter(only("b"));
    append_of(&log, "a", "a2");
    append_of(&log, "b", "b3");
    let mut given = next();
    while !given.contains(&"b3".to_owned()) {
        assert_eq!(given, ["a1"]);
        given = next();
    }
    assert_eq!(given, ["a1", "b3"]);
    end(&log, &worker);
}
