//! A model of the log and its workers against the real ones, in random steps: accept, duplicate, deliver, fail,
//! reject, panic, crash, restart, and time that passes. What was accepted is delivered, or a dead letter, or still
//! there; each sink has one cursor; each sees the events in order.
//!
//! 1,500 steps of one seed; `DT_RECEIVER_TEST_MODEL_STEPS` and `DT_RECEIVER_TEST_MODEL_SEEDS` set other counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use dt_receiver::clock::ManualClock;
use dt_receiver::deliver::{Backoff, WorkerHandle, WorkerParts};
use dt_receiver::log::dead::{Filter, ReadOnly};
use dt_receiver::log::{Appended, Bounds, Log, LogOptions, Reader, SinkSet, StartAt, path_of_dead_letters};
use dt_receiver::record::{DeadLetter, KeptHeaders, Reason, Record};
use dt_receiver::sink::{Fate, OpenError, Outcome, Sink};
use dt_receiver::telemetry::Telemetry;
use dt_receiver::verify::VerifiedBy;
use hyper::body::Bytes;
use rusqlite::Connection;

use crate::events::{Random, seed, setting};

const SINKS: [&str; 2] = ["all", "one"];
const CONNECTORS: [&str; 2] = ["one", "two"];
const WINDOW: Duration = Duration::from_secs(72 * 3600);
const RETAIN: Duration = Duration::from_secs(3600);

/// What the test says to a sink.
enum Word {
    Done(Outcome),
    Panic,
}

/// A sink that asks the test what becomes of each batch.
struct Asking {
    batches: Sender<Vec<Arc<Record>>>,
    words: Receiver<Word>,
}

impl Sink for Asking {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        let _asked = self.batches.send(batch.to_vec());
        match self.words.recv() {
            Ok(Word::Done(outcome)) => outcome,
            Ok(Word::Panic) => panic!("as the model wants it"),
            // The test has ended this life.
            Err(_) => Outcome::retry(batch.len(), "over"),
        }
    }
}

/// An accepted event. Its place in the list is its serial number, which is also its body.
struct Event {
    seq: i64,
    connector: usize,
    device: u64,
    id: u64,
    at: i64,
}

/// What the model knows of a sink.
#[derive(Default)]
struct Known {
    /// Settled in this life, or before it as far as its start found the cursor: these must not come again.
    settled: BTreeSet<usize>,
    /// Delivered or rejected in some life.
    told: BTreeSet<usize>,
    rejected: BTreeSet<usize>,
}

/// One life of the log with its workers.
struct Life {
    log: Arc<Log>,
    /// For each connector, the sinks of its events.
    sets: [SinkSet; 2],
    workers: Vec<WorkerHandle>,
    asked: Vec<Receiver<Vec<Arc<Record>>>>,
    words: Vec<Sender<Word>>,
}

/// The serial number of an event, which is its body.
fn serial_of(body: &[u8]) -> usize {
    std::str::from_utf8(body).expect("text").parse().expect("a serial number")
}

/// A database that nobody else can commit to.
fn held(path: &Path) -> Connection {
    let holder = Connection::open(path).expect("opened");
    holder.busy_timeout(Duration::from_secs(30)).expect("set");
    holder.execute_batch("BEGIN IMMEDIATE").expect("held");
    holder
}

/// Copies the files of a log that is open. Returns whether all were there all the time, under the names that they have.
fn copy(from: &Path, to: &Path) -> bool {
    fs::create_dir(to).expect("made");
    let names = || -> BTreeSet<_> {
        let entries = fs::read_dir(from).expect("read").map(|entry| entry.expect("an entry").file_name());
        entries.filter(|name| !name.to_string_lossy().ends_with("-shm")).collect()
    };
    let before = names();
    // The lock file, which has the number of the newest segment, is not newer than the segments.
    let lock = Path::new("spool.lock");
    let copied = [lock].into_iter().chain(before.iter().map(Path::new).filter(|name| *name != lock));
    copied.map(|name| fs::copy(from.join(name), to.join(name))).all(|copied| copied.is_ok())
        && names() == before
}

/// Writes what is no group behind the last group.
fn tear(folder: &Path, torn: usize) {
    let entries = fs::read_dir(folder).expect("read").map(|entry| entry.expect("an entry").path());
    let newest =
        entries.filter(|path| path.extension().is_some_and(|end| end == "log")).max().expect("a segment");
    let mut bytes = fs::read(&newest).expect("read");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    let garbage = (0..torn).map(|at| u8::try_from(at % 251).expect("a byte"));
    // A group may end in a few zeros.
    bytes.iter_mut().skip(end + 8).zip(garbage).for_each(|(byte, torn)| *byte = torn);
    fs::write(&newest, bytes).expect("written");
}

struct Model {
    root: tempfile::TempDir,
    lives: u64,
    clock: Arc<ManualClock>,
    now: i64,
    random: Random,
    events: Vec<Event>,
    seen: BTreeMap<(usize, u64), i64>,
    sinks: [Known; 2],
    letters: u64,
    tally: BTreeMap<&'static str, u64>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let now = 1_700_000_000_000;
        Self {
            root: tempfile::tempdir().expect("a folder"),
            lives: 0,
            clock: Arc::new(ManualClock::at(now)),
            now,
            random: Random::new(seed),
            events: Vec::new(),
            seen: BTreeMap::new(),
            sinks: Default::default(),
            letters: 0,
            tally: BTreeMap::new(),
        }
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join(format!("life-{}", self.lives))
    }

    /// Opens the folder, after looking at what is there.
    fn begin(&mut self) -> Life {
        if self.folder().exists() {
            self.look();
        }
        let clock: Arc<ManualClock> = Arc::clone(&self.clock);
        // Short segments: some are begun, used again and removed within a run.
        let bounds = Bounds { min_free: 0, retain: RETAIN, ..LogOptions::default().bounds };
        let options =
            LogOptions { bounds, dedup_window: WINDOW, segment_bytes: 32 << 10, ..LogOptions::default() };
        let log = Arc::new(Log::open(&self.folder(), options, clock).expect("opened"));
        let state =
            |name: &str| log.register(&Arc::from(name), StartAt::Now, Vec::new()).expect("registered");
        // All are known before any is given something.
        let states = SINKS.map(state);
        let [all, one] = [states[0].number, states[1].number];
        let sets = [SinkSet::new([all, one]), SinkSet::new([all])];
        let mut life = Life { log, sets, workers: Vec::new(), asked: Vec::new(), words: Vec::new() };
        for state in states {
            let ((batches, asked), (words, heard)) = (channel(), channel());
            let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(2), 1).expect("good");
            let telemetry = Arc::new(Telemetry::new(Arc::clone(&self.clock) as Arc<_>));
            let sink = Box::new(Asking { batches, words: heard });
            let parts =
                WorkerParts { log: Arc::clone(&life.log), backoff, telemetry, filter: Arc::default() };
            life.workers.push(WorkerHandle::start(sink, state, parts).expect("started"));
            life.asked.push(asked);
            life.words.push(words);
        }
        life
    }

    fn end(&mut self, life: Life) {
        let Life { log, workers, asked, words, .. } = life;
        drop((asked, words));
        log.tail().stop(Instant::now());
        workers.iter().for_each(WorkerHandle::join);
        log.close();
    }

    /// What `kill -9` leaves: the files as they are between two commits, perhaps with a torn group at the end of the log.
    fn crash(&mut self, life: Life) -> Life {
        let from = self.folder();
        self.lives += 1;
        let to = self.folder();
        {
            // Nothing is committed to the databases meanwhile.
            let held = ["dead.db", "ids.db"].map(|name| held(&from.join(name)));
            while !copy(&from, &to) {
                fs::remove_dir_all(&to).expect("removed");
            }
            for holder in held {
                holder.execute_batch("ROLLBACK").expect("let go");
            }
        }
        if self.random.below(2) == 0 {
            let torn = 64 + self.random.below(2000);
            tear(&to, usize::try_from(torn).expect("small"));
        }
        self.end(life);
        fs::remove_dir_all(from).expect("removed");
        self.begin()
    }

    fn takes(&self, sink: usize, serial: usize) -> bool {
        sink == 0 || self.events[serial].connector == 0
    }

    /// Compares a folder that nobody has open with the model, and notes how far the cursors are.
    fn look(&mut self) {
        let reader = Reader::open(&self.folder()).expect("opened");
        let status = reader.status().expect("read");
        let cursors: BTreeMap<String, i64> =
            status.sinks.iter().map(|sink| (sink.name.clone(), sink.cursor)).collect();
        assert_eq!(cursors.keys().map(String::as_str).collect::<Vec<_>>(), SINKS, "one cursor a sink");
        let mut there: BTreeMap<i64, usize> = BTreeMap::new();
        let read = reader.events(i64::MIN, |seen| {
            let record = seen.stored.record.as_ref().expect("nothing is damaged");
            there.insert(seen.stored.seq, serial_of(&record.body));
            true
        });
        read.expect("read");
        let dead = ReadOnly::open(path_of_dead_letters(&self.folder())).expect("opened");
        let least = cursors.values().min().copied().expect("two");
        let retained = self.now - i64::try_from(RETAIN.as_millis()).expect("small");
        for (serial, event) in self.events.iter().enumerate() {
            if event.seq > least || event.at > retained {
                let body = there.get(&event.seq).copied();
                assert_eq!(body, Some(serial), "event {serial}, number {}, is gone", event.seq);
            }
        }
        for (sink, name) in SINKS.into_iter().enumerate() {
            let (cursor, known) = (cursors[name], &self.sinks[sink]);
            let passed: BTreeSet<usize> = (0..self.events.len())
                .filter(|serial| self.takes(sink, *serial) && self.events[*serial].seq <= cursor)
                .collect();
            if let Some(lost) = passed.iter().find(|serial| !known.told.contains(serial)) {
                panic!("{name}: its cursor, {cursor}, is past event {lost}, which it never got");
            }
            let filter = Filter { sink: Some(name.to_owned()), ..Filter::default() };
            let letters = dead.list(&filter, 0, usize::MAX, true).expect("read");
            let dead: BTreeSet<usize> =
                letters.iter().map(|stored| serial_of(&stored.dead_letter.body)).collect();
            assert_eq!(dead.len(), letters.len(), "{name}: one letter for each event");
            for serial in known.rejected.intersection(&passed) {
                assert!(dead.contains(serial), "{name}: no dead letter of event {serial}");
            }
            self.sinks[sink].settled = passed;
        }
        let letters = status.dead_letters.get("unreadable").copied().unwrap_or(0);
        assert_eq!(letters, self.letters, "unreadable ones are never dropped");
    }

    fn accept(&mut self, life: &Life, key: (usize, u64), device: u64) {
        let serial = self.events.len();
        let record = Record {
            connector: Arc::from(CONNECTORS[key.0]),
            received_at: self.now,
            provenance: VerifiedBy::Secret { label: Arc::from("s") }.into(),
            event_id: format!("id{}", key.1).into(),
            event_type: "touch".into(),
            project: None,
            device: Some(device.to_string().into()),
            request_id: None,
            headers: KeptHeaders::default(),
            body: Bytes::from(serial.to_string()),
        };
        let set = life.sets[key.0].clone();
        let appended = life.log.append_blocking(Arc::new(record), set, true).expect("stored");
        let window = i64::try_from(WINDOW.as_millis()).expect("small");
        let is_copy = self.seen.get(&key).is_some_and(|at| self.now - at < window);
        let what = match appended {
            // It is known for the window, and a little longer, until a period of ids is dropped.
            Appended::Duplicate => {
                assert!(self.seen.contains_key(&key), "{key:?} is no copy");
                if is_copy { "duplicates" } else { "late duplicates" }
            }
            Appended::New(seq) => {
                assert!(!is_copy, "{key:?} is a copy");
                assert!(self.events.last().is_none_or(|last| last.seq < seq), "numbers grow");
                self.seen.insert(key, self.now);
                self.events.push(Event { seq, connector: key.0, device, id: key.1, at: self.now });
                "accepted"
            }
        };
        *self.tally.entry(what).or_default() += 1;
    }

    fn pending(&self, sink: usize) -> impl Iterator<Item = usize> {
        let all = 0..self.events.len();
        all.filter(move |serial| self.takes(sink, *serial) && !self.sinks[sink].settled.contains(serial))
    }

    /// Lets a sink answer one batch; false when there is nothing for it.
    fn deliver(&mut self, life: &Life, sink: usize, well: bool) -> bool {
        if self.pending(sink).next().is_none() {
            return false;
        }
        let name = SINKS[sink];
        let batch = life.asked[sink].recv_timeout(Duration::from_secs(60));
        let batch =
            batch.unwrap_or_else(|_| panic!("{name}: it should have got {:?}", self.pending(sink).next()));
        let batch: Vec<usize> = batch.iter().map(|record| serial_of(&record.body)).collect();
        let expected: Vec<usize> = self.pending(sink).take(batch.len()).collect();
        assert_eq!(batch, expected, "{name}: in order, each that is due, and no other");
        if !well && self.random.below(30) == 0 {
            *self.tally.entry("panics").or_default() += 1;
            life.words[sink].send(Word::Panic).expect("it waits");
            return true;
        }
        let mut failed = BTreeSet::new();
        let mut fates = Vec::new();
        for serial in batch {
            let device = self.events[serial].device;
            let dice = if well { 9 } else { self.random.below(12) };
            if dice == 0 || failed.contains(&device) {
                // Later ones of its device must not overtake it.
                failed.insert(device);
                fates.push(Fate::Retry { error: "not now".to_owned() });
                *self.tally.entry("retries").or_default() += 1;
                continue;
            }
            let known = &mut self.sinks[sink];
            known.settled.insert(serial);
            known.told.insert(serial);
            if dice == 1 {
                known.rejected.insert(serial);
                fates.push(Fate::Rejected { error: "never".to_owned() });
                *self.tally.entry("rejected").or_default() += 1;
            } else {
                // A crash may have undone that it was rejected before.
                known.rejected.remove(&serial);
                fates.push(Fate::Delivered);
                *self.tally.entry("delivered").or_default() += 1;
            }
        }
        life.words[sink].send(Word::Done(Outcome { fates, ..Outcome::default() })).expect("it waits");
        true
    }

    fn dead_letter(&mut self, life: &Life) {
        self.letters += 1;
        let body = Bytes::from(format!("unreadable {}", self.letters));
        let (connector, error) = (Arc::from("one"), "unreadable".to_owned());
        let letter = DeadLetter::of_request(connector, Reason::Unreadable, error, self.now, body);
        // A copy is kept once.
        let ids =
            [(); 2].map(|()| life.log.dead_letters().add_blocking(vec![letter.clone()]).expect("stored"));
        assert!(ids[0][0].is_some() && ids[1][0].is_none(), "{ids:?}");
    }

    fn step(&mut self, life: Life) -> Life {
        match self.random.below(1000) {
            0..400 => {
                let key = (usize::try_from(self.random.below(2)).expect("small"), self.events.len() as u64);
                let device = self.random.below(5);
                self.accept(&life, key, device);
            }
            400..500 => {
                if !self.events.is_empty() {
                    let any = usize::try_from(self.random.below(self.events.len() as u64)).expect("small");
                    let Event { connector, id, device, .. } = self.events[any];
                    self.accept(&life, (connector, id), device);
                }
            }
            500..950 => {
                let sink = usize::try_from(self.random.below(2)).expect("small");
                self.deliver(&life, sink, false);
            }
            950..970 => {
                self.now += i64::try_from(self.random.below(8 * 3_600_000)).expect("small");
                self.clock.set(self.now);
            }
            970..980 => self.dead_letter(&life),
            980..990 => {
                *self.tally.entry("crashes").or_default() += 1;
                return self.crash(life);
            }
            _ => {
                *self.tally.entry("restarts").or_default() += 1;
                self.end(life);
                return self.begin();
            }
        }
        life
    }

    fn run(mut self, steps: u64) {
        let mut life = self.begin();
        for _ in 0..steps {
            life = self.step(life);
        }
        for sink in 0..SINKS.len() {
            while self.deliver(&life, sink, true) {}
        }
        self.end(life);
        self.look();
        for (sink, known) in self.sinks.iter().enumerate() {
            for serial in (0..self.events.len()).filter(|serial| self.takes(sink, *serial)) {
                assert!(known.told.contains(&serial), "{}: event {serial} was lost", SINKS[sink]);
            }
        }
        println!("{steps} steps: {:?}", self.tally);
    }
}

#[test]
fn what_was_accepted_is_delivered_or_dead_or_there_whatever_happens() {
    let steps = setting("DT_RECEIVER_TEST_MODEL_STEPS", 1_500);
    let first = seed();
    for seed in first..first + setting("DT_RECEIVER_TEST_MODEL_SEEDS", 1) {
        println!("seed {seed}");
        Model::new(seed).run(steps);
    }
}
