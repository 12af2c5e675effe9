//! The newest event of each device and event type, as far as the receiver has accepted events.

use rusqlite::{OptionalExtension, params};

use super::{CloudError, CloudStore};

/// At most 19 event types of each device: the primary key is the only index that is needed.
pub const TABLES: &str = "
    CREATE TABLE newest (
        project    TEXT NOT NULL,
        device     TEXT NOT NULL,
        event_type TEXT NOT NULL,
        timestamp  INTEGER NOT NULL,    -- event.timestamp, Unix milliseconds
        event_id   TEXT NOT NULL,
        PRIMARY KEY (project, device, event_type)
    ) STRICT, WITHOUT ROWID;
";

/// An accepted event of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestEvent {
    /// The id of the project in `event.targetName`.
    pub project: String,
    /// The id of the device.
    pub device: String,
    /// The event type, such as `touch`.
    pub event_type: String,
    /// `event.timestamp` in Unix milliseconds.
    pub timestamp: i64,
    /// `event.eventId`.
    pub event_id: String,
}

impl CloudStore {
    /// Takes accepted events over: stores those that are newer than the stored one of their device and type, and removes their
    /// ids from the list of missing events. `accepted` are the ids of all of them, each with its connector. One transaction; the
    /// same events may be taken over again. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed. Nothing has changed then.
    pub fn take_over(&self, events: &[NewestEvent], accepted: &[(&str, &str)]) -> Result<(), CloudError> {
        self.change("storing the newest events", |change| {
            let mut newer = change.prepare_cached(
                "INSERT INTO newest (project, device, event_type, timestamp, event_id) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET timestamp = excluded.timestamp, event_id = excluded.event_id
                 WHERE excluded.timestamp > timestamp",
            )?;
            for NewestEvent { project, device, event_type, timestamp, event_id } in events {
                newer.execute(params![project, device, event_type, timestamp, event_id])?;
            }
            // Usually nothing is missing.
            let is_any_missing: bool =
                change.prepare_cached("SELECT EXISTS (SELECT 1 FROM missing)")?.query_row([], |row| row.get(0))?;
            if !is_any_missing {
                return Ok(());
            }
            let mut arrived =
                change.prepare_cached("DELETE FROM missing WHERE connector = ?1 AND event_id = ?2")?;
            for (connector, event_id) in accepted {
                arrived.execute(params![connector, event_id])?;
            }
            Ok(())
        })
    }

    /// Returns the newest accepted event of a device and event type; `None` if none is known. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn newest(
        &self,
        project: &str,
        device: &str,
        event_type: &str,
    ) -> Result<Option<NewestEvent>, CloudError> {
        self.read("reading the newest events", |file| {
            let mut select = file.prepare_cached(
                "SELECT timestamp, event_id FROM newest WHERE project = ?1 AND device = ?2 AND event_type = ?3",
            )?;
            let found = select.query_row(params![project, device, event_type], |row| {
                Ok(NewestEvent {
                    project: project.to_owned(),
                    device: device.to_owned(),
                    event_type: event_type.to_owned(),
                    timestamp: row.get(0)?,
                    event_id: row.get(1)?,
                })
            });
            found.optional()
        })
    }

    /// Returns the time of the newest accepted event of a project, in Unix milliseconds; `None` if none is known. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn newest_time(&self, project: &str) -> Result<Option<i64>, CloudError> {
        self.read("reading the newest events", |file| {
            file.query_row("SELECT max(timestamp) FROM newest WHERE project = ?1", [project], |row| {
                row.get(0)
            })
        })
    }

    /// Returns the newest accepted event of each type of a device. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn newest_of_device(&self, project: &str, device: &str) -> Result<Vec<NewestEvent>, CloudError> {
        self.read("reading the newest events", |file| {
            let mut select = file.prepare_cached(
                "SELECT event_type, timestamp, event_id FROM newest WHERE project = ?1 AND device = ?2",
            )?;
            let rows = select.query_map(params![project, device], |row| {
                Ok(NewestEvent {
                    project: project.to_owned(),
                    device: device.to_owned(),
                    event_type: row.get(0)?,
                    timestamp: row.get(1)?,
                    event_id: row.get(2)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Returns the watched projects with an accepted event: each with the time since which it is watched, and the latest
    /// `timestamp` of its events, both in Unix milliseconds. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn latest(&self) -> Result<Vec<(String, i64, i64)>, CloudError> {
        self.read("reading the newest events", |file| {
            let mut select = file.prepare_cached(
                "SELECT project, baseline, max(timestamp) FROM projects JOIN newest USING (project) GROUP BY project",
            )?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect()
        })
    }

    /// Returns the devices of a project with an accepted event at or after `since` (Unix milliseconds), in the order of their
    /// ids, after the id `after`; at most `limit`. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn devices_since(
        &self,
        project: &str,
        since: i64,
        after: &str,
        limit: u32,
    ) -> Result<Vec<String>, CloudError> {
        self.read("reading the devices", |file| {
            let mut select = file.prepare_cached(
                "SELECT device FROM newest WHERE project = ?1 AND device > ?3
                 GROUP BY device HAVING max(timestamp) >= ?2 ORDER BY device LIMIT ?4",
            )?;
            let rows = select.query_map(params![project, since, after, limit], |row| row.get(0))?;
            rows.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(device: &str, timestamp: i64, event_id: &str) -> NewestEvent {
        NewestEvent {
            project: "p".to_owned(),
            device: device.to_owned(),
            event_type: "touch".to_owned(),
            timestamp,
            event_id: event_id.to_owned(),
        }
    }

    #[test]
    fn only_a_newer_event_replaces_the_stored_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = CloudStore::open(folder.path()).expect("opened");
        let newest = |store: &CloudStore| {
            store.newest("p", "d", "touch").expect("read").map(|event| (event.timestamp, event.event_id))
        };
        assert_eq!(newest(&store), None);
        store.take_over(&[event("d", 2000, "e2"), event("d", 1000, "e1")], &[]).expect("stored");
        assert_eq!(newest(&store), Some((2000, "e2".to_owned())));
        // Once more, as after a crash, and an equally new one.
        store.take_over(&[event("d", 2000, "e2"), event("d", 2000, "e3")], &[]).expect("stored");
        assert_eq!(newest(&store), Some((2000, "e2".to_owned())));
        store.take_over(&[event("c", 9000, "e4"), event("d", 2001, "e5")], &[]).expect("stored");
        drop(store);
        let store = CloudStore::open(folder.path()).expect("opened");
        assert_eq!(newest(&store), Some((2001, "e5".to_owned())));
        assert_eq!(store.newest_of_device("p", "d").expect("read"), [event("d", 2001, "e5")]);
        assert_eq!(store.devices_since("p", 0, "", 10).expect("read"), ["c", "d"]);
        assert_eq!(store.devices_since("p", 0, "", 1).expect("read"), ["c"]);
        assert_eq!(store.devices_since("p", 0, "c", 10).expect("read"), ["d"]);
        assert_eq!(store.devices_since("p", 2002, "", 10).expect("read"), ["c"]);
    }
}
