//! What a worker reads: the events for its sink, in order, from memory where it has caught up, else from the segments.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::error::LogError;
use super::frame::{EventFrame, Frame};
use super::group::{self, Header};
use super::segment::{Next, SegmentReader};
use super::shared::Shared;
use super::state::SinkState;
use dt_sink::record::{DeadLetter, Reason, Record};

/// How many bytes of bodies are read at once, unless one body alone has more.
const MAX_BYTES: usize = 8 << 20;

/// An event as it is read back: whole, or what is left of it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its sequence number.
    pub seq: i64,
    /// The event; a dead letter of the reason `damaged` where it cannot be read any more.
    pub record: Result<Arc<Record>, Box<DeadLetter>>,
}

impl Stored {
    fn bytes(&self) -> usize {
        match &self.record {
            Ok(record) => record.body.len(),
            Err(letter) => letter.body.len(),
        }
    }
}

/// The events for one sink, from a sequence number on.
#[derive(Debug)]
pub struct Source {
    shared: Arc<Shared>,
    sink: SinkState,
    /// Everything up to this sequence number was read.
    position: i64,
    /// What was read from a segment and is not handed on yet.
    read_ahead: VecDeque<Stored>,
    walk: Option<Walk>,
}

impl Source {
    pub(super) const fn new(shared: Arc<Shared>, sink: SinkState) -> Self {
        let position = sink.cursor;
        Self { shared, sink, position, read_ahead: VecDeque::new(), walk: None }
    }

    /// Everything up to this sequence number was read, or is not for the sink.
    #[must_use]
    pub const fn position(&self) -> i64 {
        self.position
    }

    /// Goes on after another sequence number.
    pub fn seek(&mut self, seq: i64) {
        self.position = seq;
        self.read_ahead.clear();
        self.walk = None;
    }

    /// Reads up to `limit` events that come next, none after `end`. Without any, [`position`](Self::position) may have
    /// grown all the same.
    ///
    /// # Errors
    ///
    /// [`LogError`] when a segment cannot be read. What is damaged in one is no error.
    pub fn read(&mut self, limit: usize, end: i64) -> Result<Vec<Stored>, LogError> {
        let end = end.min(self.shared.tail.last_seq());
        if self.read_ahead.is_empty() && self.position < end {
            if let Some(found) = self.read_memory(limit, end) {
                self.walk = None;
                return Ok(found);
            }
            self.fill(end)?;
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
            // The events behind the last one that was found are for others.
            self.position = self.position.max(walk.position.min(end));
        }
        Ok(found)
    }

    fn read_memory(&mut self, limit: usize, end: i64) -> Option<Vec<Stored>> {
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
                    found.push(Stored { seq: number, record: Ok(Arc::clone(record)) });
                }
            }
        }
        self.position = seq;
        Some(found)
    }

    /// Reads groups from the segments until one has an event for the sink, or there are no more up to `end`.
    fn fill(&mut self, end: i64) -> Result<(), LogError> {
        if self.walk.as_ref().is_none_or(|walk| walk.position != self.position) {
            self.walk = Some(Walk::new(self.position));
        }
        let Some(walk) = &mut self.walk else { return Ok(()) };
        while self.read_ahead.is_empty() && walk.position < end {
            let sink = &self.sink;
            let is_for = |seq: i64, event: &EventFrame<'_>| {
                event.is_for(sink.number) || sink.earlier.has(seq, event.connector())
            };
            let ahead = &mut self.read_ahead;
            walk.step(&*self.shared, end, |seq, event| match event {
                Ok(event) if is_for(seq, event) => {
                    ahead.push_back(Stored { seq, record: Ok(Arc::new(event.record())) });
                }
                Ok(_) => {}
                Err(letter) => ahead.push_back(Stored { seq, record: Err(letter) }),
            })?;
        }
        Ok(())
    }
}

/// The segments that there are.
pub(super) trait Segments {
    /// Opens the segment that holds a sequence number, and returns its number as well.
    fn segment_of(&self, seq: i64) -> Result<Option<(SegmentReader, u64)>, LogError>;

    /// The sequence number that the segment after this one begins with; `i64::MAX` after the newest one.
    fn first_seq_after(&self, number: u64) -> i64;
}

/// A way through the segments, group by group.
#[derive(Debug)]
pub(super) struct Walk {
    /// Everything up to this sequence number was seen.
    pub(super) position: i64,
    /// The segment at hand, and its number.
    segment: Option<(SegmentReader, u64)>,
}

/// What a walk comes by: an event, or what is left of one.
pub(super) type Seen<'a, 'b> = Result<&'a EventFrame<'b>, Box<DeadLetter>>;

impl Walk {
    pub(super) const fn new(after: i64) -> Self {
        Self { position: after, segment: None }
    }

    /// Goes on by one group, or by what is damaged, and shows its events with their sequence numbers. Those up to `end` are
    /// durable, and have to be there.
    pub(super) fn step(
        &mut self,
        segments: &impl Segments,
        end: i64,
        mut see: impl FnMut(i64, Seen<'_, '_>),
    ) -> Result<(), LogError> {
        // A new segment may have begun meanwhile, and made what follows in this one void.
        let mut void_from =
            self.segment.as_ref().map_or(i64::MIN, |(_, number)| segments.first_seq_after(*number));
        if self.position.saturating_add(1) >= void_from {
            self.segment = segments.segment_of(self.position.saturating_add(1))?;
            void_from =
                self.segment.as_ref().map_or(i64::MAX, |(_, number)| segments.first_seq_after(*number));
        }
        let Some((reader, _)) = &mut self.segment else {
            // It was removed as nobody needs it.
            self.position = end;
            return Ok(());
        };
        let failed = |reader: &SegmentReader, error| LogError::io(reader.path(), "reading", &error);
        let next = reader.next().map_err(|error| failed(reader, error))?;
        let first_missing = self.position.saturating_add(1);
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
        Ok(())
    }
}

fn events_of(frames: &[u8]) -> impl Iterator<Item = EventFrame<'_>> {
    // Intact groups have only frames of ours, in the format of their segment.
    Frame::read_all(frames).unwrap_or_default().into_iter().filter_map(|frame| match frame {
        Frame::Event(event) => Some(event),
        _ => None,
    })
}

/// The sequence number that a group without events says to go on with, where events are lost.
pub(super) fn skipped_to(header: &Header, frames: &[u8]) -> i64 {
    if header.events > 0 || frames.is_empty() {
        return i64::MIN;
    }
    let skipped = |frame| if let Frame::Skipped { next } = frame { Some(next) } else { None };
    Frame::read_all(frames).unwrap_or_default().into_iter().find_map(skipped).unwrap_or(i64::MIN)
}

/// Shows what is left of events that cannot be read.
fn lost(missing: Range<i64>, reader: &SegmentReader, bytes: &[u8], see: &mut impl FnMut(i64, Seen<'_, '_>)) {
    let mut left = left_of(&missing, bytes);
    for seq in missing {
        let event = left.remove(&seq);
        let error = format!("event {seq} cannot be read: {} is damaged", reader.path().display());
        see(seq, Err(Box::new(damaged_letter(event.as_ref(), error).with_seq(seq))));
    }
}

/// What is left of events in bytes that are no intact groups: where a header is readable, its first events may be so as well.
fn left_of(missing: &Range<i64>, bytes: &[u8]) -> BTreeMap<i64, Record> {
    let mut left = BTreeMap::new();
    let begins = bytes.windows(group::MAGIC.len()).enumerate().filter(|(_, found)| *found == group::MAGIC);
    for (place, _) in begins {
        let group = bytes.get(place..).unwrap_or_default();
        let Some(header) = Header::read(group) else { continue };
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

fn damaged_letter(event: Option<&Record>, error: String) -> DeadLetter {
    let letter = match event {
        Some(event) => DeadLetter::of_record(event, Arc::from(""), error, 0),
        None => {
            DeadLetter::of_request(Arc::from(""), Reason::Damaged, error, 0, &HeaderMap::new(), Bytes::new())
        }
    };
    DeadLetter { reason: Reason::Damaged, ..letter }
}
