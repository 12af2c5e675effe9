//! A disk in memory for tests: it loses unsynced changes when the power fails, and fails operations on demand.
//!
//! Paths are absolute; `/` exists. [`FakeDisk::crash`] returns one of the disks that are allowed after a power loss:
//!
//! - a 512-byte sector of a file holds any of its versions since the last sync of the file,
//! - the file has any of its lengths since then, and what it lost reads as zeros or is not there,
//! - of the names made, renamed and removed since the last sync of their folder, any subset took effect. A rename takes
//!   effect as a whole. A synced file without a synced name is gone.
//!
//! [`FakeDisk::kill`] returns the disk after a process was killed: everything written is there, and nothing is more durable
//! than before. Open files of the old disk keep working on the old disk only. The same seed produces the same disks.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "only tests use it, and tests may fail loudly"
)]

mod faults;
mod handle;
mod inode;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;

pub use self::faults::{Fault, Operation, Random};
use self::handle::FakeFile;
use self::inode::Inode;
use super::{About, Disk, DiskFile, OpenMode, parent};

/// A simulated file system in memory. Clones share its content.
#[derive(Debug, Clone)]
pub struct FakeDisk(Arc<Mutex<State>>);

/// A change of a name: the name, and the inode that it refers to from then on.
type NameChange = (PathBuf, Option<u64>);

#[derive(Debug, Clone)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// The unsynced changes of names, in order. All changes of one entry take effect together.
    pending_names: Vec<Vec<NameChange>>,
    next_inode: u64,
    /// The inodes that are reported with another number, in order to match another file system.
    shown: BTreeMap<u64, u64>,
    next_handle: u64,
    capacity: u64,
    faults: Vec<Fault>,
    /// The bytes that other programs append: before an operation of this kind on a path that contains the text, to the file with
    /// this path.
    appends: Vec<(Operation, String, PathBuf, Vec<u8>)>,
    stop_at: u64,
    counts: BTreeMap<Operation, u64>,
    random: Random,
}

impl FakeDisk {
    /// Returns an empty disk. The seed determines which parts of failed operations take effect.
    pub fn new(seed: u64) -> Self {
        let names = BTreeMap::from([(PathBuf::from("/"), 0)]);
        Self(Arc::new(Mutex::new(State {
            inodes: BTreeMap::from([(0, Inode::new(true))]),
            durable_names: names.clone(),
            names,
            pending_names: Vec::new(),
            next_inode: 1,
            shown: BTreeMap::new(),
            next_handle: 0,
            capacity: 1 << 40,
            faults: Vec::new(),
            appends: Vec::new(),
            stop_at: u64::MAX,
            counts: BTreeMap::new(),
            random: Random::new(seed),
        })))
    }

    /// Returns the disk after a power loss.
    pub fn crash(&self, random: &mut Random) -> Self {
        let mut state = self.state().restarted();
        let share = random.share();
        for change in std::mem::take(&mut state.pending_names) {
            if random.below(100) < share && is_possible(&state.durable_names, &change) {
                apply(&mut state.durable_names, &change);
            }
        }
        // Names in a lost folder are lost.
        let mut names = BTreeMap::new();
        for (path, inode) in std::mem::take(&mut state.durable_names) {
            if path.parent().is_none_or(|folder| names.contains_key(folder)) {
                names.insert(path, inode);
            }
        }
        (state.names, state.durable_names) = (names.clone(), names);
        for inode in state.inodes.values_mut() {
            let share = random.share();
            inode.sync_part(random, share);
            inode.forget_cache();
        }
        state.random = Random::new(random.below(u64::MAX));
        Self(Arc::new(Mutex::new(state)))
    }

    /// Returns the disk after the process was killed: all written data is there, and no more of it is synced than before.
    pub fn kill(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().restarted())))
    }

    /// Adds a fault, which makes operations fail.
    pub fn fail(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Removes all faults.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Makes another program append bytes to the file `path` just before the next operation of this kind on a path that contains
    /// `on`.
    pub fn append_before(&self, operation: Operation, on: &str, path: impl Into<PathBuf>, bytes: &[u8]) {
        self.state().appends.push((operation, on.to_owned(), path.into(), bytes.to_owned()));
    }

    /// Makes every operation after the first `operations` fail ([`operations`](Self::operations) counts them), including reads.
    /// This simulates the moment of a crash.
    pub fn stop_after(&self, operations: u64) {
        self.state().stop_at = operations;
    }

    /// Returns the number of operations so far, without those of the kind `Read`.
    pub fn operations(&self) -> u64 {
        self.state().operations()
    }

    /// Returns the number of operations of a kind.
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counts.get(&operation).copied().unwrap_or(0)
    }

    /// Sets the total capacity of all files in bytes.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Returns the content of a file without counting an operation; `None` if there is no file.
    pub fn content(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let state = self.state();
        let inode = state.inodes.get(state.names.get(path.as_ref())?)?;
        let mut content = vec![0; usize::try_from(inode.length()).unwrap()];
        inode.read(&mut content, 0);
        Some(content)
    }

    /// Returns all names with their inode numbers.
    pub fn names(&self) -> BTreeMap<PathBuf, u64> {
        let state = self.state();
        state.names.iter().map(|(path, inode)| (path.clone(), state.shown(*inode))).collect()
    }

    /// Sets the inode number that is reported for a file, to match another file system that is compared with this one. The
    /// inode that had this number gets the old one. Returns the old number; `None` if there is no such file.
    pub fn renumber(&self, path: &Path, number: u64) -> Option<u64> {
        let mut state = self.state();
        let inode = *state.names.get(path)?;
        let (before, holder) = (state.shown(inode), state.inode_shown_as(number));
        state.shown.insert(holder, before);
        state.shown.insert(inode, number);
        state.next_inode = state.next_inode.max(number + 1);
        Some(before)
    }

    /// Returns the number of the next inode.
    pub fn next_inode(&self) -> u64 {
        self.state().next_inode
    }

    /// Skips inode numbers, to match another file system that is compared with this one.
    pub fn skip_inodes(&self, next: u64) {
        let mut state = self.state();
        state.next_inode = state.next_inode.max(next);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, change: &[NameChange]) {
    for (name, inode) in change {
        match inode {
            Some(inode) => drop(names.insert(name.clone(), *inode)),
            None => drop(names.remove(name)),
        }
    }
}

/// Returns whether a change can be durable without all earlier ones: a rename needs the name that it renames.
fn is_possible(names: &BTreeMap<PathBuf, u64>, change: &[NameChange]) -> bool {
    match change {
        [(from, None), (_, Some(inode))] => names.get(from) == Some(inode),
        _ => true,
    }
}

impl State {
    /// Returns the disk without the state of the process that used it.
    fn restarted(&self) -> Self {
        let mut state = self.clone();
        state.faults.clear();
        state.stop_at = u64::MAX;
        state.counts.clear();
        for inode in state.inodes.values_mut() {
            inode.locked_by = None;
        }
        state
    }

    fn operations(&self) -> u64 {
        self.counts.iter().filter(|(kind, _)| **kind != Operation::Read).map(|(_, count)| count).sum()
    }

    fn has_stopped(&self) -> bool {
        self.operations() >= self.stop_at
    }

    /// Counts an operation, and returns an error if it must fail.
    fn begin(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        self.begin_with(operation, path, 0)
    }

    /// Counts an operation with `bytes` bytes, and returns the error if a fault makes it fail.
    fn begin_with(&mut self, operation: Operation, path: &Path, bytes: usize) -> io::Result<()> {
        if self.has_stopped() {
            return Err(Errno::IO.into());
        }
        *self.counts.entry(operation).or_default() += 1;
        let is_now = |(kind, on, ..): &mut (Operation, String, PathBuf, Vec<u8>)| {
            *kind == operation && path.to_string_lossy().contains(&**on)
        };
        for (.., target, bytes) in self.appends.extract_if(.., is_now) {
            let inode = self.inodes.get_mut(&self.names[&target]).unwrap();
            inode.write(&bytes, inode.length());
        }
        for fault in &mut self.faults {
            let wanted = fault.operation.map_or(operation != Operation::Read, |wanted| wanted == operation);
            if wanted && bytes >= fault.least && path.to_string_lossy().contains(&fault.path) {
                if fault.after > 0 {
                    fault.after -= 1;
                } else if fault.times > 0 {
                    fault.times -= 1;
                    return Err(fault.error.into());
                }
            }
        }
        Ok(())
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| Errno::NOENT.into())
    }

    fn folder(&self, path: &Path) -> io::Result<()> {
        let inode = self.find(path)?;
        if self.inodes[&inode].is_folder { Ok(()) } else { Err(Errno::NOTDIR.into()) }
    }

    fn make(&mut self, path: &Path, is_folder: bool) -> io::Result<u64> {
        self.folder(parent(path))?;
        if self.names.contains_key(path) {
            return Err(Errno::EXIST.into());
        }
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::new(is_folder));
        self.change_names(vec![(path.to_owned(), Some(inode))]);
        Ok(inode)
    }

    fn change_names(&mut self, change: Vec<NameChange>) {
        apply(&mut self.names, &change);
        self.pending_names.push(change);
    }

    fn free(&self) -> u64 {
        let used: u64 = self.names.values().map(|inode| self.inodes[inode].length()).sum();
        self.capacity.saturating_sub(used)
    }

    /// Returns the largest length of a file within the capacity of the disk, in bytes.
    fn room(&self, inode: u64) -> u64 {
        self.inodes[&inode].length() + self.free()
    }

    /// Returns the number that is reported for an inode.
    fn shown(&self, inode: u64) -> u64 {
        self.shown.get(&inode).copied().unwrap_or(inode)
    }

    /// Returns the inode for which this number is, or would be, reported.
    fn inode_shown_as(&self, number: u64) -> u64 {
        self.shown.iter().find(|(_, shown)| **shown == number).map_or(number, |(inode, _)| *inode)
    }

    fn about(&self, number: u64) -> About {
        let inode = &self.inodes[&number];
        let (length, modified) = (inode.length(), inode.modified);
        let is_folder = inode.is_folder;
        About { length, device: 1, inode: self.shown(number), is_file: !is_folder, is_folder, modified }
    }
}

impl Disk for FakeDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let inode = match mode {
            OpenMode::Read | OpenMode::Write => {
                state.begin(Operation::Read, path)?;
                let inode = state.find(path)?;
                if state.inodes[&inode].is_folder && mode == OpenMode::Write {
                    return Err(Errno::ISDIR.into());
                }
                inode
            }
            OpenMode::Create | OpenMode::CreatePrivate => {
                state.begin(Operation::Create, path)?;
                state.make(path, false)?
            }
        };
        state.next_handle += 1;
        let (handle, disk, path) = (state.next_handle, self.clone(), path.to_owned());
        Ok(Box::new(FakeFile { disk, inode, handle, path, writable: mode != OpenMode::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Operation::Rename, to)?;
        let inode = state.find(from)?;
        state.folder(parent(to))?;
        assert!(!state.inodes[&inode].is_folder, "the fake disk does not rename folders");
        state.change_names(vec![(from.to_owned(), None), (to.to_owned(), Some(inode))]);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Operation::Remove, path)?;
        let inode = state.find(path)?;
        if state.inodes[&inode].is_folder {
            return Err(Errno::ISDIR.into());
        }
        state.change_names(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn create_folder(&self, path: &Path, _is_private: bool) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Operation::CreateFolder, path)?;
        state.make(path, true).map(drop)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        let outcome = state.begin(Operation::SyncFolder, folder);
        if state.has_stopped() && outcome.is_err() {
            return outcome;
        }
        state.folder(folder)?;
        let share = if outcome.is_ok() { 100 } else { state.random.share() };
        for change in std::mem::take(&mut state.pending_names) {
            let is_here = change.iter().any(|(name, _)| name.parent() == Some(folder));
            if is_here
                && state.random.below(100) < share
                && (outcome.is_ok() || is_possible(&state.durable_names, &change))
            {
                apply(&mut state.durable_names, &change);
            } else {
                // Changes also stay pending after a failure: a file system that loses a name for good becomes read-only.
                state.pending_names.push(change);
            }
        }
        outcome
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let mut state = self.state();
        state.begin(Operation::Read, folder)?;
        state.folder(folder)?;
        let names = state.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(names.filter_map(|path| path.file_name()).map(ToOwned::to_owned).collect())
    }

    fn about(&self, path: &Path) -> io::Result<Option<About>> {
        let mut state = self.state();
        state.begin(Operation::Read, path)?;
        Ok(state.names.get(path).map(|inode| state.about(*inode)))
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let mut state = self.state();
        state.begin(Operation::Read, folder)?;
        state.folder(folder)?;
        Ok(state.free())
    }
}
