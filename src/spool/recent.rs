//! The known events that the writer has in memory, so that hardly any look-up asks the database.
//!
//! For each connector there is a floor: every known event with a greater id, and every one that is not in the database
//! yet, is here. DT's ids grow with time (they are xids), so a new event is above all others, and whoever is not here above
//! the floor is new. Below the floor the database is asked, whatever ids look like.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use crate::record::Record;

/// So many known events stay in memory once they are in the database, shared by the connectors: about 5 MB.
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
#[derive(Debug)]
pub(super) struct Recent {
    most: usize,
    connectors: HashMap<Arc<str>, Known>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { most: MOST, connectors: HashMap::new() }
    }
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
                let floor = floor(connection, &record.connector, (self.most / 32).max(1))?;
                let known = Known { floor, events: HashMap::new() };
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
        let most = self.most.checked_div(self.connectors.len()).unwrap_or(self.most);
        for known in self.connectors.values_mut().filter(|known| known.events.len() > most) {
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

/// An id that none of a connector's events in the database is above; `None` when there are none. It is the greatest of them
/// if that is among the `most` greatest of all connectors; otherwise none is above the least of these.
fn floor(connection: &Connection, connector: &str, most: usize) -> rusqlite::Result<Option<Box<str>>> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let floor: Option<String> = connection
        .prepare_cached(
            "WITH greatest AS (SELECT event_id, connector FROM seen ORDER BY event_id DESC LIMIT ?2)
             SELECT coalesce((SELECT max(event_id) FROM greatest WHERE connector = ?1),
                             (SELECT min(event_id) FROM greatest HAVING count(*) = ?2))",
        )?
        .query_row(params![connector, most], |row| row.get(0))?;
    Ok(floor.map(String::into_boxed_str))
}

impl Known {
    fn drop_up_to(&mut self, floor: &str, since: i64) {
        self.events.retain(|id, at| &**id > floor || *at >= since);
        if self.floor.as_deref().is_none_or(|before| before < floor) {
            self.floor = Some(Box::from(floor));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn record((connector, id): (u8, u8)) -> Record {
        Record { connector: Arc::from(format!("c{connector}")), ..Record::sample(&format!("{id:03}")) }
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// An event is looked up, and noted.
        Come((u8, u8)),
        /// The same, and taken back.
        Fail((u8, u8)),
        /// All that is noted goes to the database.
        Settle,
        /// The oldest one leaves the database.
        Prune,
        /// All that is noted goes to the database, and memory is empty again.
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (0..3_u8, any::<u8>()).prop_map(Step::Come),
            1 => (0..3_u8, any::<u8>()).prop_map(Step::Fail),
            2 => Just(Step::Settle),
            1 => Just(Step::Prune),
            1 => Just(Step::Restart),
        ];
        prop::collection::vec(step, 1..200)
    }

    fn database() -> Connection {
        let database = Connection::open_in_memory().expect("opened");
        let table = "CREATE TABLE seen (connector TEXT, event_id TEXT, at INTEGER, PRIMARY KEY (event_id, connector))";
        database.execute_batch(table).expect("made");
        database
    }

    fn settle(database: &Connection, record: &Record, at: i64) {
        let row = params![&*record.connector, &*record.event_id, at];
        database.execute("INSERT OR REPLACE INTO seen VALUES (?1, ?2, ?3)", row).expect("stored");
    }

    proptest! {
        /// Whatever the ids are, and however little is kept: what is known is what was noted and not pruned.
        #[test]
        fn memory_and_database_together_know_everything(steps in steps(), most in 1..200_usize) {
            let database = database();
            let mut recent = Recent { most, ..Recent::default() };
            let (mut all, mut unsettled) = (BTreeMap::new(), BTreeMap::new());
            for (at, step) in (1_i64..).zip(steps) {
                match step {
                    Step::Come(key) | Step::Fail(key) => {
                        let record = record(key);
                        let seen_at = recent.seen_at(&database, &record).expect("read");
                        prop_assert_eq!(seen_at, all.get(&key).copied(), "{:?}", key);
                        let before = recent.note(&record, at);
                        if matches!(step, Step::Fail(_)) {
                            recent.unnote(&record, before);
                        } else {
                            all.insert(key, at);
                            unsettled.insert(at, record);
                        }
                    }
                    Step::Settle | Step::Restart => {
                        std::mem::take(&mut unsettled).iter().for_each(|(at, record)| settle(&database, record, *at));
                        recent.trim(i64::MAX);
                        if matches!(step, Step::Restart) {
                            recent = Recent { most, ..Recent::default() };
                        }
                    }
                    Step::Prune => {
                        let since = unsettled.keys().next().copied().unwrap_or(i64::MAX);
                        let oldest = all.iter().map(|(key, at)| (*at, *key)).min().filter(|(at, _)| *at < since);
                        if let Some((at, key)) = oldest {
                            all.remove(&key);
                            database.execute("DELETE FROM seen WHERE at = ?1", [at]).expect("deleted");
                            recent.forget(since);
                        }
                    }
                }
            }
        }
    }
}
