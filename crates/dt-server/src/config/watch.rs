//! Detects changes of the files that a configuration was read from. Files are compared by their content and opened by their
//! names, so that a file that was renamed over and a swapped symbolic link count as changes, and touching a file does not.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::Sources;

/// The state of a file. The digest is only compared: it is not logged or stored.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FileState {
    Content([u8; 32]),
    Error(io::ErrorKind),
}

impl FileState {
    fn of(read: &io::Result<Vec<u8>>) -> Self {
        match read {
            Ok(content) => Self::Content(Sha256::digest(content).into()),
            Err(error) => Self::Error(error.kind()),
        }
    }
}

/// The states of all files from which a configuration was read, at the time of reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSnapshot(BTreeMap<PathBuf, FileState>);

impl FileSnapshot {
    /// Returns the current states of the same files. The state of a file that is not regular, such as a pipe, is copied: reading
    /// the file again could block for ever.
    #[must_use]
    pub fn refreshed(&self, sources: &dyn Sources) -> Self {
        let now = self.0.iter().map(|(path, before)| {
            let is_special = std::fs::metadata(path).is_ok_and(|about| !about.is_file());
            (path.clone(), if is_special { before.clone() } else { FileState::of(&sources.file(path)) })
        });
        Self(now.collect())
    }
}

/// A source of secrets and files that records the state of each file that is read.
#[derive(Debug)]
pub struct Recorder<S> {
    sources: S,
    files: Mutex<FileSnapshot>,
    looks_at_certificates: bool,
}

impl<S: Sources> Recorder<S> {
    /// Creates a recorder that reads from `sources`.
    pub fn new(sources: S) -> Self {
        Self { sources, files: Mutex::default(), looks_at_certificates: true }
    }

    /// Skips the check of certificates, for a reload: the running service checks these files itself, and a half-replaced pair
    /// must not prevent the reload.
    #[must_use]
    pub const fn without_certificates(mut self) -> Self {
        self.looks_at_certificates = false;
        self
    }

    /// Returns the states of the files that were read.
    pub fn into_snapshot(self) -> FileSnapshot {
        self.files.into_inner()
    }
}

impl<S: Sources> Sources for Recorder<S> {
    fn env(&self, name: &str) -> Option<OsString> {
        self.sources.env(name)
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let read = self.sources.file(path);
        // The first reading counts: if the file changes before a second reading, the next check finds a change, and the reload
        // updates the part that has the old content.
        self.files.lock().0.entry(path.to_owned()).or_insert_with(|| FileState::of(&read));
        read
    }

    fn certificate(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.sources.certificate(path)
    }

    fn looks_at_certificates(&self) -> bool {
        self.looks_at_certificates
    }

    fn reads_secrets(&self) -> bool {
        self.sources.reads_secrets()
    }

    fn is_world_readable(&self, path: &Path) -> bool {
        self.sources.is_world_readable(path)
    }

    fn unix_seconds(&self) -> Option<i64> {
        self.sources.unix_seconds()
    }
}

/// Detects a change of the files that is stable between two checks, so that a file is not read while it is being written.
#[derive(Debug)]
pub struct Watch {
    /// The states of the files when the configuration was last read from them.
    current: FileSnapshot,
    /// The states of the files at the last check, if they differed from `current`; otherwise `None`.
    changed: Option<FileSnapshot>,
}

impl Watch {
    /// Creates a watch for the files that were read.
    #[must_use]
    pub const fn new(current: FileSnapshot) -> Self {
        Self { current, changed: None }
    }

    /// Checks the files. Returns `true` if they have changed since the configuration was last read from them, and have not
    /// changed since the previous check. Call this at an interval.
    pub fn has_stable_change(&mut self, sources: &dyn Sources) -> bool {
        let now = self.current.refreshed(sources);
        let is_changed = now != self.current;
        let before = self.changed.take();
        let is_stable = is_changed && before.as_ref() == Some(&now);
        self.changed = is_changed.then_some(now);
        is_stable
    }

    /// Sets the states of the files when the configuration was last read from them, whether it was valid or not. Later calls only
    /// detect changes after that.
    pub fn set_current(&mut self, files: FileSnapshot) {
        self.current = files;
        self.changed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SystemSources;

    fn read(paths: &[&Path]) -> FileSnapshot {
        let recorder = Recorder::new(SystemSources);
        for path in paths {
            // A missing file is recorded, too.
            let _read = recorder.file(path);
        }
        recorder.into_snapshot()
    }

    #[test]
    fn a_change_is_reported_once_when_it_is_stable() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        std::fs::write(&path, "one").expect("written");
        let mut watch = Watch::new(read(&[&path]));
        let mut check = || watch.has_stable_change(&SystemSources);
        assert!(!check() && !check());
        std::fs::write(&path, "half").expect("written");
        assert!(!check());
        std::fs::write(&path, "half and half").expect("written");
        assert!(!check(), "it was different at the previous check");
        assert!(check());
        watch.set_current(read(&[&path]));
        assert!(!watch.has_stable_change(&SystemSources) && !watch.has_stable_change(&SystemSources));
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_twice_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "old").expect("written");
        let recorder = Recorder::new(SystemSources);
        assert_eq!(recorder.file(&path).expect("read"), b"old");
        std::fs::write(&path, "new").expect("written");
        assert_eq!(recorder.file(&path).expect("read"), b"new");
        let mut watch = Watch::new(recorder.into_snapshot());
        assert!(!watch.has_stable_change(&SystemSources));
        assert!(watch.has_stable_change(&SystemSources), "one of the two readers has the old secret");
    }

    #[test]
    fn a_file_with_its_old_content_is_no_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        std::fs::write(&path, "one").expect("written");
        let mut watch = Watch::new(read(&[&path]));
        std::fs::remove_file(&path).expect("removed");
        assert!(!watch.has_stable_change(&SystemSources));
        std::fs::write(&path, "one").expect("written");
        assert!(!watch.has_stable_change(&SystemSources) && !watch.has_stable_change(&SystemSources));
    }

    #[test]
    fn swapped_links_and_new_files_are_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let (link, new) = (folder.path().join("..data"), folder.path().join("..new"));
        for (name, secret) in [("1", "old"), ("2", "new")] {
            std::fs::create_dir(folder.path().join(name)).expect("made");
            std::fs::write(folder.path().join(name).join("secret"), secret).expect("written");
        }
        std::os::unix::fs::symlink("1", &link).expect("linked");
        let (secret, absent) = (link.join("secret"), folder.path().join("absent"));
        let mut watch = Watch::new(read(&[&secret, &absent]));
        assert!(!watch.has_stable_change(&SystemSources) && !watch.has_stable_change(&SystemSources));
        std::os::unix::fs::symlink("2", &new).expect("linked");
        std::fs::rename(&new, &link).expect("swapped");
        assert!(!watch.has_stable_change(&SystemSources));
        assert!(watch.has_stable_change(&SystemSources));
        watch.set_current(read(&[&secret, &absent]));
        std::fs::write(&absent, "x").expect("written");
        assert!(!watch.has_stable_change(&SystemSources));
        assert!(watch.has_stable_change(&SystemSources));
    }
}
