//! Reading, each reader on a connection of its own and in short transactions, so that none holds back the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use rusqlite::{Connection, OpenFlags, Row, params};

use super::error::SpoolError;
use super::open::database_path;
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
    path: PathBuf,
    connection: Connection,
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
        match opened {
            Ok(connection) => Ok(Self { path, connection }),
            Err(error) => Err(SpoolError::sqlite(path, "opening", &error)),
        }
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
        read().map_err(|error| SpoolError::sqlite(&self.path, "reading", &error))
    }
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let text = |column: usize| row.get::<_, String>(column);
    let maybe =
        |column: usize| row.get::<_, Option<String>>(column).map(|text| text.map(String::into_boxed_str));
    let verified_by = text(3)?;
    let verified_by = match verified_by.split_once(':') {
        Some(("asymmetric", kid)) => VerifiedBy::Asymmetric { kid: Arc::from(kid) },
        Some((_, label)) => VerifiedBy::Secret { label: Arc::from(label) },
        None => VerifiedBy::Secret { label: Arc::from(&*verified_by) },
    };
    let record = Record {
        connector: Arc::from(text(1)?),
        received_at: row.get(2)?,
        verified_by,
        event_id: text(4)?.into_boxed_str(),
        event_type: text(5)?.into_boxed_str(),
        project: maybe(6)?,
        device: maybe(7)?,
        headers: HeaderMap::new(),
        body: Bytes::from(row.get::<_, Vec<u8>>(8)?),
    };
    Ok(Stored { seq: row.get(0)?, record: Arc::new(record) })
}
