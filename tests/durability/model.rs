//! A model of the spool and its workers against the real ones, in random steps: accept, duplicate, deliver, fail,
//! reject, panic, crash, restart, and time that passes. What was accepted is delivered, or a dead letter, or still
//! there; each sink has one cursor; each sees the events in order.
//!
//! 1,500 steps of one seed; `DT_RECEIVER_TEST_MODEL_STEPS` and `DT_RECEIVER_TEST_MODEL_SEEDS` set other counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use dt_receiver::clock::ManualClock;
use dt_receiver::deliver::{Backoff, WorkerHandle};
use dt_receiver::record::{DeadLetter, KeptHeaders, Reason, Record};
use dt_receiver::sink::{Fate, OpenError, Outcome, Sink};
use dt_receiver::spool::{Appended, Spool, SpoolOptions, StartAt};
use dt_receiver::telemetry::Telemetry;
use dt_receiver::verify::VerifiedBy;
use hyper::HeaderMap;
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

/// One life of the spool with its workers.
struct Life {
    spool: Arc<Spool>,
    workers: Vec<WorkerHandle>,
    asked: Vec<Receiver<Vec<Arc<Record>>>>,
    words: Vec<Sender<Word>>,
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
    runtime: tokio::runtime::Runtime,
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
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime"),
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
        let options =
            SpoolOptions { min_free: 0, dedup_window: WINDOW, retain: RETAIN, ..SpoolOptions::default() };
        let spool = Arc::new(Spool::open(&self.folder(), options, clock).expect("opened"));
        let mut life = Life { spool, workers: Vec::new(), asked: Vec::new(), words: Vec::new() };
        for name in SINKS {
            let ((batches, asked), (words, heard)) = (channel(), channel());
            let skips = if name == "one" { BTreeSet::from([Arc::from("two")]) } else { BTreeSet::new() };
            let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(2), 1).expect("good");
            let telemetry = Arc::new(Telemetry::new(Arc::clone(&self.clock) as Arc<_>));
            let sink = Box::new(Asking { batches, words: heard });
            let worker = WorkerHandle::start(
                Arc::from(name),
                sink,
                skips,
                StartAt::Retained,
                backoff,
                Arc::clone(&life.spool),
                telemetry,
            );
            life.workers.push(worker.expect("started"));
            life.asked.push(asked);
            life.words.push(words);
        }
        life
    }

    fn end(&mut self, life: Life) {
        let Life { spool, workers, asked, words } = life;
        drop((asked, words));
        spool.tail().stop(Instant::now());
        workers.iter().for_each(WorkerHandle::join);
        spool.close();
    }

    /// What `kill -9` leaves: the files as they are between two commits, perhaps with a torn end of the log.
    fn crash(&mut self, life: Life) -> Life {
        let from = self.folder();
        self.lives += 1;
        let to = self.folder();
        fs::create_dir(&to).expect("made");
        let holder = Connection::open(from.join("spool.db")).expect("opened");
        holder.busy_timeout(Duration::from_secs(30)).expect("set");
        holder.execute_batch("BEGIN IMMEDIATE").expect("held");
        // The log first: what is written back meanwhile is in both.
        let mut log = fs::read(from.join("spool.db-wal")).expect("a log");
        let database = fs::read(from.join("spool.db")).expect("a database");
        // Nothing leaves the journal while the database is held.
        let journal = fs::read(from.join("spool.journal")).expect("a journal");
        holder.execute_batch("ROLLBACK").expect("let go");
        drop(holder);
        if self.random.below(2) == 0 {
            let torn = usize::try_from(self.random.below(9000)).expect("small");
            log.extend((0..torn).map(|at| u8::try_from(at % 251).expect("a byte")));
        }
        fs::write(to.join("spool.db"), database).expect("written");
        fs::write(to.join("spool.db-wal"), log).expect("written");
        fs::write(to.join("spool.journal"), journal).expect("written");
        self.end(life);
        fs::remove_dir_all(from).expect("removed");
        self.begin()
    }

    fn takes(&self, sink: usize, serial: usize) -> bool {
        sink == 0 || self.events[serial].connector == 0
    }

    /// Compares a folder that nobody has open with the model, and notes how far the cursors are.
    fn look(&mut self) {
        dt_receiver::spool::settle(&self.folder()).expect("recovered");
        let database = Connection::open(self.folder().join("spool.db")).expect("opened");
        let rows = |sql: &str| -> Vec<(i64, i64)> {
            let mut statement = database.prepare(sql).expect("prepared");
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("run");
            rows.collect::<Result<_, _>>().expect("read")
        };
        let cursors: BTreeMap<String, i64> = {
            let mut statement = database.prepare("SELECT name, cursor FROM sinks").expect("prepared");
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("run");
            rows.collect::<Result<_, _>>().expect("read")
        };
        assert_eq!(cursors.keys().map(String::as_str).collect::<Vec<_>>(), SINKS, "one cursor a sink");
        let there: BTreeMap<i64, i64> =
            rows("SELECT seq, CAST(CAST(body AS TEXT) AS INTEGER) FROM records").into_iter().collect();
        let least = cursors.values().min().copied().expect("two");
        let retained = self.now - i64::try_from(RETAIN.as_millis()).expect("small");
        for (serial, event) in self.events.iter().enumerate() {
            if event.seq > least || event.at > retained {
                let body = there.get(&event.seq).copied();
                assert_eq!(body, i64::try_from(serial).ok(), "event {serial}, number {}, is gone", event.seq);
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
            let sql = format!(
                "SELECT CAST(CAST(body AS TEXT) AS INTEGER), count(*) FROM dead WHERE sink = '{name}' GROUP BY 1"
            );
            let dead: BTreeMap<i64, i64> = rows(&sql).into_iter().collect();
            for serial in known.rejected.intersection(&passed) {
                assert!(
                    dead.contains_key(&i64::try_from(*serial).expect("small")),
                    "{name}: no dead letter of event {serial}"
                );
            }
            self.sinks[sink].settled = passed;
        }
        let letters = rows("SELECT count(*), 0 FROM dead WHERE reason = 'unreadable'")[0].0;
        assert_eq!(letters, i64::try_from(self.letters).expect("small"), "unreadable ones are never dropped");
    }

    fn accept(&mut self, life: &Life, key: (usize, u64), device: u64) {
        let serial = self.events.len();
        let record = Record {
            connector: Arc::from(CONNECTORS[key.0]),
            received_at: self.now,
            verified_by: VerifiedBy::Secret { label: Arc::from("s") },
            event_id: format!("id{}", key.1).into(),
            event_type: "touch".into(),
            project: None,
            device: Some(device.to_string().into()),
            request_id: None,
            headers: KeptHeaders::default(),
            body: Bytes::from(serial.to_string()),
        };
        let appended = self.runtime.block_on(life.spool.append(Arc::new(record), true)).expect("stored");
        let window = i64::try_from(WINDOW.as_millis()).expect("small");
        let is_copy = self.seen.get(&key).is_some_and(|at| self.now - at < window);
        match appended {
            Appended::Duplicate => assert!(is_copy, "{key:?} is no copy"),
            Appended::New(seq) => {
                assert!(!is_copy, "{key:?} is a copy");
                assert!(self.events.last().is_none_or(|last| last.seq < seq), "numbers grow");
                self.seen.insert(key, self.now);
                self.events.push(Event { seq, connector: key.0, device, id: key.1, at: self.now });
            }
        }
        *self.tally.entry(if is_copy { "duplicates" } else { "accepted" }).or_default() += 1;
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
        let batch: Vec<usize> = batch
            .iter()
            .map(|record| std::str::from_utf8(&record.body).expect("text").parse().expect("a serial number"))
            .collect();
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

    fn bury(&mut self, life: &Life) {
        self.letters += 1;
        let body = Bytes::from(format!("unreadable {}", self.letters));
        let (connector, error) = (Arc::from("one"), "unreadable".to_owned());
        let letter =
            DeadLetter::of_request(connector, Reason::Unreadable, error, self.now, &HeaderMap::new(), body);
        // A copy is kept once.
        self.runtime.block_on(life.spool.bury(letter.clone())).expect("stored");
        self.runtime.block_on(life.spool.bury(letter)).expect("stored");
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
            970..980 => self.bury(&life),
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
