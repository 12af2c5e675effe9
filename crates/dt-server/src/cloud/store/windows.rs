//! The windows of time that have to be fetched from the event history, and their pieces: one day of one device.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{CloudError, CloudStore};

pub const TABLES: &str = "
    CREATE TABLE windows (
        id        INTEGER PRIMARY KEY,
        project   TEXT NOT NULL,
        \"from\"    INTEGER NOT NULL,     -- Unix milliseconds of event.timestamp, inclusive
        until     INTEGER NOT NULL,     -- exclusive
        cause     TEXT NOT NULL,
        devices   TEXT,                 -- JSON: [id, ...]; NULL for all devices of the project
        state     TEXT NOT NULL,        -- open, done, abandoned
        made_at   INTEGER NOT NULL,     -- Unix milliseconds
        closed_at INTEGER,
        rewalk_at INTEGER               -- when a closed window is fetched again
    ) STRICT;
    CREATE INDEX windows_state ON windows (state, id);

    CREATE TABLE pieces (
        window    INTEGER NOT NULL,
        device    TEXT NOT NULL,
        day       INTEGER NOT NULL,     -- days since 1970-01-01, UTC
        done      INTEGER NOT NULL,     -- 1: its events are fetched and stored
        fetched   INTEGER NOT NULL,
        known     INTEGER NOT NULL,
        filled    INTEGER NOT NULL,
        skipped   TEXT,                 -- JSON: counts of events that were not stored on purpose
        why       TEXT,                 -- why it is not done
        PRIMARY KEY (window, device, day)
    ) STRICT, WITHOUT ROWID;
";

/// The largest number of closed windows that are kept.
const MAX_CLOSED: u32 = 1000;

/// How long DT keeps the history, in milliseconds: 31 days. An open window that ends before cannot be fetched any more.
pub const HISTORY_MILLIS: i64 = 31 * 24 * 3600 * 1000;

/// The state of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowState {
    /// It has to be fetched, or is being fetched.
    Open,
    /// Everything in it is fetched and stored.
    Done,
    /// It is too old to be fetched.
    Abandoned,
}

impl WindowState {
    const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Abandoned => "abandoned",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "done" => Self::Done,
            "abandoned" => Self::Abandoned,
            _ => Self::Open,
        }
    }
}

/// A window of time that has to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWindow {
    /// The id of the project.
    pub project: String,
    /// The first `event.timestamp` of the window, in Unix milliseconds.
    pub from: i64,
    /// The end of the window: the first `event.timestamp` that is not in it, in Unix milliseconds.
    pub until: i64,
    /// Why the window has to be fetched: a word for metrics and reports.
    pub cause: String,
    /// The ids of the devices that are fetched, sorted; `None` for all devices of the project.
    pub devices: Option<Vec<String>>,
}

/// A stored window of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The id of the window.
    pub id: i64,
    /// The id of the project.
    pub project: String,
    /// The first `event.timestamp` of the window, in Unix milliseconds.
    pub from: i64,
    /// The end of the window: the first `event.timestamp` that is not in it, in Unix milliseconds.
    pub until: i64,
    /// Why the window has to be fetched.
    pub cause: String,
    /// The ids of the devices that are fetched, sorted; `None` for all devices of the project.
    pub devices: Option<Vec<String>>,
    /// The state of the window.
    pub state: WindowState,
    /// When the window was added, in Unix milliseconds.
    pub made_at: i64,
    /// When the window was closed, in Unix milliseconds; `None` while it is open.
    pub closed_at: Option<i64>,
    /// When the closed window is fetched again, in Unix milliseconds; `None` if never.
    pub rewalk_at: Option<i64>,
}

/// The counts of events of a piece.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// The events that were fetched.
    pub fetched: u64,
    /// Those that were received before.
    pub known: u64,
    /// Those that were stored now.
    pub filled: u64,
    /// Those of a type that the connector does not forward.
    pub filtered: u64,
    /// Those of a project without a connector of its own in the configuration.
    pub elsewhere: u64,
    /// Those that are older than the ids that are kept, so that they may have been received before.
    pub too_old: u64,
    /// Those that cannot be stored.
    pub refused: u64,
}

impl Counts {
    /// Adds the counts of another piece.
    pub fn add(&mut self, more: &Self) {
        for (sum, more) in [
            (&mut self.fetched, more.fetched),
            (&mut self.known, more.known),
            (&mut self.filled, more.filled),
            (&mut self.filtered, more.filtered),
            (&mut self.elsewhere, more.elsewhere),
            (&mut self.too_old, more.too_old),
            (&mut self.refused, more.refused),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// A piece of a window: one day of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The id of the device.
    pub device: String,
    /// The day, in days since 1970-01-01, UTC.
    pub day: i64,
    /// The counts of its events.
    pub counts: Counts,
    /// Why the piece is not done; `None` if it is.
    pub why: Option<String>,
}

/// The open windows that end before a time, and that a person has requested. The monitor closes the others.
const EXPIRED: &str = "state = 'open' AND cause = 'manual' AND until <= ?1";

/// Inserts an open window, and returns its id. Abandons requested windows that DT has no events of any more, and removes old
/// closed ones that are not fetched again.
pub fn insert(file: &Connection, window: &NewWindow, now: i64) -> rusqlite::Result<i64> {
    let NewWindow { project, from, until, cause, devices } = window;
    let devices = devices.as_ref().map(|devices| serde_json::Value::from(devices.clone()).to_string());
    file.prepare_cached(
        "INSERT INTO windows (project, \"from\", until, cause, devices, state, made_at)
         VALUES (?1, ?2, ?3, ?4, ?5, 'open', ?6)",
    )?
    .execute(params![project, from, until, cause, devices, now])?;
    let id = file.last_insert_rowid();
    let oldest = now.saturating_sub(HISTORY_MILLIS);
    file.execute(
        &format!("DELETE FROM pieces WHERE window IN (SELECT id FROM windows WHERE {EXPIRED})"),
        [oldest],
    )?;
    file.execute(
        &format!("UPDATE windows SET state = 'abandoned', closed_at = ?2 WHERE {EXPIRED}"),
        [oldest, now],
    )?;
    file.execute(
        "DELETE FROM windows WHERE state <> 'open' AND rewalk_at IS NULL AND id NOT IN
         (SELECT id FROM windows WHERE state <> 'open' ORDER BY id DESC LIMIT ?1)",
        [MAX_CLOSED],
    )?;
    Ok(id)
}

const COLUMNS: &str =
    "SELECT id, project, \"from\", until, cause, devices, state, made_at, closed_at, rewalk_at FROM windows";

fn window_of(row: &Row<'_>) -> rusqlite::Result<Window> {
    let devices: Option<String> = row.get(5)?;
    let devices = devices.map(|devices| serde_json::from_str(&devices)).transpose().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(5, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(Window {
        id: row.get(0)?,
        project: row.get(1)?,
        from: row.get(2)?,
        until: row.get(3)?,
        cause: row.get(4)?,
        devices,
        state: WindowState::of(&row.get::<_, String>(6)?),
        made_at: row.get(7)?,
        closed_at: row.get(8)?,
        rewalk_at: row.get(9)?,
    })
}

impl CloudStore {
    /// Adds a window that has to be fetched, and returns its id. `now` is in Unix milliseconds. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed. Nothing has changed then.
    pub fn add_window(&self, window: &NewWindow, now: i64) -> Result<i64, CloudError> {
        self.change("storing a window", |change| insert(change, window, now))
    }

    /// Moves the end of an open window to `window.until`, instead of adding `window`, if both overlap and have the same project and
    /// cause, and the open one ends after `now` (Unix milliseconds), so that its walk cannot begin meanwhile. Returns whether
    /// there is such a window. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed. Nothing has changed then.
    pub fn extend_window(&self, window: &NewWindow, now: i64) -> Result<bool, CloudError> {
        let NewWindow { project, from, until, cause, .. } = window;
        self.change("extending a window", |change| {
            let changed = change.execute(
                "UPDATE windows SET until = max(until, ?4)
                 WHERE state = 'open' AND project = ?1 AND cause = ?2 AND devices IS NULL
                   AND \"from\" <= ?3 AND until >= ?3 AND until > ?5",
                params![project, cause, from, until, now],
            )?;
            Ok(changed > 0)
        })
    }

    /// Returns a window; `None` if there is none with this id. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn window(&self, id: i64) -> Result<Option<Window>, CloudError> {
        self.read("reading a window", |file| {
            file.prepare_cached(&format!("{COLUMNS} WHERE id = ?1"))?.query_row([id], window_of).optional()
        })
    }

    /// Returns the open windows, oldest first; at most `limit`. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn open_windows(&self, limit: u32) -> Result<Vec<Window>, CloudError> {
        self.read("reading the open windows", |file| {
            let mut select =
                file.prepare_cached(&format!("{COLUMNS} WHERE state = 'open' ORDER BY id LIMIT ?1"))?;
            select.query_map([limit], window_of)?.collect()
        })
    }

    /// Returns the newest open window that is equal to this one, except for its end if `until` is `None`. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn find_open_window(
        &self,
        like: &NewWindow,
        until: Option<i64>,
    ) -> Result<Option<Window>, CloudError> {
        let devices =
            like.devices.as_ref().map(|devices| serde_json::Value::from(devices.clone()).to_string());
        self.read("reading the open windows", |file| {
            let mut select = file.prepare_cached(&format!(
                "{COLUMNS} WHERE state = 'open' AND project = ?1 AND cause = ?2 AND \"from\" = ?3
                 AND devices IS ?4 AND (?5 IS NULL OR until = ?5) ORDER BY id DESC LIMIT 1"
            ))?;
            let like = params![like.project, like.cause, like.from, devices, until];
            select.query_row(like, window_of).optional()
        })
    }

    /// Closes a window. Its pieces are removed if it is done. With `rewalk_at` (Unix milliseconds) it is due again then. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed. Nothing has changed then.
    pub fn close_window(
        &self,
        id: i64,
        state: WindowState,
        now: i64,
        rewalk_at: Option<i64>,
    ) -> Result<(), CloudError> {
        self.change("closing a window", |change| {
            change.execute(
                "UPDATE windows SET state = ?2, closed_at = ?3, rewalk_at = ?4 WHERE id = ?1",
                params![id, state.name(), now, rewalk_at],
            )?;
            change.execute("DELETE FROM pieces WHERE window = ?1", [id]).map(drop)
        })
    }

    /// Returns the closed windows that are due to be fetched again, oldest first; at most `limit`. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn windows_to_rewalk(&self, now: i64, limit: u32) -> Result<Vec<Window>, CloudError> {
        self.read("reading the closed windows", |file| {
            let mut select = file.prepare_cached(&format!(
                "{COLUMNS} WHERE state = 'done' AND rewalk_at <= ?1 ORDER BY id LIMIT ?2"
            ))?;
            select.query_map(params![now, limit], window_of)?.collect()
        })
    }

    /// Opens a closed window again. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed. Nothing has changed then.
    pub fn reopen_window(&self, id: i64) -> Result<(), CloudError> {
        self.change("opening a window again", |change| {
            change
                .execute(
                    "UPDATE windows SET state = 'open', closed_at = NULL, rewalk_at = NULL WHERE id = ?1",
                    [id],
                )
                .map(drop)
        })
    }

    /// Returns the days of a device that are done. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn days_done(&self, window: i64, device: &str) -> Result<Vec<i64>, CloudError> {
        self.read("reading the pieces", |file| {
            let mut select =
                file.prepare_cached("SELECT day FROM pieces WHERE window = ?1 AND device = ?2 AND done = 1")?;
            select.query_map(params![window, device], |row| row.get(0))?.collect()
        })
    }

    /// Stores the result of fetching a piece; it is done unless [`Piece::why`] says why not. Its events must be durable. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed. Nothing has changed then.
    pub fn store_piece(&self, window: i64, piece: &Piece) -> Result<(), CloudError> {
        let Piece { device, day, counts, why } = piece;
        let skipped = serde_json::json!({
            "filtered": counts.filtered, "elsewhere": counts.elsewhere, "tooOld": counts.too_old,
            "refused": counts.refused,
        });
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.change("storing a piece", |change| {
            change
                .prepare_cached(
                    "INSERT OR REPLACE INTO pieces (window, device, day, done, fetched, known, filled, skipped, why)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                )?
                .execute(params![
                    window,
                    device,
                    day,
                    why.is_none(),
                    number(counts.fetched),
                    number(counts.known),
                    number(counts.filled),
                    skipped.to_string(),
                    why,
                ])
                .map(drop)
        })
    }

    /// Returns the sum of the counts of all done pieces of a window, and the number of these pieces. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn done_pieces(&self, window: i64) -> Result<(u64, Counts), CloudError> {
        self.read("reading the pieces", |file| {
            file.prepare_cached(
                "SELECT count(*), sum(fetched), sum(known), sum(filled), sum(skipped ->> 'filtered'),
                        sum(skipped ->> 'elsewhere'), sum(skipped ->> 'tooOld'), sum(skipped ->> 'refused')
                 FROM pieces WHERE window = ?1 AND done = 1",
            )?
            .query_row([window], |row| {
                let count =
                    |at| row.get::<_, Option<i64>>(at).map(|sum| sum.unwrap_or_default().unsigned_abs());
                let counts = Counts {
                    fetched: count(1)?,
                    known: count(2)?,
                    filled: count(3)?,
                    filtered: count(4)?,
                    elsewhere: count(5)?,
                    too_old: count(6)?,
                    refused: count(7)?,
                };
                Ok((count(0)?, counts))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(project: &str, from: i64) -> NewWindow {
        NewWindow {
            project: project.to_owned(),
            from,
            until: from.saturating_add(1000),
            cause: "manual".to_owned(),
            devices: None,
        }
    }

    fn store() -> (tempfile::TempDir, CloudStore) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = CloudStore::open(folder.path()).expect("opened");
        (folder, store)
    }

    #[test]
    fn a_window_is_opened_closed_and_opened_again() {
        let (_folder, store) = store();
        let some = NewWindow { devices: Some(vec!["a".to_owned(), "b".to_owned()]), ..window("p", 5) };
        let first = store.add_window(&window("p", 5), 1).expect("stored");
        let second = store.add_window(&some, 2).expect("stored");
        let found = store.window(second).expect("read").expect("a window");
        assert_eq!(
            (found.devices.clone(), found.state, found.made_at),
            (some.devices.clone(), WindowState::Open, 2)
        );
        let find = |like: &NewWindow, until| {
            store.find_open_window(like, until).expect("read").map(|window| window.id)
        };
        assert_eq!(find(&window("p", 5), Some(1005)), Some(first));
        assert_eq!(find(&window("p", 5), None), Some(first));
        assert_eq!(find(&some, Some(1005)), Some(second));
        assert_eq!(find(&some, Some(1006)), None);
        assert_eq!(find(&window("q", 5), None), None);
        store.close_window(first, WindowState::Done, 10, Some(20)).expect("closed");
        assert_eq!(find(&window("p", 5), None), None);
        assert_eq!(store.open_windows(9).expect("read").len(), 1);
        let due = |now| store.windows_to_rewalk(now, 9).expect("read").len();
        assert_eq!((due(19), due(20)), (0, 1));
        store.reopen_window(first).expect("opened");
        assert_eq!((due(20), store.open_windows(9).expect("read").len()), (0, 2));
    }

    #[test]
    fn a_window_that_is_not_due_is_extended() {
        let (_folder, store) = store();
        let new = |project: &str, from: i64, until: i64| NewWindow { until, ..window(project, from) };
        let id = store.add_window(&new("p", 100, 200), 0).expect("stored");
        let extend = |window: &NewWindow, now| store.extend_window(window, now).expect("stored");
        let until = || store.window(id).expect("read").expect("a window").until;
        assert!(extend(&new("p", 150, 300), 199));
        assert_eq!(until(), 300);
        assert!(extend(&new("p", 150, 250), 199) && until() == 300, "it becomes no shorter");
        assert!(!extend(&new("p", 150, 400), 300), "its walk may have begun");
        assert!(!extend(&new("p", 99, 400), 0), "a part would be missing");
        assert!(!extend(&new("p", 301, 400), 0), "they do not overlap");
        assert!(!extend(&new("q", 150, 400), 0));
        assert!(!extend(&NewWindow { cause: "other".to_owned(), ..new("p", 150, 400) }, 0));
        store.close_window(id, WindowState::Done, 0, None).expect("closed");
        assert!(!extend(&new("p", 150, 400), 0));
    }

    #[test]
    fn closed_windows_are_bounded_and_open_ones_are_kept() {
        let (_folder, store) = store();
        let open = store.add_window(&window("p", 0), 0).expect("stored");
        let again = store.add_window(&window("p", 0), 0).expect("stored");
        store.close_window(again, WindowState::Done, 0, Some(9)).expect("closed");
        store
            .change("closing", |change| {
                for at in 0..1100 {
                    let id = insert(change, &window("p", at), 0)?;
                    change.execute("UPDATE windows SET state = 'done' WHERE id = ?1", [id])?;
                }
                Ok(())
            })
            .expect("stored");
        store.add_window(&window("p", 7), 0).expect("stored");
        let count = store
            .read("counting", |file| {
                file.query_row("SELECT count(*) FROM windows", [], |row| row.get::<_, u32>(0))
            })
            .expect("read");
        // The one that is fetched again later is older than the newest ones.
        assert_eq!(count, MAX_CLOSED + 3);
        assert!(store.window(open).expect("read").is_some());
        assert_eq!(store.windows_to_rewalk(9, 9).expect("read").len(), 1);
    }

    #[test]
    fn a_requested_window_that_dt_has_no_events_of_is_abandoned() {
        let (_folder, store) = store();
        let other = NewWindow { cause: "outage".to_owned(), ..window("p", 0) };
        let other = store.add_window(&other, 0).expect("stored");
        let old = store.add_window(&window("p", 0), 0).expect("stored");
        let add = |now| store.add_window(&window("p", now), now).expect("stored");
        let state = || store.window(old).expect("read").map(|window| (window.state, window.closed_at));
        add(999 + HISTORY_MILLIS);
        assert_eq!(state(), Some((WindowState::Open, None)));
        add(1000 + HISTORY_MILLIS);
        assert_eq!(state(), Some((WindowState::Abandoned, Some(1000 + HISTORY_MILLIS))));
        assert_eq!(store.open_windows(9).expect("read").len(), 3);
        // The clock may be wrong: the monitor decides about this one.
        let other = store.window(other).expect("read").map(|window| window.state);
        assert_eq!(other, Some(WindowState::Open));
    }

    #[test]
    fn pieces_are_summed_and_go_with_their_window() {
        let (_folder, store) = store();
        let id = store.add_window(&window("p", 0), 0).expect("stored");
        let counts =
            Counts { fetched: 10, known: 3, filled: 4, filtered: 1, elsewhere: 1, too_old: 1, refused: 0 };
        let piece = |day, why: Option<&str>| Piece {
            device: "d".to_owned(),
            day,
            counts,
            why: why.map(str::to_owned),
        };
        store.store_piece(id, &piece(1, Some("503"))).expect("stored");
        assert_eq!(store.days_done(id, "d").expect("read"), [0_i64; 0]);
        store.store_piece(id, &piece(1, None)).expect("stored");
        store.store_piece(id, &piece(2, None)).expect("stored");
        store.store_piece(id, &piece(3, Some("503"))).expect("stored");
        assert_eq!(store.days_done(id, "d").expect("read"), [1, 2]);
        let mut sum = counts;
        sum.add(&counts);
        assert_eq!(store.done_pieces(id).expect("read"), (2, sum));
        store.close_window(id, WindowState::Done, 0, None).expect("closed");
        assert_eq!(store.done_pieces(id).expect("read"), (0, Counts::default()));
    }
}
