//! Simulates a worker that stores a cursor and a checkpoint some time after the batch, on a disk that fails or loses power
//! at any operation. At the end every record must be in the files exactly once, in order, and nothing else may change.
//!
//! `DT_RECEIVER_TEST_SEEDS` sets how many seeds are run, `DT_RECEIVER_TEST_SEED` repeats one of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;

use super::{ROOT, START, config, disk, put, rotated};
use crate::sink::FileConfig;
use crate::sink::file::FileSink;
use crate::sink::file::rotate::read_closed_name;
use crate::sink::{Fate, MAX_CHECKPOINT, Outcome, Sink};
use dt_log::disk::Disk;
use dt_log::disk::fake::{FakeDisk, Fault, Operation, Random};
use dt_sink::record::{Format, Record};

const RECORDS: u64 = 400;
const TEMPLATES: [&str; 6] = [
    "/data/events.ndjson",
    "/data/{eventType}.ndjson",
    "/data/{date}/{hour}/{eventType}",
    "/data/{eventType}/{date}.ndjson",
    "/data/other",
    "/data/{hour}/a",
];
const FOREIGN: &str = "notes\nwithout an end";

struct Run {
    disk: FakeDisk,
    random: Random,
    records: Vec<Arc<Record>>,
    config: FileConfig,
    format: Format,
    /// Whether a format was used in which [`is_silent`] records have no line.
    may_be_silent: bool,
    /// The stored state: the number of delivered records, and the checkpoint.
    stored: (usize, Option<Vec<u8>>),
    crashes: u64,
    failures: u64,
    is_loud: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let types = [1, 3, 20, 100][below(&mut random, 4)];
        let mut received_at = START;
        let records = (0..RECORDS).map(|number| {
            received_at += i64::try_from(if random.below(30) == 0 { 2_000_000 } else { random.below(300) })
                .expect("small");
            let mut record = Record::sample(&number.to_string());
            record.received_at = received_at;
            record.event_type = format!("type-{}", random.below(types)).into();
            let length = if random.below(10) == 0 { 2000 } else { 100 };
            let filling = "x".repeat(below(&mut random, length));
            let known = if is_silent(number) { "smell" } else { "touch" };
            let event = format!("{{\"eventId\":\"{number}\",\"eventType\":\"{known}\",\"data\":{{\"{known}\":{{}}}}}}");
            record.body = Bytes::from(format!(
                "{{\"n\":{number},\"labels\":{{\"n\":\"{number}\",\"x\":\"{filling}\"}},\"event\":{event}}}"
            ));
            Arc::new(record)
        });
        let records = records.collect();
        let disk = disk(seed);
        for path in ["/data/events.ndjson", "/data/type-1.ndjson"] {
            if random.below(3) == 0 {
                put(&disk, path, FOREIGN.as_bytes(), true);
            }
        }
        let config = some_config(&mut random);
        Self {
            disk,
            random,
            records,
            config,
            format: Format::Body,
            may_be_silent: false,
            stored: (0, None),
            crashes: 0,
            failures: 0,
            is_loud: std::env::var_os("DT_RECEIVER_TEST_SEED").is_some(),
        }
    }

    /// Runs the sink from a start to a crash, or to the end.
    fn live(&mut self, is_last: bool) {
        if self.random.below(4) == 0 {
            self.config = some_config(&mut self.random);
            self.format = Format::ALL[below(&mut self.random, Format::ALL.len())];
            self.may_be_silent |= self.format == Format::LineProtocol;
        }
        let crash_at = if is_last { u64::MAX } else { self.disk.operations() + 1 + self.random.below(120) };
        self.disk.stop_after(crash_at);
        let mut sink = FileSink::on(Arc::new(self.disk.clone()), self.config.clone(), self.format);
        self.say(|run| {
            format!("start at {} with {:?} {}, crash at {crash_at}", run.stored.0, run.config, run.format)
        });
        if self.start(&mut sink, crash_at, is_last) {
            let mut cursor = self.stored.0;
            let mut idle = 0;
            while cursor < self.records.len() && self.disk.operations() < crash_at {
                cursor = self.step(&mut sink, cursor, is_last);
                idle = if cursor == self.stored.0 { idle + 1 } else { 0 };
                assert!(idle < 500, "no progress at record {cursor}");
            }
        }
        drop(sink);
        if !is_last {
            self.crashes += 1;
            let is_killed = self.random.below(3) == 0;
            self.say(|_| format!("crash, killed: {is_killed}"));
            self.disk = if is_killed { self.disk.kill() } else { self.disk.crash(&mut self.random) };
        }
    }

    fn start(&mut self, sink: &mut FileSink, crash_at: u64, is_last: bool) -> bool {
        if let Err(error) = sink.open(self.stored.1.as_deref()) {
            assert!(self.disk.operations() >= crash_at, "{error}");
            return false;
        }
        let checkpoint = sink.begin().expect("a checkpoint");
        assert!(checkpoint.len() <= MAX_CHECKPOINT);
        if !is_last && self.random.below(10) == 0 {
            return false;
        }
        self.stored.1 = Some(checkpoint);
        true
    }

    fn step(&mut self, sink: &mut FileSink, cursor: usize, is_last: bool) -> usize {
        if !is_last && self.random.below(8) == 0 {
            self.failures += 1;
            let operations = [
                Operation::Write,
                Operation::Sync,
                Operation::Create,
                Operation::Rename,
                Operation::SyncFolder,
                Operation::CreateFolder,
            ];
            let operation = operations[below(&mut self.random, 6)];
            let error = [Errno::NOSPC, Errno::IO][below(&mut self.random, 2)];
            self.disk.fail(Fault { after: self.random.below(4), ..Fault::next(operation, error) });
        }
        let limit = [1, 12, 100][below(&mut self.random, 3)];
        let count = (1 + below(&mut self.random, limit)).min(self.records.len() - cursor);
        let Outcome { fates, checkpoint, is_checkpoint_due } =
            sink.deliver(&self.records[cursor..cursor + count]);
        assert_eq!(fates.len(), count);
        self.say(|_| {
            let text = String::from_utf8_lossy(checkpoint.as_deref().unwrap_or_default()).into_owned();
            format!("{cursor}+{count}: {:?} ... {:?} {is_checkpoint_due} {text}", fates.first(), fates.last())
        });
        let done = fates.iter().take_while(|fate| **fate == Fate::Delivered).count();
        let is_rest_open = |fate: &Fate| matches!(fate, Fate::Pending { .. } | Fate::Retry { .. });
        assert!(fates[done..].iter().all(is_rest_open), "{fates:?}");
        if let Some(Fate::Retry { error }) = fates.last() {
            assert!(!error.contains("differs from the lines"), "{error}");
            assert!(!is_last, "{error}");
            assert_eq!(done, 0);
            return cursor;
        }
        let checkpoint = checkpoint.expect("a checkpoint");
        assert!(checkpoint.len() <= MAX_CHECKPOINT);
        let is_stored = is_checkpoint_due || self.random.below(4) == 0;
        // Power may go before it is stored: then `deliver` is not called again.
        if is_stored && is_checkpoint_due && !is_last && self.random.below(20) == 0 {
            self.disk.stop_after(0);
            return self.records.len();
        }
        if is_stored {
            self.stored = (cursor + done, Some(checkpoint));
        }
        cursor + done
    }

    /// Prints a step if a single seed is repeated.
    fn say(&self, text: impl FnOnce(&Self) -> String) {
        if self.is_loud {
            println!("{}", text(self));
        }
    }

    fn check(&self) {
        // Closed files of a path first, then the one in use.
        let mut families: BTreeMap<String, Vec<(bool, String)>> = BTreeMap::new();
        for path in files_in(&self.disk, ROOT) {
            let (folder, name) = path.rsplit_once('/').expect("absolute");
            let family = match read_closed_name(name) {
                Some(closed) => format!("{folder}/{}", closed.current),
                None => path.clone(),
            };
            families.entry(family.clone()).or_default().push((family == path, path));
        }
        let mut seen = vec![0; self.records.len()];
        for (family, mut paths) in families {
            paths.sort();
            let content = paths.iter().flat_map(|(_, path)| self.content(path)).collect();
            let content = String::from_utf8(content).expect("text");
            assert!(!content.contains('\0'), "NUL in {family}");
            let own = content.strip_prefix(FOREIGN).unwrap_or(&content);
            let mut last = None;
            for line in own.lines().filter(|line| !line.is_empty()) {
                let number = self.number_of(line, &family);
                assert!(last < Some(number), "{family}: {number} after {last:?}");
                (last, seen[number]) = (Some(number), seen[number] + 1);
            }
        }
        let is_wrong = |(number, count): &(u64, u32)| {
            let may_be_absent = self.may_be_silent && is_silent(*number);
            *count > 1 || (*count == 0 && !may_be_absent)
        };
        let wrong: Vec<_> = (0..).zip(seen).filter(is_wrong).collect();
        assert!(wrong.is_empty(), "records that are not there exactly once: {wrong:?}");
    }

    fn content(&self, path: &str) -> Vec<u8> {
        self.disk.content(path).expect("a file")
    }

    /// Returns the number of the record in a line.
    fn number_of(&self, line: &str, family: &str) -> usize {
        let after = line.split("\"n\":").nth(1).or_else(|| line.split("label_n=").nth(1));
        let digits = after.and_then(|rest| rest.split([',', ' ']).next());
        let number: usize = digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        let record = &self.records[number];
        let is_line = Format::ALL.into_iter().any(|format| {
            let mut expected = Vec::new();
            format.write_line(record, &mut expected);
            expected == [line.as_bytes(), b"\n"].concat()
        });
        assert!(is_line, "torn: {line}");
        let is_path = TEMPLATES.iter().any(|template| {
            let (config, mut path) = (config(template), String::new());
            config.path.render(record, &mut path);
            config.path.root().join(path).to_str() == Some(family)
        });
        assert!(is_path, "{line} is in {family}");
        number
    }
}

/// Returns whether a record has no readings, so that it has no line in line protocol.
fn is_silent(number: u64) -> bool {
    number.is_multiple_of(3)
}

fn files_in(disk: &FakeDisk, folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    for name in disk.list(Path::new(folder)).expect("a folder") {
        let path = format!("{folder}/{}", name.to_str().expect("text"));
        let about = disk.about(Path::new(&path)).expect("read").expect("there");
        if about.is_folder { files.extend(files_in(disk, &path)) } else { files.push(path) }
    }
    files
}

fn below(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.below(limit as u64)).expect("small")
}

fn some_config(random: &mut Random) -> FileConfig {
    let template = TEMPLATES[below(random, TEMPLATES.len())];
    let size = [None, Some(1024), Some(20_000)][below(random, 3)];
    let hours = [None, Some(1), Some(24)][below(random, 3)];
    rotated(template, size, hours)
}

#[test]
fn every_line_is_there_exactly_once_whenever_power_fails() {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match setting("DT_RECEIVER_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("DT_RECEIVER_TEST_SEEDS").unwrap_or(100),
    };
    let (mut crashes, mut failures) = (0, 0);
    for seed in seeds {
        println!("DT_RECEIVER_TEST_SEED={seed}");
        let mut run = Run::new(seed);
        while run.crashes < 25 && run.stored.0 < run.records.len() {
            run.live(false);
        }
        run.live(true);
        run.check();
        (crashes, failures) = (crashes + run.crashes, failures + run.failures);
    }
    println!("{crashes} crashes, {failures} failures");
}
