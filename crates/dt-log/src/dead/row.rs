//! Converts a dead letter to a row of the database and back, and restores its record.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use http::{HeaderMap, HeaderName, HeaderValue};
use rusqlite::Row;

use dt_sink::record::{DeadLetter, KeptHeaders, Provenance, Reason, Record, RequestId, Routing};
use dt_verify::{ASYMMETRIC_HEADER, SECRET_HEADER};

/// The columns that [`stored`] reads, in order. A query appends the body, or an empty one.
pub const COLUMNS: &str = "id, reason, connector, sink, seq, error, attempts, replays, received_at, dead_at, \
     verified_by, event_id, event_type, project, device, request_id, signatures, header_names, crc, length(body)";

/// A dead letter in the database, with its id and its history.
#[derive(Debug, Clone)]
pub struct StoredDeadLetter {
    /// The id of the dead letter, by which operators select it. Later dead letters have higher ids.
    pub id: i64,
    /// When the dead letter was stored, in Unix milliseconds.
    pub dead_at: i64,
    /// The number of failed replays of the dead letter.
    pub replays: u32,
    /// The length of the body in bytes.
    pub body_bytes: usize,
    /// The dead letter; its body is empty unless it was requested.
    pub dead_letter: DeadLetter,
    /// Whether the checksum matches the content. Valid only if the body was requested.
    pub is_intact: bool,
}

impl StoredDeadLetter {
    /// Returns the stored headers of the request: the signature headers with their values, the other headers with empty values.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let signatures = self.dead_letter.signatures.iter().map(|(name, value)| (*name, value.as_str()));
        let others = self.dead_letter.header_names.iter().map(|name| (name.as_str(), ""));
        let mut headers = HeaderMap::new();
        for (name, value) in signatures.chain(others) {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
                headers.append(name, value);
            }
        }
        headers
    }

    /// Returns exactly the record that was dead-lettered; `None` if the dead letter was not a record, the body was not requested,
    /// or the checksum does not match.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        let Self { dead_letter, .. } = self;
        let routing = dead_letter.routing.clone().filter(|_| self.is_intact)?;
        Some(Record {
            connector: Arc::clone(&dead_letter.connector),
            received_at: dead_letter.received_at,
            provenance: routing.provenance,
            event_id: dead_letter.event_id.clone()?,
            event_type: routing.event_type,
            project: routing.project,
            device: routing.device,
            request_id: dead_letter.request_id,
            headers: KeptHeaders::from_json(&json(&dead_letter.signatures), &json(&dead_letter.header_names)),
            body: dead_letter.body.clone(),
        })
    }
}

/// Returns the JSON text of a value that can always be serialized.
pub fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "[]".to_owned())
}

/// Returns the name of the sink that rejected a dead letter; `None` if the reason is another one.
pub fn sink_of(reason: &Reason) -> Option<&str> {
    match reason {
        Reason::Rejected { sink } => Some(sink),
        Reason::Unreadable | Reason::Expired | Reason::Refused | Reason::Damaged => None,
    }
}

/// Returns the checksum of all parts from which a record or request is restored. Each part is preceded by its length, so that a
/// shift of bytes between two parts changes the checksum.
pub fn crc(dead_letter: &DeadLetter) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let mut add = |part: Option<&[u8]>| {
        let length = part.map_or(u64::MAX, |part| u64::try_from(part.len()).unwrap_or(u64::MAX));
        hasher.update(&length.to_le_bytes());
        hasher.update(part.unwrap_or_default());
    };
    let routing = dead_letter.routing.as_ref();
    let provenance = routing.map(|routing| routing.provenance.to_string());
    add(Some(dead_letter.reason.code().as_bytes()));
    add(Some(dead_letter.connector.as_bytes()));
    add(Some(&dead_letter.received_at.to_le_bytes()));
    for part in [
        sink_of(&dead_letter.reason),
        provenance.as_deref(),
        dead_letter.event_id.as_deref(),
        routing.map(|routing| &*routing.event_type),
        routing.and_then(|routing| routing.project.as_deref()),
        routing.and_then(|routing| routing.device.as_deref()),
        dead_letter.request_id.as_ref().map(RequestId::as_str),
    ] {
        add(part.map(str::as_bytes));
    }
    add(Some(json(&dead_letter.signatures).as_bytes()));
    add(Some(json(&dead_letter.header_names).as_bytes()));
    add(Some(&dead_letter.body));
    hasher.finalize()
}

/// Reads a row with the [`COLUMNS`], followed by the body or an empty one.
pub fn stored(row: &Row<'_>) -> rusqlite::Result<StoredDeadLetter> {
    let maybe = |column: usize| row.get::<_, Option<String>>(column).map(|text| text.map(ByteString::from));
    let sink: Option<String> = row.get(3)?;
    let provenance: Option<String> = row.get(10)?;
    let routing = match (provenance, maybe(12)?) {
        (Some(provenance), Some(event_type)) => Some(Routing {
            provenance: Provenance::from_stored(&provenance),
            event_type,
            project: maybe(13)?,
            device: maybe(14)?,
        }),
        _ => None,
    };
    // Invalid JSON reads as empty; the checksum reveals it.
    let signatures: Vec<(String, String)> =
        serde_json::from_str(&row.get::<_, String>(16)?).unwrap_or_default();
    let known = |name: &str| [SECRET_HEADER, ASYMMETRIC_HEADER].into_iter().find(|known| *known == name);
    let dead_letter = DeadLetter {
        connector: Arc::from(row.get::<_, String>(2)?),
        reason: read_reason(&row.get::<_, String>(1)?, sink.as_deref()),
        error: row.get(5)?,
        attempts: row.get(6)?,
        received_at: row.get(8)?,
        request_id: maybe(15)?.and_then(|id| id.parse().ok()),
        event_id: maybe(11)?,
        seq: row.get(4)?,
        routing,
        signatures: signatures.into_iter().filter_map(|(name, value)| Some((known(&name)?, value))).collect(),
        header_names: serde_json::from_str(&row.get::<_, String>(17)?).unwrap_or_default(),
        body: Bytes::from(row.get::<_, Vec<u8>>(20)?),
    };
    let written: i64 = row.get(18)?;
    Ok(StoredDeadLetter {
        id: row.get(0)?,
        dead_at: row.get(9)?,
        replays: row.get(7)?,
        body_bytes: usize::try_from(row.get::<_, i64>(19)?).unwrap_or(0),
        is_intact: written == i64::from(crc(&dead_letter)),
        dead_letter,
    })
}

/// Reads the code of a reason. An unknown code is a damaged row, which the checksum reveals.
fn read_reason(code: &str, sink: Option<&str>) -> Reason {
    match code {
        "rejected" => Reason::Rejected { sink: Arc::from(sink.unwrap_or_default()) },
        "unreadable" => Reason::Unreadable,
        "expired" => Reason::Expired,
        "refused" => Reason::Refused,
        _ => Reason::Damaged,
    }
}
