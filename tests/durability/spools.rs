//! Small spools, made through the library: short segments, so that a few events make several.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use dt_receiver::clock::ManualClock;
use dt_receiver::log::{Bounds, Log, LogError, LogOptions, SinkSet, StartAt};
use dt_receiver::record::{KeptHeaders, Record};
use dt_receiver::verify::VerifiedBy;
use hyper::body::Bytes;

use crate::events::{body, id};

/// The length of a segment.
pub(crate) const SEGMENT: u64 = 16 << 10;
/// When the events are received, in Unix milliseconds.
pub(crate) const THEN: i64 = 1_700_000_000_123;

/// Short segments, and no limit that a disk could meet.
pub(crate) fn options() -> LogOptions {
    let bounds = Bounds { min_free: 0, ..LogOptions::default().bounds };
    LogOptions { bounds, segment_bytes: SEGMENT, ..LogOptions::default() }
}

pub(crate) fn open(folder: &Path) -> Result<Log, LogError> {
    Log::open(folder, options(), Arc::new(ManualClock::at(THEN)))
}

/// An event of device 1, as the server would store it.
pub(crate) fn record(number: u64) -> Record {
    Record {
        connector: Arc::from("default"),
        received_at: THEN,
        provenance: VerifiedBy::Secret { label: Arc::from("secret-1") }.into(),
        event_id: id(1, number).into(),
        event_type: "touch".into(),
        project: Some("p".into()),
        device: Some("dev1".into()),
        request_id: None,
        headers: KeptHeaders::default(),
        body: Bytes::from(body(1, number)),
    }
}

/// Opens a spool, has the sink `file` know these events, and closes it.
pub(crate) fn add(folder: &Path, numbers: std::ops::Range<u64>) {
    let log = open(folder).expect("opens");
    let sink = log.register(&Arc::from("file"), StartAt::Now, Vec::new()).expect("registered");
    for number in numbers {
        log.append_blocking(Arc::new(record(number)), SinkSet::new([sink.number]), true).expect("stored");
    }
    log.close();
}

/// Names and contents of all files but the lock and SQLite's shared memory, which hold nothing.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let names = entries.map(|entry| entry.expect("read").file_name().into_string().expect("text"));
    let names = names.filter(|name| name != "spool.lock" && !name.ends_with("-shm"));
    names.map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap_or_default())).collect()
}

/// Copies a folder of files. What vanishes meanwhile is left out.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("read") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let _gone = fs::copy(&path, to.join(path.file_name().expect("a name")));
        }
    }
}
