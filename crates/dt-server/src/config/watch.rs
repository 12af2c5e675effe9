//! What a configuration was read from, and whether that is different now: files are looked at by their content, through
//! whatever links lead to them, so that a renamed-over file and a swapped `..data` are seen like any other change.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::Sources;

/// What there was at a path. Digests are compared here and go nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Content([u8; 32]),
    Error(io::ErrorKind),
}

impl Seen {
    fn of(read: &io::Result<Vec<u8>>) -> Self {
        match read {
            Ok(content) => Self::Content(Sha256::digest(content).into()),
            Err(error) => Self::Error(error.kind()),
        }
    }
}

/// The files that a configuration was read from, as they were then.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look(BTreeMap<PathBuf, Seen>);

impl Look {
    /// The same files as they are now. What is no regular file, such as a pipe, is taken as it was: reading it again could
    /// wait for ever.
    #[must_use]
    pub fn again(&self, sources: &dyn Sources) -> Self {
        let now = self.0.iter().map(|(path, before)| {
            let is_odd = std::fs::metadata(path).is_ok_and(|about| !about.is_file());
            (path.clone(), if is_odd { before.clone() } else { Seen::of(&sources.file(path)) })
        });
        Self(now.collect())
    }
}

/// Sources that remember what was read from them.
#[derive(Debug)]
pub struct Recorder<S> {
    sources: S,
    seen: Mutex<Look>,
    looks_at_certificates: bool,
}

impl<S: Sources> Recorder<S> {
    /// Nothing is read yet.
    pub fn new(sources: S) -> Self {
        Self { sources, seen: Mutex::default(), looks_at_certificates: true }
    }

    /// For a service that runs: it has a certificate in force, and keeps an eye on the files itself. Half of a new pair
    /// must not keep a good configuration out.
    #[must_use]
    pub const fn without_certificates(mut self) -> Self {
        self.looks_at_certificates = false;
        self
    }

    /// What was read.
    pub fn into_look(self) -> Look {
        self.seen.into_inner()
    }
}

impl<S: Sources> Sources for Recorder<S> {
    fn env(&self, name: &str) -> Option<OsString> {
        self.sources.env(name)
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let read = self.sources.file(path);
        // Where it is read twice and changes in between, the first look counts: it is another one at the next look, so that
        // who got the old content gets the new one then.
        self.seen.lock().0.entry(path.to_owned()).or_insert_with(|| Seen::of(&read));
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

/// Tells when the files are others, once they have stopped changing: a file that is just being written is not taken.
#[derive(Debug)]
pub struct Watch {
    taken: Look,
    last: Option<Look>,
}

impl Watch {
    /// Begins with what was read.
    #[must_use]
    pub const fn new(taken: Look) -> Self {
        Self { taken, last: None }
    }

    /// Looks; true when the files differ from those that were taken, and are as they were at the look before. To be
    /// called from time to time.
    pub fn has_settled(&mut self, sources: &dyn Sources) -> bool {
        let now = self.taken.again(sources);
        let is_other = now != self.taken;
        let before = self.last.take();
        let settled = is_other && before.as_ref() == Some(&now);
        self.last = is_other.then_some(now);
        settled
    }

    /// What was read last, whether or not it was good: only another change is a reason to read again.
    pub fn take(&mut self, look: Look) {
        self.taken = look;
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SystemSources;

    fn read(paths: &[&Path]) -> Look {
        let recorder = Recorder::new(SystemSources);
        for path in paths {
            // That it is not there is something to remember as well.
            let _read = recorder.file(path);
        }
        recorder.into_look()
    }

    #[test]
    fn a_change_is_told_once_it_has_settled_and_only_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        std::fs::write(&path, "one").expect("written");
        let mut watch = Watch::new(read(&[&path]));
        let mut look = || watch.has_settled(&SystemSources);
        assert!(!look() && !look());
        std::fs::write(&path, "half").expect("written");
        assert!(!look());
        std::fs::write(&path, "half and half").expect("written");
        assert!(!look(), "it was different at the look before");
        assert!(look());
        watch.take(read(&[&path]));
        assert!(!watch.has_settled(&SystemSources) && !watch.has_settled(&SystemSources));
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
        let mut watch = Watch::new(recorder.into_look());
        assert!(!watch.has_settled(&SystemSources));
        assert!(watch.has_settled(&SystemSources), "one of the two readers has the old secret");
    }

    #[test]
    fn a_file_that_comes_back_as_it_was_is_no_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        std::fs::write(&path, "one").expect("written");
        let mut watch = Watch::new(read(&[&path]));
        std::fs::remove_file(&path).expect("removed");
        assert!(!watch.has_settled(&SystemSources));
        std::fs::write(&path, "one").expect("written");
        assert!(!watch.has_settled(&SystemSources) && !watch.has_settled(&SystemSources));
    }

    #[test]
    fn links_that_are_swapped_and_files_that_appear_are_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let (link, new) = (folder.path().join("..data"), folder.path().join("..new"));
        for (name, secret) in [("1", "old"), ("2", "new")] {
            std::fs::create_dir(folder.path().join(name)).expect("made");
            std::fs::write(folder.path().join(name).join("secret"), secret).expect("written");
        }
        std::os::unix::fs::symlink("1", &link).expect("linked");
        let (secret, absent) = (link.join("secret"), folder.path().join("absent"));
        let mut watch = Watch::new(read(&[&secret, &absent]));
        assert!(!watch.has_settled(&SystemSources) && !watch.has_settled(&SystemSources));
        std::os::unix::fs::symlink("2", &new).expect("linked");
        std::fs::rename(&new, &link).expect("swapped");
        assert!(!watch.has_settled(&SystemSources));
        assert!(watch.has_settled(&SystemSources));
        watch.take(read(&[&secret, &absent]));
        std::fs::write(&absent, "x").expect("written");
        assert!(!watch.has_settled(&SystemSources));
        assert!(watch.has_settled(&SystemSources));
    }
}
