//! What a crash left in the journal: the frames that are not in the database yet.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use super::{BLOCK, HEADER, MAGIC, Position, as_offset, checksum};

/// The most that is read as a journal.
const MOST: u64 = 1 << 30;

/// The frames that are not in the database, in their order.
#[derive(Debug, Default)]
pub(in crate::spool) struct Recovered {
    bytes: Vec<u8>,
    /// Where the entries of each frame are.
    frames: Vec<std::ops::Range<usize>>,
    /// The indices of frames that were written and cannot be read any more.
    pub(in crate::spool) lost: Option<(i64, i64)>,
}

impl Recovered {
    /// Whether there is nothing to take over, and nothing lost.
    pub(in crate::spool) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.lost.is_none()
    }

    /// The entries of each frame.
    pub(in crate::spool) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.frames.iter().map(|range| self.bytes.get(range.clone()).unwrap_or_default())
    }
}

/// A frame that is whole.
struct Whole {
    index: i64,
    entries: std::ops::Range<usize>,
    end: usize,
}

/// Whether there is something at the path that any journal may have written. A file that is not there has nothing.
pub(in crate::spool) fn has_frames(path: &Path) -> io::Result<bool> {
    let bytes = match File::open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(MOST).read_to_end(&mut bytes)?;
            bytes
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok(bytes.chunks(BLOCK).any(|block| block.starts_with(&MAGIC)))
}

/// Reads the frames from a position on. A file that is not there has none.
pub(in crate::spool) fn recover(path: &Path, from: Position) -> io::Result<Recovered> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => drop(file.take(MOST).read_to_end(&mut bytes)?),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Recovered::default()),
        Err(error) => return Err(error),
    }
    let mut recovered = Recovered::default();
    let mut expected = from.index;
    let mut at = usize::try_from(as_offset(from.offset)).unwrap_or(usize::MAX);
    loop {
        let next = |offset: usize| whole(&bytes, offset, from.id).filter(|frame| frame.index == expected);
        let Some(frame) = next(at).or_else(|| next(0)) else {
            // A later one was written only after this one was whole on the disk.
            let offsets = (0..bytes.len()).step_by(BLOCK);
            let later = offsets
                .filter_map(|offset| Some((whole(&bytes, offset, from.id)?.index, offset)))
                .filter(|(index, _)| *index > expected)
                .min();
            let Some((index, offset)) = later else { break };
            let first = recovered.lost.map_or(expected, |(first, _)| first);
            recovered.lost = Some((first, index.saturating_sub(1)));
            (expected, at) = (index, offset);
            continue;
        };
        recovered.frames.push(frame.entries);
        (expected, at) = (expected.saturating_add(1), frame.end);
    }
    recovered.bytes = bytes;
    Ok(recovered)
}

/// The frame at an offset, if there is a whole one of this journal.
fn whole(bytes: &[u8], offset: usize, id: i64) -> Option<Whole> {
    let header: &[u8; HEADER] = bytes.get(offset..)?.first_chunk()?;
    let number = |at: usize| Some(i64::from_le_bytes(*header.get(at..)?.first_chunk()?));
    let short = |at: usize| Some(u32::from_le_bytes(*header.get(at..)?.first_chunk()?));
    if header.first_chunk() != Some(&MAGIC) || number(8)? != id {
        return None;
    }
    let start = offset.checked_add(HEADER)?;
    let stop = start.checked_add(usize::try_from(short(24)?).ok()?)?;
    let entries = bytes.get(start..stop)?;
    if short(4)? != checksum(header, entries) {
        return None;
    }
    Some(Whole { index: number(16)?, entries: start..stop, end: stop.checked_next_multiple_of(BLOCK)? })
}
