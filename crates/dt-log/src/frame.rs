//! What a group consists of: frames, each in the format of [`postcard`], which names no fields and is read without a copy.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use dt_sink::record::{KeptHeaders, Record, RequestId};
use dt_verify::VerifiedBy;

/// The number of a sink. A name that is used again, after its sink was forgotten, gets another one.
pub type SinkNumber = u32;

/// One thing that happened. A variant's place is its code on the disk: new ones go to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Frame<'a> {
    /// An event was accepted. Its sequence number follows from its place in the group.
    #[serde(borrow)]
    Event(EventFrame<'a>),
    /// A sink is done with everything up to a sequence number.
    Cursor(CursorFrame<'a>),
    /// A sink is known from now on.
    Registered(SinkFrame<'a>),
    /// A sink is not known any more.
    Forgotten { sink: SinkNumber },
    /// An operator wants the sink to be given again what comes after a sequence number.
    Replay { sink: SinkNumber, after: i64 },
    /// The segments before this one may go.
    Kept { oldest: u64 },
    /// The state before everything that follows; first in each segment.
    Snapshot(Snapshot<'a>),
    /// The numbers before this one are used: their events are lost with their segments, or older than the dead letters.
    Skipped { next: i64 },
}

/// An accepted event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EventFrame<'a> {
    #[serde(with = "serde_bytes")]
    sinks: &'a [u8],
    received_at: i64,
    connector: &'a str,
    verified_by: &'a str,
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

/// How far a sink is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CursorFrame<'a> {
    pub(super) sink: SinkNumber,
    pub(super) cursor: i64,
    /// Where the sink stands in its own terms; `None` leaves what is known.
    #[serde(with = "serde_bytes")]
    pub(super) checkpoint: Option<&'a [u8]>,
    /// Whether this is the replay that an operator asked for, which is then done.
    pub(super) ends_replay: bool,
}

/// What a segment needs to know of those before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Snapshot<'a> {
    #[serde(borrow)]
    pub(super) sinks: Vec<SinkFrame<'a>>,
    pub(super) next_sink: SinkNumber,
    /// The oldest segment that may still be needed.
    pub(super) oldest: u64,
    /// The highest id that the dead letters ever gave: an older copy of their database has a lower one.
    pub(super) highest_dead_letter: i64,
    /// When each connector accepted its last event, in Unix milliseconds.
    pub(super) connectors: Vec<(&'a str, i64)>,
}

/// A sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SinkFrame<'a> {
    pub(super) sink: SinkNumber,
    pub(super) name: &'a str,
    pub(super) cursor: i64,
    #[serde(with = "serde_bytes")]
    pub(super) checkpoint: Option<&'a [u8]>,
    pub(super) replay_after: Option<i64>,
    /// It is also given what came before it was known, up to this sequence number, from these connectors.
    pub(super) earlier_to: i64,
    pub(super) earlier_of: Vec<&'a str>,
}

impl Frame<'_> {
    /// Writes the frame behind what is in `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        // A vector takes everything, and each of these types has a form in the format.
        let _written = postcard::to_io(self, out);
    }

    /// Reads all frames of a group; `None` where it is none of ours.
    pub(super) fn read_all(mut payload: &[u8]) -> Option<Vec<Frame<'_>>> {
        let mut frames = Vec::new();
        while !payload.is_empty() {
            let (frame, rest) = postcard::take_from_bytes(payload).ok()?;
            frames.push(frame);
            payload = rest;
        }
        Some(frames)
    }

    /// Reads as many frames as are intact at the beginning of what may be damaged.
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

/// The numbers of the sinks that an event is for, as they are written: 4 bytes each, little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkSet(Arc<[u8]>);

impl SinkSet {
    /// The set of these sinks.
    #[must_use]
    pub fn new(sinks: impl IntoIterator<Item = SinkNumber>) -> Self {
        Self(sinks.into_iter().flat_map(SinkNumber::to_le_bytes).collect())
    }

    /// Whether a sink is in it.
    #[must_use]
    pub fn contains(&self, sink: SinkNumber) -> bool {
        set_contains(&self.0, sink)
    }
}

fn set_contains(set: &[u8], sink: SinkNumber) -> bool {
    set.chunks_exact(4).any(|number| number == sink.to_le_bytes())
}

/// Writes an accepted event behind what is in `out`. The verified-by text is written to `scratch` on the way.
pub(super) fn write_event(record: &Record, sinks: &SinkSet, scratch: &mut String, out: &mut Vec<u8>) {
    use std::fmt::Write as _;
    scratch.clear();
    // Text never refuses text.
    let _written = write!(scratch, "{}", record.verified_by);
    Frame::Event(EventFrame {
        sinks: &sinks.0,
        received_at: record.received_at,
        connector: &record.connector,
        verified_by: scratch,
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
    /// Whether the event is for a sink.
    pub(super) fn is_for(&self, sink: SinkNumber) -> bool {
        set_contains(self.sinks, sink)
    }

    /// The highest number of a sink that it is for; 0 for none.
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

    /// The record, with as much of its headers as was kept.
    pub(super) fn record(&self) -> Record {
        Record {
            connector: Arc::from(self.connector),
            received_at: self.received_at,
            verified_by: verified_by(self.verified_by),
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

/// Reads `secret:LABEL` or `asymmetric:KID`.
pub(super) fn verified_by(text: &str) -> VerifiedBy {
    match text.split_once(':') {
        Some(("asymmetric", kid)) => VerifiedBy::Asymmetric { kid: Arc::from(kid) },
        Some((_, label)) => VerifiedBy::Secret { label: Arc::from(label) },
        None => VerifiedBy::Secret { label: Arc::from(text) },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use dt_sink::record::RequestIds;

    fn any_record() -> impl Strategy<Value = Record> {
        let text = || any::<String>().prop_map(ByteString::from);
        let names = (any::<String>(), any::<String>(), any::<bool>());
        let routing = (text(), text(), proptest::option::of(text()), proptest::option::of(text()));
        let rest = (any::<i64>(), any::<bool>(), any::<Vec<u8>>());
        (names, routing, rest).prop_map(|(names, (event_id, event_type, project, device), rest)| {
            let ((connector, key, is_secret), (received_at, has_request_id, body)) = (names, rest);
            Record {
                connector: Arc::from(connector),
                received_at,
                verified_by: if is_secret {
                    VerifiedBy::Secret { label: Arc::from(key) }
                } else {
                    VerifiedBy::Asymmetric { kid: Arc::from(key) }
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
