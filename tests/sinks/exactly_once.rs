//! With checkpoints kept, the file sink loses no line and doubles none, whenever it is killed: a model of the worker that
//! stores a position and a checkpoint some time after the batch, against real files, with rotation and compression. What
//! power loss leaves is tested on a fake disk (`src/sink/file/tests`).
//!
//! `DT_RECEIVER_TEST_SEEDS` sets how many seeds are run, `DT_RECEIVER_TEST_SEED` repeats one of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dt_receiver::record::{Format, PathTemplate, Record};
use dt_receiver::sink::{Compression, Fate, FileConfig, FileSink, MAX_CHECKPOINT, Outcome, Sink};
use hyper::body::Bytes;

use crate::records::record;

const STEPS: usize = 100;

/// A small generator of random numbers (xorshift64), so that a seed repeats a run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("small")
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// Files below a folder: length by path.
fn files_in(root: &Path) -> BTreeMap<PathBuf, u64> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            // A file may be renamed or removed by the compression at any time.
            let Ok(found) = path.metadata() else { continue };
            if found.is_dir() {
                folders.push(path);
            } else if path.extension().is_none_or(|extension| extension != "tmp") {
                files.insert(path, found.len());
            }
        }
    }
    files
}

fn is_closed(path: &Path) -> bool {
    path.to_str().expect("text").contains("Z-")
}

struct Run {
    root: tempfile::TempDir,
    config: FileConfig,
    records: Vec<Arc<Record>>,
    random: Random,
    sink: Option<FileSink>,
    /// How many records are delivered.
    cursor: usize,
    /// What the worker has stored: as many records, and the checkpoint.
    stored: (usize, Option<Vec<u8>>),
    crashes: usize,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let root = tempfile::tempdir().expect("a folder");
        let path =
            ["events.ndjson", "{eventType}.ndjson", "{date}/{hour}-{eventType}.ndjson", "{eventType}/{date}"];
        let path = root.path().join(path[random.below(path.len())]);
        let template: PathTemplate = path.to_str().expect("text").parse().expect("a template");
        let mut config = FileConfig::new(template);
        config.rotate_size = [None, Some(1024), Some(4096)][random.below(3)];
        config.rotate_every = [None, Some(Duration::from_secs(3600))][random.below(2)];
        config.compress = [None, Some(Compression::Gzip), Some(Compression::Zstd)][random.below(3)];
        // Few files, or more than can be open or listed.
        let types = [1, 3, 20, 200][random.below(4)];
        let mut received_at = 1_700_000_000_000;
        let records = (0..STEPS * 12).map(|number| {
            received_at +=
                if random.one_in(20) { 1_200_000 } else { i64::try_from(random.below(500)).expect("small") };
            let mut new = Record::clone(&record(0));
            new.received_at = received_at;
            new.event_type = format!("type-{}", random.below(types)).into();
            new.body = Bytes::from(format!("{{\"n\":{number},\"x\":\"{}\"}}", "x".repeat(random.below(200))));
            Arc::new(new)
        });
        let records = records.collect();
        Self { root, config, records, random, sink: None, cursor: 0, stored: (0, None), crashes: 0 }
    }

    fn open(&mut self) -> &mut FileSink {
        self.sink.get_or_insert_with(|| {
            let deadline = Instant::now() + Duration::from_secs(10);
            let mut sink = loop {
                let mut sink = FileSink::with(self.config.clone(), Format::Body);
                match sink.open(self.stored.1.as_deref()) {
                    Ok(()) => break sink,
                    // A process that another test starts right now holds the locks of the killed sink until its `exec`.
                    Err(error) if error.to_string().contains("another process") => {
                        assert!(Instant::now() < deadline, "{error}");
                        std::thread::yield_now();
                    }
                    Err(error) => panic!("{error}"),
                }
            };
            self.stored.1 = sink.begin();
            sink
        })
    }

    /// Delivers a batch, and returns whether what the sink says has to be stored before anything else.
    fn deliver(&mut self, batch: &[Arc<Record>]) -> (bool, Vec<u8>) {
        let Outcome { fates, checkpoint, is_checkpoint_due } = self.open().deliver(batch);
        let done = fates.iter().take_while(|fate| **fate == Fate::Delivered).count();
        assert_eq!(fates[done..], vec![Fate::Pending { last_error: None }; batch.len() - done]);
        self.cursor += done;
        let checkpoint = checkpoint.expect("a checkpoint");
        assert!(checkpoint.len() <= MAX_CHECKPOINT);
        (is_checkpoint_due, checkpoint)
    }

    fn step(&mut self) {
        let limit = if self.random.one_in(4) { 100 } else { 12 };
        let count = (1 + self.random.below(limit)).min(self.records.len() - self.cursor);
        if count == 0 {
            return;
        }
        let batch = self.records[self.cursor..self.cursor + count].to_vec();
        let (is_due, checkpoint) = self.deliver(&batch);
        let is_killed = self.random.one_in(8);
        if !is_killed && is_due || self.random.one_in(3) {
            self.stored = (self.cursor, Some(checkpoint));
        }
        if is_killed {
            self.crashes += 1;
            self.sink = None;
            self.cursor = self.stored.0;
            if self.random.one_in(4) {
                // It is opened, and killed again.
                self.open();
                self.sink = None;
            }
        }
    }

    /// Delivers the rest, waits for the compression, and compares.
    fn check(mut self) {
        while self.cursor < self.records.len() {
            let end = self.records.len().min(self.cursor + 200);
            let batch = self.records[self.cursor..end].to_vec();
            self.stored.1 = Some(self.deliver(&batch).1);
            self.stored.0 = self.cursor;
        }
        (self.sink, self.cursor) = (None, self.stored.0);
        let is_waiting = |path: &PathBuf| is_closed(path) && !is_compressed(path);
        let waiting: Vec<PathBuf> = files_in(self.root.path()).into_keys().filter(is_waiting).collect();
        // What the stop left is compressed after the next event.
        let last = Record {
            body: Bytes::from_static(b"{\"n\":0}"),
            ..Record::clone(&self.records[self.records.len() - 1])
        };
        self.records.push(Arc::new(last));
        while self.cursor < self.records.len() {
            let batch = self.records[self.cursor..].to_vec();
            self.deliver(&batch);
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.config.compress.is_some() && waiting.iter().any(|path| path.exists()) {
            assert!(Instant::now() < deadline, "not compressed: {waiting:?}");
            std::thread::yield_now();
        }
        self.sink = None;
        let mut expected: BTreeMap<String, String> = BTreeMap::new();
        let mut path = String::new();
        for record in &self.records {
            self.config.path.render(record, &mut path);
            let lines = expected.entry(path.clone()).or_default();
            lines.push_str(std::str::from_utf8(&record.body).expect("text"));
            lines.push('\n');
        }
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        // Closed ones first, in the order of their names.
        let (closed, current): (Vec<_>, Vec<_>) =
            files_in(self.root.path()).into_iter().partition(|(path, _)| is_closed(path));
        for (path, length) in closed.into_iter().chain(current) {
            let current = path.strip_prefix(self.root.path()).expect("below").to_str().expect("text");
            let lines = found.entry(current_of(current)).or_default();
            let content = content_of(&path);
            lines.push_str(&content);
            if let (Some(size), false) = (self.config.rotate_size, is_compressed(&path)) {
                assert!(length <= size, "{path:?} has {length} bytes");
            }
        }
        found.retain(|_, lines| !lines.is_empty());
        for (path, lines) in &expected {
            let found = found.get(path).map_or("", |lines| lines);
            assert!(found == lines, "{path}: {:?}, not {:?}", numbers(found), numbers(lines));
        }
        assert_eq!(found.len(), expected.len());
    }
}

fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "gz" || end == "zst")
}

/// Which file a closed one was.
fn current_of(path: &str) -> String {
    let path = path.trim_end_matches(".gz").trim_end_matches(".zst");
    let is_stamp = |part: &&str| !part.contains("Z-");
    path.split('.').filter(is_stamp).collect::<Vec<_>>().join(".")
}

fn content_of(path: &Path) -> String {
    let mut content = String::new();
    let mut file = File::open(path).expect("there");
    let read = match path.extension().and_then(|end| end.to_str()) {
        Some("gz") => flate2::read::GzDecoder::new(file).read_to_string(&mut content),
        Some("zst") => zstd::Decoder::new(file).expect("zstd").read_to_string(&mut content),
        _ => file.read_to_string(&mut content),
    };
    read.expect("text");
    content
}

/// The numbers of the records, to be shown.
fn numbers(lines: &str) -> Vec<&str> {
    lines.lines().map(|line| line.split([':', ',']).nth(1).unwrap_or(line)).collect()
}

#[test]
fn every_line_is_there_exactly_once_whenever_it_crashes() {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match setting("DT_RECEIVER_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("DT_RECEIVER_TEST_SEEDS").unwrap_or(8),
    };
    let (mut steps, mut crashes) = (0, 0);
    for seed in seeds {
        println!("DT_RECEIVER_TEST_SEED={seed}");
        let mut run = Run::new(seed);
        for _ in 0..STEPS {
            run.step();
            steps += 1;
        }
        crashes += run.crashes;
        run.check();
    }
    println!("{steps} steps, {crashes} crashes");
}
