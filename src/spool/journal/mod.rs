//! The journal: a file of a fixed size in front of the database, to which every commit goes first. One write and one sync
//! to space that is already there are all that a commit costs; the database is brought up to date for many at once
//! (`settle.rs`).
//!
//! # Format (version 1)
//!
//! `spool.journal` is a ring of frames. A frame begins at a multiple of 4096 bytes:
//!
//! | bytes | what | |
//! |---|---|---|
//! | 4 | `DTj1` | |
//! | 4 | CRC-32 of all that follows, to the end of the entries | little endian, as all numbers |
//! | 8 | id of the journal | random, new with every start |
//! | 8 | index of the frame | one more than that of the frame before |
//! | 4 | length of the entries | |
//! | 4 | 0 | |
//! | … | entries, see `entry.rs` | then zeros to the next multiple of 4096 |
//!
//! The table `counts` of the database says which frame is the first that is not in the database yet: `journal_id`,
//! `journal_index`, `journal_offset`. The next frame is behind the one before it, or, where there was no room for it, at
//! the start of the file. The last frame is the one after which no such frame follows.
//!
//! A frame is synced before anything in it is acknowledged and before the next one is written. So a frame that is torn is
//! the last one, and nobody was answered for it. One that cannot be read while a later one can was damaged: [`recover`]
//! says so.

pub(super) mod entry;
mod recover;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub(super) use recover::{has_frames, recover};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Frames begin at multiples of this; so does what is written past the page cache.
const BLOCK: usize = 4096;
const HEADER: usize = 32;
const MAGIC: [u8; 4] = *b"DTj1";
/// A frame is at most this part of the file, so that there is always one to write while others are brought to the
/// database.
const FRAMES_AT_LEAST: u64 = 8;

/// The journal of a spool's folder.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join("spool.journal")
}

/// Which frame comes next, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) id: i64,
    pub(super) index: i64,
    pub(super) offset: i64,
}

impl Position {
    /// The start of a journal that was never used.
    pub(super) fn first() -> Self {
        Self { id: RandomState::new().hash_one("journal").cast_signed(), index: 0, offset: 0 }
    }
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) path: PathBuf,
    file: File,
    size: u64,
    next: Position,
    /// Those that are not in the database yet.
    frames: VecDeque<Frame>,
    /// A frame as it goes to the disk. Memory that is written past the page cache begins at a multiple of a block.
    block: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    position: Position,
    last_seq: i64,
}

impl Journal {
    /// Makes a journal of so many bytes in place of the one that is there, whose frames are in the database.
    pub(super) fn create(folder: &Path, size: u64) -> io::Result<Self> {
        let path = path(folder);
        let size = size.next_multiple_of(as_u64(BLOCK));
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        if file.metadata()?.len() != size {
            // Written, not only set: what is overwritten later needs no new space, and its sync no change of the file.
            file.set_len(0)?;
            let zeros = vec![0; 64 * BLOCK];
            let mut written = 0;
            while written < size {
                let piece =
                    zeros.len().min(usize::try_from(size.saturating_sub(written)).unwrap_or(usize::MAX));
                file.write_all_at(zeros.get(..piece).unwrap_or_default(), written)?;
                written = written.saturating_add(as_u64(piece));
            }
            file.sync_all()?;
            File::open(folder)?.sync_all()?;
        }
        let file = past_the_cache(&path).unwrap_or(file);
        Ok(Self { path, file, size, next: Position::first(), frames: VecDeque::new(), block: Vec::new() })
    }

    /// Where the first frame is that is not in the database; where the next one will be if all are.
    pub(super) fn first(&self) -> Position {
        self.frames.front().map_or(self.next, |frame| frame.position)
    }

    /// The same once all frames up to a record are in the database.
    pub(super) fn first_after(&self, seq: i64) -> Position {
        self.frames.iter().find(|frame| frame.last_seq > seq).map_or(self.next, |frame| frame.position)
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// How many bytes the entries of one frame may have.
    pub(super) fn most(&self) -> usize {
        usize::try_from(self.size / FRAMES_AT_LEAST).unwrap_or(usize::MAX).saturating_sub(HEADER)
    }

    /// How many bytes are taken by frames that are not in the database.
    pub(super) fn used(&self) -> u64 {
        let Some(first) = self.frames.front() else { return 0 };
        let (from, to) = (as_offset(first.position.offset), as_offset(self.next.offset));
        if to > from { to.saturating_sub(from) } else { self.size.saturating_sub(from).saturating_add(to) }
    }

    /// Whether a frame with so many bytes of entries has a place.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.place(bytes).is_some()
    }

    /// The number up to which records go to the database next: about a quarter of the file.
    pub(super) fn oldest_part(&self) -> Option<i64> {
        let first = self.frames.front()?.position;
        let part = self.size / 4;
        let is_within = |frame: &&Frame| {
            let (from, to) = (as_offset(first.offset), as_offset(frame.position.offset));
            let distance = if to >= from {
                to.saturating_sub(from)
            } else {
                self.size.saturating_sub(from).saturating_add(to)
            };
            distance < part
        };
        self.frames.iter().take_while(is_within).last().map(|frame| frame.last_seq)
    }

    /// Frames up to a record are in the database, and their place is free. So are those behind that record which only move
    /// cursors: whoever settles has looked at the cursors after the last of these was written, as both are done by the
    /// writer's thread alone.
    pub(super) fn release(&mut self, seq: i64) {
        while self.frames.front().is_some_and(|frame| frame.last_seq <= seq) {
            self.frames.pop_front();
        }
    }

    /// Writes a frame and syncs it. `last_seq` is the number of the last record in it or before it. An error for want of
    /// space means that it is not there; after any other nobody knows.
    pub(super) fn write(&mut self, entries: &[u8], last_seq: i64) -> io::Result<()> {
        let Some((offset, length)) = self.place(entries.len()) else {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the journal has no room for it"));
        };
        let position = Position { offset: as_signed(offset), ..self.next };
        let from = self.fill(position, entries, length);
        let frame = self.block.get(from..from.saturating_add(length)).unwrap_or_default();
        match self.file.write_all_at(frame, offset) {
            // Where the file system takes no such writes after all.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.file = OpenOptions::new().read(true).write(true).open(&self.path)?;
                self.file.write_all_at(frame, offset)?;
            }
            written => written?,
        }
        // A frame that may or may not be there is never written another time: the one after it would be another one of its
        // index.
        self.file.sync_data().map_err(|error| io::Error::other(format!("syncing: {error}")))?;
        self.frames.push_back(Frame { position, last_seq });
        self.next.index = self.next.index.wrapping_add(1);
        self.next.offset = as_signed(offset.saturating_add(as_u64(length)));
        Ok(())
    }

    /// Where a frame with so many bytes of entries goes, and how long it is.
    fn place(&self, bytes: usize) -> Option<(u64, usize)> {
        let length = bytes.checked_add(HEADER)?.checked_next_multiple_of(BLOCK)?;
        let need = u64::try_from(length).ok()?;
        let head = as_offset(self.next.offset);
        let behind = head.checked_add(need)?;
        let offset = match self.frames.front().map(|frame| as_offset(frame.position.offset)) {
            None if behind <= self.size => head,
            None => (need <= self.size).then_some(0)?,
            // What is in use begins before the head: there is room behind it, else at the start.
            Some(used) if head > used && behind <= self.size => head,
            Some(used) if head > used => (need <= used).then_some(0)?,
            Some(used) => (behind <= used).then_some(head)?,
        };
        Some((offset, length))
    }

    /// Makes the frame ready. Gives where in `block` it begins.
    fn fill(&mut self, position: Position, entries: &[u8], length: usize) -> usize {
        let enough = length.saturating_add(BLOCK);
        if self.block.len() < enough {
            self.block.resize(enough, 0);
        }
        // `usize::MAX` where that cannot be told: then the write fails, and the next one goes through the page cache.
        let from = self.block.as_ptr().align_offset(BLOCK).min(BLOCK);
        let mut header = [0; HEADER];
        let length_of_entries = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        put(&mut header, 8, &position.id.to_le_bytes());
        put(&mut header, 16, &position.index.to_le_bytes());
        put(&mut header, 24, &length_of_entries.to_le_bytes());
        let crc = checksum(&header, entries);
        put(&mut header, 0, &MAGIC);
        put(&mut header, 4, &crc.to_le_bytes());
        let frame = self.block.get_mut(from..from.saturating_add(length)).unwrap_or_default();
        put(frame, 0, &header);
        put(frame, HEADER, entries);
        frame.get_mut(HEADER.saturating_add(entries.len())..).unwrap_or_default().fill(0);
        from
    }
}

/// Opens the journal so that what is written goes to the disk at once: a sync then costs a third less of the processor
/// (45 instead of 68 us for 32 KiB). `None` where the file system cannot do that.
fn past_the_cache(path: &Path) -> Option<File> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).ok()
}

/// Of the header from the id on, and the entries.
fn checksum(header: &[u8], entries: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header.get(8..).unwrap_or_default());
    hasher.update(entries);
    hasher.finalize()
}

fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = into.get_mut(at..at.saturating_add(bytes.len())) {
        place.copy_from_slice(bytes);
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Offsets are stored as SQLite's integers, and never negative.
fn as_offset(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

fn as_signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
