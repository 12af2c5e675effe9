//! The state in a file, so that a restart goes on where it ended: `--state`.
//!
//! One JSON document with a version. It is written whole to a new file beside it, synced, and renamed over the old one,
//! so that a crash leaves either the old or the new (and perhaps a file `NAME.….new`). It has the connectors' secrets and the private keys, so only its
//! owner may read it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Connector, Device, History, Project, State};
use crate::emulator::identity::SavedKeys;

/// The version of the format.
const VERSION: u32 = 1;

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateFileError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: not a state of the emulator: {source}", path.display())]
    Unreadable { path: PathBuf, source: serde_json::Error },
    #[error("{}: the state has version {found}; this program reads version {VERSION}", path.display())]
    Version { path: PathBuf, found: u32 },
}

/// What is written.
#[derive(Serialize, Deserialize)]
pub(crate) struct Saved {
    version: u32,
    /// What the emulated clock showed, in Unix milliseconds: it never goes back.
    now_millis: i64,
    keys: SavedKeys,
    counter: u32,
    next_number: u64,
    projects: BTreeMap<String, SavedProject>,
    history: History,
}

#[derive(Serialize, Deserialize)]
struct SavedProject {
    #[serde(default)]
    display_name: Option<String>,
    devices: BTreeMap<String, Device>,
    connectors: BTreeMap<String, Connector>,
}

/// A file to keep the state in.
#[derive(Debug)]
pub(crate) struct StateFile(PathBuf);

impl StateFile {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Reads the state into `state`, and gives the keys and the time; `None` when there is no file yet.
    pub(crate) fn read(&self, state: &mut State) -> Result<Option<(SavedKeys, i64)>, StateFileError> {
        let text = match fs::read(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateFileError::Io { path: self.0.clone(), source }),
        };
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let unreadable = |source| StateFileError::Unreadable { path: self.0.clone(), source };
        let Version { version } = serde_json::from_slice(&text).map_err(unreadable)?;
        if version != VERSION {
            return Err(StateFileError::Version { path: self.0.clone(), found: version });
        }
        let saved: Saved = serde_json::from_slice(&text).map_err(unreadable)?;
        state.counter = saved.counter;
        state.next_number = saved.next_number;
        state.history = saved.history;
        state.projects = saved
            .projects
            .into_iter()
            .map(|(id, SavedProject { display_name, devices, connectors })| {
                (id, Project { display_name, devices, connectors })
            })
            .collect();
        let State { projects, ledger, .. } = state;
        for connector in projects.values_mut().flat_map(|project| project.connectors.values_mut()) {
            let Connector { id, queue, .. } = connector;
            queue.restore(|item| ledger.open(id, &item.event, item.queued_at));
        }
        Ok(Some((saved.keys, saved.now_millis)))
    }

    /// Whether there is a folder to write to: better known at the start than when everything is to be kept.
    pub(crate) fn check_folder(&self) -> Result<(), StateFileError> {
        let folder = folder(&self.0);
        let found = fs::metadata(folder).and_then(|found| {
            if found.is_dir() { Ok(()) } else { Err(std::io::ErrorKind::NotADirectory.into()) }
        });
        found.map_err(|source| StateFileError::Io { path: folder.to_owned(), source })
    }

    /// Writes a document that [`document`] made.
    pub(crate) fn write(&self, document: &[u8]) -> Result<(), StateFileError> {
        let path = &self.0;
        self.replace(document).map_err(|source| StateFileError::Io { path: path.clone(), source })
    }

    fn replace(&self, document: &[u8]) -> std::io::Result<()> {
        let path = &self.0;
        let mut beside = path.clone().into_os_string();
        let random = getrandom::u64().map_err(std::io::Error::other)?;
        beside.push(format!(".{random:016x}.new"));
        let beside = PathBuf::from(beside);
        // Never a file that is there already, which is somebody else's and may be open to others.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        let written = write_synced(file, document).and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            // What has failed is what is reported.
            let _removed = fs::remove_file(&beside);
        }
        written.and_then(|()| sync_folder(path))
    }
}

/// The document of a state.
pub(crate) fn document(
    state: &State,
    keys: SavedKeys,
    now_millis: i64,
) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct ProjectRef<'a> {
        display_name: &'a Option<String>,
        devices: &'a BTreeMap<String, Device>,
        connectors: &'a BTreeMap<String, Connector>,
    }
    #[derive(Serialize)]
    struct SavedRef<'a> {
        version: u32,
        now_millis: i64,
        keys: SavedKeys,
        counter: u32,
        next_number: u64,
        projects: BTreeMap<&'a str, ProjectRef<'a>>,
        history: &'a History,
    }
    serde_json::to_vec(&SavedRef {
        version: VERSION,
        now_millis,
        keys,
        counter: state.counter,
        next_number: state.next_number,
        projects: state
            .projects
            .iter()
            .map(|(id, Project { display_name, devices, connectors })| {
                (id.as_str(), ProjectRef { display_name, devices, connectors })
            })
            .collect(),
        history: &state.history,
    })
}

fn write_synced(mut file: File, document: &[u8]) -> std::io::Result<()> {
    file.write_all(document)?;
    file.sync_all()
}

/// A rename is durable once its folder is.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
