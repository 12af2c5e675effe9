//! The database `DATA/cloud.db`: what the receiver knows about DT's cloud.
//!
//! Every change is durable when its method returns (`synchronous=FULL`). All methods block; async code calls them on a blocking
//! thread. Two processes may use the database at the same time: the server, and `dt-receiver backfill`. The file opens with
//! `sqlite3`. If it is lost, the receiver starts with an empty one: holes from before that time are no longer found, and no
//! event is lost.

mod alive;
mod clock;
mod connectors;
mod error;
mod missing;
mod newest;
mod open_windows;
mod types;
mod windows;

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use dt_log::sqlite::{self, DatabaseFormat, DatabaseHeader};

pub use alive::{Alive, Outage};
pub use connectors::ConnectorState;
pub use error::CloudError;
pub use missing::MissingEvent;
pub use newest::NewestEvent;
pub use open_windows::OpenWindow;
pub use types::{ALL_TYPES, DeliveredSince};
pub use windows::{Counts, HISTORY_MILLIS, NewWindow, Piece, Window, WindowState};

/// The name of the database in the folder of data.
pub const FILE_NAME: &str = "cloud.db";

const FORMAT: DatabaseFormat = DatabaseFormat { application_id: 0x4454_636c /* "DTcl" */, version: 1 };

/// The size of the page cache, in KiB.
const CACHE_KIB: i64 = 2048;

/// The tables of each module.
const TABLES: &[&str] =
    &[newest::TABLES, windows::TABLES, missing::TABLES, connectors::TABLES, alive::TABLES];

/// An open `cloud.db`.
#[derive(Debug)]
pub struct CloudStore {
    path: PathBuf,
    is_new: bool,
    connection: Mutex<Connection>,
}

impl CloudStore {
    /// Opens the database in the folder of data, and creates it if it does not exist. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the file is damaged, of a newer version, not ours, or cannot be written. Nothing is overwritten.
    pub fn open(data: &Path) -> Result<Self, CloudError> {
        let path = data.join(FILE_NAME);
        let failed = |doing| {
            let path = path.clone();
            move |error| CloudError::sqlite(&path, doing, &error)
        };
        std::fs::create_dir_all(data)
            .map_err(|error| CloudError::io(&path, "creating the folder", &error))?;
        sqlite::create_file(&path).map_err(|error| CloudError::io(&path, "creating the file", &error))?;
        let connection = sqlite::open(&path, CACHE_KIB).map_err(failed("opening"))?;
        let header = FORMAT.header_of(&connection).map_err(failed("reading the format"))?;
        let is_new = match header {
            DatabaseHeader::Current => false,
            DatabaseHeader::Empty => true,
            DatabaseHeader::Version(found) => {
                return Err(CloudError::Newer { path, expected: FORMAT.version, found });
            }
            DatabaseHeader::Other => return Err(CloudError::NotOurs { path }),
        };
        sqlite::set_journal_mode(&connection, "WAL", "FULL")
            .map_err(failed("turning on the write-ahead log"))?;
        let store = Self { path, is_new, connection: Mutex::new(connection) };
        if is_new {
            store.change("creating the tables", |change| {
                // Another process may have created them meanwhile.
                if FORMAT.header_of(change)? == DatabaseHeader::Current {
                    return Ok(());
                }
                TABLES.iter().try_for_each(|tables| change.execute_batch(tables))?;
                FORMAT.mark(change)
            })?;
        }
        Ok(store)
    }

    /// Returns the path of the database.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether [`open`](Self::open) created the database.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Reads from the database. `doing` says for what, for the error.
    fn read<T>(
        &self,
        doing: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CloudError> {
        read(&self.connection.lock()).map_err(|error| CloudError::sqlite(&self.path, doing, &error))
    }

    /// Changes the database in one transaction, which is durable when this returns. `doing` says for what, for the error.
    fn change<T>(
        &self,
        doing: &'static str,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, CloudError> {
        let mut connection = self.connection.lock();
        let run = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(|error| CloudError::sqlite(&self.path, doing, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_created_and_opened_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = CloudStore::open(folder.path()).expect("created");
        assert!(first.is_new());
        // A second process at the same time.
        let second = CloudStore::open(folder.path()).expect("opened");
        assert!(!second.is_new());
        let mode: i64 = second
            .read("asking", |file| file.pragma_query_value(None, "synchronous", |row| row.get(0)))
            .expect("read");
        assert_eq!(mode, 2, "FULL");
    }

    #[test]
    fn a_file_that_is_not_ours_is_never_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE_NAME);
        let code = || CloudStore::open(folder.path()).map(drop).map_err(|error| error.code());
        let refused = |sql: &str, expected: &str| {
            let _absent = std::fs::remove_file(&path);
            drop(CloudStore::open(folder.path()).expect("created"));
            let file = Connection::open(&path).expect("opens");
            file.execute_batch(sql).expect("changed");
            drop(file);
            let before = std::fs::read(&path).expect("a file");
            assert_eq!(code(), Err(expected));
            assert_eq!(std::fs::read(&path).expect("a file"), before);
        };
        refused("PRAGMA user_version = 99", "cloud_newer");
        refused("PRAGMA application_id = 7", "cloud_not_ours");
        std::fs::write(&path, vec![b'x'; 8192]).expect("written");
        assert_eq!(code(), Err("cloud_not_ours"));
        assert_eq!(std::fs::read(&path).expect("a file"), vec![b'x'; 8192]);
    }
}
