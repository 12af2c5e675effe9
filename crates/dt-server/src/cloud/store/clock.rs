//! Corrects stored times after the clock was wrong.

use rusqlite::params;

use super::{CloudError, CloudStore};

/// How far ahead a window may be due to be fetched again, in milliseconds: a day.
const DAY: i64 = 24 * 3600 * 1000;

impl CloudStore {
    /// Corrects times that are after `now` (Unix milliseconds), since the clock was set back: they become `now`, and windows that
    /// were closed after it are opened again. Otherwise windows would be lost that a wrong clock made look too old, and nothing
    /// would be due until the wrong time is reached. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed. Nothing has changed then.
    pub fn correct_times(&self, now: i64) -> Result<(), CloudError> {
        self.change("correcting times", |change| {
            for sql in [
                "UPDATE windows SET state = 'open', closed_at = NULL, rewalk_at = NULL
                 WHERE state <> 'open' AND closed_at > ?1 AND cause <> 'manual'",
                "UPDATE windows SET until = min(until, ?1), made_at = min(made_at, ?1)
                 WHERE state = 'open' AND cause <> 'manual' AND (until > ?1 OR made_at > ?1)",
                "UPDATE missing SET at = ?1 WHERE at > ?1",
                "UPDATE projects SET baseline = ?1 WHERE baseline > ?1",
                "UPDATE connectors SET since = min(since, ?1), active_at = min(active_at, ?1),
                                       success_at = min(success_at, ?1), clean_at = min(clean_at, ?1), tried_at = min(tried_at, ?1)",
            ] {
                change.execute(sql, [now])?;
            }
            change
                .execute("UPDATE windows SET rewalk_at = ?2 WHERE rewalk_at > ?2", params![now, now.saturating_add(DAY)])
                .map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConnectorState, MissingEvent, NewWindow, WindowState};
    use super::*;

    #[test]
    fn what_a_wrong_clock_stored_is_corrected() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = CloudStore::open(folder.path()).expect("opened");
        let (now, wrong) = (1000, 90 * DAY);
        let add = |until: i64| {
            let (project, cause) = ("p".to_owned(), "outage".to_owned());
            let window = NewWindow { project, from: 0, until, cause, devices: None };
            store.add_window(&window, until).expect("stored")
        };
        let [closed, abandoned, again, open] = [500, 500, 500, wrong].map(add);
        let close = |id, state, at, again| store.close_window(id, state, at, again).expect("closed");
        close(closed, WindowState::Done, 600, None);
        close(abandoned, WindowState::Abandoned, wrong, None);
        close(again, WindowState::Done, 600, Some(wrong));
        let event = MissingEvent {
            connector: "plant".to_owned(),
            event_id: "e".to_owned(),
            project: "p".to_owned(),
            device: "d".to_owned(),
            timestamp: 5,
            at: wrong,
        };
        store.add_missing(&[event], now).expect("stored");
        store.baseline("p", wrong).expect("stored");
        let state = ConnectorState {
            project: "p".to_owned(),
            id: "c".to_owned(),
            connector: "plant".to_owned(),
            status: "SYSTEM_DISABLED".to_owned(),
            since: wrong,
            active_at: None,
            clean_at: None,
            success_at: Some(7),
            refused: 0,
            tries: 1,
            tried_at: Some(wrong),
            sync_due: false,
            labels: Vec::new(),
            events: Vec::new(),
        };
        store.set_connectors("p", std::slice::from_ref(&state)).expect("stored");

        store.correct_times(now).expect("corrected");
        let found = |id| store.window(id).expect("read").expect("a window");
        assert_eq!(found(closed).state, WindowState::Done);
        assert_eq!((found(abandoned).state, found(abandoned).closed_at), (WindowState::Open, None));
        assert_eq!(found(again).rewalk_at, Some(now + DAY));
        assert_eq!((found(open).until, found(open).made_at), (now, now));
        assert_eq!(store.missing_before(now + 1, 9).expect("read").len(), 1);
        assert_eq!(store.baseline("p", 5).expect("read"), now);
        let expected = ConnectorState { since: now, tried_at: Some(now), ..state };
        assert_eq!(store.connectors("p").expect("read"), [expected]);
    }
}
