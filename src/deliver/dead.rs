//! Dead letters in a folder: deliveries that were set aside, one file each, durable before anyone is told.
//!
//! A file `REASON-CONNECTOR[-SINK]-HASH.letter` holds one line of JSON about the delivery, then the body's exact bytes
//! (`tail -n +2 FILE` prints them). `HASH` is that of connector, sink and body, so that a copy is stored once. A file is
//! written under a name that begins with a dot, synced, renamed, and its folder synced; what a crash leaves under such a
//! name was never acknowledged.
//!
//! Letters that a sink rejected, or that cannot be read, are never dropped. Copies of expired requests, which DT still
//! holds, are bounded: the oldest go.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::event::rfc3339_millis;
use crate::record::{DeadLetter, Reason, RequestId};
use crate::sink::LetterBox;
use crate::telemetry::{DeadLetterBuried, DeadLetterDropped, DeadLetterFailed, Telemetry};

/// How many bytes of expired requests are kept.
const MAX_EXPIRED_BYTES: u64 = 64 * 1024 * 1024;

/// A dead letter could not be stored durably.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// In a folder.
    #[error("{path}: {doing}: {source}")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Somewhere else, in its own words.
    #[error("{0}")]
    Elsewhere(String),
}

/// Where dead letters go in mode `direct`: a folder, or somewhere else.
#[derive(Debug)]
pub struct DeadLetters {
    place: Place,
    telemetry: Arc<Telemetry>,
}

#[derive(Debug)]
enum Place {
    Folder(Folder),
    Elsewhere(Box<dyn LetterBox>),
}

/// The folder of dead letters.
#[derive(Debug)]
struct Folder {
    folder: PathBuf,
    telemetry: Arc<Telemetry>,
    /// Held while a letter is written.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Name and size of the copies of expired requests, oldest first.
    expired: VecDeque<(PathBuf, u64)>,
    expired_bytes: u64,
    trouble: Option<String>,
}

/// The first line of a letter's file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    reason: &'static str,
    connector: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sink: Option<&'a str>,
    error: &'a str,
    attempts: u32,
    received_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    signatures: &'a [(&'static str, String)],
    header_names: &'a [String],
    body_bytes: usize,
}

impl DeadLetters {
    /// Opens the folder, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// [`DeadLetterError`] when the folder cannot be made, read or written to.
    pub fn open(folder: impl Into<PathBuf>, telemetry: Arc<Telemetry>) -> Result<Self, DeadLetterError> {
        let place = Place::Folder(Folder::open(folder.into(), Arc::clone(&telemetry))?);
        Ok(Self { place, telemetry })
    }

    /// Letters that go somewhere else.
    #[must_use]
    pub fn elsewhere(place: Box<dyn LetterBox>, telemetry: Arc<Telemetry>) -> Self {
        Self { place: Place::Elsewhere(place), telemetry }
    }

    /// Stores a letter durably. In a folder, a letter that is there already is not written again.
    ///
    /// # Errors
    ///
    /// [`DeadLetterError`] when it is not durable; the delivery must not be acknowledged then.
    pub fn bury(&self, letter: &DeadLetter) -> Result<(), DeadLetterError> {
        let stored = match &self.place {
            Place::Folder(folder) => folder.bury(letter),
            Place::Elsewhere(place) => place.bury(letter).map(|()| true).map_err(DeadLetterError::Elsewhere),
        };
        let DeadLetter { reason, connector, error, .. } = letter;
        match stored {
            Ok(is_new) => {
                if is_new {
                    self.telemetry.emit(&DeadLetterBuried { reason: reason.code(), connector, error });
                }
                Ok(())
            }
            Err(error) => {
                self.telemetry.emit(&DeadLetterFailed { reason: reason.code(), error: &error.to_string() });
                Err(error)
            }
        }
    }

    /// What went wrong last, if letters still cannot be stored.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        match &self.place {
            Place::Folder(folder) => folder.trouble(),
            Place::Elsewhere(place) => place.trouble(),
        }
    }
}

impl Folder {
    fn open(folder: PathBuf, telemetry: Arc<Telemetry>) -> Result<Self, DeadLetterError> {
        let failed = |doing, source| DeadLetterError::Folder { path: folder.clone(), doing, source };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|e| failed("making the folder", e))?;
        probe(&folder).map_err(|e| failed("writing to the folder", e))?;
        let mut found: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(|e| failed("reading the folder", e))? {
            let entry = entry.map_err(|e| failed("reading the folder", e))?;
            if entry.file_name().to_string_lossy().starts_with("expired-") {
                let about = entry.metadata().map_err(|e| failed("reading the folder", e))?;
                found.push((about.modified().unwrap_or(SystemTime::UNIX_EPOCH), entry.path(), about.len()));
            }
        }
        found.sort();
        let expired_bytes = found.iter().map(|(.., size)| size).sum();
        let expired = found.into_iter().map(|(_, path, size)| (path, size)).collect();
        Ok(Self { folder, telemetry, state: Mutex::new(State { expired, expired_bytes, trouble: None }) })
    }

    /// Whether it is new.
    fn bury(&self, letter: &DeadLetter) -> Result<bool, DeadLetterError> {
        let mut state = self.state.lock();
        let stored = self.store(letter, &mut state);
        state.trouble = stored.as_ref().err().map(ToString::to_string);
        stored
    }

    fn trouble(&self) -> Option<String> {
        let mut state = self.state.lock();
        // Where `/readyz` decides who gets requests, no letter would come to find out that all is well again.
        if state.trouble.is_some() && probe(&self.folder).is_ok() {
            state.trouble = None;
        }
        state.trouble.clone()
    }

    fn store(&self, letter: &DeadLetter, state: &mut State) -> Result<bool, DeadLetterError> {
        let name = file_name(letter);
        let path = self.folder.join(&name);
        if path.exists() {
            return Ok(false);
        }
        let written = self.folder.join(format!(".{name}"));
        let size = write_synced(&written, letter).map_err(|source| DeadLetterError::Folder {
            path: written.clone(),
            doing: "writing",
            source,
        })?;
        if let Err(source) =
            std::fs::rename(&written, &path).and_then(|()| File::open(&self.folder)?.sync_all())
        {
            // A letter that is there counts as durable, so one that is not must not be there.
            let _removed = std::fs::remove_file(&path);
            return Err(DeadLetterError::Folder { path, doing: "renaming", source });
        }
        if letter.reason == Reason::Expired {
            state.expired.push_back((path, size));
            state.expired_bytes = state.expired_bytes.saturating_add(size);
            self.drop_oldest_expired(state);
        }
        Ok(true)
    }

    fn drop_oldest_expired(&self, state: &mut State) {
        while state.expired_bytes > MAX_EXPIRED_BYTES {
            let Some((path, size)) = state.expired.pop_front() else { break };
            state.expired_bytes = state.expired_bytes.saturating_sub(size);
            // One that somebody else removed is gone as well.
            let _removed = std::fs::remove_file(&path);
            self.telemetry.emit(&DeadLetterDropped { reason: Reason::Expired.code() });
        }
    }
}

/// Whether a durable file can be made in the folder. A full disk may still take an empty one, so it is not empty.
fn probe(folder: &Path) -> io::Result<()> {
    let path = folder.join(".probe");
    let mut file = File::create(&path)?;
    file.write_all(&[0; 4096])?;
    file.sync_all()?;
    std::fs::remove_file(&path)?;
    File::open(folder)?.sync_all()
}

fn file_name(letter: &DeadLetter) -> String {
    let DeadLetter { reason, connector, body, .. } = letter;
    let sink = match reason {
        Reason::Rejected { sink } => sink,
        Reason::Unreadable | Reason::Expired | Reason::Refused | Reason::Damaged => "",
    };
    // The names are hashed too: in the file's name, connector `a-b` with sink `c` looks like `a` with `b-c`.
    let hash = Sha256::new().chain_update(connector.as_bytes()).chain_update([0]);
    let hash = hash.chain_update(sink.as_bytes()).chain_update([0]).chain_update(body).finalize();
    let hash = hex::encode(hash.iter().take(16).copied().collect::<Vec<u8>>());
    let connector = file_name_safe(connector);
    match reason {
        Reason::Rejected { sink } => format!("{reason}-{connector}-{}-{hash}.letter", file_name_safe(sink)),
        Reason::Unreadable | Reason::Expired | Reason::Refused | Reason::Damaged => {
            format!("{reason}-{connector}-{hash}.letter")
        }
    }
}

/// Names from a configuration file are safe already; those that an embedder gives may be anything.
fn file_name_safe(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    name.chars().take(64).map(safe).collect()
}

fn write_synced(path: &Path, letter: &DeadLetter) -> io::Result<u64> {
    let sink = match &letter.reason {
        Reason::Rejected { sink } => Some(&**sink),
        Reason::Unreadable | Reason::Expired | Reason::Refused | Reason::Damaged => None,
    };
    let about = About {
        reason: letter.reason.code(),
        connector: &letter.connector,
        sink,
        error: &letter.error,
        attempts: letter.attempts,
        received_at: rfc3339_millis(letter.received_at),
        request_id: letter.request_id.as_ref().map(RequestId::as_str),
        event_id: letter.event_id.as_deref(),
        signatures: &letter.signatures,
        header_names: &letter.header_names,
        body_bytes: letter.body.len(),
    };
    let mut content = serde_json::to_vec(&about)?;
    content.push(b'\n');
    content.extend_from_slice(&letter.body);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&content)?;
    file.sync_all()?;
    Ok(u64::try_from(content.len()).unwrap_or(u64::MAX))
}
