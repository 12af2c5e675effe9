//! Tests of the file sink on a disk that loses what was not synced.

#![allow(clippy::arithmetic_side_effects, reason = "tests may fail loudly")]

mod cases;
mod model;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::FileSink;
use crate::sink::FileConfig;
use crate::sink::{Fate, OpenError, Outcome, Sink};
use dt_log::disk::fake::FakeDisk;
use dt_log::disk::{Disk, OpenMode, create_folders};
use dt_sink::record::{Format, Record};

/// The folder of all files.
const ROOT: &str = "/data";
/// 2023-11-14T22:13:20Z.
const START: i64 = 1_700_000_000_000;

fn disk(seed: u64) -> FakeDisk {
    let disk = FakeDisk::new(seed);
    create_folders(&disk, Path::new(ROOT), false).expect("made");
    disk
}

/// Creates a file of another program.
fn put(disk: &FakeDisk, path: &str, content: &[u8], is_synced: bool) {
    let file = disk.open(Path::new(path), OpenMode::Create).expect("made");
    disk.sync_folder(Path::new(ROOT)).expect("synced");
    file.write_all_at(content, 0).expect("written");
    if is_synced {
        file.sync_data().expect("synced");
    }
}

fn text(disk: &FakeDisk, path: &str) -> String {
    String::from_utf8(disk.content(path).unwrap_or_else(|| panic!("no {path}"))).expect("text")
}

fn config(path: &str) -> FileConfig {
    FileConfig::new(path.parse().expect("a template"))
}

fn rotated(path: &str, size: Option<u64>, hours: Option<u64>) -> FileConfig {
    let every = hours.map(|hours| Duration::from_secs(3600 * hours));
    FileConfig { rotate_size: size, rotate_every: every, ..config(path) }
}

fn record(number: usize) -> Arc<Record> {
    record_at(number, START)
}

fn record_at(number: usize, received_at: i64) -> Arc<Record> {
    let body = Bytes::from(format!("{{\"n\":{number}}}"));
    Arc::new(Record { received_at, body, ..Record::sample(&number.to_string()) })
}

fn records(numbers: std::ops::Range<usize>) -> Vec<Arc<Record>> {
    numbers.map(record).collect()
}

/// Returns the lines of records in the format `body`.
fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| format!("{{\"n\":{number}}}\n")).collect()
}

fn sink(disk: &FakeDisk, config: &FileConfig) -> FileSink {
    FileSink::on(Arc::new(disk.clone()), config.clone(), Format::Body)
}

/// Opens a sink with a checkpoint, and returns it with its first own checkpoint.
fn open_sink(
    disk: &FakeDisk,
    config: &FileConfig,
    checkpoint: Option<&[u8]>,
) -> Result<(FileSink, Vec<u8>), OpenError> {
    let mut sink = sink(disk, config);
    sink.open(checkpoint)?;
    let checkpoint = sink.begin().expect("a checkpoint");
    Ok((sink, checkpoint))
}

/// Delivers the whole batch, and returns the last checkpoint.
fn deliver(sink: &mut FileSink, batch: &[Arc<Record>]) -> Option<Vec<u8>> {
    let mut left = batch;
    for _ in 0..100 {
        let Outcome { fates, checkpoint, .. } = sink.deliver(left);
        assert_eq!(fates.len(), left.len());
        let done = fates.iter().take_while(|fate| **fate == Fate::Delivered).count();
        assert!(fates[done..].iter().all(|fate| *fate == Fate::Pending { last_error: None }), "{fates:?}");
        left = &left[done..];
        if left.is_empty() {
            return checkpoint;
        }
    }
    panic!("never delivered");
}

/// Delivers a batch that fails, and returns the error.
fn retry_error(sink: &mut FileSink, batch: &[Arc<Record>]) -> String {
    match sink.deliver(batch).fates.into_iter().next() {
        Some(Fate::Retry { error }) => error,
        other => panic!("{other:?}"),
    }
}
