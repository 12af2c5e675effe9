//! Reading dead letters: for an operator, for a replay, and for the sink that is given its own again.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use super::error::SpoolError;
use super::reader::{MAX_BYTES, Reader, Stored, within_bytes};
use super::row::{self, COLUMNS};
use crate::record::RequestId;

/// Which dead letters are meant: those for which everything holds that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The one with this id.
    pub id: Option<i64>,
    /// Those that this sink rejected.
    pub sink: Option<String>,
    /// Those with this reason's code.
    pub reason: Option<String>,
}

/// A dead letter as it is stored.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its id.
    pub id: i64,
    /// The code of its reason.
    pub reason: String,
    /// The connector that received it.
    pub connector: Arc<str>,
    /// Who rejected it.
    pub sink: Option<String>,
    /// What went wrong last.
    pub error: String,
    /// How often its sink was given it.
    pub attempts: u32,
    /// How many replays failed.
    pub replays: u32,
    /// Since when it waits for its sink again, in Unix milliseconds.
    pub replay_at: Option<i64>,
    /// When it was received, in Unix milliseconds.
    pub received_at: i64,
    /// When it was set aside, in Unix milliseconds.
    pub buried_at: i64,
    /// `event.eventId`, where it could be read.
    pub event_id: Option<String>,
    /// The id of the request that brought it.
    pub request_id: Option<RequestId>,
    /// The two signature headers.
    pub signatures: Vec<(String, String)>,
    /// The names of the other headers.
    pub header_names: Vec<String>,
    /// How long the body is.
    pub body_bytes: usize,
    /// The body as received; empty unless it was asked for.
    pub body: Bytes,
}

impl Letter {
    /// The headers of its request: the signatures as they were, of the others only the names.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let signatures = self.signatures.iter().map(|(name, value)| (name, value.as_str()));
        let others = self.header_names.iter().map(|name| (name, ""));
        let mut headers = HeaderMap::new();
        for (name, value) in signatures.chain(others) {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
                headers.append(name, value);
            }
        }
        headers
    }
}

impl Reader {
    /// Up to `limit` dead letters with an id over `after`, with their bodies if asked for. Fewer when the bodies are
    /// large, but at least one if there is one.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when they cannot be read.
    pub fn dead(
        &self,
        filter: &Filter,
        after: i64,
        limit: usize,
        bodies: bool,
    ) -> Result<Vec<Letter>, SpoolError> {
        let read = || -> rusqlite::Result<Vec<Letter>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT id, reason, connector, sink, error, attempts, replays, replay_at, received_at, buried_at,
                        event_id, signatures, header_names, length(body), iif(?6, body, x''), request_id
                 FROM dead
                 WHERE id > ?1 AND (?2 IS NULL OR id = ?2) AND (?3 IS NULL OR sink = ?3)
                       AND (?4 IS NULL OR reason = ?4)
                 ORDER BY id LIMIT ?5",
            )?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let given = params![after, filter.id, filter.sink, filter.reason, limit, bodies];
            let (mut letters, mut bytes) = (Vec::new(), 0_usize);
            for letter in statement.query_map(given, letter)? {
                let letter = letter?;
                bytes = bytes.saturating_add(letter.body.len());
                letters.push(letter);
                if bytes > MAX_BYTES {
                    break;
                }
            }
            Ok(letters)
        };
        self.named(read())
    }

    /// Up to `limit` letters, with an id over `after`, that wait for their sink again; fewer when their bodies are large.
    /// Their ids stand for numbers.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when they cannot be read.
    pub fn to_redeliver(&self, sink: &str, after: i64, limit: usize) -> Result<Vec<Stored>, SpoolError> {
        let read = || -> rusqlite::Result<Vec<Stored>> {
            let mut statement = self.connection.prepare_cached(&format!(
                "SELECT id, {COLUMNS}, signatures, header_names
                 FROM dead WHERE sink = ?1 AND replay_at IS NOT NULL AND id > ?2 ORDER BY id LIMIT ?3"
            ))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            within_bytes(statement.query_map(params![sink, after, limit], row::stored)?)
        };
        self.named(read())
    }
}

fn letter(row: &Row<'_>) -> rusqlite::Result<Letter> {
    // Somebody else's JSON is shown as if there was none.
    let signatures: String = row.get(11)?;
    let header_names: String = row.get(12)?;
    Ok(Letter {
        id: row.get(0)?,
        reason: row.get(1)?,
        connector: Arc::from(row.get::<_, String>(2)?),
        sink: row.get(3)?,
        error: row.get(4)?,
        attempts: row.get(5)?,
        replays: row.get(6)?,
        replay_at: row.get(7)?,
        received_at: row.get(8)?,
        buried_at: row.get(9)?,
        event_id: row.get(10)?,
        signatures: serde_json::from_str(&signatures).unwrap_or_default(),
        header_names: serde_json::from_str(&header_names).unwrap_or_default(),
        body_bytes: usize::try_from(row.get::<_, i64>(13)?).unwrap_or(0),
        body: Bytes::from(row.get::<_, Vec<u8>>(14)?),
        request_id: row.get::<_, Option<String>>(15)?.and_then(|id| id.parse().ok()),
    })
}
