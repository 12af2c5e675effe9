//! The state in a file, so that a restart goes on where it ended: `--state`.
//!
//! One JSON document with a version. It is written whole to a new file beside it, synced, and renamed over the old one,
//! so that a crash leaves either the old or the new (and perhaps a file `NAME.….new`). It has the connectors' secrets and the private keys, so only its
//! owner may read it.
//!
//! A person may write the first one: all but `version`, `projects` and the `device_type` of devices can be left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    Connector, Device, History, MAX_CONNECTORS, MAX_DEVICES, MAX_LABELS, MAX_NAME, MAX_PROJECTS, Project,
    State, is_id, is_label,
};
use crate::identity::SavedKeys;
use dt_verify::event::simulation;

/// The version of the format.
const VERSION: u32 = 1;

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateFileError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: not a state of the emulator: {source}", path.display())]
    Unreadable { path: PathBuf, source: serde_json::Error },
    #[error("{}: {problem}", path.display())]
    Refused { path: PathBuf, problem: String },
    #[error("{}: the state has version {found}; this program reads version {VERSION}", path.display())]
    Version { path: PathBuf, found: u32 },
}

/// What is read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    #[serde(rename = "version")]
    _version: u32,
    /// What the emulated clock showed, in Unix milliseconds: it never goes back.
    now_millis: Option<i64>,
    keys: Option<SavedKeys>,
    #[serde(default)]
    counter: u32,
    #[serde(default)]
    next_number: u64,
    projects: BTreeMap<String, SavedProject>,
    #[serde(default)]
    history: History,
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

/// A file to keep the state in.
#[derive(Debug)]
pub(crate) struct StateFile(PathBuf);

impl StateFile {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Reads the state into `state`, and returns the keys and the time, if the file has them. There may be no file yet.
    pub(crate) fn read(&self, state: &mut State) -> Result<(Option<SavedKeys>, Option<i64>), StateFileError> {
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
        let projects =
            projects.map_err(|problem| StateFileError::Refused { path: self.0.clone(), problem })?;
        state.counter = saved.counter;
        state.next_number = saved.next_number;
        state.history = saved.history;
        state.projects = projects;
        let State { projects, ledger, .. } = state;
        for connector in projects.values_mut().flat_map(|project| project.connectors.values_mut()) {
            let Connector { id, queue, .. } = connector;
            queue.restore(|item| ledger.open(id, &item.event, item.queued_at));
        }
        Ok((saved.keys, saved.now_millis))
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

/// Checks what a person may have written, by the rules of the API, and puts ids where they are left out. `Err` says what
/// is wrong.
fn checked(projects: BTreeMap<String, SavedProject>) -> Result<BTreeMap<String, Project>, String> {
    let bad_id = |id: &str| format!("\"{}\": an id has 1 to 64 letters, digits, - and _", id.escape_debug());
    if projects.len() > MAX_PROJECTS {
        return Err(format!("there are at most {MAX_PROJECTS} projects"));
    }
    let (mut kept, mut known) = (BTreeMap::new(), BTreeSet::new());
    for (project_id, SavedProject { display_name, mut devices, connectors }) in projects {
        if !is_id(&project_id) {
            return Err(bad_id(&project_id));
        }
        if devices.len() > MAX_DEVICES || connectors.len() > MAX_CONNECTORS {
            return Err(format!(
                "{project_id}: a project has at most {MAX_DEVICES} devices and {MAX_CONNECTORS} connectors"
            ));
        }
        if display_name.as_ref().is_some_and(|name| name.is_empty() || name.len() > MAX_NAME) {
            return Err(format!("{project_id}: display_name is empty or longer than {MAX_NAME} bytes"));
        }
        for (id, device) in &mut devices {
            if !is_id(id) {
                return Err(bad_id(id));
            }
            // The history is by the id of the device, whatever project that is in.
            if !known.insert(id.clone()) {
                return Err(format!("{id}: two projects have this device"));
            }
            check_device(id, device)?;
        }
        kept.insert(project_id, Project { display_name, devices, connectors });
    }
    Ok(kept)
}

fn check_device(id: &str, device: &mut Device) -> Result<(), String> {
    if device.id.is_empty() {
        id.clone_into(&mut device.id);
    }
    if device.id != id {
        return Err(format!("{id}: found the id \"{}\"; leave it out", device.id.escape_debug()));
    }
    if !simulation::device_types().contains(&&*device.device_type) {
        return Err(format!("{id}: there is no device type \"{}\"", device.device_type.escape_debug()));
    }
    if device.labels.len() > MAX_LABELS {
        return Err(format!("{id}: a device has at most {MAX_LABELS} labels"));
    }
    if !device.labels.iter().all(|(key, value)| is_label(key, value)) {
        return Err(format!("{id}: the key of a label is empty, or a label is too long"));
    }
    Ok(())
}

/// The document of a state.
pub(crate) fn document(
    state: &State,
    keys: SavedKeys,
    now_millis: i64,
) -> Result<Vec<u8>, serde_json::Error> {
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
                let display_name = display_name.as_deref();
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
