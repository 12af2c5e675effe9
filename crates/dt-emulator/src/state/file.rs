//! The state file (`--state`), with which a restart continues.
//!
//! It is one JSON document with a version. Each save writes a new file beside it, syncs it, and renames it over the old one,
//! so that a crash leaves either the old or the new state (and perhaps a file `NAME.….new`). Only the owner can read it,
//! since it has the connectors' secrets and the private keys.
//!
//! A user can write the first one by hand: only `version`, `projects` and the `device_type` of devices are required.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Connector, Device, MAX_CONNECTORS, MAX_DEVICES, MAX_LABELS, MAX_NAME, MAX_PROJECTS, Project, State,
    StoredEvent, TooManyLabels, is_id, is_label,
};
use crate::identity::SavedKeys;
use crate::sequence::Sequence;
use dt_verify::event::simulation;

/// The version of the format.
const VERSION: u32 = 1;

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: not a state file of the emulator: {source}", path.display())]
    Unreadable { path: PathBuf, source: serde_json::Error },
    #[error("{}: {source}", path.display())]
    Invalid { path: PathBuf, source: InvalidState },
    #[error("{}: the state has version {found}; this program reads version {VERSION}", path.display())]
    Version { path: PathBuf, found: u32 },
}

/// The rule of the API that a state violates.
#[derive(Debug, thiserror::Error)]
pub enum InvalidState {
    #[error("\"{}\": an id has 1 to 64 letters, digits, - and _", .0.escape_debug())]
    BadId(String),
    #[error("there are at most {MAX_PROJECTS} projects")]
    TooManyProjects,
    #[error("{project}: a project has at most {MAX_DEVICES} devices and {MAX_CONNECTORS} connectors")]
    ProjectTooLarge { project: String },
    #[error("{project}: display_name is empty or longer than {MAX_NAME} bytes")]
    BadDisplayName { project: String },
    #[error("{device}: two projects have this device")]
    DeviceRepeated { device: String },
    #[error("{device}: found the id \"{}\"; leave it out", found.escape_debug())]
    OtherId { device: String, found: String },
    #[error("{device}: there is no device type \"{}\"", found.escape_debug())]
    UnknownType { device: String, found: String },
    #[error("{device}: {source}")]
    TooManyLabels { device: String, source: TooManyLabels },
    #[error("{device}: the key of a label is empty, or a label is too long")]
    BadLabel { device: String },
}

/// The content of the state file, as it is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    #[serde(rename = "version")]
    _version: u32,
    /// The time of the emulated clock, in Unix milliseconds. The clock never goes back.
    now_millis: Option<i64>,
    keys: Option<SavedKeys>,
    #[serde(default)]
    counter: u32,
    #[serde(default)]
    next_number: Sequence,
    projects: BTreeMap<String, SavedProject>,
    #[serde(default)]
    history: VecDeque<Arc<StoredEvent>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedProject {
    display_name: Option<String>,
    #[serde(default)]
    devices: BTreeMap<String, Device>,
    #[serde(default)]
    connectors: BTreeMap<String, Connector>,
}

/// The path of the state file.
#[derive(Debug)]
pub struct StateFile(PathBuf);

impl StateFile {
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Reads the file into `state`, and returns the keys and the time (Unix milliseconds) if the file has them. If the file does
    /// not exist, nothing changes.
    pub fn read(&self, state: &mut State) -> Result<(Option<SavedKeys>, Option<i64>), StateFileError> {
        let text = match fs::read(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((None, None)),
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
        let projects = checked(saved.projects);
        let projects = projects.map_err(|source| StateFileError::Invalid { path: self.0.clone(), source })?;
        state.counter = saved.counter;
        state.next_number = saved.next_number;
        for event in saved.history {
            // The fault `index-delay` is not saved either.
            state.history.push(event, i64::MIN);
        }
        state.projects = projects;
        let State { projects, ledger, .. } = state;
        for connector in projects.values_mut().flat_map(|project| project.connectors.values_mut()) {
            let Connector { id, queue, .. } = connector;
            queue.restore(|queued| ledger.open(id, &queued.event, queued.queued_at));
        }
        Ok((saved.keys, saved.now_millis))
    }

    /// Checks at the start that the folder of the file exists, since otherwise a later save would fail.
    pub fn check_folder(&self) -> Result<(), StateFileError> {
        let folder = folder(&self.0);
        let found = fs::metadata(folder).and_then(|found| {
            if found.is_dir() { Ok(()) } else { Err(std::io::ErrorKind::NotADirectory.into()) }
        });
        found.map_err(|source| StateFileError::Io { path: folder.to_owned(), source })
    }

    /// Writes a document that [`document`] returned.
    pub fn write(&self, document: &[u8]) -> Result<(), StateFileError> {
        let path = &self.0;
        self.replace(document).map_err(|source| StateFileError::Io { path: path.clone(), source })
    }

    fn replace(&self, document: &[u8]) -> std::io::Result<()> {
        let path = &self.0;
        let mut beside = path.clone().into_os_string();
        let random = getrandom::u64().map_err(std::io::Error::other)?;
        beside.push(format!(".{random:016x}.new"));
        let beside = PathBuf::from(beside);
        // Never an existing file: it belongs to another process, and others may be able to read it.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        let written = write_synced(file, document).and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            // The first error is the one that is reported.
            let _removed = fs::remove_file(&beside);
        }
        written.and_then(|()| sync_folder(path))
    }
}

/// Checks a document, which a user may have written, by the rules of the API, and adds ids that are omitted.
fn checked(projects: BTreeMap<String, SavedProject>) -> Result<BTreeMap<String, Project>, InvalidState> {
    if projects.len() > MAX_PROJECTS {
        return Err(InvalidState::TooManyProjects);
    }
    let (mut kept, mut device_ids) = (BTreeMap::new(), BTreeSet::new());
    for (project, SavedProject { display_name, mut devices, connectors }) in projects {
        if !is_id(&project) {
            return Err(InvalidState::BadId(project));
        }
        if devices.len() > MAX_DEVICES || connectors.len() > MAX_CONNECTORS {
            return Err(InvalidState::ProjectTooLarge { project });
        }
        if display_name.as_ref().is_some_and(|name| name.is_empty() || name.len() > MAX_NAME) {
            return Err(InvalidState::BadDisplayName { project });
        }
        for (id, device) in &mut devices {
            if !is_id(id) {
                return Err(InvalidState::BadId(id.clone()));
            }
            // The history finds a device's events by its id alone.
            if !device_ids.insert(id.clone()) {
                return Err(InvalidState::DeviceRepeated { device: id.clone() });
            }
            check_device(id, device)?;
        }
        kept.insert(project, Project { display_name, devices, connectors });
    }
    Ok(kept)
}

fn check_device(id: &str, device: &mut Device) -> Result<(), InvalidState> {
    let name = id.to_owned();
    if device.id.is_empty() {
        id.clone_into(&mut device.id);
    }
    if device.id != id {
        return Err(InvalidState::OtherId { device: name, found: device.id.clone() });
    }
    if !simulation::device_types().contains(&&*device.device_type) {
        return Err(InvalidState::UnknownType { device: name, found: device.device_type.clone() });
    }
    if device.labels.len() > MAX_LABELS {
        return Err(InvalidState::TooManyLabels { device: name, source: TooManyLabels });
    }
    if !device.labels.iter().all(|(key, value)| is_label(key, value)) {
        return Err(InvalidState::BadLabel { device: name });
    }
    Ok(())
}

/// Writes the document of a state. `now_millis` is the time of the emulated clock, in Unix milliseconds.
pub fn document(state: &State, keys: SavedKeys, now_millis: i64) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct ProjectRef<'a> {
        display_name: Option<&'a str>,
        devices: &'a BTreeMap<String, Device>,
        connectors: &'a BTreeMap<String, Connector>,
    }
    #[derive(Serialize)]
    struct SavedRef<'a> {
        version: u32,
        now_millis: i64,
        keys: SavedKeys,
        counter: u32,
        next_number: Sequence,
        projects: BTreeMap<&'a str, ProjectRef<'a>>,
        history: Vec<&'a Arc<StoredEvent>>,
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
                let display_name = display_name.as_deref();
                (id.as_str(), ProjectRef { display_name, devices, connectors })
            })
            .collect(),
        history: state.history.all().collect(),
    })
}

fn write_synced(mut file: File, document: &[u8]) -> std::io::Result<()> {
    file.write_all(document)?;
    file.sync_all()
}

/// Syncs the folder of a file, which makes a rename durable.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
