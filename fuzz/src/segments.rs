//! Folders of segments as a fuzzer can mutate them, and a reader of the format of its own: written from `src/log/mod.rs`,
//! `group.rs` and `frame.rs` of the library, and sharing no code with them but the CRC.
//!
//! The first byte of an input is the number in `spool.lock`. Segments follow, each with four bytes and its length (two bytes,
//! little-endian) before it:
//!
//! | byte | what |
//! |---|---|
//! | 0 | the segment's number |
//! | 1 | flags: 1 a damaged header, 2 shorter than others, 4 another store's, 8 a newer version |
//! | 2 | the sequence number of its first event |
//! | 3 | the time before it (`received_before`) |
//!
//! What comes then is what stands behind the header. A group with zeros for a CRC gets the right one, and what a writer
//! would have written with it: the number of its events, and a sequence number below 256 (no writer leaves gaps of
//! millions, and each number in a gap is a dead letter). If its length is zero too, it reaches up to the next group. So
//! mutations get past the checksum; what has a CRC is left alone. Frames that no writer writes get none: a snapshot behind
//! the first group, a need for later segments only, and times before 1970 or far ahead.

use std::collections::BTreeMap;

/// The store's id, of `tests/spools/v2`: its dead letters are those of every folder here.
pub const STORE: [u8; 16] =
    [0x61, 0x45, 0xbb, 0xca, 0xef, 0xd9, 0x1f, 0xe9, 0x5f, 0x61, 0x10, 0xfa, 0x4d, 0x31, 0x4c, 0xa2];
/// Where the first group is.
const GROUPS_AT: usize = 512;
/// The length of a segment that is not cut short, and the most that an input can fill.
pub const SEGMENT_BYTES: usize = 8192;
/// More segments than this only cost time.
const MAX_SEGMENTS: usize = 5;
const MAGIC: &[u8] = b"DTgr";
const GROUP_HEADER: usize = 24;

/// The files of a folder.
pub struct Folder {
    /// The number in `spool.lock`.
    pub marked: u8,
    /// The segments by number.
    pub segments: BTreeMap<u64, Vec<u8>>,
}

impl Folder {
    /// Makes the files of an input.
    #[must_use]
    pub fn of(input: &[u8]) -> Option<Self> {
        let (marked, mut rest) = input.split_first()?;
        let mut segments = BTreeMap::new();
        while let Some((head, after)) = rest.split_first_chunk::<6>() {
            let [number, flags, first_seq, before, low, high] = *head;
            let length = usize::from(u16::from_le_bytes([low, high])).min(after.len());
            let (groups, after) = after.split_at(length);
            rest = after;
            if number > 0 && segments.len() < MAX_SEGMENTS {
                let header = header(number, flags, first_seq, before);
                segments.insert(u64::from(number), file(header, flags, groups, number.into()));
            }
        }
        Some(Self { marked: *marked, segments })
    }
}

/// Writes one segment of an input.
pub fn write(out: &mut Vec<u8>, number: u8, flags: u8, first_seq: u8, groups: &[u8]) {
    let length = u16::try_from(groups.len()).expect("short").to_le_bytes();
    out.extend([number, flags, first_seq, 7]);
    out.extend(length);
    out.extend(groups);
}

/// A group without a CRC, as it stands in an input.
#[must_use]
pub fn group(first_seq: u8, frames: &[&[u8]]) -> Vec<u8> {
    let frames = frames.concat();
    let mut group = MAGIC.to_vec();
    group.extend([0; 12]);
    group.extend(i64::from(first_seq).to_le_bytes());
    group[8..12].copy_from_slice(&u32::try_from(frames.len()).expect("short").to_le_bytes());
    group.extend(frames);
    group
}

fn header(number: u8, flags: u8, first_seq: u8, before: u8) -> Vec<u8> {
    let mut header = b"DTlogseg".to_vec();
    header.extend(if flags & 8 == 0 { 2_u32 } else { 3 }.to_le_bytes());
    header.extend(if flags & 4 == 0 { STORE } else { [0; 16] });
    header.extend(u64::from(number).to_le_bytes());
    header.extend(i64::from(first_seq).to_le_bytes());
    header.extend(i64::from(before).to_le_bytes());
    let crc = crc32fast::hash(&header) ^ u32::from(flags & 1);
    header.extend(crc.to_le_bytes());
    header.resize(GROUPS_AT, 0);
    header
}

fn file(mut file: Vec<u8>, flags: u8, groups: &[u8], number: u64) -> Vec<u8> {
    file.extend(groups);
    file.truncate(SEGMENT_BYTES);
    let mut at = GROUPS_AT;
    while let Some(found) = find(&file, at) {
        complete(&mut file, found, number);
        at = found + 1;
    }
    if flags & 2 == 0 {
        file.resize(SEGMENT_BYTES, 0);
    }
    file
}

/// Where the next group might begin.
fn find(file: &[u8], from: usize) -> Option<usize> {
    file.get(from..)?.windows(MAGIC.len()).position(|window| window == MAGIC).map(|place| from + place)
}

/// Writes what a group lacks that has no CRC.
fn complete(file: &mut [u8], at: usize, number: u64) {
    let next = find(file, at + 1).unwrap_or(file.len());
    let Some(group) = file.get_mut(at..).filter(|group| group.len() >= GROUP_HEADER) else { return };
    if group[4..8] != [0; 4] {
        return;
    }
    if group[8..12] == [0; 4] {
        let length = next.saturating_sub(at + GROUP_HEADER);
        group[8..12].copy_from_slice(&u32::try_from(length).expect("short").to_le_bytes());
    }
    let length = usize::try_from(u32_at(group, 8)).expect("fits");
    let Some(frames) = group.get(GROUP_HEADER..GROUP_HEADER.saturating_add(length)) else { return };
    let frames = Frames::read(frames);
    if frames.as_ref().is_some_and(|frames| !frames.has_a_writer(at, number)) {
        return;
    }
    let events = frames.map_or(0, |frames| frames.events.len());
    group[12..16].copy_from_slice(&u32::try_from(events).expect("few").to_le_bytes());
    group[17..24].fill(0);
    let crc = crc_of(group, number, length);
    group[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn crc_of(group: &[u8], number: u64, length: usize) -> u32 {
    crc32fast::hash(&[&STORE, &number.to_le_bytes()[..], &group[8..GROUP_HEADER + length]].concat())
}

/// An event as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub received_at: i64,
    pub connector: String,
    pub event_id: String,
    pub event_type: String,
    pub body: Vec<u8>,
}

/// A group that is intact.
pub struct Group {
    pub first_seq: i64,
    /// `None` where the frames are none that this version knows.
    pub frames: Option<Frames>,
    end: usize,
}

impl Group {
    /// The sequence number behind it.
    fn next_seq(&self) -> i64 {
        let Some(frames) = &self.frames else { return self.first_seq };
        let behind = self.first_seq + i64::try_from(frames.events.len()).expect("few");
        if frames.events.is_empty() { behind.max(frames.skips_to.unwrap_or(i64::MIN)) } else { behind }
    }
}

/// The group at a place, if one is intact there.
fn group_at(file: &[u8], number: u64, at: usize) -> Option<Group> {
    let group = file.get(at..)?;
    if group.len() < GROUP_HEADER || !group.starts_with(MAGIC) {
        return None;
    }
    let length = usize::try_from(u32_at(group, 8)).ok()?;
    let frames = group.get(GROUP_HEADER..GROUP_HEADER.checked_add(length)?)?;
    if crc_of(group, number, length) != u32_at(group, 4) {
        return None;
    }
    let first_seq = i64::from_le_bytes(group[16..24].try_into().expect("eight bytes"));
    Some(Group { first_seq, frames: Frames::read(frames), end: at + GROUP_HEADER + length })
}

/// All intact groups of a segment, wherever they are, also within others.
#[must_use]
pub fn intact(file: &[u8], number: u64) -> Vec<Group> {
    (GROUPS_AT..file.len()).filter_map(|at| group_at(file, number, at)).collect()
}

/// The events of a segment by their numbers, read from its first group on: what cannot be read is passed over up to the
/// next intact group that does not go back.
#[must_use]
pub fn events(file: &[u8], number: u64, first_seq: i64) -> BTreeMap<i64, Event> {
    let (mut at, mut next_seq, mut events) = (GROUPS_AT, first_seq, BTreeMap::new());
    while at < file.len() {
        match group_at(file, number, at).filter(|group| group.first_seq >= next_seq) {
            Some(group) => {
                next_seq = group.next_seq().max(next_seq);
                at = group.end;
                let found = group.frames.map(|frames| frames.events).unwrap_or_default();
                events.extend((group.first_seq..).zip(found));
            }
            None => at += 1,
        }
    }
    events
}

/// The frames of a group.
#[derive(Default)]
pub struct Frames {
    pub events: Vec<Event>,
    /// The number to go on with, of the first frame `Skipped`.
    pub skips_to: Option<i64>,
    has_snapshot: bool,
    /// The oldest segment that is needed, of all that say so the newest.
    oldest: u64,
}

impl Frames {
    /// Whether a writer can have written these frames to a place of that segment.
    fn has_a_writer(&self, at: usize, number: u64) -> bool {
        let is_snapshot_first = !self.has_snapshot || at == GROUPS_AT;
        let are_times_plausible = self.events.iter().all(|event| (0..1 << 42).contains(&event.received_at));
        let skips_little = self.skips_to.is_none_or(|next| (0..1 << 8).contains(&next));
        is_snapshot_first && self.oldest <= number && are_times_plausible && skips_little
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (mut input, mut frames) = (Input(bytes), Self::default());
        while !input.0.is_empty() {
            match input.number(5)? {
                0 => {
                    input.bytes()?;
                    let received_at = input.signed()?;
                    let [connector, _verified_by, event_id, event_type] = input.texts()?;
                    for _ in ["project", "device", "request id"] {
                        input.option(|input| input.text().map(drop))?;
                    }
                    let [_signatures, _header_names] = input.texts()?;
                    let body = input.bytes()?.to_vec();
                    frames.events.push(Event { received_at, connector, event_id, event_type, body });
                }
                1 => {
                    input.number(5)?;
                    input.signed()?;
                    input.option(|input| input.bytes().map(drop))?;
                    input.flag()?;
                }
                2 => input.sink()?,
                3 => drop(input.number(5)?),
                4 => {
                    input.number(5)?;
                    input.signed()?;
                }
                5 => frames.oldest = frames.oldest.max(input.number(10)?),
                6 => {
                    frames.has_snapshot = true;
                    for _ in 0..input.number(10)? {
                        input.sink()?;
                    }
                    input.number(5)?;
                    frames.oldest = frames.oldest.max(input.number(10)?);
                    input.signed()?;
                    for _ in 0..input.number(10)? {
                        input.text()?;
                        input.signed()?;
                    }
                }
                7 => {
                    let next = input.signed()?;
                    frames.skips_to = frames.skips_to.or(Some(next));
                }
                _ => return None,
            }
        }
        Some(frames)
    }
}

/// What is still to be read, in the format of postcard.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Seven bits a byte, the lowest first, in at most 5 bytes for 32 bits and 10 for 64.
    fn number(&mut self, most: u32) -> Option<u64> {
        let bits = if most == 5 { 32 } else { 64 };
        let mut number = 0_u64;
        for place in 0..most {
            let byte = *self.0.split_off_first()?;
            let part = u64::from(byte & 0x7f);
            let shift = 7 * place;
            if bits - shift < 7 && part >> (bits - shift) != 0 {
                return None;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// The sign is the lowest bit.
    fn signed(&mut self) -> Option<i64> {
        let number = self.number(10)?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn flag(&mut self) -> Option<bool> {
        match self.0.split_off_first()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn option(&mut self, read: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        if self.flag()? { read(self) } else { Some(()) }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number(10)?).ok()?;
        self.0.split_off(..length)
    }

    fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.bytes()?).ok().map(str::to_owned)
    }

    fn texts<const COUNT: usize>(&mut self) -> Option<[String; COUNT]> {
        let mut texts = [const { String::new() }; COUNT];
        for text in &mut texts {
            *text = self.text()?;
        }
        Some(texts)
    }

    fn sink(&mut self) -> Option<()> {
        self.number(5)?;
        self.text()?;
        self.signed()?;
        self.option(|input| input.bytes().map(drop))?;
        self.option(|input| input.signed().map(drop))?;
        self.signed()?;
        for _ in 0..self.number(10)? {
            self.text()?;
        }
        Some(())
    }
}
