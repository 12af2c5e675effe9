//! The statements that change the spool, each within the writer's transaction.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::{Appended, Progress, SpoolOptions, StartAt};
use crate::record::{DeadLetter, Reason, Record, split_headers};

/// What the writer keeps in memory, so that no commit has to count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counters {
    pub(super) last_seq: i64,
    pub(super) seen: u64,
}

/// Stores a record, unless its event was seen within the window.
pub(super) fn append(
    connection: &Connection,
    counters: &mut Counters,
    options: &SpoolOptions,
    record: &Record,
    dedup: bool,
    now: i64,
) -> rusqlite::Result<Appended> {
    if dedup && !options.dedup_window.is_zero() && is_seen(connection, counters, options, record, now)? {
        return Ok(Appended::Duplicate);
    }
    counters.last_seq = counters.last_seq.saturating_add(1);
    let (signatures, header_names) = split_headers(&record.headers);
    connection
        .prepare_cached(
            "INSERT INTO records (seq, connector, received_at, verified_by, event_id, event_type, project, device,
                                  signatures, header_names, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            counters.last_seq,
            &*record.connector,
            record.received_at,
            record.verified_by.to_string(),
            &*record.event_id,
            &*record.event_type,
            record.project.as_deref(),
            record.device.as_deref(),
            json(&signatures),
            json(&header_names),
            &*record.body,
        ])?;
    Ok(Appended::New(counters.last_seq))
}

/// Looks the event up, and notes it if it is new or its time in the window is over.
fn is_seen(
    connection: &Connection,
    counters: &mut Counters,
    options: &SpoolOptions,
    record: &Record,
    now: i64,
) -> rusqlite::Result<bool> {
    let key = params![&*record.connector, &*record.event_id];
    let at: Option<i64> = connection
        .prepare_cached("SELECT at FROM seen WHERE connector = ?1 AND event_id = ?2")?
        .query_row(key, |row| row.get(0))
        .optional()?;
    if at.is_some_and(|at| now.saturating_sub(at) < window_ms(options)) {
        return Ok(true);
    }
    connection
        .prepare_cached(
            "INSERT INTO seen (connector, event_id, at) VALUES (?1, ?2, ?3)
             ON CONFLICT (connector, event_id) DO UPDATE SET at = excluded.at",
        )?
        .execute(params![&*record.connector, &*record.event_id, now])?;
    if at.is_none() {
        counters.seen = counters.seen.saturating_add(1);
    }
    Ok(false)
}

fn window_ms(options: &SpoolOptions) -> i64 {
    i64::try_from(options.dedup_window.as_millis()).unwrap_or(i64::MAX)
}

/// Writes the counters down; the last statement of a transaction that changed them.
pub(super) fn store_counters(connection: &Connection, counters: Counters) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("UPDATE counts SET value = ?2 WHERE name = ?1")?;
    statement.execute(params!["last_seq", counters.last_seq])?;
    statement.execute(params!["seen", i64::try_from(counters.seen).unwrap_or(i64::MAX)])?;
    Ok(())
}

/// Stores a dead letter that was no record. Copies of one body of a connector are kept once, and those of expired
/// requests are bounded: the oldest go. Gives the number of those that went.
pub(super) fn bury(
    connection: &Connection,
    options: &SpoolOptions,
    letter: &DeadLetter,
    now: i64,
) -> rusqlite::Result<usize> {
    let sink = match &letter.reason {
        Reason::Rejected { sink } => Some(&**sink),
        Reason::Unreadable | Reason::Expired => None,
    };
    let hash = sink.is_none().then(|| Sha256::digest(&letter.body).to_vec());
    connection
        .prepare_cached(
            "INSERT INTO dead (reason, connector, sink, error, attempts, received_at, buried_at, event_id,
                               signatures, header_names, body_hash, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            letter.reason.code(),
            &*letter.connector,
            sink,
            letter.error,
            letter.attempts,
            letter.received_at,
            now,
            letter.event_id.as_deref(),
            json(&letter.signatures),
            json(&letter.header_names),
            hash,
            &*letter.body,
        ])?;
    if letter.reason == Reason::Expired { drop_oldest_expired(connection, options) } else { Ok(0) }
}

fn drop_oldest_expired(connection: &Connection, options: &SpoolOptions) -> rusqlite::Result<usize> {
    let mut dropped = 0_usize;
    loop {
        let bytes: i64 = connection
            .prepare_cached("SELECT coalesce(sum(length(body)), 0) FROM dead WHERE reason = 'expired'")?
            .query_row([], |row| row.get(0))?;
        if u64::try_from(bytes).unwrap_or(0) <= options.max_expired {
            return Ok(dropped);
        }
        let gone = connection
            .prepare_cached(
                "DELETE FROM dead WHERE id = (SELECT min(id) FROM dead WHERE reason = 'expired')",
            )?
            .execute([])?;
        if gone == 0 {
            return Ok(dropped);
        }
        dropped = dropped.saturating_add(gone);
    }
}

/// Moves a sink's cursor, and what it rejected to the dead letters.
pub(super) fn advance(
    connection: &Connection,
    sink: &str,
    progress: &Progress,
    now: i64,
) -> rusqlite::Result<()> {
    for (seq, error, attempts) in &progress.rejected {
        connection
            .prepare_cached(
                "INSERT INTO dead (reason, connector, sink, error, attempts, received_at, buried_at, verified_by,
                                   event_id, event_type, project, device, signatures, header_names, body)
                 SELECT 'rejected', connector, ?2, ?3, ?4, received_at, ?5, verified_by,
                        event_id, event_type, project, device, signatures, header_names, body
                 FROM records WHERE seq = ?1",
            )?
            .execute(params![seq, sink, error, attempts, now])?;
    }
    connection
        .prepare_cached(
            "UPDATE sinks SET cursor = ?2, checkpoint = coalesce(?3, checkpoint) WHERE name = ?1",
        )?
        .execute(params![sink, progress.cursor, progress.checkpoint])?;
    Ok(())
}

/// Makes a sink known if it is not, and gives its cursor and checkpoint.
pub(super) fn register(
    connection: &Connection,
    counters: Counters,
    sink: &str,
    start: StartAt,
) -> rusqlite::Result<(i64, Option<Vec<u8>>)> {
    let first = match start {
        StartAt::Now => counters.last_seq,
        StartAt::Retained => {
            let oldest: Option<i64> =
                connection.query_row("SELECT min(seq) FROM records", [], |row| row.get(0))?;
            oldest.map_or(counters.last_seq, |oldest| oldest.saturating_sub(1))
        }
    };
    connection.execute(
        "INSERT INTO sinks (name, cursor) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![sink, first],
    )?;
    connection.query_row("SELECT cursor, checkpoint FROM sinks WHERE name = ?1", [sink], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// Removes up to `limit` records that every sink has passed and that were kept long enough. Gives how many.
pub(super) fn prune_records(
    connection: &Connection,
    options: &SpoolOptions,
    now: i64,
    limit: u32,
) -> rusqlite::Result<usize> {
    let retain_ms = i64::try_from(options.retain.as_millis()).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "DELETE FROM records WHERE seq IN (
                SELECT seq FROM records
                WHERE seq <= (SELECT min(cursor) FROM sinks) AND received_at <= ?1
                ORDER BY seq LIMIT ?2)",
        )?
        .execute(params![now.saturating_sub(retain_ms), limit])
}

/// Removes up to `limit` known events whose time in the window is over, or that are too many. Gives how many.
pub(super) fn prune_seen(
    connection: &Connection,
    counters: &mut Counters,
    options: &SpoolOptions,
    now: i64,
    limit: u32,
) -> rusqlite::Result<usize> {
    let too_many = counters.seen > options.dedup_max;
    let before = if too_many { i64::MAX } else { now.saturating_sub(window_ms(options)) };
    let limit = if too_many {
        u64::from(limit).min(counters.seen.saturating_sub(options.dedup_max))
    } else {
        u64::from(limit)
    };
    let gone = connection
        .prepare_cached(
            "DELETE FROM seen WHERE (connector, event_id) IN (
                SELECT connector, event_id FROM seen WHERE at <= ?1 ORDER BY at LIMIT ?2)",
        )?
        .execute(params![before, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    counters.seen = counters.seen.saturating_sub(u64::try_from(gone).unwrap_or(0));
    Ok(gone)
}

/// How many bytes the spool uses, without what deleted rows have left free in its file and without `seen`.
pub(super) fn used_bytes(connection: &Connection, path: &Path, counters: Counters) -> rusqlite::Result<u64> {
    /// What a row of `seen` takes with its index, about.
    const SEEN_ROW: u64 = 100;
    let pragma = |name: &str| {
        let value = connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        value.map(|value| u64::try_from(value).unwrap_or(0))
    };
    let pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let log = std::fs::metadata(log).map_or(0, |about| about.len());
    let all = pages.saturating_mul(pragma("page_size")?).saturating_add(log);
    Ok(all.saturating_sub(counters.seen.saturating_mul(SEEN_ROW)))
}

fn json<T: serde::Serialize>(value: &T) -> String {
    // Strings and pairs of strings always have a JSON form.
    serde_json::to_string(value).unwrap_or_default()
}
