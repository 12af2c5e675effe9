//! The receiver's own history: when it was alive, and when it could last store events.

use rusqlite::{OptionalExtension, params};

use super::{CloudError, CloudStore};

pub const TABLES: &str = "
    CREATE TABLE alive (
        one          INTEGER PRIMARY KEY CHECK (one = 1),
        alive_at     INTEGER NOT NULL,  -- the last heartbeat, or the stop, Unix milliseconds
        available_at INTEGER NOT NULL,  -- when events could be stored last
        outage_from  INTEGER            -- the start of an outage of which the receiver has not recovered yet
    ) STRICT;

    CREATE TABLE outages (
        id     INTEGER PRIMARY KEY,
        kind   TEXT NOT NULL,           -- down, unavailable, clock
        \"from\" INTEGER NOT NULL,        -- Unix milliseconds; after a jump of the clock, the time before it
        until  INTEGER NOT NULL
    ) STRICT;
";

/// The largest number of outages that are kept.
const MAX_OUTAGES: u32 = 1000;

/// When the receiver was alive and available last, in Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alive {
    /// The time of the last heartbeat, or of the stop.
    pub alive_at: i64,
    /// The last time at which events could be stored.
    pub available_at: i64,
    /// The start of an outage from which the receiver has not recovered yet; `None` if there is none.
    pub outage_from: Option<i64>,
}

/// A time in which the receiver could not accept events, or a jump of its clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// The kind: `down`, `unavailable` or `clock`.
    pub kind: String,
    /// The start in Unix milliseconds; of a jump, the time before it.
    pub from: i64,
    /// The end in Unix milliseconds; of a jump, the time after it.
    pub until: i64,
}

impl CloudStore {
    /// Returns when the receiver was alive and available last; `None` before the first heartbeat. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn alive(&self) -> Result<Option<Alive>, CloudError> {
        self.read("reading the heartbeat", |file| {
            file.prepare_cached("SELECT alive_at, available_at, outage_from FROM alive")?
                .query_row([], |row| {
                    Ok(Alive { alive_at: row.get(0)?, available_at: row.get(1)?, outage_from: row.get(2)? })
                })
                .optional()
        })
    }

    /// Stores a heartbeat, and an outage that has ended. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed. Nothing has changed then.
    pub fn set_alive(&self, alive: Alive, ended: &[Outage]) -> Result<(), CloudError> {
        self.change("storing the heartbeat", |change| {
            change
                .prepare_cached(
                    "INSERT OR REPLACE INTO alive (one, alive_at, available_at, outage_from) VALUES (1, ?1, ?2, ?3)",
                )?
                .execute(params![alive.alive_at, alive.available_at, alive.outage_from])?;
            for Outage { kind, from, until } in ended {
                change.execute(
                    "INSERT INTO outages (kind, \"from\", until) VALUES (?1, ?2, ?3)",
                    params![kind, from, until],
                )?;
                change.execute(
                    "DELETE FROM outages WHERE id NOT IN (SELECT id FROM outages ORDER BY id DESC LIMIT ?1)",
                    [MAX_OUTAGES],
                )?;
            }
            Ok(())
        })
    }

    /// Returns the newest outages, newest first; at most `limit`. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn outages(&self, limit: u32) -> Result<Vec<Outage>, CloudError> {
        self.read("reading the outages", |file| {
            let mut select =
                file.prepare_cached("SELECT kind, \"from\", until FROM outages ORDER BY id DESC LIMIT ?1")?;
            let rows = select.query_map([limit], |row| {
                Ok(Outage { kind: row.get(0)?, from: row.get(1)?, until: row.get(2)? })
            })?;
            rows.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_heartbeat_and_the_outages_survive() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = CloudStore::open(folder.path()).expect("opened");
        assert_eq!(store.alive().expect("read"), None);
        let outage = |from: i64| Outage { kind: "down".to_owned(), from, until: from + 1 };
        for at in 0..1010 {
            store
                .set_alive(Alive { alive_at: at, available_at: at - 1, outage_from: Some(5) }, &[outage(at)])
                .expect("stored");
        }
        drop(store);
        let store = CloudStore::open(folder.path()).expect("opened");
        assert_eq!(
            store.alive().expect("read"),
            Some(Alive { alive_at: 1009, available_at: 1008, outage_from: Some(5) })
        );
        let outages = store.outages(2000).expect("read");
        assert_eq!((outages.len(), &outages[0]), (1000, &outage(1009)));
    }
}
