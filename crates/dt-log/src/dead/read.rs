//! Reads dead letters, with or without a running server. No file is created.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::super::remedy;
use super::super::sqlite::{self, Identity};
use super::error::DeadError;
use super::open::{FileInfo, has_log, inspect};
use super::row::{COLUMNS, StoredDeadLetter, stored};

/// The size limit of the bodies in the result of one [`ReadOnly::list`], in bytes, unless a single body is larger.
const MAX_BYTES: usize = 8 << 20;

/// The selection of dead letters: all fields that are `Some` must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The id of the only selected dead letter.
    pub id: Option<i64>,
    /// The name of the sink that rejected the dead letters.
    pub sink: Option<String>,
    /// The code of the reason of the dead letters, such as `rejected`.
    pub reason: Option<String>,
}

/// The number and size of the dead letters of one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The code of the reason.
    pub reason: String,
    /// The number of dead letters of this reason.
    pub dead_letters: u64,
    /// The approximate size of the dead letters of this reason, in bytes.
    pub bytes: u64,
}

/// A reader of the dead letters in a file, which does not change the file.
#[derive(Debug)]
pub struct ReadOnly {
    path: PathBuf,
    /// The connection, with the identity of the file on which it was opened; `None` before the first read, and after an error.
    connection: Mutex<Option<(Connection, Identity)>>,
}

impl ReadOnly {
    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// [`DeadError`] if the file does not exist, or contains no readable dead letters.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DeadError> {
        let reader = Self::beside(path.into());
        reader.found()?;
        Ok(reader)
    }

    /// Creates a reader of an existing file. The file is opened at the first read, and again after an error.
    pub(super) const fn beside(path: PathBuf) -> Self {
        Self { path, connection: Mutex::new(None) }
    }

    /// Reads the store id and the highest assigned id of the file.
    pub(super) fn found(&self) -> Result<FileInfo, DeadError> {
        self.with("opening", |connection| inspect(connection, &self.path))
    }

    /// Returns up to `limit` dead letters with an id above `after`, with their bodies if `with_bodies` is set. Returns fewer if
    /// the bodies are large, but at least one if one exists.
    ///
    /// # Errors
    ///
    /// [`DeadError`] if the dead letters cannot be read.
    pub fn list(
        &self,
        filter: &Filter,
        after: i64,
        limit: usize,
        with_bodies: bool,
    ) -> Result<Vec<StoredDeadLetter>, DeadError> {
        self.read("listing", |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, iif(?6, body, x'') FROM letters
                 WHERE id > ?1 AND (?2 IS NULL OR id = ?2) AND (?3 IS NULL OR sink = ?3)
                       AND (?4 IS NULL OR reason = ?4)
                 ORDER BY id LIMIT ?5"
            ))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let given = params![after, filter.id, filter.sink, filter.reason, limit, with_bodies];
            let (mut dead_letters, mut bytes, mut last) = (Vec::new(), 0_usize, after);
            for dead_letter in statement.query_map(given, stored)? {
                let dead_letter = dead_letter?;
                // A caller that continued after an earlier id would never end.
                if dead_letter.id <= last {
                    let text = format!("dead letter {} is stored after {last}", dead_letter.id);
                    return Err(sqlite::damaged(text));
                }
                last = dead_letter.id;
                bytes = bytes.saturating_add(dead_letter.dead_letter.body.len());
                dead_letters.push(dead_letter);
                if bytes > MAX_BYTES {
                    break;
                }
            }
            Ok(dead_letters)
        })
    }

    /// Returns the number and the size of the dead letters of each reason.
    ///
    /// # Errors
    ///
    /// [`DeadError`] if the dead letters cannot be read.
    pub fn counts(&self) -> Result<Vec<Count>, DeadError> {
        self.read("counting", counts)
    }

    /// Returns the highest sequence number of the records of the dead letters with an id above `after`; 0 if none of them has
    /// one.
    ///
    /// # Errors
    ///
    /// [`DeadError`] if the file cannot be read.
    pub(super) fn highest_seq(&self, after: i64) -> Result<i64, DeadError> {
        self.read("looking for the highest number", |connection| {
            connection
                .query_row("SELECT coalesce(max(seq), 0) FROM dead WHERE id > ?1", [after], |row| row.get(0))
        })
    }

    /// Returns the highest id that the file has ever assigned; 0 if it has assigned none.
    ///
    /// # Errors
    ///
    /// [`DeadError`] if the file cannot be read.
    pub fn highest_id(&self) -> Result<i64, DeadError> {
        self.read("reading the highest id", highest_id)
    }

    /// Checks the content of the file. Returns the findings; empty if there are none.
    ///
    /// # Errors
    ///
    /// [`DeadError`] if the file is unreadable.
    pub fn check(&self) -> Result<Vec<String>, DeadError> {
        let mut findings = self.read("checking", |connection| {
            let mut statement = connection.prepare("PRAGMA integrity_check(20)")?;
            let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
            let mut findings: Vec<String> = rows.collect::<Result<_, _>>()?;
            findings.retain(|finding| finding != "ok");
            let wrong: Option<String> = connection.query_row(
                "SELECT group_concat(counts.reason) FROM counts
                 WHERE counts.letters <> (SELECT count(*) FROM letters WHERE letters.reason = counts.reason)",
                [],
                |row| row.get(0),
            )?;
            findings
                .extend(wrong.map(|reasons| format!("the number of dead letters is wrong for: {reasons}")));
            let above: Option<i64> = connection.query_row(
                "SELECT max(id) FROM letters WHERE id > (SELECT highest_id FROM store)",
                [],
                |row| row.get(0),
            )?;
            findings.extend(
                above.map(|id| format!("there is a dead letter with id {id}, which was never assigned")),
            );
            let path = self.path.display();
            Ok(findings
                .into_iter()
                .map(|finding| format!("{path}: {finding}; {}", remedy::DEAD_LETTERS))
                .collect::<Vec<String>>())
        })?;
        let mut after = 0;
        loop {
            let part = self.list(&Filter::default(), after, 1000, true)?;
            let Some(last) = part.last() else { return Ok(findings) };
            after = last.id;
            let damaged = part.iter().filter(|dead_letter| !dead_letter.is_intact);
            findings.extend(damaged.map(|dead_letter| {
                format!(
                    "dead letter {}: its checksum does not match; {}",
                    dead_letter.id,
                    remedy::ONE_DEAD_LETTER
                )
            }));
        }
    }

    fn read<T>(
        &self,
        doing: &'static str,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DeadError> {
        self.with(doing, |connection| {
            run(connection).map_err(|error| DeadError::sqlite(&self.path, doing, &error))
        })
    }

    /// Calls a closure with the connection, which is opened if necessary and closed after an error.
    fn with<T>(
        &self,
        doing: &'static str,
        run: impl FnOnce(&Connection) -> Result<T, DeadError>,
    ) -> Result<T, DeadError> {
        let mut open = self.connection.lock();
        let identity = sqlite::identity(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DeadError::Missing { path: self.path.clone(), expected: 0 },
            _ => DeadError::io(&self.path, doing, &error),
        })?;
        // The file may have been replaced since.
        let connection = match open.take() {
            Some((connection, to)) if to == identity => connection,
            _ => {
                let (connection, is_quiet) = connect(&self.path, doing)?;
                if is_quiet {
                    // An immutable connection would not see what a later writer changes, so it is not kept.
                    return run(&connection);
                }
                connection
            }
        };
        let done = run(&connection)?;
        *open = Some((connection, identity));
        Ok(done)
    }
}

/// Opens a database for reading, without creating a file. The second value is `true` if there is no write-ahead log, so no
/// process writes to the database.
fn connect(path: &Path, doing: &'static str) -> Result<(Connection, bool), DeadError> {
    let is_quiet = !has_log(path)?;
    let connection = sqlite::open_read_only(path, is_quiet);
    Ok((connection.map_err(|error| DeadError::sqlite(path, doing, &error))?, is_quiet))
}

pub fn counts(connection: &Connection) -> rusqlite::Result<Vec<Count>> {
    let mut statement = connection.prepare_cached("SELECT reason, letters, bytes FROM counts")?;
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    let rows = statement.query_map([], |row| {
        Ok(Count { reason: row.get(0)?, dead_letters: number(row.get(1)?), bytes: number(row.get(2)?) })
    })?;
    rows.collect()
}

pub fn highest_id(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT highest_id FROM store")?.query_row([], |row| row.get(0))
}
