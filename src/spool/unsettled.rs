//! What is in the journal and not in the database: the records, the events that became known with them, and how far the
//! sinks are. It is brought to the database in one transaction for many, and records that every sink has by then never
//! get there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::SpoolOptions;
use super::journal::Position;
use super::journal::entry::{Advanced, Entry};
use super::store::{self, Counters};
use super::writer::PRUNE_ROWS;
use crate::record::Record;

/// A record that is not in the database.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) seq: i64,
    /// Since when its event is known as a duplicate, in Unix milliseconds, if it is.
    pub(super) seen_at: Option<i64>,
    pub(super) record: Arc<Record>,
}

/// How far a sink is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) cursor: i64,
    pub(super) checkpoint: Option<Vec<u8>>,
    /// Whether the database says the same.
    pub(super) is_stored: bool,
}

/// What the database has yet to learn.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// In the order of their numbers, without gaps.
    pub(super) records: VecDeque<Pending>,
    /// All sinks, by name.
    pub(super) places: BTreeMap<Arc<str>, Place>,
}

/// All sinks as the database knows them.
pub(super) fn places(connection: &Connection) -> rusqlite::Result<BTreeMap<Arc<str>, Place>> {
    let mut statement = connection.prepare_cached("SELECT name, cursor, checkpoint FROM sinks")?;
    let places = statement.query_map([], |row| {
        let name: String = row.get(0)?;
        let place = Place { cursor: row.get(1)?, checkpoint: row.get(2)?, is_stored: true };
        Ok((Arc::from(name), place))
    })?;
    places.collect()
}

impl Unsettled {
    /// What there is up to a number.
    pub(super) fn up_to(&self, seq: i64) -> Self {
        let records = self.records.iter().take_while(|pending| pending.seq <= seq).cloned().collect();
        Self { records, places: self.places.clone() }
    }

    /// Takes in what a crash left in the journal, in its order.
    pub(super) fn take(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::Accepted(accepted) => self.records.push_back(Pending {
                seq: accepted.seq,
                seen_at: accepted.seen_at,
                record: Arc::new(accepted.record()),
            }),
            Entry::Advanced(Advanced { sink, cursor, checkpoint }) => {
                // The database may know a later place already: what follows in the journal leads there as well.
                if let Some(place) = self.places.get_mut(*sink).filter(|place| *cursor >= place.cursor) {
                    place.cursor = *cursor;
                    place.checkpoint = checkpoint.map(<[u8]>::to_vec).or_else(|| place.checkpoint.take());
                    place.is_stored = false;
                }
            }
        }
    }

    /// How many rows are removed where all of this is added: twice as many, so that the removing keeps up.
    pub(super) fn prune_rows(&self) -> u32 {
        u32::try_from(self.records.len().saturating_mul(2)).unwrap_or(u32::MAX).max(PRUNE_ROWS)
    }

    /// Since when the oldest event is known that is not in the database.
    pub(super) fn known_since(&self) -> i64 {
        self.records.iter().filter_map(|pending| pending.seen_at).min().unwrap_or(i64::MAX)
    }

    /// Brings everything up to a number to the database, within its transaction. `next` is the first frame of the journal
    /// that is not in it then.
    pub(super) fn store(
        &self,
        connection: &Connection,
        options: &SpoolOptions,
        counters: &mut Counters,
        up_to: i64,
        next: Option<Position>,
    ) -> rusqlite::Result<()> {
        // A cursor is never beyond the last number that the database knows; the journal knows better, and is read first.
        for (sink, place) in self.places.iter().filter(|(_, place)| !place.is_stored) {
            connection
                .prepare_cached("UPDATE sinks SET cursor = max(cursor, ?2), checkpoint = ?3 WHERE name = ?1")?
                .execute(params![sink, place.cursor.min(up_to), place.checkpoint])?;
        }
        let passed_by_all = self.places.values().map(|place| place.cursor).min().unwrap_or(i64::MIN);
        let records = || self.records.iter().take_while(|pending| pending.seq <= up_to);
        let seen: Vec<(&Record, i64)> =
            records().filter_map(|pending| Some((&*pending.record, pending.seen_at?))).collect();
        store::note_seen(connection, counters, &seen)?;
        let mut not_stored = None;
        for Pending { seq, record, .. } in records() {
            if !options.retain.is_zero() || *seq > passed_by_all {
                store::insert_record(connection, *seq, record)?;
            } else {
                not_stored = Some(*seq);
            }
        }
        if let Some(seq) = not_stored {
            store::store_gap(connection, seq)?;
        }
        store::store_counters(connection, Counters { last_seq: up_to, ..*counters })?;
        if let Some(next) = next {
            store::store_position(connection, next)?;
        }
        Ok(())
    }

    /// The records up to a number are in the database.
    pub(super) fn is_stored(&mut self, up_to: i64) {
        let count = self.records.iter().take_while(|pending| pending.seq <= up_to).count();
        self.records.drain(..count);
    }
}
