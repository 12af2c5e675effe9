//! Opens the index, stores ids, removes old periods, and creates a new file.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, TransactionBehavior};

use super::super::sqlite::{self, DatabaseHeader, ENDINGS, with_ending};
use super::filter::BloomFilter;
use super::key::Key;
use super::table::{self, FORMAT, PeriodRow, TableError};
use super::{IdsError, IndexShared, Period, Rebuilt, UNKNOWN, lookup};

/// The size of the page cache of the connection that writes, in KiB. Two merged runs fit. If a transaction changes more, SQLite
/// writes pages before the commit, which blocks look-ups until the commit.
pub const WRITER_CACHE_KIB: i64 = 4096;

/// The shortest length of a period in milliseconds.
const MIN_PERIOD: i64 = 6 * 3_600_000;
/// The number of full periods that the index can have.
const PERIODS: u64 = 12;
/// The divisor of the window that gives the length of a period.
const WINDOW_PERIODS: i64 = 12;
/// The capacity of the smallest filter, in keys.
const MIN_CAPACITY: u64 = 16_384;
/// Added to the time of the last key of a removed period, in milliseconds. Events are stored nearly in the order of their receipt:
/// one that was received up to a request's deadline later may have been stored earlier.
pub const RECEIPT_SPREAD: i64 = 60_000;
/// The suffix of the name of an index that is not complete yet.
const UNFINISHED: &str = ".unfinished";

/// Why a file cannot be used as the index.
pub struct Unusable {
    pub code: &'static str,
    pub text: String,
}

/// Returns why a database cannot be the index of a store whose log ends with `last_seq`; `None` if it can.
pub fn unusable(
    connection: &Connection,
    expected: [u8; 16],
    last_seq: i64,
) -> rusqlite::Result<Option<Unusable>> {
    let (code, text) = match FORMAT.header_of(connection)? {
        DatabaseHeader::Current if table::store_id(connection)? == expected => {
            let up_to = table::up_to_seq(connection)?;
            if up_to <= last_seq {
                return Ok(None);
            }
            // Copies of events that the log has lost are no duplicates.
            let text = format!(
                "it has ids of events up to {up_to}, and the log ends with {last_seq}: an older log was put back, or its end \
                 is damaged"
            );
            ("newer_than_log", text)
        }
        DatabaseHeader::Current => ("other_store", "it belongs to another store".to_owned()),
        DatabaseHeader::Version(found) => {
            ("other_version", format!("its format is version {found}, expected {}", FORMAT.version))
        }
        DatabaseHeader::Empty => ("damaged", "the file is empty".to_owned()),
        DatabaseHeader::Other => ("not_ours", "it is another program's database".to_owned()),
    };
    Ok(Some(Unusable { code, text }))
}

impl IndexShared {
    /// Opens the file, or creates a new one.
    pub fn open(&self, last_seq: i64, now: i64) -> Result<Option<Rebuilt>, IdsError> {
        let unusable = match self.check(last_seq) {
            Ok(None) => {
                let mut writer = self.writer.lock();
                return self.with(&mut writer, |connection| self.load(connection)).map(|()| None);
            }
            Ok(Some(unusable)) => unusable,
            Err(IdsError::Damaged { text, .. }) => Unusable { code: "damaged", text },
            Err(error) => return Err(error),
        };
        self.replace(unusable, now).map(Some)
    }

    pub fn reset(&self, now: i64) -> Result<Rebuilt, IdsError> {
        let text = match self.damage.lock().clone() {
            Some(IdsError::Damaged { text, .. }) => text,
            _ => String::new(),
        };
        self.replace(Unusable { code: "damaged", text }, now)
    }

    /// Returns why the file cannot be used; `None` if it can. Does not change the file, which may belong to another program.
    fn check(&self, last_seq: i64) -> Result<Option<Unusable>, IdsError> {
        match self.path.try_exists() {
            Ok(true) => {}
            Ok(false) => {
                return Ok(Some(Unusable { code: "missing", text: "the file is missing".to_owned() }));
            }
            Err(error) => return Err(IdsError::failed(&self.path, "looking for the file", &error)),
        }
        let read = || -> rusqlite::Result<Option<Unusable>> {
            let connection = sqlite::open(&self.path, WRITER_CACHE_KIB)?;
            let unusable = unusable(&connection, self.options.store_id, last_seq)?;
            if unusable.is_none() {
                // Read now, so that damage is found on opening.
                table::periods(&connection)?;
            }
            Ok(unusable)
        };
        read().map_err(|error| IdsError::sqlite(&self.path, "reading the format", &error))
    }

    /// Loads the state that is kept in memory, without the filters.
    fn load(&self, connection: &mut Connection) -> Result<(), IdsError> {
        let read = || -> rusqlite::Result<()> {
            let periods = table::periods(connection)?;
            let up_to_seq = table::up_to_seq(connection)?;
            *self.periods.write() =
                periods.iter().map(|period| Period { id: period.id, filter: None }).collect();
            self.publish_counts(&periods, up_to_seq);
            let since = table::complete_since(connection)?;
            self.complete_since.store(since.unwrap_or(UNKNOWN), Ordering::Release);
            Ok(())
        };
        read().map_err(|error| IdsError::sqlite(&self.path, "reading", &error))
    }

    fn publish_counts(&self, periods: &[PeriodRow], up_to_seq: i64) {
        self.count.store(periods.iter().map(|period| period.ids).sum(), Ordering::Relaxed);
        self.stored_up_to.store(up_to_seq, Ordering::Release);
    }

    /// Replaces the file by a new, empty index.
    fn replace(&self, unusable: Unusable, now: i64) -> Result<Rebuilt, IdsError> {
        let Unusable { code, text } = unusable;
        let new = Self::new(with_ending(&self.path, UNFINISHED), self.options.clone());
        new.create()?;
        let mut writer = self.writer.lock();
        let mut reader = self.reader.lock();
        (writer.connection, reader.connection) = (None, None);
        let renamed_to = self.rename_away(now)?;
        // Stores nothing. But SQLite syncs the folder, as `dead::open::create` explains: not even after a power loss may an old
        // journal be beside the new file, which SQLite would apply to it.
        new.store(&[], 0, i64::MIN)?;
        new.writer.lock().connection = None;
        std::fs::rename(&new.path, &self.path)
            .map_err(|error| IdsError::failed(&new.path, "renaming", &error))?;
        *self.periods.write() = std::mem::take(&mut *new.periods.write());
        self.count.store(new.count.load(Ordering::Relaxed), Ordering::Relaxed);
        self.stored_up_to.store(0, Ordering::Release);
        self.complete_since.store(UNKNOWN, Ordering::Release);
        *self.damage.lock() = None;
        drop((writer, reader));
        self.remove_replaced();
        Ok(Rebuilt { code, text, renamed_to })
    }

    /// Creates an empty index. Replaces one whose creation was interrupted.
    pub fn create(&self) -> Result<(), IdsError> {
        self.writer.lock().connection = None;
        self.periods.write().clear();
        for ending in ENDINGS {
            match std::fs::remove_file(with_ending(&self.path, ending)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(IdsError::failed(&self.path, "removing an unfinished file", &error));
                }
                _ => {}
            }
        }
        sqlite::create_file(&self.path)
            .map_err(|error| IdsError::failed(&self.path, "creating the file", &error))?;
        lookup::connect(&self.path, WRITER_CACHE_KIB)
            .and_then(|mut created| table::create(&mut created, &self.options))
            .map_err(|error| IdsError::sqlite(&self.path, "creating the file", &error))
    }

    pub fn store(&self, keys: &[Key], up_to_seq: i64, now: i64) -> Result<(), IdsError> {
        let mut writer = self.writer.lock();
        self.with(&mut writer, |connection| {
            let run = |connection: &mut Connection| -> Result<_, TableError> {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let mut filling = Filling {
                    rows: table::periods(&transaction)?,
                    known: self.periods.read().clone(),
                    complete_since: self.complete_since.load(Ordering::Acquire),
                    shared: self,
                };
                filling.add(&transaction, keys, now)?;
                filling.drop_old(&transaction, now)?;
                let since = Some(filling.complete_since).filter(|since| *since != UNKNOWN);
                table::set_extent(&transaction, up_to_seq, since)?;
                transaction.commit()?;
                Ok(filling)
            };
            let Filling { rows, known, complete_since, .. } =
                run(connection).map_err(|error| self.named("storing ids", error))?;
            // Only after the commit: after an error, a dropped period still exists.
            *self.periods.write() = known;
            self.publish_counts(&rows, up_to_seq);
            self.complete_since.fetch_max(complete_since, Ordering::AcqRel);
            Ok(())
        })?;
        // The cached pages are of no use until the next call.
        if let Some(connection) = &writer.connection {
            let _kept = connection.execute_batch("PRAGMA shrink_memory");
        }
        Ok(())
    }

    /// Returns the filter of a period: the stored filter, or else one that is built from the keys.
    pub fn filter_of(&self, connection: &Connection, period: i64) -> Result<BloomFilter, IdsError> {
        let make = || -> Result<BloomFilter, TableError> {
            if let Some(filter) = table::stored_filter(connection, period)? {
                return Ok(filter);
            }
            let rows = table::periods(connection)?;
            let ids = rows.iter().find(|row| row.id == period).map_or(0, |row| row.ids);
            table::build_filter(connection, period, ids.max(MIN_CAPACITY))
        };
        make().map_err(|error| self.named("loading a filter", error))
    }

    pub fn named(&self, doing: &'static str, error: TableError) -> IdsError {
        match error {
            TableError::Sqlite(error) => IdsError::sqlite(&self.path, doing, &error),
            TableError::Page { .. } => IdsError::damaged(&self.path, error.to_string()),
        }
    }

    fn max_per_period(&self) -> u64 {
        (self.options.max_ids / PERIODS).max(1)
    }

    /// Returns the length of a period in milliseconds. With a longer window there are not more periods: each is another filter
    /// that may be wrong.
    fn period(&self) -> i64 {
        (self.options.window / WINDOW_PERIODS).max(MIN_PERIOD)
    }
}

/// The periods of the index while keys are added.
struct Filling<'a> {
    /// The periods in the file, oldest first.
    rows: Vec<PeriodRow>,
    /// The periods in memory, in the same order as `rows`.
    known: Vec<Period>,
    /// The time of receipt since which no key is missing; [`UNKNOWN`] if it is unknown.
    complete_since: i64,
    shared: &'a IndexShared,
}

impl Filling<'_> {
    /// Adds keys to the last period, and begins a new period when the last one is full or too old.
    fn add(&mut self, connection: &Connection, keys: &[Key], now: i64) -> Result<(), TableError> {
        let mut rest = keys;
        while !rest.is_empty() {
            let (full, period) = (self.shared.max_per_period(), self.shared.period());
            let mut period = match self.rows.pop() {
                Some(last) if last.ids < full && now.saturating_sub(last.began_at) < period => last,
                last => self.begin(connection, last, now)?,
            };
            let room = usize::try_from(full.saturating_sub(period.ids)).unwrap_or(usize::MAX);
            // Split before the keys are sorted: the keys of a run must be spread evenly for its pages to be of one size.
            let (part, behind) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            rest = behind;
            table::add_run(connection, &mut period, part, now)?;
            self.rows.push(period);
            self.note(connection, period, part)?;
        }
        Ok(())
    }

    /// Returns the capacity of a filter for an expected number of ids.
    fn capacity(&self, ids: u64) -> u64 {
        ids.max(MIN_CAPACITY).min(self.shared.max_per_period())
    }

    /// Closes the last period, if there is one, and begins the next.
    fn begin(
        &mut self,
        connection: &Connection,
        last: Option<PeriodRow>,
        now: i64,
    ) -> Result<PeriodRow, TableError> {
        let (mut id, mut capacity) = (1, 0);
        if let Some(last) = last {
            id = last.id.saturating_add(1);
            // The next period is expected to get as many.
            capacity = last.ids;
            let filter = match self.known.last().and_then(|period| period.filter.clone()) {
                Some(filter) => filter,
                None => Arc::new(table::build_filter(connection, last.id, last.ids)?),
            };
            table::close_period(connection, last.id, &filter)?;
            self.rows.push(last);
        }
        let filter = BloomFilter::new(self.capacity(capacity));
        self.known.push(Period { id, filter: Some(Arc::new(filter)) });
        Ok(table::begin_period(connection, id, now)?)
    }

    /// Adds keys to the filter of the last period. Replaces the filter by a larger one if necessary.
    fn note(&mut self, connection: &Connection, row: PeriodRow, keys: &[Key]) -> Result<(), TableError> {
        let capacity = self.capacity(row.ids.saturating_mul(2));
        let Some(known) = self.known.last_mut() else { return Ok(()) };
        match &known.filter {
            Some(filter) if row.ids <= filter.capacity() => keys.iter().for_each(|key| filter.add(*key)),
            // Too small or not loaded yet. The keys are already in the file.
            _ => {
                known.filter = Some(Arc::new(table::build_filter(connection, row.id, capacity)?));
            }
        }
        Ok(())
    }

    /// Removes the oldest periods: those whose keys are all older than the window, and those beyond the limit of ids.
    fn drop_old(&mut self, connection: &Connection, now: i64) -> Result<(), TableError> {
        let options = &self.shared.options;
        let mut ids: u64 = self.rows.iter().map(|period| period.ids).sum();
        while let Some(oldest) = self.rows.first().copied() {
            let is_over = now.saturating_sub(oldest.last_at) >= options.window;
            if !(is_over || ids > options.max_ids) {
                break;
            }
            table::drop_period(connection, oldest.id)?;
            let kept_since = oldest.last_at.saturating_add(RECEIPT_SPREAD);
            self.complete_since = self.complete_since.max(kept_since);
            self.rows.remove(0);
            self.known.remove(0);
            ids = ids.saturating_sub(oldest.ids);
        }
        Ok(())
    }
}
