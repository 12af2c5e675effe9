//! The state of the log beside its events: the sinks and their progress. Each segment begins with a snapshot of it, and
//! later frames change it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::frame::{CursorFrame, Frame, SinkFrame, SinkNumber, Snapshot};

/// The state of a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkState {
    /// The number of the sink in the log.
    pub number: SinkNumber,
    /// The name of the sink.
    pub name: Arc<str>,
    /// All records up to this sequence number are delivered, are dead letters, or are not for the sink.
    pub cursor: i64,
    /// The checkpoint that the sink last stored with its cursor; `None` if it has stored none.
    pub checkpoint: Option<Arc<[u8]>>,
    /// The sequence number after which the replay begins that an operator requested; `None` if none is requested.
    pub replay_after: Option<i64>,
    /// The events that were accepted before the sink was registered, and that it also gets.
    pub(super) earlier: Arc<Earlier>,
}

/// The events that were accepted before a sink was registered, and that the sink also gets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Earlier {
    /// The sequence number of the last of these events.
    pub to: i64,
    /// The names of the connectors that accepted these events.
    pub of: Vec<Box<str>>,
}

impl Earlier {
    /// Returns whether the event with this sequence number and connector is one of these events.
    pub(super) fn has(&self, seq: i64, connector: &str) -> bool {
        seq <= self.to && self.of.iter().any(|name| **name == *connector)
    }
}

impl SinkState {
    fn of(frame: &SinkFrame<'_>) -> Self {
        let SinkFrame { sink, name, cursor, checkpoint, replay_after, earlier_to, earlier_of } = frame;
        let earlier =
            Earlier { to: *earlier_to, of: earlier_of.iter().map(|name| Box::from(*name)).collect() };
        Self {
            number: *sink,
            name: Arc::from(*name),
            cursor: *cursor,
            checkpoint: checkpoint.map(Arc::from),
            replay_after: *replay_after,
            earlier: Arc::new(earlier),
        }
    }

    /// Returns the highest sequence number up to which the sink needs no event.
    pub(super) fn passed(&self) -> i64 {
        self.replay_after.map_or(self.cursor, |after| after.min(self.cursor))
    }
}

/// The state of the log without its events: the sinks, the oldest needed segment, and the connectors, according to the synced
/// groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    pub sinks: BTreeMap<SinkNumber, SinkState>,
    pub next_sink: SinkNumber,
    /// The number of the oldest segment that may still be needed.
    pub oldest: u64,
    /// The highest id that the dead letters had assigned when the segment was created.
    pub highest_dead_letter: i64,
    /// When each connector accepted its last event, in Unix milliseconds.
    pub connectors: BTreeMap<Arc<str>, i64>,
}

impl State {
    /// Records that a connector accepted an event at `at`, in Unix milliseconds.
    pub(super) fn accepted(&mut self, connector: &str, at: i64) {
        match self.connectors.get_mut(connector) {
            Some(last) => *last = at,
            None => drop(self.connectors.insert(Arc::from(connector), at)),
        }
    }

    /// Returns the sink with this name; `None` if none is registered under it.
    pub(super) fn named(&self, name: &str) -> Option<&SinkState> {
        self.sinks.values().find(|sink| &*sink.name == name)
    }

    /// Returns the highest sequence number up to which no sink needs an event, apart from the one named `except`; `None` if there
    /// are no such sinks.
    pub(super) fn passed(&self, except: Option<&str>) -> Option<i64> {
        let sinks = self.sinks.values().filter(|sink| except.is_none_or(|except| *sink.name != *except));
        sinks.map(SinkState::passed).min()
    }

    /// Applies the change that a frame describes.
    pub(super) fn apply(&mut self, frame: &Frame<'_>) {
        match frame {
            Frame::Event(event) => {
                self.accepted(event.connector(), event.received_at());
                // The group with a sink's registration may be damaged; the number of that sink must not be reused.
                self.next_sink = self.next_sink.max(event.highest_sink().saturating_add(1));
            }
            Frame::Cursor(CursorFrame { sink, cursor, checkpoint, ends_replay }) => {
                let Some(known) = self.sinks.get_mut(sink) else { return };
                known.cursor = *cursor;
                if let Some(checkpoint) = checkpoint {
                    known.checkpoint = Some(Arc::from(*checkpoint));
                }
                if *ends_replay {
                    known.replay_after = None;
                }
            }
            Frame::Registered(frame) => {
                self.sinks.insert(frame.sink, SinkState::of(frame));
                // The writer never assigns the last number, so this saturates only for damaged data.
                self.next_sink = self.next_sink.max(frame.sink.saturating_add(1));
            }
            Frame::Forgotten { sink } => drop(self.sinks.remove(sink)),
            Frame::Replay { sink, after } => {
                if let Some(known) = self.sinks.get_mut(sink) {
                    known.replay_after = Some(*after);
                }
            }
            Frame::Kept { oldest } => self.oldest = self.oldest.max(*oldest),
            Frame::Snapshot(snapshot) => *self = Self::of(snapshot),
            Frame::Skipped { .. } => {}
        }
    }

    fn of(snapshot: &Snapshot<'_>) -> Self {
        Self {
            sinks: snapshot.sinks.iter().map(|frame| (frame.sink, SinkState::of(frame))).collect(),
            next_sink: snapshot.next_sink,
            oldest: snapshot.oldest,
            highest_dead_letter: snapshot.highest_dead_letter,
            connectors: snapshot.connectors.iter().map(|(name, at)| (Arc::from(*name), *at)).collect(),
        }
    }

    /// Returns the snapshot of the state, with which a segment begins.
    pub(super) fn snapshot(&self) -> Frame<'_> {
        Frame::Snapshot(Snapshot {
            sinks: self.sinks.values().map(sink_frame).collect(),
            next_sink: self.next_sink,
            oldest: self.oldest,
            highest_dead_letter: self.highest_dead_letter,
            connectors: self.connectors.iter().map(|(name, at)| (&**name, *at)).collect(),
        })
    }
}

fn sink_frame(sink: &SinkState) -> SinkFrame<'_> {
    SinkFrame {
        sink: sink.number,
        name: &sink.name,
        cursor: sink.cursor,
        checkpoint: sink.checkpoint.as_deref(),
        replay_after: sink.replay_after,
        earlier_to: sink.earlier.to,
        earlier_of: sink.earlier.of.iter().map(|name| &**name).collect(),
    }
}
