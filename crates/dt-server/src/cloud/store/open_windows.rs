//! Questions about the open windows that need none of their devices: a window may have 100,000 of them.

use rusqlite::params;

use super::{CloudError, CloudStore};

/// An open window, without its devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenWindow {
    /// The id of the window.
    pub id: i64,
    /// The id of the project.
    pub project: String,
    /// The first `event.timestamp` of the window, in Unix milliseconds.
    pub from: i64,
    /// The end of the window, in Unix milliseconds.
    pub until: i64,
    /// Why the window has to be fetched.
    pub cause: String,
}

impl CloudStore {
    /// Returns the id of the oldest open window for which `is_wanted` is true; `None` if there is none. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn find_open(&self, is_wanted: impl Fn(&OpenWindow) -> bool) -> Result<Option<i64>, CloudError> {
        self.read("reading the open windows", |file| {
            // Not the devices: a window may have 100,000 of them.
            let mut select = file.prepare_cached(
                "SELECT id, project, \"from\", until, cause FROM windows WHERE state = 'open' ORDER BY id",
            )?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let window = OpenWindow {
                    id: row.get(0)?,
                    project: row.get(1)?,
                    from: row.get(2)?,
                    until: row.get(3)?,
                    cause: row.get(4)?,
                };
                if is_wanted(&window) {
                    return Ok(Some(window.id));
                }
            }
            Ok(None)
        })
    }

    /// Returns the times of the open windows of a project that are fetched for all devices, and were not requested by a person: from
    /// and until, in Unix milliseconds. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn open_spans(&self, project: &str) -> Result<Vec<(i64, i64)>, CloudError> {
        self.read("reading the open windows", |file| {
            let mut select = file.prepare_cached(
                "SELECT \"from\", until FROM windows
                 WHERE state = 'open' AND project = ?1 AND devices IS NULL AND cause <> 'manual'",
            )?;
            select.query_map([project], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
    }

    /// Returns whether another window of a project for this cause may be added: none is open whose walk has not failed in part,
    /// and fewer than `most` are open. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn has_room(&self, project: &str, cause: &str, most: u32) -> Result<bool, CloudError> {
        self.read("counting the open windows", |file| {
            file.prepare_cached(
                "SELECT count(*) < ?3 AND coalesce(sum(NOT EXISTS
                     (SELECT 1 FROM pieces WHERE window = windows.id AND done = 0)), 0) = 0
                 FROM windows WHERE state = 'open' AND project = ?1 AND cause = ?2",
            )?
            .query_row(params![project, cause, most], |row| row.get(0))
        })
    }

    /// Returns the number of open windows. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn count_open(&self) -> Result<u32, CloudError> {
        self.read("counting the open windows", |file| {
            file.query_row("SELECT count(*) FROM windows WHERE state = 'open'", [], |row| row.get(0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Counts, NewWindow, Piece};
    use super::*;

    #[test]
    fn there_is_room_for_a_window_while_none_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = CloudStore::open(folder.path()).expect("opened");
        let window = |project: &str, from: i64| NewWindow {
            project: project.to_owned(),
            from,
            until: from + 1000,
            cause: "manual".to_owned(),
            devices: None,
        };
        let add = || {
            let window = NewWindow { cause: "lag".to_owned(), devices: Some(Vec::new()), ..window("p", 0) };
            store.add_window(&window, 0).expect("stored")
        };
        let has_room = |project: &str, most| store.has_room(project, "lag", most).expect("read");
        store.add_window(&NewWindow { cause: "outage".to_owned(), ..window("p", 5) }, 0).expect("stored");
        store.add_window(&window("p", 7), 0).expect("stored");
        assert!(has_room("p", 2));
        let id = add();
        assert!(!has_room("p", 2) && has_room("q", 2));
        let piece = |day, why| Piece { device: "d".to_owned(), day, counts: Counts::default(), why };
        store.store_piece(id, &piece(1, None)).expect("stored");
        assert!(!has_room("p", 2));
        // A device cannot be fetched: the others have not to wait for it.
        store.store_piece(id, &piece(2, Some("503".to_owned()))).expect("stored");
        assert!(has_room("p", 2) && !has_room("p", 1));
        assert_eq!(store.count_open().expect("read"), 3);
        assert_eq!(store.open_spans("p").expect("read"), [(5, 1005)]);
    }
}
