//! Applies changes to the dead letters, each within the writer's transaction.

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::DeadOptions;
use super::read::highest_id;
use super::row::{crc, json, sink_of};
use super::schema::{DEAD_LETTER_TABLES, EXPIRED, REFUSED};
use dt_sink::record::{DeadLetter, Reason, RequestId};

/// A request to the writer of the dead letters.
#[derive(Debug)]
pub enum Change {
    Add(Vec<DeadLetter>),
    Remove(Vec<i64>),
    StillDead {
        id: i64,
        error: String,
    },
    /// Writes without changing anything, to test whether the database is writable.
    Probe,
}

/// The result of a [`Change`].
#[derive(Debug)]
pub enum Changed {
    /// The ids of the added dead letters, in order; `None` for one that was stored before.
    Added(Vec<Option<i64>>),
    /// The number of dead letters that were changed.
    Rows(u64),
}

/// Applies a change, and counts the copies that were removed for it in `dropped`.
pub fn make(
    connection: &Connection,
    options: &DeadOptions,
    change: &Change,
    now: i64,
    dropped: &mut Dropped,
) -> rusqlite::Result<Changed> {
    match change {
        Change::Add(dead_letters) => {
            let mut ids = Vec::with_capacity(dead_letters.len());
            for dead_letter in dead_letters {
                ids.push(add(connection, dead_letter, now)?);
            }
            if dead_letters.iter().any(|dead_letter| dead_letter.reason == Reason::Expired) {
                dropped.expired = drop_oldest(connection, EXPIRED, options.max_expired)?;
            }
            if dead_letters.iter().any(|dead_letter| dead_letter.reason == Reason::Refused) {
                dropped.refused = drop_oldest(connection, REFUSED, options.max_refused)?;
            }
            Ok(Changed::Added(ids))
        }
        Change::Remove(ids) => {
            let mut rows = 0;
            for id in ids {
                rows = each_table(connection, "DELETE FROM NAME WHERE id = ?1", params![id], rows)?;
            }
            Ok(Changed::Rows(rows))
        }
        Change::StillDead { id, error } => {
            let update = "UPDATE NAME SET error = ?2, replays = replays + 1 WHERE id = ?1";
            each_table(connection, update, params![id, error], 0).map(Changed::Rows)
        }
        Change::Probe => {
            connection.execute("UPDATE store SET highest_id = highest_id", [])?;
            Ok(Changed::Rows(0))
        }
    }
}

/// The numbers of copies that were removed to stay within the size limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The number of removed copies of expired requests.
    pub expired: u64,
    /// The number of removed copies of refused requests.
    pub refused: u64,
}

/// Runs a statement on each table of dead letters. Returns `rows` plus the number of changed rows.
fn each_table(
    connection: &Connection,
    statement: &str,
    given: &[&dyn rusqlite::ToSql],
    mut rows: u64,
) -> rusqlite::Result<u64> {
    for table in DEAD_LETTER_TABLES {
        let changed = connection.prepare_cached(&statement.replace("NAME", table))?.execute(given)?;
        rows = rows.saturating_add(u64::try_from(changed).unwrap_or(0));
    }
    Ok(rows)
}

/// Adds a dead letter. Returns its id, or `None` if it is already stored.
fn add(connection: &Connection, dead_letter: &DeadLetter, now: i64) -> rusqlite::Result<Option<i64>> {
    let table = match dead_letter.reason {
        Reason::Expired => EXPIRED,
        Reason::Refused => REFUSED,
        Reason::Rejected { .. } | Reason::Unreadable | Reason::Damaged => "dead",
    };
    let highest = highest_id(connection)?;
    let id = highest.checked_add(1).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, highest))?;
    let (sink, signatures) = (sink_of(&dead_letter.reason), json(&dead_letter.signatures));
    let routing = dead_letter.routing.as_ref();
    let hash = dead_letter.seq.is_none().then(|| hash(dead_letter, &signatures));
    let added = connection
        .prepare_cached(&format!(
            "INSERT INTO {table} (id, reason, connector, sink, seq, error, attempts, replays, received_at, dead_at,
                                  verified_by, event_id, event_type, project, device, request_id, signatures,
                                  header_names, crc, body_hash, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)
             ON CONFLICT DO NOTHING"
        ))?
        .execute(params![
            id,
            dead_letter.reason.code(),
            &*dead_letter.connector,
            sink,
            dead_letter.seq,
            dead_letter.error,
            dead_letter.attempts,
            dead_letter.received_at,
            now,
            routing.map(|routing| routing.provenance.to_string()),
            dead_letter.event_id.as_deref(),
            routing.map(|routing| &*routing.event_type),
            routing.and_then(|routing| routing.project.as_deref()),
            routing.and_then(|routing| routing.device.as_deref()),
            dead_letter.request_id.as_ref().map(RequestId::as_str),
            signatures,
            json(&dead_letter.header_names),
            crc(dead_letter),
            hash,
            &*dead_letter.body,
        ])?;
    if added > 0 {
        connection.prepare_cached("UPDATE store SET highest_id = ?1")?.execute([id])?;
        return Ok(Some(id));
    }
    if let (Some(sink), Some(seq)) = (sink, dead_letter.seq) {
        // After a crash before its cursor was synced, the sink receives the record again.
        connection
            .prepare_cached(
                "UPDATE dead SET error = ?3, attempts = attempts + ?4 WHERE sink = ?1 AND seq = ?2",
            )?
            .execute(params![sink, seq, dead_letter.error, dead_letter.attempts])?;
    }
    Ok(None)
}

/// Returns the hash by which copies of the same request are recognised.
fn hash(dead_letter: &DeadLetter, signatures: &str) -> Vec<u8> {
    let mut hash = Sha256::new_with_prefix(&dead_letter.body);
    if dead_letter.reason == Reason::Refused {
        // A copy with a bad signature, which anybody can send, must not displace the one with a good signature.
        hash.update(signatures);
    }
    hash.finalize().to_vec()
}

/// Removes the oldest dead letters of a table until the others take at most `max_bytes` bytes. Returns the number of removed
/// ones.
fn drop_oldest(connection: &Connection, table: &str, max_bytes: u64) -> rusqlite::Result<u64> {
    let mut dropped = 0_u64;
    loop {
        let bytes: i64 = connection
            .prepare_cached("SELECT bytes FROM counts WHERE reason = ?1")?
            .query_row([table], |row| row.get(0))?;
        if u64::try_from(bytes).unwrap_or(0) <= max_bytes {
            return Ok(dropped);
        }
        let oldest = connection
            .prepare_cached(&format!(
                "DELETE FROM {table} WHERE id = (SELECT min(id) FROM {table}) RETURNING id"
            ))?
            .query_row([], |row| row.get::<_, i64>(0))
            .optional()?;
        if oldest.is_none() {
            return Ok(dropped);
        }
        dropped = dropped.saturating_add(1);
    }
}
