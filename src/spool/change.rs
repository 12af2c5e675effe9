//! What an operator may change: dead letters leave or are tried again, cursors go back, sinks are forgotten. Each is a
//! few statements within the writer's transaction.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::store::{self, Counters};
use super::{Appended, SpoolOptions};
use crate::record::Record;

/// One change.
#[derive(Debug)]
pub enum Change {
    /// A dead letter leaves.
    Drop {
        /// Its id.
        id: i64,
    },
    /// A letter that a sink rejected is given to that sink again.
    Redeliver {
        /// Its id.
        id: i64,
    },
    /// A letter was verified and read: it leaves, and its record is stored like that of a request.
    Accept {
        /// Its id.
        id: i64,
        /// Its record.
        record: Arc<Record>,
        /// Whether copies of an event are caught.
        dedup: bool,
    },
    /// A letter failed again: it stays, with one more failed replay.
    StillDead {
        /// Its id.
        id: i64,
        /// What was wrong with it.
        error: String,
    },
    /// A sink sees again what comes after `cursor`. A cursor is only ever moved back.
    Rewind {
        /// The sink's name.
        sink: String,
        /// Where its cursor goes.
        cursor: i64,
    },
    /// A sink is forgotten: its cursor holds no more records.
    ForgetSink {
        /// Its name.
        sink: String,
    },
}

impl Change {
    /// Whether it needs the room of a record.
    pub(super) const fn appends(&self) -> bool {
        matches!(self, Self::Accept { .. })
    }

    /// Whether workers have to look.
    pub(super) const fn concerns_workers(&self) -> bool {
        matches!(self, Self::Redeliver { .. } | Self::Rewind { .. } | Self::ForgetSink { .. })
    }
}

/// What became of a [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// It was made.
    Done,
    /// The letter's event was stored already; the letter left.
    Duplicate,
    /// The sink sees so many numbers again.
    Rewound(u64),
    /// There is no such letter or sink any more.
    Gone,
}

/// Makes a change.
pub(super) fn make(
    connection: &Connection,
    counters: &mut Counters,
    options: &SpoolOptions,
    change: &Change,
    now: i64,
) -> rusqlite::Result<Changed> {
    let done = |rows: usize| if rows == 0 { Changed::Gone } else { Changed::Done };
    match change {
        Change::Drop { id } => delete(connection, *id).map(done),
        Change::Redeliver { id } => connection
            .prepare_cached(
                "UPDATE dead SET replay_at = coalesce(replay_at, ?2) WHERE id = ?1 AND reason = 'rejected'",
            )?
            .execute(params![id, now])
            .map(done),
        Change::Accept { id, record, dedup } => {
            if delete(connection, *id)? == 0 {
                return Ok(Changed::Gone);
            }
            Ok(match store::append(connection, counters, options, record, *dedup, now)? {
                Appended::New(_) => Changed::Done,
                Appended::Duplicate => Changed::Duplicate,
            })
        }
        Change::StillDead { id, error } => connection
            .prepare_cached("UPDATE dead SET error = ?2, replays = replays + 1 WHERE id = ?1")?
            .execute(params![id, error])
            .map(done),
        Change::Rewind { sink, cursor } => {
            let at: Option<i64> = connection
                .query_row("SELECT cursor FROM sinks WHERE name = ?1", [sink], |row| row.get(0))
                .optional()?;
            let Some(at) = at else { return Ok(Changed::Gone) };
            // What was pruned in the meantime cannot be seen again.
            let least = store::before_retained(connection)?.unwrap_or(at);
            let to = (*cursor).max(least).min(at);
            connection.execute("UPDATE sinks SET cursor = ?2 WHERE name = ?1", params![sink, to])?;
            Ok(Changed::Rewound(u64::try_from(at.saturating_sub(to)).unwrap_or(0)))
        }
        Change::ForgetSink { sink } => {
            connection.execute("DELETE FROM sinks WHERE name = ?1", [sink]).map(done)
        }
    }
}

fn delete(connection: &Connection, id: i64) -> rusqlite::Result<usize> {
    connection.prepare_cached("DELETE FROM dead WHERE id = ?1")?.execute([id])
}
