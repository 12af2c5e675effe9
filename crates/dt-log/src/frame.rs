//! The frames of a group, each in the format of [`postcard`], which stores no field names and is read without copying.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use dt_sink::record::{KeptHeaders, Provenance, Record, RequestId};

/// The number of a sink. A sink that is registered again after it was forgotten gets a new number.
pub type SinkNumber = u32;

/// A change of the log. A variant's position is its code in the stored format: append new variants at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Frame<'a> {
    /// An event was accepted. Its sequence number follows from its position in the group.
    #[serde(borrow)]
    Event(EventFrame<'a>),
    /// The progress of a sink: all events up to a sequence number are delivered, or are not for the sink.
    Cursor(CursorFrame<'a>),
    /// A sink was registered.
    Registered(SinkFrame<'a>),
    /// A sink was forgotten.
    Forgotten { sink: SinkNumber },
    /// An operator requested a replay of all events after a sequence number.
    Replay { sink: SinkNumber, after: i64 },
    /// The segments before `oldest` are no longer needed.
    Kept { oldest: u64 },
    /// The state before all later frames. It is the first frame of each segment.
    Snapshot(Snapshot<'a>),
    /// The sequence numbers before `next` are used: their events are lost with their segments, or dead letters refer to them.
    Skipped { next: i64 },
}

/// An accepted event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EventFrame<'a> {
    #[serde(with = "serde_bytes")]
    sinks: &'a [u8],
    received_at: i64,
    connector: &'a str,
    /// [`Provenance`] in its stored form.
    provenance: &'a str,
    event_id: &'a str,
    event_type: &'a str,
    project: Option<&'a str>,
    device: Option<&'a str>,
    request_id: Option<&'a str>,
    signatures: &'a str,
    header_names: &'a str,
    #[serde(with = "serde_bytes")]
    body: &'a [u8],
}

/// The progress of a sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CursorFrame<'a> {
    pub sink: SinkNumber,
    pub cursor: i64,
    /// The checkpoint of the sink; `None` keeps the stored one.
    #[serde(with = "serde_bytes")]
    pub checkpoint: Option<&'a [u8]>,
    /// Whether this cursor begins the replay that an operator requested, which completes the request.
    pub ends_replay: bool,
}

/// The state at the beginning of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Snapshot<'a> {
    #[serde(borrow)]
    pub sinks: Vec<SinkFrame<'a>>,
    pub next_sink: SinkNumber,
    /// The number of the oldest segment that may still be needed.
    pub oldest: u64,
    /// The highest id that the dead letters have ever assigned: an older copy of their database has a lower one.
    pub highest_dead_letter: i64,
    /// When each connector accepted its last event, in Unix milliseconds.
    pub connectors: Vec<(&'a str, i64)>,
}

/// The stored form of `SinkState`: the state of one sink when it is registered, and at the beginning of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SinkFrame<'a> {
    pub sink: SinkNumber,
    pub name: &'a str,
    pub cursor: i64,
    #[serde(with = "serde_bytes")]
    pub checkpoint: Option<&'a [u8]>,
    pub replay_after: Option<i64>,
    /// The highest sequence number of the earlier events that the sink also gets: events of the connectors `earlier_of` that were
    /// accepted before the sink was registered.
    pub earlier_to: i64,
    pub earlier_of: Vec<&'a str>,
}

impl Frame<'_> {
    /// Appends the frame to `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        // A vector accepts all bytes, and each of these types can be serialised, so this cannot fail.
        let _written = postcard::to_io(self, out);
    }

    /// Reads all frames of a group; `None` if one of them cannot be decoded.
    pub(super) fn read_all(mut payload: &[u8]) -> Option<Vec<Frame<'_>>> {
        let mut frames = Vec::new();
        while !payload.is_empty() {
            let (frame, rest) = postcard::take_from_bytes(payload).ok()?;
            frames.push(frame);
            payload = rest;
        }
        Some(frames)
    }

    /// Reads the frames at the beginning of bytes that may be damaged, up to the first one that cannot be decoded.
    pub(super) fn read_some(mut payload: &[u8]) -> Vec<Frame<'_>> {
        let mut frames = Vec::new();
        while let Ok((frame, rest)) = postcard::take_from_bytes(payload) {
            frames.push(frame);
            payload = rest;
            if rest.is_empty() {
                break;
            }
        }
        frames
    }
}

/// The numbers of the sinks that an event is for, in their stored form: 4 bytes each, little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkSet(Arc<[u8]>);

impl SinkSet {
    /// Creates the set of the sinks with these numbers.
    #[must_use]
    pub fn new(sinks: impl IntoIterator<Item = SinkNumber>) -> Self {
        Self(sinks.into_iter().flat_map(SinkNumber::to_le_bytes).collect())
    }

    /// Returns whether the set contains the sink with this number.
    #[must_use]
    pub fn contains(&self, sink: SinkNumber) -> bool {
        set_contains(&self.0, sink)
    }
}

fn set_contains(set: &[u8], sink: SinkNumber) -> bool {
    set.chunks_exact(4).any(|number| number == sink.to_le_bytes())
}

/// Appends an accepted event to `out` as a frame. `scratch` is a buffer for the text of its provenance.
pub fn write_event(record: &Record, sinks: &SinkSet, scratch: &mut String, out: &mut Vec<u8>) {
    use std::fmt::Write as _;
    scratch.clear();
    // Writing to a string cannot fail.
    let _written = write!(scratch, "{}", record.provenance);
    Frame::Event(EventFrame {
        sinks: &sinks.0,
        received_at: record.received_at,
        connector: &record.connector,
        provenance: scratch,
        event_id: &record.event_id,
        event_type: &record.event_type,
        project: record.project.as_deref(),
        device: record.device.as_deref(),
        request_id: record.request_id.as_ref().map(RequestId::as_str),
        signatures: record.headers.signatures_json(),
        header_names: record.headers.names_json(),
        body: &record.body,
    })
    .write(out);
}

impl EventFrame<'_> {
    /// Returns whether the event is for the sink with this number.
    pub(super) fn is_for(&self, sink: SinkNumber) -> bool {
        set_contains(self.sinks, sink)
    }

    /// Returns the highest number among the sinks that the event is for; 0 if it is for none.
    pub(super) fn highest_sink(&self) -> SinkNumber {
        let numbers = self.sinks.as_chunks::<4>().0.iter();
        numbers.map(|number| SinkNumber::from_le_bytes(*number)).max().unwrap_or(0)
    }

    pub(super) const fn received_at(&self) -> i64 {
        self.received_at
    }

    pub(super) const fn connector(&self) -> &str {
        self.connector
    }

    pub(super) const fn event_id(&self) -> &str {
        self.event_id
    }

    /// Returns the record of the event, with the stored parts of its request's headers.
    pub(super) fn record(&self) -> Record {
        Record {
            connector: Arc::from(self.connector),
            received_at: self.received_at,
            provenance: Provenance::from_stored(self.provenance),
            event_id: self.event_id.into(),
            event_type: self.event_type.into(),
            project: self.project.map(ByteString::from),
            device: self.device.map(ByteString::from),
            request_id: self.request_id.and_then(|id| id.parse().ok()),
            headers: KeptHeaders::from_json(self.signatures, self.header_names),
            body: Bytes::copy_from_slice(self.body),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use dt_sink::record::{ApiSource, RequestIds};
    use dt_verify::VerifiedBy;

    fn any_record() -> impl Strategy<Value = Record> {
        let text = || any::<String>().prop_map(ByteString::from);
        let names = (any::<String>(), any::<String>(), 0..4_u8);
        let routing = (text(), text(), proptest::option::of(text()), proptest::option::of(text()));
        let rest = (any::<i64>(), any::<bool>(), any::<Vec<u8>>());
        (names, routing, rest).prop_map(|(names, (event_id, event_type, project, device), rest)| {
            let ((connector, key, kind), (received_at, has_request_id, body)) = (names, rest);
            Record {
                connector: Arc::from(connector),
                received_at,
                provenance: match kind {
                    0 => VerifiedBy::Secret { label: Arc::from(key) }.into(),
                    1 => VerifiedBy::Asymmetric { kid: Arc::from(key) }.into(),
                    2 => Provenance::Api(ApiSource::Backfill),
                    _ => Provenance::Api(ApiSource::Stream),
                },
                event_id,
                event_type,
                project,
                device,
                request_id: has_request_id.then(|| RequestIds::new(7).next()),
                headers: KeptHeaders::from_json(r#"[["X-Dt-Signature","a"]]"#, r#"["host"]"#),
                body: Bytes::from(body),
            }
        })
    }

    proptest! {
        #[test]
        fn an_event_is_read_back_as_it_was(record in any_record(), sinks: Vec<u32>) {
            let (mut scratch, mut out) = (String::new(), Vec::new());
            write_event(&record, &SinkSet::new(sinks.clone()), &mut scratch, &mut out);
            Frame::Kept { oldest: 7 }.write(&mut out);
            let frames = Frame::read_all(&out).expect("frames");
            let [Frame::Event(event), Frame::Kept { oldest: 7 }] = &frames[..] else { panic!("{frames:?}") };
            prop_assert_eq!(format!("{:?}", event.record()), format!("{record:?}"));
            prop_assert_eq!(event.record().headers, record.headers);
            for sink in 0..10 {
                prop_assert_eq!(event.is_for(sink), sinks.contains(&sink));
            }
        }

        #[test]
        fn what_is_no_frame_never_panics(bytes: Vec<u8>) {
            let some = Frame::read_some(&bytes).len();
            prop_assert!(some <= bytes.len());
            if let Some(all) = Frame::read_all(&bytes) {
                prop_assert_eq!(all.len(), some);
            }
        }
    }
}
