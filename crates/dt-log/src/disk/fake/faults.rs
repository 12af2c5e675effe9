//! The faults of the [fake disk](super::FakeDisk): failing operations, and random numbers.

use rustix::io::Errno;

/// A small generator of random numbers (xorshift64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Returns a generator. The same seed always has the same numbers.
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike, and 0 would stay 0.
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.below(2);
        random
    }

    /// Returns a random number from 0 to `limit - 1`. `limit` must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    /// Returns the percentage of changes that survive a failure, at random: often all, none, or all but a few.
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
    /// Opening an existing file, reading, listing, or `about`.
    Read,
    /// Creating a file.
    Create,
    /// Writing to a file.
    Write,
    /// Changing the length of a file.
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

/// A fault: operations that fail. A failed write has written any part of its bytes, and a failed sync has synced any part of the
/// unsynced changes; the other changes count as synced, as on Linux.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The kind of the operations that fail; `None` for every kind except `Read`.
    pub operation: Option<Operation>,
    /// A part of the paths whose operations fail; empty for all paths.
    pub path: String,
    /// The smallest size of a write that fails, in bytes.
    pub least: usize,
    /// The number of matching operations that succeed before the first failure.
    pub after: u64,
    /// The number of operations that fail.
    pub times: u64,
    /// The error that a failed operation returns.
    pub error: Errno,
}

impl Fault {
    /// Returns a fault by which every operation of this kind fails, until [`FakeDisk::heal`](super::FakeDisk::heal).
    pub fn every(operation: Operation, error: Errno) -> Self {
        Self { operation: Some(operation), path: String::new(), least: 0, after: 0, times: u64::MAX, error }
    }

    /// Returns a fault by which the next operation of this kind fails.
    pub fn next(operation: Operation, error: Errno) -> Self {
        Self { times: 1, ..Self::every(operation, error) }
    }
}
