//! The statements that change the spool, each within the writer's transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, OptionalExtension, ToSql, params, params_from_iter};
use sha2::{Digest, Sha256};

use super::journal::Position;
use super::row::crc;
use super::{Appended, Progress, Registered, Rejected, SpoolOptions, StartAt};
use crate::record::{DeadLetter, Reason, Record, RequestId};

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
    insert_record(connection, counters.last_seq, record)?;
    Ok(Appended::New(counters.last_seq))
}

/// Stores a record under its number.
pub(super) fn insert_record(connection: &Connection, seq: i64, record: &Record) -> rusqlite::Result<()> {
    let verified_by = record.verified_by.to_string();
    connection
        .prepare_cached(
            "INSERT INTO records (seq, connector, received_at, verified_by, event_id, event_type, project, device,
                                  request_id, signatures, header_names, crc, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            seq,
            &*record.connector,
            record.received_at,
            verified_by,
            &*record.event_id,
            &*record.event_type,
            record.project.as_deref(),
            record.device.as_deref(),
            record.request_id.as_ref().map(RequestId::as_str),
            record.headers.signatures_json(),
            record.headers.names_json(),
            crc(record, &verified_by),
            &*record.body,
        ])
        .map(drop)
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
    if at.is_some_and(|at| is_within_window(options, at, now)) {
        return Ok(true);
    }
    note_seen(connection, counters, &[(record, now)])?;
    Ok(false)
}

/// Whether what is known since `at` is still a duplicate.
pub(super) fn is_within_window(options: &SpoolOptions, at: i64, now: i64) -> bool {
    now.saturating_sub(at) < window_ms(options)
}

/// Notes since when events are known: many with each statement, which costs 1.8 us an event instead of 3.2.
pub(super) fn note_seen(
    connection: &Connection,
    counters: &mut Counters,
    events: &[(&Record, i64)],
) -> rusqlite::Result<()> {
    /// How many a statement takes; more gain nothing.
    const MANY: usize = 16;
    let (many, rest) = events.as_chunks::<MANY>();
    for part in many.iter().map(<[_; MANY]>::as_slice).chain(rest.chunks(1)) {
        let rows = vec!["(?, ?, ?)"; part.len()].join(", ");
        let added = connection
            .prepare_cached(&format!(
                "INSERT INTO seen (connector, event_id, at) VALUES {rows} ON CONFLICT DO NOTHING"
            ))?
            .execute(params_from_iter(part.iter().flat_map(|(record, at)| {
                let row: [&dyn ToSql; 3] = [&record.connector, &record.event_id, at];
                row
            })))?;
        counters.seen = counters.seen.saturating_add(u64::try_from(added).unwrap_or(0));
        if added == part.len() {
            continue;
        }
        // Some were known before, and their time in the window was over.
        for (record, at) in part {
            connection
                .prepare_cached("UPDATE seen SET at = ?3 WHERE connector = ?1 AND event_id = ?2")?
                .execute(params![&*record.connector, &*record.event_id, at])?;
        }
    }
    Ok(())
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

/// Writes down which frame of the journal comes next.
pub(super) fn store_position(connection: &Connection, position: Position) -> rusqlite::Result<()> {
    let Position { id, index, offset } = position;
    let mut statement = connection
        .prepare_cached("INSERT INTO counts VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")?;
    for (name, value) in [("journal_id", id), ("journal_index", index), ("journal_offset", offset)] {
        statement.execute(params![name, value])?;
    }
    Ok(())
}

/// Which frame of the journal comes next; `None` where there never was a journal.
pub(super) fn position(connection: &Connection) -> rusqlite::Result<Option<Position>> {
    let read = |name: &str| -> rusqlite::Result<Option<i64>> {
        connection
            .prepare_cached("SELECT value FROM counts WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()
    };
    let (id, index, offset) = (read("journal_id")?, read("journal_index")?, read("journal_offset")?);
    Ok(id.zip(index).zip(offset).map(|((id, index), offset)| Position { id, index, offset }))
}

/// Stores a dead letter that was no record. Copies are kept once, and those that DT still holds, or nobody vouches for,
/// are bounded: the oldest go. Gives whether it is new, and the number of those that went.
pub(super) fn bury(
    connection: &Connection,
    options: &SpoolOptions,
    letter: &DeadLetter,
    now: i64,
) -> rusqlite::Result<(bool, u64)> {
    let sink = match &letter.reason {
        Reason::Rejected { sink } => Some(&**sink),
        Reason::Unreadable | Reason::Expired | Reason::Refused | Reason::Damaged => None,
    };
    let signatures = json(&letter.signatures);
    let hash = sink.is_none().then(|| {
        let mut hash = Sha256::new_with_prefix(&letter.body);
        if letter.reason == Reason::Refused {
            // Otherwise a stranger's copy with a bad signature would keep out the one with a good signature.
            hash.update(&signatures);
        }
        hash.finalize().to_vec()
    });
    let added = connection
        .prepare_cached(
            "INSERT INTO dead (reason, connector, sink, error, attempts, received_at, buried_at, event_id,
                               request_id, signatures, header_names, body_hash, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
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
            letter.request_id.as_ref().map(RequestId::as_str),
            signatures,
            json(&letter.header_names),
            hash,
            &*letter.body,
        ])?;
    let dropped = match letter.reason {
        Reason::Expired => drop_oldest(connection, "expired", options.max_expired)?,
        Reason::Refused => drop_oldest(connection, "refused", options.max_refused)?,
        Reason::Rejected { .. } | Reason::Unreadable | Reason::Damaged => 0,
    };
    Ok((added > 0, dropped))
}

fn drop_oldest(connection: &Connection, reason: &str, max_bytes: u64) -> rusqlite::Result<u64> {
    let mut dropped = 0_u64;
    loop {
        let bytes: i64 = connection
            .prepare_cached("SELECT value FROM counts WHERE name = 'dead_bytes_' || ?1")?
            .query_row([reason], |row| row.get(0))?;
        if u64::try_from(bytes).unwrap_or(0) <= max_bytes {
            return Ok(dropped);
        }
        let gone = connection
            .prepare_cached("DELETE FROM dead WHERE id = (SELECT min(id) FROM dead WHERE reason = ?1)")?
            .execute([reason])?;
        if gone == 0 {
            return Ok(dropped);
        }
        dropped = dropped.saturating_add(1);
    }
}

/// Sets aside what is left of a damaged record. Every sink comes by; the letter is one. Gives whether it is new.
pub(super) fn bury_damaged(
    connection: &Connection,
    seq: i64,
    letter: &DeadLetter,
    now: i64,
) -> rusqlite::Result<bool> {
    let added = connection
        .prepare_cached(
            "INSERT INTO dead (reason, connector, seq, error, attempts, received_at, buried_at, event_id,
                               request_id, signatures, header_names, body)
             VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            Reason::Damaged.code(),
            &*letter.connector,
            seq,
            letter.error,
            letter.received_at,
            now,
            letter.event_id.as_deref(),
            letter.request_id.as_ref().map(RequestId::as_str),
            json(&letter.signatures),
            json(&letter.header_names),
            &*letter.body,
        ])?;
    Ok(added > 0)
}

/// Sets a rejected record aside that cannot be read any more, from what the sink was given. Its headers are lost.
fn bury_rejected(connection: &Connection, sink: &str, rejected: &Rejected, now: i64) -> rusqlite::Result<()> {
    let Rejected { seq, record, error, attempts } = rejected;
    let verified_by = record.verified_by.to_string();
    connection
        .prepare_cached(
            "INSERT INTO dead (reason, connector, sink, seq, error, attempts, received_at, buried_at, verified_by,
                               event_id, event_type, project, device, request_id, signatures, header_names, crc,
                               body)
             VALUES ('rejected', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, '[]', '[]', ?14, ?15)
             ON CONFLICT (sink, seq) WHERE seq IS NOT NULL
             DO UPDATE SET error = excluded.error, attempts = attempts + excluded.attempts",
        )?
        .execute(params![
            &*record.connector,
            sink,
            seq,
            error,
            attempts,
            record.received_at,
            now,
            verified_by,
            &*record.event_id,
            &*record.event_type,
            record.project.as_deref(),
            record.device.as_deref(),
            record.request_id.as_ref().map(RequestId::as_str),
            crc(record, &verified_by),
            &*record.body,
        ])
        .map(drop)
}

/// Moves a sink's cursor, what it rejected to the dead letters, and out of them what it took after all. Gives where the
/// cursor is then.
pub(super) fn advance(
    connection: &Connection,
    sink: &str,
    progress: &Progress,
    now: i64,
) -> rusqlite::Result<i64> {
    for rejected in &progress.rejected {
        let Rejected { seq, error, attempts, .. } = rejected;
        // A record that was replayed and rejected again is one letter.
        let moved = connection
            .prepare_cached(
                "INSERT INTO dead (reason, connector, sink, seq, error, attempts, received_at, buried_at, verified_by,
                                   event_id, event_type, project, device, request_id, signatures, header_names,
                                   crc, body)
                 SELECT 'rejected', connector, ?2, ?1, ?3, ?4, received_at, ?5, verified_by,
                        event_id, event_type, project, device, request_id, signatures, header_names, crc, body
                 FROM records WHERE seq = ?1
                 ON CONFLICT (sink, seq) WHERE seq IS NOT NULL
                 DO UPDATE SET error = excluded.error, attempts = attempts + excluded.attempts",
            )?
            .execute(params![seq, sink, error, attempts, now]);
        match moved {
            Ok(0) => bury_rejected(connection, sink, rejected, now)?,
            Ok(_) => {}
            Err(damage) if damage.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) => {
                bury_rejected(connection, sink, rejected, now)?;
            }
            Err(error) => return Err(error),
        }
    }
    for id in &progress.redelivered {
        connection
            .prepare_cached("DELETE FROM dead WHERE id = ?1 AND sink = ?2")?
            .execute(params![id, sink])?;
    }
    for (id, error) in &progress.rejected_again {
        connection
            .prepare_cached(
                "UPDATE dead SET error = ?3, attempts = attempts + 1, replays = replays + 1, replay_at = NULL
                 WHERE id = ?1 AND sink = ?2",
            )?
            .execute(params![id, sink, error])?;
    }
    // A cursor that was moved back in the meantime stays there.
    connection
        .prepare_cached(
            "UPDATE sinks
             SET cursor = iif(?4 IS NULL OR cursor = ?4, ?2, cursor), checkpoint = coalesce(?3, checkpoint)
             WHERE name = ?1 RETURNING cursor",
        )?
        .query_row(params![sink, progress.cursor, progress.checkpoint, progress.from], |row| row.get(0))
        .optional()
        .map(|cursor| cursor.unwrap_or(progress.cursor))
}

/// Writes down the greatest number of a record that was not stored, since every sink had it and nothing is retained. What
/// is left of older ones is not given to a sink any more: there are gaps behind it.
pub(super) fn store_gap(connection: &Connection, seq: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO counts VALUES ('not_stored', ?1) ON CONFLICT DO UPDATE SET value = max(value, ?1)",
        )?
        .execute([seq])
        .map(drop)
}

/// The number before the first record that may be given to a sink once more; `None` when there is none.
pub(super) fn before_retained(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let oldest: Option<i64> = connection.query_row("SELECT min(seq) FROM records", [], |row| row.get(0))?;
    let not_stored: Option<i64> = connection
        .query_row("SELECT value FROM counts WHERE name = 'not_stored'", [], |row| row.get(0))
        .optional()?;
    Ok(oldest.map(|oldest| oldest.saturating_sub(1).max(not_stored.unwrap_or(i64::MIN))))
}

/// Makes a sink known if it is not, and gives where it stands. A connector that it skips only from now on is skipped from
/// here on: what was accepted for the sink before is still delivered to it.
pub(super) fn register(
    connection: &Connection,
    counters: Counters,
    sink: &str,
    start: StartAt,
    skipped: &BTreeSet<Arc<str>>,
) -> rusqlite::Result<Registered> {
    let first = match start {
        StartAt::Now => counters.last_seq,
        StartAt::Retained => before_retained(connection)?.unwrap_or(counters.last_seq),
    };
    let is_new = connection.execute(
        "INSERT INTO sinks (name, cursor, skips) VALUES (?1, ?2, '{}') ON CONFLICT DO NOTHING",
        params![sink, first],
    )? > 0;
    let (cursor, checkpoint, stored): (i64, Option<Vec<u8>>, String) = connection.query_row(
        "SELECT cursor, checkpoint, skips FROM sinks WHERE name = ?1",
        [sink],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    // Somebody else's JSON is read as if there was none: then more is delivered, not less.
    let stored: BTreeMap<String, i64> = serde_json::from_str(&stored).unwrap_or_default();
    let since = |connector: &str| match stored.get(connector) {
        Some(since) => *since,
        None if is_new => first,
        None => counters.last_seq,
    };
    let skips: BTreeMap<Arc<str>, i64> =
        skipped.iter().map(|connector| (Arc::clone(connector), since(connector))).collect();
    let by_name: BTreeMap<&str, i64> =
        skips.iter().map(|(connector, since)| (&**connector, *since)).collect();
    connection.execute("UPDATE sinks SET skips = ?2 WHERE name = ?1", params![sink, json(&by_name)])?;
    Ok(Registered { cursor, checkpoint, skips })
}

/// Removes up to `limit` records that every sink has passed and that were kept long enough. Gives how many.
pub(super) fn prune_records(
    connection: &Connection,
    options: &SpoolOptions,
    now: i64,
    limit: u32,
) -> rusqlite::Result<usize> {
    let retain_ms = i64::try_from(options.retain.as_millis()).unwrap_or(i64::MAX);
    // Where nothing is retained, time does not matter, whatever the clock says.
    let before = if retain_ms == 0 { i64::MAX } else { now.saturating_sub(retain_ms) };
    connection
        .prepare_cached(
            "DELETE FROM records WHERE seq IN (
                SELECT seq FROM records
                WHERE seq <= (SELECT min(cursor) FROM sinks) AND received_at <= ?1
                ORDER BY seq LIMIT ?2)",
        )?
        .execute(params![before, limit])
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
            "DELETE FROM seen WHERE (event_id, connector) IN (
                SELECT event_id, connector FROM seen WHERE at <= ?1 ORDER BY at LIMIT ?2)",
        )?
        .execute(params![before, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    counters.seen = counters.seen.saturating_sub(u64::try_from(gone).unwrap_or(0));
    Ok(gone)
}

/// How many bytes the spool uses, without what deleted rows have left free in its file and without `seen`.
pub(super) fn used_bytes(connection: &Connection, path: &Path, seen: u64) -> rusqlite::Result<u64> {
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
    Ok(all.saturating_sub(seen.saturating_mul(SEEN_ROW)))
}

fn json<T: serde::Serialize>(value: &T) -> String {
    // Strings and pairs of strings always have a JSON form.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    #[test]
    fn what_is_there_is_given_again_but_nothing_before_what_was_never_stored() {
        let mut database = Connection::open_in_memory().expect("opened");
        schema::create(&mut database).expect("made");
        assert_eq!(before_retained(&database).expect("read"), None);
        for seq in 51..=100 {
            insert_record(&database, seq, &Record::sample(&seq.to_string())).expect("stored");
        }
        // A sink that begins with the next event has passed them, and yet nobody had them.
        let counters = Counters { last_seq: 100, seen: 0 };
        let nothing = BTreeSet::new();
        let new = register(&database, counters, "new", StartAt::Now, &nothing).expect("known");
        assert_eq!(new.cursor, 100);
        let old = register(&database, counters, "old", StartAt::Retained, &nothing).expect("known");
        assert_eq!(old.cursor, 50);
        store_gap(&database, 60).expect("stored");
        store_gap(&database, 55).expect("stored");
        assert_eq!(before_retained(&database).expect("read"), Some(60));
    }
}
