//! The faults of the [fake disk](super::FakeDisk): failing operations, and random numbers.

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

    /// Returns a number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    /// Returns how many of 100 changes survive: often all, none, or all but a few.
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

/// A kind of operation on a disk. Each kind is counted, and can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Opening what exists, reading, listing, `about`.
    Read,
    /// Creating a file.
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
    /// Creating a folder.
    CreateFolder,
    /// Syncing a folder.
    SyncFolder,
}

/// A fault: operations that fail. A failed write has written any part, and a failed sync has synced any part of the
/// unsynced changes; the rest counts as synced, as on Linux.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The kind of operation; `None` for every kind but `Read`.
    pub operation: Option<Operation>,
    /// A part of the path; empty for all paths.
    pub path: String,
    /// The fewest bytes of a write that it concerns.
    pub least: usize,
    /// The number of matching operations that succeed first.
    pub after: u64,
    /// The number of operations that fail then.
    pub times: u64,
    /// The error that is returned.
    pub error: Errno,
}

impl Fault {
    /// Returns a fault that fails every operation of that kind, until [`FakeDisk::heal`](super::FakeDisk::heal).
    pub fn every(operation: Operation, error: Errno) -> Self {
        Self { operation: Some(operation), path: String::new(), least: 0, after: 0, times: u64::MAX, error }
    }

    /// Returns a fault that fails the next operation of that kind.
    pub fn next(operation: Operation, error: Errno) -> Self {
        Self { times: 1, ..Self::every(operation, error) }
    }
}
