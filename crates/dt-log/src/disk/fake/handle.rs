//! An open file of the [fake disk](super::FakeDisk).

use std::io;
use std::path::PathBuf;
use std::sync::MutexGuard;

use rustix::io::Errno;

use super::inode::Inode;
use super::{FakeDisk, Operation, State};
use crate::disk::{About, DiskFile};

#[derive(Debug)]
pub struct FakeFile {
    pub disk: FakeDisk,
    pub inode: u64,
    pub handle: u64,
    pub path: PathBuf,
    pub writable: bool,
}

impl FakeFile {
    /// Counts a change of `bytes` bytes, and returns the error if a fault makes it fail.
    fn change(&self, operation: Operation, bytes: usize) -> (MutexGuard<'_, State>, io::Result<()>) {
        let mut state = self.disk.state();
        let allowed = if self.writable { Ok(()) } else { Err(Errno::BADF.into()) };
        let outcome = state.begin_with(operation, &self.path, bytes).and(allowed);
        (state, outcome)
    }

    fn has_inode<'s>(&self, state: &'s mut State) -> &'s mut Inode {
        state.inodes.get_mut(&self.inode).unwrap()
    }
}

impl DiskFile for FakeFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.begin(Operation::Read, &self.path)?;
        Ok(self.has_inode(&mut state).read(buffer, offset))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut state, mut outcome) = self.change(Operation::Write, bytes.len());
        let mut written = bytes.len() as u64;
        let room = state.room(self.inode).saturating_sub(offset);
        if outcome.is_ok() && room < written {
            (written, outcome) = (room, Err(Errno::NOSPC.into()));
        } else if outcome.is_err() && !state.has_stopped() && self.writable {
            written = state.random.below(written + 1).min(room);
        } else if outcome.is_err() {
            return outcome;
        }
        let modified = i64::try_from(state.operations()).unwrap();
        let inode = self.has_inode(&mut state);
        inode.write(&bytes[..usize::try_from(written).unwrap()], offset);
        inode.modified = modified;
        outcome
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let (mut state, outcome) = self.change(Operation::SetLength, 0);
        outcome?;
        if length > state.room(self.inode) {
            return Err(Errno::NOSPC.into());
        }
        self.has_inode(&mut state).set_length(length);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let outcome = state.begin(Operation::Sync, &self.path);
        if outcome.is_ok() {
            self.has_inode(&mut state).sync();
        } else if !state.has_stopped() {
            let mut random = state.random.clone();
            let share = random.share();
            self.has_inode(&mut state).sync_part(&mut random, share);
            state.random = random;
        }
        outcome
    }

    fn about(&self) -> io::Result<About> {
        let mut state = self.disk.state();
        state.begin(Operation::Read, &self.path)?;
        Ok(state.about(self.inode))
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.disk.state();
        state.begin(Operation::Read, &self.path)?;
        let handle = self.handle;
        Ok(*self.has_inode(&mut state).locked_by.get_or_insert(handle) == handle)
    }
}

impl Drop for FakeFile {
    fn drop(&mut self) {
        let handle = self.handle;
        let mut state = self.disk.state();
        let inode = self.has_inode(&mut state);
        inode.locked_by = inode.locked_by.filter(|holder| *holder != handle);
    }
}
