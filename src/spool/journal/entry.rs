//! What a frame of the journal says, and how it is written: entries one behind the other, each in the format of
//! [`postcard`], which names no fields and needs no copy to be read.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::record::{KeptHeaders, Record, RequestId};
use crate::spool::row::verified_by;

/// One thing that happened.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::spool) enum Entry<'a> {
    /// An event was accepted.
    #[serde(borrow)]
    Accepted(Accepted<'a>),
    /// A sink is done with everything up to a number.
    Advanced(Advanced<'a>),
}

/// An event that was accepted.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::spool) struct Accepted<'a> {
    /// Its number.
    pub(in crate::spool) seq: i64,
    /// Since when it is known as a duplicate, in Unix milliseconds, if it is.
    pub(in crate::spool) seen_at: Option<i64>,
    connector: &'a str,
    received_at: i64,
    verified_by: &'a str,
    event_id: &'a str,
    event_type: &'a str,
    project: Option<&'a str>,
    device: Option<&'a str>,
    request_id: Option<&'a str>,
    /// As the database has them.
    signatures: &'a str,
    header_names: &'a str,
    #[serde(with = "serde_bytes")]
    body: &'a [u8],
}

/// How far a sink is.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::spool) struct Advanced<'a> {
    pub(in crate::spool) sink: &'a str,
    pub(in crate::spool) cursor: i64,
    /// Where the sink stands in its own terms; `None` leaves what is known.
    #[serde(with = "serde_bytes")]
    pub(in crate::spool) checkpoint: Option<&'a [u8]>,
}

/// Writes an accepted event behind what is in `frame`.
///
/// # Errors
///
/// See [`write`].
pub(in crate::spool) fn write_accepted(
    frame: &mut Vec<u8>,
    seq: i64,
    seen_at: Option<i64>,
    record: &Record,
) -> postcard::Result<()> {
    let verified_by = record.verified_by.to_string();
    let accepted = Accepted {
        seq,
        seen_at,
        connector: &record.connector,
        received_at: record.received_at,
        verified_by: &verified_by,
        event_id: &record.event_id,
        event_type: &record.event_type,
        project: record.project.as_deref(),
        device: record.device.as_deref(),
        request_id: record.request_id.as_ref().map(RequestId::as_str),
        signatures: record.headers.signatures_json(),
        header_names: record.headers.names_json(),
        body: &record.body,
    };
    write(frame, &Entry::Accepted(accepted))
}

/// Writes an entry behind what is in `frame`.
///
/// # Errors
///
/// When a type has no form in the format, which these have; the frame is as it was then.
pub(in crate::spool) fn write(frame: &mut Vec<u8>, entry: &Entry<'_>) -> postcard::Result<()> {
    let before = frame.len();
    let written = postcard::to_io(entry, &mut *frame).map(drop);
    if written.is_err() {
        frame.truncate(before);
    }
    written
}

/// The entries of a frame; `None` when it is none of ours.
pub(in crate::spool) fn read(mut payload: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    while !payload.is_empty() {
        let (entry, rest) = postcard::take_from_bytes(payload).ok()?;
        entries.push(entry);
        payload = rest;
    }
    Some(entries)
}

impl Accepted<'_> {
    /// The record, with as much of its headers as was kept.
    pub(in crate::spool) fn record(&self) -> Record {
        Record {
            connector: Arc::from(self.connector),
            received_at: self.received_at,
            verified_by: verified_by(self.verified_by),
            event_id: Box::from(self.event_id),
            event_type: Box::from(self.event_type),
            project: self.project.map(Box::from),
            device: self.device.map(Box::from),
            request_id: self.request_id.and_then(|id| id.parse().ok()),
            headers: KeptHeaders::from_json(self.signatures, self.header_names),
            body: Bytes::copy_from_slice(self.body),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;
    use crate::record::RequestIds;
    use crate::verify::VerifiedBy;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z0-9]{0,24}", ".{0,40}"]
    }

    prop_compose! {
        fn record()(
            texts in [text(), text(), text(), text()],
            maybe in (prop::option::of(text()), prop::option::of(text()), prop::option::of(any::<u64>())),
            received_at in any::<i64>(),
            body in prop::collection::vec(any::<u8>(), 0..2_000),
        ) -> Record {
            let [connector, label, event_id, event_type] = texts;
            let mut headers = HeaderMap::new();
            headers.append("x-dt-signature", "a.b.c".parse().expect("a value"));
            headers.append("host", "example.com".parse().expect("a value"));
            Record {
                connector: Arc::from(connector),
                received_at,
                verified_by: VerifiedBy::Secret { label: Arc::from(label) },
                event_id: event_id.into(),
                event_type: event_type.into(),
                project: maybe.0.map(Into::into),
                device: maybe.1.map(Into::into),
                request_id: maybe.2.map(|seed| RequestIds::new(seed).next()),
                headers: KeptHeaders::of(&headers),
                body: Bytes::from(body),
            }
        }
    }

    proptest! {
        #[test]
        fn a_record_is_read_back_whole(record in record(), seq in any::<i64>(), seen_at in any::<Option<i64>>()) {
            let mut frame = Vec::new();
            let advanced = Advanced { sink: "file", cursor: seq, checkpoint: Some(b"place") };
            write(&mut frame, &Entry::Advanced(advanced)).expect("written");
            write_accepted(&mut frame, seq, seen_at, &record).expect("written");
            let entries = read(&frame).expect("ours");
            let [Entry::Advanced(advanced), Entry::Accepted(accepted)] = &entries[..] else {
                panic!("other entries: {entries:?}");
            };
            prop_assert_eq!((advanced.cursor, advanced.checkpoint), (seq, Some(&b"place"[..])));
            prop_assert_eq!((accepted.seq, accepted.seen_at), (seq, seen_at));
            let again = accepted.record();
            prop_assert_eq!(&again.headers, &record.headers);
            prop_assert_eq!(format!("{again:?}"), format!("{record:?}"));
            prop_assert_eq!(again.body, record.body);
        }
    }
}
