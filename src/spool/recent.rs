//! The known events that the writer has in memory, so that hardly any look-up asks the database.
//!
//! For each connector there is a floor: every known event with a greater id, and every one that is not in the database
//! yet, is here. DT's ids grow with time (they are xids), so a new event is above all others, and whoever is not here above
//! the floor is new. Below the floor the database is asked, whatever ids look like.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use crate::record::Record;

/// So many known events of a connector stay in memory once they are in the database: about 5 MB of them in all.
const MOST: usize = 1 << 15;

/// What is known of a connector's events.
#[derive(Debug)]
struct Known {
    /// The greatest id that may be in the database and not here; `None` when there is none.
    floor: Option<Box<str>>,
    /// By id: since when the event is known, in Unix milliseconds.
    events: HashMap<Box<str>, i64>,
}

/// The known events in memory.
#[derive(Debug, Default)]
pub(super) struct Recent {
    connectors: HashMap<Arc<str>, Known>,
}

impl Recent {
    /// Since when an event is known, in memory or in the database.
    pub(super) fn seen_at(
        &mut self,
        connection: &Connection,
        record: &Record,
    ) -> rusqlite::Result<Option<i64>> {
        let known = match self.connectors.get(&record.connector) {
            Some(known) => known,
            None => {
                let floor: Option<String> = connection
                    .prepare_cached("SELECT max(event_id) FROM seen WHERE connector = ?1")?
                    .query_row([&*record.connector], |row| row.get(0))?;
                let known = Known { floor: floor.map(String::into_boxed_str), events: HashMap::new() };
                self.connectors.entry(Arc::clone(&record.connector)).or_insert(known)
            }
        };
        if let Some(at) = known.events.get(&*record.event_id) {
            return Ok(Some(*at));
        }
        if known.floor.as_deref().is_none_or(|floor| *record.event_id > *floor) {
            return Ok(None);
        }
        connection
            .prepare_cached("SELECT at FROM seen WHERE connector = ?1 AND event_id = ?2")?
            .query_row(params![&*record.connector, &*record.event_id], |row| row.get(0))
            .optional()
    }

    /// An event is known from now on. Gives since when it was, as far as that was in memory.
    pub(super) fn note(&mut self, record: &Record, at: i64) -> Option<i64> {
        // Whoever was looked up has a connector here; without one, the database is asked for everything.
        let known = self.connectors.get_mut(&record.connector)?;
        known.events.insert(record.event_id.clone(), at)
    }

    /// Takes back what [`note`](Self::note) did.
    pub(super) fn unnote(&mut self, record: &Record, before: Option<i64>) {
        if let Some(known) = self.connectors.get_mut(&record.connector) {
            match before {
                Some(at) => drop(known.events.insert(record.event_id.clone(), at)),
                None => drop(known.events.remove(&record.event_id)),
            }
        }
    }

    /// Forgets what the database knows as well, where that has become much. `since` is when the oldest event became known
    /// that is not in the database.
    pub(super) fn trim(&mut self, since: i64) {
        for known in self.connectors.values_mut().filter(|known| known.events.len() > MOST) {
            // The half with the greater ids stays: the next ones come there.
            let mut ids: Vec<&str> = known.events.keys().map(|id| &**id).collect();
            let half = ids.len() / 2;
            let (_, middle, _) = ids.select_nth_unstable(half);
            let middle: Box<str> = Box::from(*middle);
            known.drop_up_to(&middle, since);
        }
    }

    /// The database knows fewer events than before: nothing is taken from memory any more that it was asked to forget.
    pub(super) fn forget(&mut self, since: i64) {
        for known in self.connectors.values_mut() {
            if let Some(greatest) = known.events.keys().max().cloned() {
                known.drop_up_to(&greatest, since);
            }
        }
    }
}

impl Known {
    fn drop_up_to(&mut self, floor: &str, since: i64) {
        self.events.retain(|id, at| &**id > floor || *at >= since);
        if self.floor.as_deref().is_none_or(|before| before < floor) {
            self.floor = Some(Box::from(floor));
        }
    }
}
