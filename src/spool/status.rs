//! How a spool is doing, and whether it is whole.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use super::error::SpoolError;
use super::reader::Reader;
use super::store::used_bytes;
use crate::record::Reason;

/// How long the figures wait for what was accepted last.
const STATUS_WAIT: Duration = Duration::from_millis(200);

/// How a spool is doing.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// How many records are there.
    pub records: u64,
    /// The last number that was given to a record.
    pub last_seq: i64,
    /// When the oldest record was received, in Unix milliseconds.
    pub oldest_received_at: Option<i64>,
    /// How many bytes are used, without what deleted rows have left free, and without the known events.
    pub used_bytes: u64,
    /// How many events are known as duplicates.
    pub seen: u64,
    /// The dead letters, by the code of their reason.
    pub dead_letters: BTreeMap<String, u64>,
    /// The sinks, by name.
    pub sinks: Vec<SinkStatus>,
}

/// How far a sink is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SinkStatus {
    /// Its name.
    pub name: String,
    /// The last number that it is done with.
    pub cursor: i64,
    /// How many numbers come after that.
    pub backlog: u64,
    /// When the first of them was received, in Unix milliseconds.
    pub oldest_received_at: Option<i64>,
    /// How many dead letters wait for it again.
    pub redeliveries: u64,
}

/// What a spool holds of a connector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectorUse {
    /// Whether there is a record of it that some sink has not passed.
    pub undelivered: bool,
    /// When it accepted an event last, in Unix milliseconds, if that is still known, and not long ago.
    pub last_accepted: Option<i64>,
}

/// Something wrong with a spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding(pub String);

impl Reader {
    /// How the spool is doing. The time it takes does not grow with the spool, but for `records`.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when it cannot be read.
    pub fn status(&self) -> Result<Status, SpoolError> {
        // Whoever watches a spool is told something, however slow its disk is.
        let _late = self.settle_within(STATUS_WAIT);
        let count = |name: &str| -> Result<i64, SpoolError> {
            self.named(
                self.connection
                    .prepare_cached("SELECT value FROM counts WHERE name = ?1")
                    .and_then(|mut statement| statement.query_row([name], |row| row.get(0))),
            )
        };
        let (last_seq, seen) = (count("last_seq")?, u64::try_from(count("seen")?).unwrap_or(0));
        let mut dead_letters = BTreeMap::new();
        for reason in Reason::CODES {
            let letters = count(&format!("dead_{reason}"))?;
            dead_letters.insert(reason.to_owned(), u64::try_from(letters).unwrap_or(0));
        }
        let records = match self.bounds()? {
            // Numbers have no gaps, but for what was pruned in the middle because it is older than its neighbours.
            Some((first, last)) => u64::try_from(last.saturating_sub(first).saturating_add(1)).unwrap_or(0),
            None => 0,
        };
        let sinks = self.named(self.sinks(last_seq))?;
        Ok(Status {
            records,
            last_seq,
            oldest_received_at: self.named(self.received_after(i64::MIN))?,
            used_bytes: self.named(used_bytes(&self.connection, &self.path, seen))?,
            seen,
            dead_letters,
            sinks,
        })
    }

    fn sinks(&self, last_seq: i64) -> rusqlite::Result<Vec<SinkStatus>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT name, cursor, (SELECT count(*) FROM dead WHERE sink = name AND replay_at IS NOT NULL)
             FROM sinks ORDER BY name",
        )?;
        let rows = statement.query_map([], |row| {
            let cursor: i64 = row.get(1)?;
            Ok(SinkStatus {
                name: row.get(0)?,
                cursor,
                backlog: u64::try_from(last_seq.saturating_sub(cursor)).unwrap_or(0),
                oldest_received_at: self.received_after(cursor)?,
                redeliveries: u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
            })
        })?;
        rows.collect()
    }

    /// What there is of a connector; whether it accepted an event only matters since `since`, in Unix milliseconds. It may
    /// read all that no sink has passed, and all that became known since then.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when it cannot be read.
    pub fn connector_use(&self, connector: &str, since: i64) -> Result<ConnectorUse, SpoolError> {
        self.settle()?;
        let read = || {
            let undelivered = self.connection.query_row(
                "SELECT EXISTS (SELECT 1 FROM records
                                WHERE seq > (SELECT min(cursor) FROM sinks) AND connector = ?1)",
                [connector],
                |row| row.get(0),
            )?;
            // Where copies are not looked for, only the records that are still there can tell.
            let seen: Option<i64> = self
                .connection
                .query_row(
                    "SELECT at FROM seen WHERE connector = ?1 AND at >= ?2 ORDER BY at DESC LIMIT 1",
                    params![connector, since],
                    |row| row.get(0),
                )
                .optional()?;
            let received: Option<i64> = self
                .connection
                .query_row(
                    "SELECT received_at FROM records WHERE connector = ?1 ORDER BY seq DESC LIMIT 1",
                    [connector],
                    |row| row.get(0),
                )
                .optional()?;
            Ok(ConnectorUse { undelivered, last_accepted: seen.max(received) })
        };
        self.named(read())
    }

    /// When the first record after a number was received.
    fn received_after(&self, seq: i64) -> rusqlite::Result<Option<i64>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT received_at FROM records WHERE seq > ?1 ORDER BY seq LIMIT 1")?;
        let mut rows = statement.query(params![seq])?;
        rows.next()?.map(|row| row.get(0)).transpose()
    }

    /// What is wrong with the spool; it reads all of it. `step` is told what is looked at next.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when it cannot be read at all.
    pub fn check(&self, mut step: impl FnMut(&str)) -> Result<Vec<Finding>, SpoolError> {
        self.settle()?;
        let mut findings = Vec::new();
        // A table at a time: each is a transaction that holds back the log.
        for table in ["records", "seen", "sinks", "dead", "counts"] {
            step(table);
            let integrity = self.connection.prepare(&format!("PRAGMA integrity_check({table})"));
            let lines = integrity.and_then(|mut statement| {
                statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()
            });
            match lines {
                Ok(lines) => {
                    let bad = lines.into_iter().filter(|line| line != "ok");
                    findings.extend(bad.map(|line| Finding(format!("{table}: {line}"))));
                }
                Err(error) => findings.push(Finding(format!("{table}: {error}"))),
            }
        }
        step("records, one by one");
        let (mut after, mut damaged) = (i64::MIN, 0_usize);
        loop {
            let part = match self.after(after, 256) {
                Ok(part) => part,
                // Told of above, in SQLite's words.
                Err(SpoolError::Damaged { .. }) => break,
                Err(error) => return Err(error),
            };
            let Some(last) = part.last() else { break };
            after = last.seq;
            for (seq, letter) in
                part.iter().filter_map(|stored| Some((stored.seq, stored.record.as_ref().err()?)))
            {
                damaged = damaged.saturating_add(1);
                if damaged <= MAX_DAMAGED {
                    findings.push(Finding(format!("record {seq}: {}", letter.error)));
                }
            }
        }
        if damaged > MAX_DAMAGED {
            findings.push(Finding(format!("{damaged} records are damaged in all")));
        }
        step("contents");
        for (what, query) in QUESTIONS {
            // One statement is one snapshot, so that a writer beside us cannot make it look wrong.
            match self.connection.query_row(query, [], |row| row.get::<_, Option<String>>(0)) {
                Ok(None) => {}
                Ok(Some(found)) => findings.push(Finding(format!("{what}: {found}"))),
                Err(error) => findings.push(Finding(format!("{what}: {error}"))),
            }
        }
        Ok(findings)
    }
}

/// How many damaged records are named.
const MAX_DAMAGED: usize = 20;

/// What must not be, and a query that gives what there is of it.
const QUESTIONS: [(&str, &str); 7] = [
    (
        "a cursor is beyond the last record ever stored",
        "SELECT group_concat(name || ' at ' || cursor) FROM sinks
         WHERE cursor > (SELECT value FROM counts WHERE name = 'last_seq')",
    ),
    (
        "there is a record beyond the last number given",
        "SELECT CAST(max(seq) AS TEXT) FROM records
         HAVING max(seq) > (SELECT value FROM counts WHERE name = 'last_seq')
         UNION ALL SELECT NULL LIMIT 1",
    ),
    (
        "records are missing that a sink has not passed",
        "SELECT missing || ' of sink ' || name FROM (
             SELECT name, (SELECT value FROM counts WHERE name = 'last_seq') - cursor
                          - (SELECT count(*) FROM records WHERE seq > cursor) AS missing FROM sinks)
         WHERE missing > 0
         UNION ALL SELECT NULL LIMIT 1",
    ),
    (
        "the number of known events is wrong",
        "SELECT (SELECT value FROM counts WHERE name = 'seen') || ' counted, ' || count(*) || ' there'
         FROM seen HAVING count(*) <> (SELECT value FROM counts WHERE name = 'seen')
         UNION ALL SELECT NULL LIMIT 1",
    ),
    (
        "the number of dead letters is wrong",
        "SELECT group_concat(counts.name || ' is ' || value) FROM counts
         WHERE counts.name IN ('dead_rejected', 'dead_unreadable', 'dead_expired', 'dead_refused', 'dead_damaged')
               AND value <> (SELECT count(*) FROM dead WHERE 'dead_' || reason = counts.name)",
    ),
    (
        "a dead letter has an unknown reason, or a sink that does not go with it",
        "SELECT group_concat(id) FROM dead
         WHERE reason NOT IN ('rejected', 'unreadable', 'expired', 'refused', 'damaged')
               OR (reason = 'rejected') <> (sink IS NOT NULL)",
    ),
    (
        "a record has no event id or no body",
        "SELECT group_concat(seq) FROM records WHERE event_id = '' OR length(body) = 0",
    ),
];
