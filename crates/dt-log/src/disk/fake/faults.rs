//! What goes wrong on the [fake disk](super::FakeDisk): operations that fail, and chance.

use rustix::io::Errno;

/// A small generator of random numbers (xorshift64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Returns a generator that repeats itself for the same seed.
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike, and 0 would stay 0.
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.below(2);
        random
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    /// How many of 100 changes survive: often all, none, or all but a few.
    pub fn share(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => 100,
            2 => 95,
            3 => 5,
            _ => self.below(101),
        }
    }
}

/// What is done to a disk. Each is counted, and can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Opening what exists, reading, listing, `about`.
    Read,
    /// Making a file.
    Create,
    /// Writing to a file.
    Write,
    /// Changing a file's length.
    SetLength,
    /// Syncing a file.
    Sync,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// Making a folder.
    CreateFolder,
    /// Syncing a folder.
    SyncFolder,
}

/// Operations that fail. A failed write has written any part, a failed sync has synced any part of what was unsynced, and
/// the rest counts as synced, as on Linux.
#[derive(Debug, Clone)]
pub struct Fault {
    /// `None`: every operation but `Read`.
    pub operation: Option<Operation>,
    /// A part of the path; empty for all paths.
    pub path: String,
    /// How many such operations succeed before.
    pub after: u64,
    /// How many fail then.
    pub times: u64,
    /// The error that is returned.
    pub error: Errno,
}

impl Fault {
    /// Fails every operation of that kind from now on, until [`FakeDisk::heal`].
    pub fn every(operation: Operation, error: Errno) -> Self {
        Self { operation: Some(operation), path: String::new(), after: 0, times: u64::MAX, error }
    }

    /// Fails the next operation of that kind.
    pub fn next(operation: Operation, error: Errno) -> Self {
        Self { times: 1, ..Self::every(operation, error) }
    }
}
