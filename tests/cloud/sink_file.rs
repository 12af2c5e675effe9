//! The lines of the receiver's sink: a file of envelopes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde_json::Value;

/// An event in a line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) event_id: String,
    pub(crate) device: String,
    /// The `timestamp` of the event, in Unix microseconds.
    pub(crate) micros: i64,
    /// How the event was received, if DT did not push it: `backfill` or `stream`.
    pub(crate) source: Option<String>,
}

impl Line {
    fn read(text: &str) -> Self {
        let line: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let (event, of) = (&line["event"], |value: &Value| value.as_str().map(str::to_owned));
        let timestamp = event["timestamp"].as_str().expect("a timestamp");
        Self {
            event_id: of(&event["eventId"]).expect("an id"),
            device: of(&line["metadata"]["deviceId"]).expect("a device"),
            micros: timestamp.parse::<jiff::Timestamp>().expect("RFC 3339").as_microsecond(),
            source: of(&line["source"]),
        }
    }
}

/// The file, of which each line is read once.
#[derive(Debug)]
pub(crate) struct SinkFile {
    path: PathBuf,
    offset: u64,
    pub(crate) lines: Vec<Line>,
    ids: BTreeSet<String>,
}

impl SinkFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, lines: Vec::new(), ids: BTreeSet::new() }
    }

    /// Reads the lines that are complete by now.
    pub(crate) fn read(&mut self) {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => panic!("{error}"),
        };
        file.seek(SeekFrom::Start(self.offset)).expect("a file");
        let mut text = Vec::new();
        file.read_to_end(&mut text).expect("read");
        let complete = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        self.offset += complete as u64;
        let text = std::str::from_utf8(&text[..complete]).expect("UTF-8");
        let lines = self.lines.len();
        self.lines.extend(text.lines().map(Line::read));
        self.ids.extend(self.lines[lines..].iter().map(|line| line.event_id.clone()));
    }

    /// Returns whether the event is in a line that was read.
    pub(crate) fn has(&self, event_id: &str) -> bool {
        self.ids.contains(event_id)
    }

    /// Returns the lines that back-fill has added, in the order of the file.
    pub(crate) fn filled(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.source.as_deref() == Some("backfill"))
    }
}
