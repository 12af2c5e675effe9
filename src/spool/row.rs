//! A stored record as it is read back: whole, or damaged. What a disk made of it shows in its checksum, or in columns that
//! cannot be read; then what is left of it is salvaged, and the records behind it go on.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Row;
use rusqlite::types::ValueRef;

use super::reader::Stored;
use crate::record::{DeadLetter, KeptHeaders, Reason, Record};
use crate::verify::{ASYMMETRIC_HEADER, SECRET_HEADER, VerifiedBy};

/// What [`stored`] reads, in its order, after the number; `signatures` and `header_names` follow where there is more to
/// salvage.
pub(super) const COLUMNS: &str =
    "connector, received_at, verified_by, event_id, event_type, project, device, request_id, crc, body";

/// The CRC-32 of what a sink is given of a record. The parts carry their lengths, so that nothing moves from one to the
/// next unseen.
pub(super) fn crc(record: &Record, verified_by: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let mut add = |part: Option<&[u8]>| {
        let length = part.map_or(u64::MAX, |part| u64::try_from(part.len()).unwrap_or(u64::MAX));
        hasher.update(&length.to_le_bytes());
        hasher.update(part.unwrap_or_default());
    };
    add(Some(record.connector.as_bytes()));
    add(Some(&record.received_at.to_le_bytes()));
    for part in [verified_by, &record.event_id, &record.event_type] {
        add(Some(part.as_bytes()));
    }
    add(record.project.as_deref().map(str::as_bytes));
    add(record.device.as_deref().map(str::as_bytes));
    add(record.request_id.as_ref().map(|id| id.as_str().as_bytes()));
    add(Some(&record.body));
    hasher.finalize()
}

/// Reads a row of a number and [`COLUMNS`].
pub(super) fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let seq = row.get(0)?;
    let record = whole(row).map(Arc::new).map_err(|error| Box::new(salvaged(row, error)));
    Ok(Stored { seq, record })
}

/// What is known of a record whose row cannot be read at all.
pub(super) fn lost(error: String) -> Box<DeadLetter> {
    Box::new(DeadLetter {
        connector: Arc::from(""),
        reason: Reason::Damaged,
        error,
        attempts: 0,
        received_at: 0,
        request_id: None,
        event_id: None,
        seq: None,
        routing: None,
        signatures: Vec::new(),
        header_names: Vec::new(),
        body: Bytes::new(),
    })
}

fn whole(row: &Row<'_>) -> Result<Record, String> {
    let read = || -> rusqlite::Result<(Record, String, Option<i64>)> {
        // A letter may lack what a record always has.
        let text = |column: usize| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
        let maybe =
            |column: usize| row.get::<_, Option<String>>(column).map(|text| text.map(String::into_boxed_str));
        let vouched = text(3)?;
        let record = Record {
            connector: Arc::from(text(1)?),
            received_at: row.get(2)?,
            verified_by: verified_by(&vouched),
            event_id: text(4)?.into_boxed_str(),
            event_type: text(5)?.into_boxed_str(),
            project: maybe(6)?,
            device: maybe(7)?,
            // One that is no id makes the checksum wrong.
            request_id: maybe(8)?.and_then(|id| id.parse().ok()),
            headers: KeptHeaders::default(),
            body: Bytes::from(row.get::<_, Vec<u8>>(10)?),
        };
        Ok((record, vouched, row.get(9)?))
    };
    let (record, vouched, written) =
        read().map_err(|error| format!("the stored record is damaged: {error}"))?;
    // Letters of an embedder may have none.
    if written.is_none_or(|written| written == i64::from(crc(&record, &vouched))) {
        Ok(record)
    } else {
        Err("the stored record is damaged: its checksum does not match".to_owned())
    }
}

fn salvaged(row: &Row<'_>, error: String) -> DeadLetter {
    let bytes = |column: usize| match row.get_ref(column) {
        Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => bytes,
        _ => &[],
    };
    let text = |column: usize| String::from_utf8_lossy(bytes(column)).into_owned();
    let known = |name: &str| [SECRET_HEADER, ASYMMETRIC_HEADER].into_iter().find(|known| *known == name);
    let signatures: Vec<(String, String)> = serde_json::from_str(&text(11)).unwrap_or_default();
    DeadLetter {
        connector: Arc::from(text(1)),
        received_at: row.get(2).unwrap_or(0),
        request_id: text(8).parse().ok(),
        event_id: Some(text(4)).filter(|id| !id.is_empty()).map(String::into_boxed_str),
        signatures: signatures.into_iter().filter_map(|(name, value)| Some((known(&name)?, value))).collect(),
        header_names: serde_json::from_str(&text(12)).unwrap_or_default(),
        body: Bytes::copy_from_slice(bytes(10)),
        ..*lost(error)
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
    use super::*;
    use crate::record::RequestIds;

    fn record() -> Record {
        Record {
            connector: Arc::from("c"),
            received_at: 1000,
            verified_by: verified_by("secret:a"),
            event_id: Box::from("e"),
            event_type: Box::from("touch"),
            project: Some(Box::from("p")),
            device: None,
            request_id: None,
            headers: KeptHeaders::default(),
            body: Bytes::from_static(b"{}"),
        }
    }

    #[test]
    fn a_change_of_any_part_shows() {
        let whole = crc(&record(), "secret:a");
        let changes: [fn(&mut Record); 9] = [
            |r| r.connector = Arc::from("d"),
            |r| r.received_at = 1001,
            |r| r.event_id = Box::from("f"),
            |r| r.event_type = Box::from("Touch"),
            |r| r.project = None,
            |r| r.device = Some(Box::from("")),
            |r| r.request_id = Some(RequestIds::new(1).next()),
            |r| r.body = Bytes::from_static(b"{ }"),
            |r| (r.event_id, r.event_type) = (Box::from("et"), Box::from("ouch")),
        ];
        for (place, change) in changes.iter().enumerate() {
            let mut changed = record();
            change(&mut changed);
            assert_ne!(crc(&changed, "secret:a"), whole, "change {place}");
        }
        assert_ne!(crc(&record(), "secret:b"), whole);
        assert_eq!(crc(&record(), "secret:a"), whole);
    }
}
