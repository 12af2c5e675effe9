//! The events for one sink, in order: read from memory if the worker has caught up, otherwise from the segments.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use bytes::Bytes;

use super::error::LogError;
use super::frame::{EventFrame, Frame};
use super::group::{self, GroupHeader};
use super::segment::{Next, SegmentReader};
use super::shared::Shared;
use super::state::SinkState;
use dt_sink::record::{DeadLetter, Reason, Record};

/// The size limit of one read in bytes, unless a single body is larger.
const MAX_BYTES: usize = 8 << 20;
/// The largest number of events, of all sinks, that one read visits to find more than the first event for the sink. A worker can
/// be stopped between two reads.
const MAX_WALK: i64 = 1 << 14;

/// An event that was read, or the recovered parts of a damaged one.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// The sequence number of the event in the log.
    pub seq: i64,
    /// The event; if it is damaged, a dead letter with the reason `damaged`.
    pub record: Result<Arc<Record>, Box<DeadLetter>>,
}

impl StoredEvent {
    fn bytes(&self) -> usize {
        match &self.record {
            Ok(record) => record.body.len(),
            Err(dead_letter) => dead_letter.body.len(),
        }
    }
}

/// Reads the events for one sink, from a sequence number on.
#[derive(Debug)]
pub struct Source {
    shared: Arc<Shared>,
    sink: SinkState,
    /// The sequence number up to which all events were read.
    position: i64,
    /// Events that were read from a segment, but not returned yet.
    read_ahead: VecDeque<StoredEvent>,
    walk: Option<Walk>,
}

impl Source {
    pub(super) const fn new(shared: Arc<Shared>, sink: SinkState) -> Self {
        let position = sink.cursor;
        Self { shared, sink, position, read_ahead: VecDeque::new(), walk: None }
    }

    /// Returns the sequence number up to which all events were returned, or are not for the sink.
    #[must_use]
    pub const fn position(&self) -> i64 {
        self.position
    }

    /// Continues reading after another sequence number.
    pub fn seek(&mut self, seq: i64) {
        self.position = seq;
        self.read_ahead.clear();
        self.walk = None;
    }

    /// Reads up to `limit` events, none after `end`. Even if it returns no event, [`position`](Self::position) may have
    /// increased.
    ///
    /// # Errors
    ///
    /// [`LogError`] if a segment cannot be read. Damage inside a segment is no error.
    pub fn read(&mut self, limit: usize, end: i64) -> Result<Vec<StoredEvent>, LogError> {
        let end = end.min(self.shared.tail.last_seq());
        if self.read_ahead.is_empty() && self.position < end {
            if let Some(found) = self.read_memory(limit, end) {
                self.walk = None;
                return Ok(found);
            }
            self.fill(limit, end)?;
        }
        let (mut found, mut bytes) = (Vec::new(), 0_usize);
        while found.len() < limit && bytes <= MAX_BYTES {
            let Some(stored) = self.read_ahead.pop_front_if(|stored| stored.seq <= end) else { break };
            bytes = bytes.saturating_add(stored.bytes());
            self.position = stored.seq;
            found.push(stored);
        }
        if self.read_ahead.is_empty()
            && let Some(walk) = &self.walk
        {
            // The events after the last one that was found are for other sinks.
            self.position = self.position.max(walk.position.min(end));
        }
        Ok(found)
    }

    fn read_memory(&mut self, limit: usize, end: i64) -> Option<Vec<StoredEvent>> {
        let groups = self.shared.tail.after(self.position)?;
        let (mut found, mut bytes) = (Vec::new(), 0_usize);
        let mut seq = self.position;
        'groups: for group in groups {
            let skipped = usize::try_from(self.position.saturating_add(1).saturating_sub(group.first_seq));
            let events = group.events.iter().skip(skipped.unwrap_or(0));
            let first = group.first_seq.max(self.position.saturating_add(1));
            for (number, (record, sinks)) in (first..).zip(events) {
                if number > end || found.len() >= limit || bytes > MAX_BYTES {
                    break 'groups;
                }
                seq = number;
                if sinks.contains(self.sink.number) || self.sink.earlier.has(number, &record.connector) {
                    bytes = bytes.saturating_add(record.body.len());
                    found.push(StoredEvent { seq: number, record: Ok(Arc::clone(record)) });
                }
            }
        }
        self.position = seq;
        Some(found)
    }

    /// Reads groups from the segments until one has an event for the sink, or there are no more up to `end`. Then goes on up to
    /// `limit` events, or [`MAX_BYTES`] of them, or [`MAX_WALK`] events of all sinks: a group has few events if few requests came
    /// at once, and a sink that is behind needs larger batches.
    ///
    /// # Errors
    ///
    /// [`LogError`] if a segment cannot be read before there was an event.
    fn fill(&mut self, limit: usize, end: i64) -> Result<(), LogError> {
        if self.walk.as_ref().is_none_or(|walk| walk.position != self.position) {
            self.walk = Some(Walk::new(self.position));
        }
        let Some(walk) = &mut self.walk else { return Ok(()) };
        let (mut bytes, far) = (0_usize, walk.position.saturating_add(MAX_WALK));
        while self.read_ahead.len() < limit
            && bytes <= MAX_BYTES
            && walk.position < end
            && (self.read_ahead.is_empty() || walk.position < far)
        {
            let sink = &self.sink;
            let is_for = |seq: i64, event: &EventFrame<'_>| {
                event.is_for(sink.number) || sink.earlier.has(seq, event.connector())
            };
            let ahead = &mut self.read_ahead;
            let mut add = |stored: StoredEvent| {
                bytes = bytes.saturating_add(stored.bytes());
                ahead.push_back(stored);
            };
            let skipped = walk.step(&*self.shared, end, |seq, event| match event {
                Ok(event) if is_for(seq, event) => {
                    add(StoredEvent { seq, record: Ok(Arc::new(event.record())) })
                }
                Ok(_) => {}
                Err(dead_letter) => add(StoredEvent { seq, record: Err(dead_letter) }),
            });
            let skipped = match skipped {
                Ok(skipped) => skipped,
                Err(error) => {
                    // The reader may have passed a part of what it could not read. The next call tries again with a new one;
                    // what was read before the error is delivered first.
                    *walk = Walk::new(walk.position);
                    return if self.read_ahead.is_empty() { Err(error) } else { Ok(()) };
                }
            };
            if let Some(skipped) = skipped {
                tracing::warn!(
                    sink = &*sink.name,
                    first = skipped.start(),
                    last = skipped.end(),
                    "these events are no longer in the log; the sink continues after them"
                );
            }
        }
        Ok(())
    }
}

/// The segments of a log.
pub trait Segments {
    /// Opens the segment that contains a sequence number, and returns it with its number; `None` if no segment contains it.
    fn segment_of(&self, seq: i64) -> Result<Option<(SegmentReader, u64)>, LogError>;

    /// Returns the first sequence number of the segment after `number`; `i64::MAX` if this is the newest segment.
    fn first_seq_after(&self, number: u64) -> i64;
}

/// Visits the events in the segments, group by group.
#[derive(Debug)]
pub struct Walk {
    /// The sequence number up to which all events were visited.
    pub position: i64,
    /// The current segment and its number; `None` before the first one.
    segment: Option<(SegmentReader, u64)>,
}

/// An event during a walk; for a damaged event, its dead letter.
pub type ReadEvent<'a, 'b> = Result<&'a EventFrame<'b>, Box<DeadLetter>>;

impl Walk {
    pub const fn new(after: i64) -> Self {
        Self { position: after, segment: None }
    }

    /// Advances by one group, or over damaged bytes, and calls `see` with each event and its sequence number. Events up to `end`
    /// are durable, so a missing one is damage. Returns the sequence numbers that were skipped since their events are no longer
    /// in the log; otherwise `None`.
    pub fn step(
        &mut self,
        segments: &impl Segments,
        end: i64,
        mut see: impl FnMut(i64, ReadEvent<'_, '_>),
    ) -> Result<Option<RangeInclusive<i64>>, LogError> {
        // A new segment may have been created since, and makes later numbers in this one void.
        let mut void_from =
            self.segment.as_ref().map_or(i64::MIN, |(_, number)| segments.first_seq_after(*number));
        if self.position.saturating_add(1) >= void_from {
            self.segment = segments.segment_of(self.position.saturating_add(1))?;
            void_from =
                self.segment.as_ref().map_or(i64::MAX, |(_, number)| segments.first_seq_after(*number));
        }
        let Some((reader, _)) = &mut self.segment else {
            // This reader is late, or its sink gives way, or the events were lost.
            return Ok(Some(self.skip(segments, end)));
        };
        let failed = |reader: &SegmentReader, error| LogError::io(reader.path(), "reading", &error);
        let next = reader.next().map_err(|error| failed(reader, error))?;
        let first_missing = self.position.saturating_add(1);
        // The file of a segment that was removed meanwhile may have become that of a new one.
        if first_missing < segments.first_seq_after(0) {
            self.segment = None;
            return Ok(Some(self.skip(segments, end)));
        }
        let last = match &next {
            Next::Group(header) if header.first_seq <= end => {
                lost(first_missing..header.first_seq, reader, &[], &mut see);
                for (seq, event) in (header.first_seq..).zip(events_of(reader.frames())) {
                    if seq > self.position && seq < void_from {
                        see(seq, Ok(&event));
                    }
                }
                let next = header.next_seq().unwrap_or(i64::MAX);
                next.max(skipped_to(header, reader.frames())).saturating_sub(1)
            }
            Next::Group(_) | Next::End => {
                let until = end.saturating_add(1).min(void_from);
                lost(first_missing..until, reader, &[], &mut see);
                until.saturating_sub(1)
            }
            Next::Damaged => {
                let behind = reader.peek_first_seq().map_err(|error| failed(reader, error))?;
                let until = behind.min(end.saturating_add(1)).min(void_from);
                lost(first_missing..until, reader, reader.frames(), &mut see);
                until.saturating_sub(1)
            }
        };
        self.position = self.position.max(last.min(void_from.saturating_sub(1)));
        if matches!(next, Next::End) || self.position > end {
            self.segment = None;
        }
        Ok(None)
    }

    /// Advances over events that are no longer in the log, but not beyond `end`. Returns their sequence numbers.
    fn skip(&mut self, segments: &impl Segments, end: i64) -> RangeInclusive<i64> {
        let (first, last) = (self.position.saturating_add(1), segments.first_seq_after(0).saturating_sub(1));
        self.position = last.min(end).max(first);
        first..=self.position
    }
}

fn events_of(frames: &[u8]) -> impl Iterator<Item = EventFrame<'_>> {
    // Intact groups contain only frames of the format of their segment.
    Frame::read_all(frames).unwrap_or_default().into_iter().filter_map(|frame| match frame {
        Frame::Event(event) => Some(event),
        _ => None,
    })
}

/// Returns the next sequence number after the gap that a group marks; `i64::MIN` for a group that marks no gap.
pub fn skipped_to(header: &GroupHeader, frames: &[u8]) -> i64 {
    if header.events > 0 || frames.is_empty() {
        return i64::MIN;
    }
    let skipped = |frame| if let Frame::Skipped { next } = frame { Some(next) } else { None };
    Frame::read_all(frames).unwrap_or_default().into_iter().find_map(skipped).unwrap_or(i64::MIN)
}

/// Calls `see` for each unreadable event, with a dead letter that has its recovered parts.
fn lost(
    missing: Range<i64>,
    reader: &SegmentReader,
    bytes: &[u8],
    see: &mut impl FnMut(i64, ReadEvent<'_, '_>),
) {
    let mut left = left_of(&missing, bytes);
    for seq in missing {
        let event = left.remove(&seq);
        let error = format!("event {seq} cannot be read: {} is damaged", reader.path().display());
        see(seq, Err(Box::new(damaged_dead_letter(event.as_ref(), error).with_seq(seq))));
    }
}

/// Returns the events that can be recovered from damaged bytes: after a readable group header, the first events may be readable.
fn left_of(missing: &Range<i64>, bytes: &[u8]) -> BTreeMap<i64, Record> {
    let mut left = BTreeMap::new();
    let begins = bytes.windows(group::MAGIC.len()).enumerate().filter(|(_, found)| *found == group::MAGIC);
    for (place, _) in begins {
        let group = bytes.get(place..).unwrap_or_default();
        let Some(header) = GroupHeader::read(group) else { continue };
        let frames = Frame::read_some(group.get(group::HEADER..).unwrap_or_default());
        let events = frames.iter().filter_map(|frame| match frame {
            Frame::Event(event) => Some(event),
            _ => None,
        });
        let count = usize::try_from(header.events).unwrap_or(usize::MAX);
        for (seq, event) in (header.first_seq..).zip(events.take(count)) {
            if missing.contains(&seq) {
                left.entry(seq).or_insert_with(|| event.record());
            }
        }
    }
    left
}

fn damaged_dead_letter(event: Option<&Record>, error: String) -> DeadLetter {
    let dead_letter = match event {
        Some(event) => DeadLetter::of_record(event, Arc::from(""), error, 0),
        None => DeadLetter::of_request(Arc::from(""), Reason::Damaged, error, 0, Bytes::new()),
    };
    DeadLetter { reason: Reason::Damaged, ..dead_letter }
}
