//! What the log knows beside its events: the sinks and how far they are. A snapshot of it begins each segment, and the
//! frames that follow change it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::frame::{CursorFrame, Frame, SinkFrame, SinkNumber, Snapshot};

/// Where a sink stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkState {
    /// Its number.
    pub number: SinkNumber,
    /// Its name.
    pub name: Arc<str>,
    /// Everything up to this sequence number is done.
    pub cursor: i64,
    /// Where it stands in its own terms.
    pub checkpoint: Option<Arc<[u8]>>,
    /// An operator wants it to be given again what comes after this sequence number.
    pub replay_after: Option<i64>,
    /// What it is given of the events that came before it was known.
    pub(super) earlier: Arc<Earlier>,
}

/// The events before a sink was known that it is given all the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Earlier {
    /// Up to this sequence number,
    pub(super) to: i64,
    /// those of these connectors.
    pub(super) of: Vec<Box<str>>,
}

impl Earlier {
    /// Whether an event is among them.
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

    /// The last sequence number that it does not need any more.
    pub(super) fn passed(&self) -> i64 {
        self.replay_after.map_or(self.cursor, |after| after.min(self.cursor))
    }
}

/// What is durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) sinks: BTreeMap<SinkNumber, SinkState>,
    pub(super) next_sink: SinkNumber,
    /// The oldest segment that may still be needed.
    pub(super) oldest: u64,
    /// The highest id that the dead letters had ever given when the segment began.
    pub(super) highest_dead_letter: i64,
    /// When each connector accepted its last event, in Unix milliseconds.
    pub(super) connectors: BTreeMap<Arc<str>, i64>,
}

impl State {
    /// Notes that a connector accepted an event.
    pub(super) fn accepted(&mut self, connector: &str, at: i64) {
        match self.connectors.get_mut(connector) {
            Some(last) => *last = at,
            None => drop(self.connectors.insert(Arc::from(connector), at)),
        }
    }

    /// The sink of a name.
    pub(super) fn named(&self, name: &str) -> Option<&SinkState> {
        self.sinks.values().find(|sink| &*sink.name == name)
    }

    /// The last sequence number that every sink has passed; `None` without sinks.
    pub(super) fn passed(&self) -> Option<i64> {
        self.sinks.values().map(SinkState::passed).min()
    }

    /// Changes it as a frame says.
    pub(super) fn apply(&mut self, frame: &Frame<'_>) {
        match frame {
            Frame::Event(event) => {
                self.accepted(event.connector(), event.received_at());
                // The group that made a sink known may be damaged; what is for it must not go to another.
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

    /// The frame that a segment begins with.
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
