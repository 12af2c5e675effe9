//! Reading, each reader on a connection of its own and in short transactions, so that none holds back the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use super::error::SpoolError;
use super::open::{check_readable, database_path};
use crate::record::Record;
use crate::verify::VerifiedBy;

/// A record with its number.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its number: records are delivered in this order.
    pub seq: i64,
    /// The record, without the headers of its request.
    pub record: Arc<Record>,
}

/// Reads a spool, beside its writer or without one.
#[derive(Debug)]
pub struct Reader {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
}

impl Reader {
    /// Opens the spool in `folder` for reading.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when the database cannot be opened.
    pub fn open(folder: &Path) -> Result<Self, SpoolError> {
        let path = database_path(folder);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&path, flags).and_then(|connection| {
            connection.busy_timeout(Duration::from_secs(5))?;
            Ok(connection)
        });
        let connection = opened.map_err(|error| SpoolError::sqlite(&*path, "opening", &error))?;
        check_readable(&connection, &path)?;
        Ok(Self { path, connection })
    }

    /// Up to `limit` records after `seq`, in order.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when they cannot be read.
    pub fn after(&self, seq: i64, limit: usize) -> Result<Vec<Stored>, SpoolError> {
        let read = || -> rusqlite::Result<Vec<Stored>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT seq, connector, received_at, verified_by, event_id, event_type, project, device, body
                 FROM records WHERE seq > ?1 ORDER BY seq LIMIT ?2",
            )?;
            let rows = statement.query_map(params![seq, i64::try_from(limit).unwrap_or(i64::MAX)], stored)?;
            rows.collect()
        };
        self.named(read())
    }

    /// Up to `limit` records after `seq` that were received at or after `since` and, where a sink is named, that it has
    /// not passed. The second value is the number to go on after; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when they cannot be read.
    pub fn export(
        &self,
        since: i64,
        sink: Option<&str>,
        seq: i64,
        limit: usize,
    ) -> Result<(Vec<Stored>, Option<i64>), SpoolError> {
        let passed = match sink {
            Some(sink) => self.cursor(sink)?.unwrap_or(i64::MAX),
            None => i64::MIN,
        };
        let mut stored = self.after(seq.max(passed), limit)?;
        let next = (stored.len() >= limit).then(|| stored.last().map(|stored| stored.seq)).flatten();
        stored.retain(|stored| stored.record.received_at >= since);
        Ok((stored, next))
    }

    /// The number of the first record that was received at or after `since`. It looks at a part at a time, so that no
    /// transaction is long.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when the records cannot be read.
    pub fn first_since(&self, since: i64) -> Result<Option<i64>, SpoolError> {
        /// How many records one transaction looks at.
        const PART: i64 = 10_000;
        let Some((first, last)) = self.bounds()? else { return Ok(None) };
        let mut from = first;
        while from <= last {
            let to = from.saturating_add(PART);
            let found: Option<i64> = self.named(
                self.connection
                    .prepare_cached(
                        "SELECT seq FROM records WHERE seq >= ?1 AND seq < ?2 AND received_at >= ?3
                         ORDER BY seq LIMIT 1",
                    )
                    .and_then(|mut statement| {
                        statement.query_row(params![from, to, since], |row| row.get(0)).optional()
                    }),
            )?;
            if found.is_some() {
                return Ok(found);
            }
            from = to;
        }
        Ok(None)
    }

    /// The first and the last number that there is.
    pub(super) fn bounds(&self) -> Result<Option<(i64, i64)>, SpoolError> {
        let read = || -> rusqlite::Result<Option<(i64, i64)>> {
            let ends = |end| self.connection.query_row(end, [], |row| row.get::<_, Option<i64>>(0));
            let (first, last) =
                (ends("SELECT min(seq) FROM records")?, ends("SELECT max(seq) FROM records")?);
            Ok(first.zip(last))
        };
        self.named(read())
    }

    /// How far a sink is; `None` when it is not known here.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when that cannot be read.
    pub fn cursor(&self, sink: &str) -> Result<Option<i64>, SpoolError> {
        let read = || {
            self.connection
                .prepare_cached("SELECT cursor FROM sinks WHERE name = ?1")?
                .query_row([sink], |row| row.get(0))
                .optional()
        };
        self.named(read())
    }

    /// Says at which database something failed.
    pub(super) fn named<T>(&self, read: rusqlite::Result<T>) -> Result<T, SpoolError> {
        read.map_err(|error| SpoolError::sqlite(&*self.path, "reading", &error))
    }
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let text = |column: usize| row.get::<_, String>(column);
    let maybe =
        |column: usize| row.get::<_, Option<String>>(column).map(|text| text.map(String::into_boxed_str));
    let record = Record {
        connector: Arc::from(text(1)?),
        received_at: row.get(2)?,
        verified_by: verified_by(&text(3)?),
        event_id: text(4)?.into_boxed_str(),
        event_type: text(5)?.into_boxed_str(),
        project: maybe(6)?,
        device: maybe(7)?,
        headers: HeaderMap::new(),
        body: Bytes::from(row.get::<_, Vec<u8>>(8)?),
    };
    Ok(Stored { seq: row.get(0)?, record: Arc::new(record) })
}

/// Reads `secret:LABEL` or `asymmetric:KID`.
pub(super) fn verified_by(text: &str) -> VerifiedBy {
    match text.split_once(':') {
        Some(("asymmetric", kid)) => VerifiedBy::Asymmetric { kid: Arc::from(kid) },
        Some((_, label)) => VerifiedBy::Secret { label: Arc::from(label) },
        None => VerifiedBy::Secret { label: Arc::from(text) },
    }
}
