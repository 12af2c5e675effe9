//! A group: frames that one write and one sync make durable. A header of 24 bytes precedes the frames.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `DTgr` |
//! | 4 | CRC-32 of the store's id, the segment's number, the rest of this header, and the frames |
//! | 4 | length of the frames in bytes |
//! | 4 | how many of them are events |
//! | 8 | sequence number of the first event; without events, that of the next one |
//!
//! All numbers are little-endian. The store's id and the segment's number are part of the checksum, but are not written. So
//! stale content of a recycled file, or a group of another store, is never taken for a group of this segment.

use super::StoreId;

/// The length of a group's header, in bytes.
pub const HEADER: usize = 24;
pub const MAGIC: [u8; 4] = *b"DTgr";

/// The store and the segment that a group belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub store: StoreId,
    pub segment: u64,
}

/// The header of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupHeader {
    crc: u32,
    /// The length of the frames in bytes.
    pub length: usize,
    /// The number of events in the group.
    pub events: u32,
    /// The sequence number of the first event; in a group without events, that of the next event.
    pub first_seq: i64,
}

impl GroupHeader {
    /// Reads a header; `None` if the bytes do not begin with one. [`is_intact`](Self::is_intact) verifies the checksum.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (events, rest) = rest.split_first_chunk::<4>()?;
        let (first_seq, _) = rest.split_first_chunk::<8>()?;
        (*magic == MAGIC).then_some(Self {
            crc: u32::from_le_bytes(*crc),
            length: usize::try_from(u32::from_le_bytes(*length)).ok()?,
            events: u32::from_le_bytes(*events),
            first_seq: i64::from_le_bytes(*first_seq),
        })
    }

    /// Returns whether the frames are undamaged, and were written together with this header to the segment of `owner`: their
    /// length and the checksum match.
    pub fn is_intact(&self, owner: Owner, frames: &[u8]) -> bool {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        frames.len() == self.length && crc(owner, length, self.events, self.first_seq, frames) == self.crc
    }

    /// Returns the sequence number after the last event; `None` if it overflows, which no writer causes.
    pub fn next_seq(&self) -> Option<i64> {
        self.first_seq.checked_add(i64::from(self.events))
    }
}

/// Clears a buffer and fills the place of the group's header with zeros. The caller appends the frames after it.
pub fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(HEADER, 0);
}

/// Writes the header of a group into the room that [`begin`] reserved, before the frames in the buffer.
pub fn finish(buffer: &mut [u8], owner: Owner, events: u32, first_seq: i64) {
    let Some((header, frames)) = buffer.split_at_mut_checked(HEADER) else { return };
    // A group fits into a segment, whose length fits into 32 bits.
    let length = u32::try_from(frames.len()).unwrap_or(u32::MAX);
    let crc = crc(owner, length, events, first_seq, frames);
    let fields = [
        &MAGIC[..],
        &crc.to_le_bytes(),
        &length.to_le_bytes(),
        &events.to_le_bytes(),
        &first_seq.to_le_bytes(),
    ];
    for (place, byte) in header.iter_mut().zip(fields.into_iter().flatten()) {
        *place = *byte;
    }
}

fn crc(owner: Owner, length: u32, events: u32, first_seq: i64, frames: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&owner.store.0);
    hasher.update(&owner.segment.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(&events.to_le_bytes());
    hasher.update(&first_seq.to_le_bytes());
    hasher.update(frames);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_intact_only_where_it_was_written() {
        let owner = Owner { store: StoreId([7; 16]), segment: 3 };
        let mut buffer = Vec::new();
        begin(&mut buffer);
        buffer.extend_from_slice(b"some frames");
        finish(&mut buffer, owner, 2, 41);
        let header = GroupHeader::read(&buffer).expect("a header");
        assert_eq!(
            (header.length, header.events, header.first_seq, header.next_seq()),
            (11, 2, 41, Some(43))
        );
        assert!(header.is_intact(owner, b"some frames"));
        assert!(!header.is_intact(Owner { segment: 4, ..owner }, b"some frames"));
        assert!(!header.is_intact(Owner { store: StoreId([8; 16]), ..owner }, b"some frames"));
        assert!(!header.is_intact(owner, b"some frame"));
        for bit in 0..buffer.len() * 8 {
            let mut flipped = buffer.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let intact =
                GroupHeader::read(&flipped).is_some_and(|header| header.is_intact(owner, &flipped[HEADER..]));
            assert!(!intact, "bit {bit}");
        }
        assert_eq!(GroupHeader::read(&[0; HEADER]), None);
    }
}
