//! The ids of events that were answered 503: DT sends them again, and the newest-event sink removes an id once its event is
//! accepted. An id that stays has to be fetched.

use rusqlite::params;

use super::{CloudError, CloudStore, windows};

pub const TABLES: &str = "
    CREATE TABLE missing (
        connector TEXT NOT NULL,
        event_id  TEXT NOT NULL,
        project   TEXT NOT NULL,
        device    TEXT NOT NULL,
        timestamp INTEGER NOT NULL,     -- event.timestamp, Unix milliseconds
        at        INTEGER NOT NULL,     -- when it was answered 503 first, Unix milliseconds
        PRIMARY KEY (connector, event_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX missing_at ON missing (at);
";

/// The largest number of ids. The oldest ones beyond it are turned into windows.
pub const MAX_MISSING: u32 = 100_000;

/// The number of ids that are turned into windows at once, when there are too many.
const STEP: u32 = 10_000;

/// The cause of a window that replaces ids.
pub const CAUSE: &str = "unavailable";

/// An event that was answered 503, and has not come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingEvent {
    /// The name of the connector that received the event.
    pub connector: String,
    /// `event.eventId`.
    pub event_id: String,
    /// The id of the project.
    pub project: String,
    /// The id of the device.
    pub device: String,
    /// `event.timestamp` in Unix milliseconds.
    pub timestamp: i64,
    /// When the event was answered 503 for the first time, in Unix milliseconds.
    pub at: i64,
}

impl CloudStore {
    /// Adds events that were answered 503. An event that is in the list already keeps its time. If there are more than 100,000,
    /// the oldest ones are replaced by a window of time for each project. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed. Nothing has changed then.
    pub fn add_missing(&self, events: &[MissingEvent], now: i64) -> Result<(), CloudError> {
        self.add_missing_up_to(events, now, (MAX_MISSING, STEP))
    }

    fn add_missing_up_to(
        &self,
        events: &[MissingEvent],
        now: i64,
        (most, step): (u32, u32),
    ) -> Result<(), CloudError> {
        self.change("storing missing events", |change| {
            let mut insert = change.prepare_cached(
                "INSERT INTO missing (connector, event_id, project, device, timestamp, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
            )?;
            for event in events {
                let MissingEvent { connector, event_id, project, device, timestamp, at } = event;
                insert.execute(params![connector, event_id, project, device, timestamp, at])?;
            }
            let count = || change.query_row("SELECT count(*) FROM missing", [], |row| row.get::<_, u32>(0));
            while count()? > most {
                let oldest = "SELECT connector, event_id FROM missing ORDER BY at LIMIT ?1";
                let mut spans = change.prepare_cached(&format!(
                    "SELECT project, min(timestamp), max(timestamp) FROM missing
                     WHERE (connector, event_id) IN ({oldest}) GROUP BY project"
                ))?;
                let spans: Vec<(String, i64, i64)> = spans
                    .query_map([step], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                    .collect::<Result<_, _>>()?;
                for (project, from, until) in spans {
                    let window = windows::NewWindow {
                        project,
                        from,
                        until: until.saturating_add(1),
                        cause: CAUSE.to_owned(),
                        devices: None,
                    };
                    windows::insert(change, &window, now)?;
                }
                change.execute(
                    &format!("DELETE FROM missing WHERE (connector, event_id) IN ({oldest})"),
                    [step],
                )?;
            }
            Ok(())
        })
    }

    /// Returns the events that were answered 503 before `before` (Unix milliseconds) and have not come back, oldest first; at
    /// most `limit`. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn missing_before(&self, before: i64, limit: u32) -> Result<Vec<MissingEvent>, CloudError> {
        self.read("reading the missing events", |file| {
            let mut select = file.prepare_cached(
                "SELECT connector, event_id, project, device, timestamp, at FROM missing
                 WHERE at < ?1 ORDER BY at LIMIT ?2",
            )?;
            let rows = select.query_map(params![before, limit], |row| {
                Ok(MissingEvent {
                    connector: row.get(0)?,
                    event_id: row.get(1)?,
                    project: row.get(2)?,
                    device: row.get(3)?,
                    timestamp: row.get(4)?,
                    at: row.get(5)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Removes events from the list: a window of time covers them now. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed. Nothing has changed then.
    pub fn remove_missing(&self, events: &[MissingEvent]) -> Result<(), CloudError> {
        self.change("removing missing events", |change| {
            let mut delete =
                change.prepare_cached("DELETE FROM missing WHERE connector = ?1 AND event_id = ?2")?;
            for event in events {
                delete.execute(params![event.connector, event.event_id])?;
            }
            Ok(())
        })
    }

    /// Returns the number of events that were answered 503 and have not come back. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn count_missing(&self) -> Result<u64, CloudError> {
        self.read("counting the missing events", |file| {
            let count: i64 = file.query_row("SELECT count(*) FROM missing", [], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: i64) -> MissingEvent {
        MissingEvent {
            connector: "plant".to_owned(),
            event_id: format!("e{number}"),
            project: format!("p{}", number % 2),
            device: "d".to_owned(),
            timestamp: number.saturating_mul(1000),
            at: number.saturating_mul(1000).saturating_add(5),
        }
    }

    #[test]
    fn an_event_stays_until_it_comes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = CloudStore::open(folder.path()).expect("opened");
        store.add_missing(&[event(1), event(2), event(3)], 0).expect("stored");
        store.add_missing(&[MissingEvent { at: 99_999, ..event(1) }], 0).expect("stored");
        assert_eq!(store.missing_before(3005, 10).expect("read"), [event(1), event(2)]);
        assert_eq!(store.missing_before(3005, 1).expect("read"), [event(1)]);
        store.take_over(&[], &[("other", "e1"), ("plant", "e2")]).expect("stored");
        assert_eq!(store.missing_before(i64::MAX, 10).expect("read"), [event(1), event(3)]);
        store.remove_missing(&[event(1)]).expect("removed");
        assert_eq!(store.count_missing().expect("read"), 1);
    }

    #[test]
    fn the_oldest_of_too_many_become_windows() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = CloudStore::open(folder.path()).expect("opened");
        let events: Vec<_> = (0..11).map(event).collect();
        store.add_missing_up_to(&events, 7, (10, 4)).expect("stored");
        assert_eq!(store.count_missing().expect("read"), 7);
        assert_eq!(store.missing_before(i64::MAX, 1).expect("read"), [event(4)]);
        let windows = store.open_windows(10).expect("read");
        let spans: Vec<_> =
            windows.iter().map(|window| (&*window.project, window.from, window.until)).collect();
        assert_eq!(spans, [("p0", 0, 2001), ("p1", 1000, 3001)]);
        assert!(windows.iter().all(|window| window.cause == CAUSE && window.made_at == 7));
    }
}
