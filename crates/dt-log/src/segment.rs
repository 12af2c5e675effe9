//! A segment: a file of fixed length, with a header and then groups, the first of which contains a snapshot.
//!
//! The header takes the first 512 bytes, of which 56 are used: `DTlogseg`, the version of the format (4 bytes), the store's
//! id (16), the segment's number (8), the sequence number of its first event (8), the time at which the last event before
//! it was received (8, Unix milliseconds), and a CRC-32 of all of these (4). All numbers are little-endian.

use std::io;
use std::path::{Path, PathBuf};

use super::group::{self, GroupHeader, Owner};
use super::{LogError, StoreId};
use crate::disk::{Disk, DiskFile, OpenMode};

/// The version of the format that this program writes, and the newest one that it reads.
pub const VERSION: u32 = 2;
/// The offset of the first group in a segment's file, in bytes.
pub const GROUPS_AT: u64 = 512;
const MAGIC: [u8; 8] = *b"DTlogseg";
const HEADER: usize = 56;
/// The size of the blocks that are searched for a group after damage, in bytes.
const SEARCH: usize = 64 * 1024;

/// The header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    pub owner: Owner,
    /// The sequence number of the segment's first event. Events with this or a higher number in older segments are void.
    pub first_seq: i64,
    /// When the last event before this segment was received, in Unix milliseconds.
    pub received_before: i64,
}

/// Returns the path of a segment.
pub fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("segment-{number:010}.log"))
}

/// Returns the number in the name of a segment's file; `None` if it is not such a name.
pub fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".log")?;
    (digits.len() >= 10).then(|| digits.parse().ok())?
}

impl SegmentHeader {
    /// Returns the header as bytes, padded to the offset of the first group.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.owner.store.0);
        bytes.extend_from_slice(&self.owner.segment.to_le_bytes());
        bytes.extend_from_slice(&self.first_seq.to_le_bytes());
        bytes.extend_from_slice(&self.received_before.to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.resize(usize::try_from(GROUPS_AT).unwrap_or(512), 0);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, HeaderProblem> {
        let read = || {
            let (magic, rest) = bytes.split_first_chunk::<8>()?;
            let (version, rest) = rest.split_first_chunk::<4>()?;
            let (store, rest) = rest.split_first_chunk::<16>()?;
            let (number, rest) = rest.split_first_chunk::<8>()?;
            let (first_seq, rest) = rest.split_first_chunk::<8>()?;
            let (received_before, rest) = rest.split_first_chunk::<8>()?;
            let (crc, _) = rest.split_first_chunk::<4>()?;
            let owner = Owner { store: StoreId(*store), segment: u64::from_le_bytes(*number) };
            let (first_seq, received_before) =
                (i64::from_le_bytes(*first_seq), i64::from_le_bytes(*received_before));
            let intact =
                bytes.get(..52).is_some_and(|bytes| crc32fast::hash(bytes) == u32::from_le_bytes(*crc));
            Some((*magic, u32::from_le_bytes(*version), intact, Self { owner, first_seq, received_before }))
        };
        match read() {
            Some((MAGIC, version, true, _)) if version > VERSION => Err(HeaderProblem::Newer(version)),
            Some((MAGIC, VERSION, true, header)) => Ok(header),
            _ => Err(HeaderProblem::Damaged),
        }
    }
}

/// Why the header of a segment cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderProblem {
    Newer(u32),
    Damaged,
}

/// Reads a segment group by group.
#[derive(Debug)]
pub struct SegmentReader {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    length: u64,
    owner: Owner,
    /// The offset in the file at which the next group is read, in bytes.
    at: u64,
    /// The sequence number that the next group is expected to begin with.
    next_seq: i64,
    first_seq: i64,
    frames: Vec<u8>,
}

/// The next part of a segment, as [`SegmentReader::next`] returns it.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A group; its frames are in [`SegmentReader::frames`].
    Group(GroupHeader),
    /// Unreadable bytes, followed by a readable group. [`SegmentReader::frames`] returns the bytes.
    Damaged,
    /// The end of the segment: no readable group follows.
    End,
}

impl SegmentReader {
    /// Opens a segment and reads its header.
    ///
    /// # Errors
    ///
    /// [`LogError`] with the path. If only the header is damaged, that is not an error: the first group can replace it, and
    /// `is_header_damaged` is set.
    pub fn open(
        disk: &dyn Disk,
        folder: &Path,
        number: u64,
        store: Option<StoreId>,
    ) -> Result<Opened, LogError> {
        let path = path(folder, number);
        let failed = |doing| {
            let path = path.clone();
            move |error: io::Error| LogError::io(path, doing, &error)
        };
        let file = disk.open(&path, OpenMode::Read).map_err(failed("opening"))?;
        let length = file.about().map_err(failed("reading its length"))?.length;
        let mut bytes = [0; HEADER];
        let read = file.read_at(&mut bytes, 0).map_err(failed("reading"))?;
        let header = match SegmentHeader::from_bytes(bytes.get(..read).unwrap_or_default()) {
            Ok(header) => Some(header),
            Err(HeaderProblem::Newer(found)) => {
                return Err(LogError::Newer { path, found, known: VERSION });
            }
            Err(HeaderProblem::Damaged) => None,
        };
        if let (Some(header), Some(store)) = (&header, store)
            && header.owner.store != store
        {
            let (expected, found) = (store, header.owner.store);
            return Err(LogError::Foreign { path, expected, found });
        }
        let damaged = |text: &str| LogError::Damaged { path: path.clone(), text: text.to_owned() };
        if let Some(header) = &header
            && header.owner.segment != number
        {
            let found = header.owner.segment;
            return Err(damaged(&format!("it contains segment {found}, under the name of segment {number}")));
        }
        let owner = match (header, store) {
            (Some(header), _) => header.owner,
            (None, Some(store)) => Owner { store, segment: number },
            (None, None) => return Err(damaged("its header cannot be read")),
        };
        let at = GROUPS_AT;
        let next_seq = header.map_or(i64::MIN, |header| header.first_seq);
        let (first_seq, frames) = (next_seq, Vec::new());
        let mut reader = Self { path: path.clone(), file, length, owner, at, next_seq, first_seq, frames };
        let is_header_damaged = header.is_none();
        let header = match header {
            Some(header) => header,
            // The checksum of a group covers store and segment, so the first group can replace the header.
            None => match reader.next().map_err(failed("reading"))? {
                Next::Group(first) => {
                    reader.at = GROUPS_AT;
                    (reader.next_seq, reader.first_seq) = (first.first_seq, first.first_seq);
                    SegmentHeader { owner, first_seq: first.first_seq, received_before: i64::MAX }
                }
                Next::Damaged | Next::End => {
                    return Err(damaged("neither its header nor its first group can be read"));
                }
            },
        };
        Ok(Opened { reader, header, is_header_damaged })
    }

    /// Opens a segment without reading its header. `first_seq` is the sequence number of its first event.
    ///
    /// # Errors
    ///
    /// [`LogError`] with the path.
    pub fn without_header(
        disk: &dyn Disk,
        folder: &Path,
        owner: Owner,
        first_seq: i64,
    ) -> Result<Self, LogError> {
        let path = path(folder, owner.segment);
        let opened =
            disk.open(&path, OpenMode::Read).and_then(|file| file.about().map(|about| (file, about.length)));
        let (file, length) = opened.map_err(|error| LogError::io(&*path, "opening", &error))?;
        Ok(Self {
            path,
            file,
            length,
            owner,
            at: GROUPS_AT,
            next_seq: first_seq,
            first_seq,
            frames: Vec::new(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the frames of the last group that was read, or the unreadable bytes after [`Next::Damaged`].
    pub fn frames(&self) -> &[u8] {
        &self.frames
    }

    /// Returns the offset in the file at which the next group is read, in bytes.
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// Reads the next group.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub fn next(&mut self) -> io::Result<Next> {
        if let Some(header) = self.group_at(self.at)? {
            self.pass(&header);
            return Ok(Next::Group(header));
        }
        let Some(behind) = self.search(self.at.saturating_add(1))? else {
            self.frames.clear();
            return Ok(Next::End);
        };
        let damaged = usize::try_from(behind.saturating_sub(self.at)).unwrap_or(0);
        self.frames.resize(damaged, 0);
        let read = self.file.read_at(&mut self.frames, self.at)?;
        self.frames.truncate(read);
        self.at = behind;
        Ok(Next::Damaged)
    }

    /// Returns whether bytes other than zeros follow the last group. The space for the next group is zero until it is written.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub fn has_rest(&self) -> io::Result<bool> {
        let mut bytes = [0; group::HEADER];
        let read = self.file.read_at(&mut bytes, self.at)?;
        Ok(bytes.iter().take(read).any(|byte| *byte != 0))
    }

    /// Returns the first sequence number of the next readable group.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub fn peek_first_seq(&self) -> io::Result<i64> {
        let mut bytes = [0; group::HEADER];
        let read = self.file.read_at(&mut bytes, self.at)?;
        Ok(GroupHeader::read(bytes.get(..read).unwrap_or_default())
            .map_or(self.next_seq, |header| header.first_seq))
    }

    /// Skips groups whose events are all before a sequence number, by reading only headers. If a header on the way is unreadable,
    /// reading starts again at the first group.
    ///
    /// # Errors
    ///
    /// The error of the operating system.
    pub fn skip_to(&mut self, seq: i64) -> io::Result<()> {
        let mut bytes = [0; group::HEADER];
        loop {
            let read = self.file.read_at(&mut bytes, self.at)?;
            match GroupHeader::read(bytes.get(..read).unwrap_or_default()) {
                Some(header) if header.first_seq == self.next_seq => {
                    if header.next_seq().is_none_or(|next| next > seq) {
                        return Ok(());
                    }
                    self.pass(&header);
                }
                _ => {
                    (self.at, self.next_seq) = (GROUPS_AT, self.first_seq);
                    return Ok(());
                }
            }
        }
    }

    fn pass(&mut self, header: &GroupHeader) {
        let length = group::HEADER.saturating_add(header.length);
        self.at = self.at.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        self.next_seq = header.next_seq().unwrap_or(i64::MAX);
    }

    /// Reads the group at an offset with its frames; `None` if there is no intact group.
    fn group_at(&mut self, at: u64) -> io::Result<Option<GroupHeader>> {
        let mut bytes = [0; group::HEADER];
        let read = self.file.read_at(&mut bytes, at)?;
        let Some(header) = GroupHeader::read(bytes.get(..read).unwrap_or_default()) else { return Ok(None) };
        let after = at.saturating_add(u64::try_from(group::HEADER).unwrap_or(u64::MAX));
        let room = self.length.saturating_sub(after);
        if u64::try_from(header.length).unwrap_or(u64::MAX) > room || header.first_seq < self.next_seq {
            return Ok(None);
        }
        self.frames.resize(header.length, 0);
        let read = self.file.read_at(&mut self.frames, after)?;
        let is_intact = read == header.length && header.is_intact(self.owner, &self.frames);
        Ok(is_intact.then_some(header))
    }

    /// Returns the offset of the first group at or after `from`.
    fn search(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut block = vec![0; SEARCH];
        let mut start = from;
        while start < self.length {
            let read = self.file.read_at(&mut block, start)?;
            let found = block.get(..read).unwrap_or_default();
            for place in
                found.windows(4).enumerate().filter(|(_, bytes)| *bytes == b"DTgr").map(|(place, _)| place)
            {
                let at = start.saturating_add(u64::try_from(place).unwrap_or(u64::MAX));
                if self.group_at(at)?.is_some() {
                    return Ok(Some(at));
                }
            }
            // Blocks overlap, so that a mark across the end of one is found.
            let step = u64::try_from(read.saturating_sub(3)).unwrap_or(0);
            if step == 0 || read < SEARCH {
                break;
            }
            start = start.saturating_add(step);
        }
        Ok(None)
    }
}

/// A segment that was opened for reading.
#[derive(Debug)]
pub struct Opened {
    pub reader: SegmentReader,
    pub header: SegmentHeader,
    /// Whether the header is damaged; its values are then derived from the first group.
    pub is_header_damaged: bool,
}
