//! The tables of `ids.db` and the statements on them.
//!
//! A **period** is six hours of keys, or a twelfth of `max_ids`. It has a table of its own, `pages_N`, which is dropped as
//! a whole. One call stores a **run**: sorted keys, split into pages of about 200 by the first 31 bits of the key, so that
//! a look-up reads one page of each run. Two short runs are merged once the newer one is at least as long, so a period has
//! few runs, however short the calls are. Pages are only appended, and each is about as large as a page of SQLite, so
//! little more than the keys is written.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::super::sqlite::{self, DatabaseFormat};
use super::IdsOptions;
use super::filter::BloomFilter;
use super::key::Key;

pub const FORMAT: DatabaseFormat =
    DatabaseFormat { application_id: 0x4454_6964 /* "DTid" */, version: 1 };

const TABLES: &str = "
    CREATE TABLE store (
        id        INTEGER PRIMARY KEY CHECK (id = 1),
        store_id  BLOB NOT NULL,
        up_to_seq INTEGER NOT NULL,     -- the ids of all events up to this one are stored
        complete_since INTEGER          -- and those of all events received since then, Unix milliseconds; NULL: unknown
    ) STRICT;

    CREATE TABLE periods (
        id         INTEGER PRIMARY KEY,
        began_at   INTEGER NOT NULL,    -- Unix milliseconds
        last_at    INTEGER NOT NULL,    -- when keys were added last, Unix milliseconds
        ids        INTEGER NOT NULL,
        filter_crc INTEGER,             -- CRC-32
        filter     BLOB                 -- once the period is closed
    ) STRICT;

    -- A key is in page first_page + (its first 31 bits * pages >> 31) of pages_PERIOD.
    CREATE TABLE runs (
        period     INTEGER NOT NULL,
        first_page INTEGER NOT NULL,
        pages      INTEGER NOT NULL,
        ids        INTEGER NOT NULL,
        PRIMARY KEY (period, first_page)
    ) STRICT, WITHOUT ROWID;
";

/// The average number of keys in a row of `pages_N` ("page"). From 253 keys on, a row exceeds a database page of SQLite; this is
/// nearly four standard deviations above the average.
const KEYS_PER_PAGE: usize = 200;

/// The length of a stored key in bytes.
const KEY_BYTES: u64 = 16;

/// The largest number of keys of a run that a merge of several runs may produce: 2 MiB of keys.
const MAX_MERGED: usize = 131_072;

/// A row of the table `periods`, without its filter.
#[derive(Debug, Clone, Copy)]
pub struct PeriodRow {
    pub id: i64,
    pub began_at: i64,
    pub last_at: i64,
    pub ids: u64,
}

/// A failure to read or write the tables.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("page {page} of period {period} is not what was written")]
    Page { period: i64, page: i64 },
}

/// Creates the tables in an empty database.
pub fn create(connection: &mut Connection, options: &IdsOptions) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.execute(
        "INSERT INTO store (id, store_id, up_to_seq) VALUES (1, ?1, 0)",
        [options.store_id.as_slice()],
    )?;
    FORMAT.mark(&transaction)?;
    transaction.commit()
}

pub fn store_id(connection: &Connection) -> rusqlite::Result<Vec<u8>> {
    connection.query_row("SELECT store_id FROM store", [], |row| row.get(0))
}

pub fn up_to_seq(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT up_to_seq FROM store", [], |row| row.get(0))
}

/// Returns the time of receipt since which the ids of all events are stored, in Unix milliseconds; `None` if it is unknown. A file
/// of an earlier build of this version does not contain it: nothing was received before its oldest period.
pub fn complete_since(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let query = if has_complete_since(connection)? {
        "SELECT complete_since FROM store"
    } else {
        "SELECT min(began_at) FROM periods"
    };
    connection.query_row(query, [], |row| row.get(0))
}

fn has_complete_since(connection: &Connection) -> rusqlite::Result<bool> {
    let query = "SELECT count(*) FROM pragma_table_info('store') WHERE name = 'complete_since'";
    connection.query_row(query, [], |row| row.get(0))
}

/// Sets the sequence number up to which, and the time of receipt since which the ids of all events are stored; `None` keeps the
/// time unknown.
pub fn set_extent(
    connection: &Connection,
    up_to_seq: i64,
    complete_since: Option<i64>,
) -> rusqlite::Result<()> {
    if !has_complete_since(connection)? {
        connection.execute_batch("ALTER TABLE store ADD COLUMN complete_since INTEGER")?;
    }
    connection
        .execute("UPDATE store SET up_to_seq = ?1, complete_since = ?2", params![up_to_seq, complete_since])
        .map(drop)
}

/// Returns all periods, the oldest first.
///
/// # Errors
///
/// The errors of SQLite, and an error if the rows state more ids than the file has room for: these numbers have no checksum, and
/// they determine the size of the filters and the number of removed periods.
pub fn periods(connection: &Connection) -> rusqlite::Result<Vec<PeriodRow>> {
    let mut statement =
        connection.prepare_cached("SELECT id, began_at, last_at, ids FROM periods ORDER BY id")?;
    let rows: Vec<PeriodRow> = statement.query_map([], period_row)?.collect::<rusqlite::Result<_>>()?;
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let bytes = pragma("page_count")?.saturating_mul(pragma("page_size")?);
    let ids = rows.iter().map(|row| row.ids).fold(0, u64::saturating_add);
    let room = u64::try_from(bytes).unwrap_or(0) / KEY_BYTES;
    if ids > room {
        return Err(sqlite::damaged(format!("it states {ids} ids, and has room for {room}")));
    }
    Ok(rows)
}

fn period_row(row: &Row<'_>) -> rusqlite::Result<PeriodRow> {
    let ids: i64 = row.get(3)?;
    let ids = u64::try_from(ids).map_err(|_| sqlite::damaged(format!("a period has {ids} ids")))?;
    Ok(PeriodRow { id: row.get(0)?, began_at: row.get(1)?, last_at: row.get(2)?, ids })
}

pub fn begin_period(connection: &Connection, id: i64, now: i64) -> rusqlite::Result<PeriodRow> {
    connection
        .execute("INSERT INTO periods (id, began_at, last_at, ids) VALUES (?1, ?2, ?2, 0)", [id, now])?;
    connection.execute_batch(&format!(
        "CREATE TABLE pages_{id} (
             page INTEGER PRIMARY KEY,
             crc  INTEGER NOT NULL,     -- CRC-32
             keys BLOB NOT NULL         -- 16 bytes each, in order
         ) STRICT"
    ))?;
    Ok(PeriodRow { id, began_at: now, last_at: now, ids: 0 })
}

pub fn close_period(connection: &Connection, id: i64, filter: &BloomFilter) -> rusqlite::Result<()> {
    let filter = filter.to_bytes();
    connection
        .execute(
            "UPDATE periods SET filter_crc = ?2, filter = ?3 WHERE id = ?1",
            params![id, crc32fast::hash(&filter), filter],
        )
        .map(drop)
}

pub fn drop_period(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection.execute_batch(&format!("DROP TABLE pages_{id}"))?;
    connection.execute("DELETE FROM runs WHERE period = ?1", [id])?;
    connection.execute("DELETE FROM periods WHERE id = ?1", [id]).map(drop)
}

/// Adds keys to a period as one run. Merges it with the shorter runs before it.
pub fn add_run(
    connection: &Connection,
    period: &mut PeriodRow,
    keys: &[Key],
    now: i64,
) -> Result<(), TableError> {
    let mut keys = keys.to_vec();
    let last = format!(
        "SELECT first_page, pages, ids FROM runs WHERE period = {} ORDER BY first_page DESC LIMIT 1",
        period.id
    );
    let next_page = loop {
        let last: Option<(i64, i64, i64)> = connection
            .prepare_cached(&last)?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((first, pages, ids)) = last else { break 0 };
        let end = first.saturating_add(pages);
        let ids = usize::try_from(ids).unwrap_or(usize::MAX);
        if ids > keys.len() || ids.saturating_add(keys.len()) > MAX_MERGED {
            break end;
        }
        each_page(connection, period.id, first, end, |page| keys.extend(page))?;
        connection.execute(
            &format!("DELETE FROM pages_{} WHERE page >= ?1 AND page < ?2", period.id),
            [first, end],
        )?;
        connection.execute("DELETE FROM runs WHERE period = ?1 AND first_page = ?2", [period.id, first])?;
        period.ids = period.ids.saturating_sub(u64::try_from(ids).unwrap_or(u64::MAX));
    };
    // `sort` merges sorted parts in linear time.
    keys.sort();
    keys.dedup();
    write_run(connection, period.id, next_page, &keys)?;
    period.ids = period.ids.saturating_add(u64::try_from(keys.len()).unwrap_or(u64::MAX));
    period.last_at = period.last_at.max(now);
    let ids = i64::try_from(period.ids).unwrap_or(i64::MAX);
    connection.execute(
        "UPDATE periods SET ids = ?2, last_at = ?3 WHERE id = ?1",
        [period.id, ids, period.last_at],
    )?;
    Ok(())
}

/// Writes sorted keys as a run that begins with the page `first`.
fn write_run(connection: &Connection, period: i64, first: i64, keys: &[Key]) -> rusqlite::Result<()> {
    let pages = i64::try_from(keys.len().div_ceil(KEYS_PER_PAGE).max(1)).unwrap_or(i64::MAX);
    let mut insert = connection.prepare_cached(&format!("INSERT INTO pages_{period} VALUES (?1, ?2, ?3)"))?;
    let (mut rest, mut bytes) = (keys, Vec::with_capacity(KEYS_PER_PAGE.saturating_mul(Key::BYTES)));
    for page in 0..pages {
        let count = rest.partition_point(|key| page_of(key.prefix(), pages) <= page);
        let (part, behind) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        rest = behind;
        bytes.clear();
        bytes.extend(part.iter().flat_map(|key| key.to_bytes()));
        insert.execute(params![first.saturating_add(page), crc32fast::hash(&bytes), bytes])?;
    }
    let ids = i64::try_from(keys.len()).unwrap_or(i64::MAX);
    connection.execute("INSERT INTO runs VALUES (?1, ?2, ?3, ?4)", [period, first, pages, ids]).map(drop)
}

/// Returns the page of a run in which keys with these first 31 bits are, counted from the first page of the run. Look-ups compute
/// the same in SQL.
const fn page_of(prefix: i64, pages: i64) -> i64 {
    // Both are below 2^31.
    prefix.wrapping_mul(pages) >> 31
}

/// Returns whether a period contains a key.
pub fn contains(connection: &Connection, period: i64, key: Key) -> Result<bool, TableError> {
    // The newest run is the most likely one to contain a copy.
    let mut statement = connection.prepare_cached(&format!(
        "SELECT runs.first_page, crc, keys FROM runs
         LEFT JOIN pages_{period} ON page = first_page + ((?1 * pages) >> 31)
         WHERE period = {period} ORDER BY first_page DESC"
    ))?;
    let mut rows = statement.query([key.prefix()])?;
    while let Some(row) = rows.next()? {
        let damaged = || TableError::Page { period, page: row.get(0).unwrap_or(-1) };
        let keys = checked(row.get(1)?, row.get_ref(2)?.as_blob_or_null().map_err(|_| damaged())?);
        if keys.ok_or_else(damaged)?.binary_search(&key.to_bytes()).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the keys of a page; `None` if the checksum does not match.
fn checked(crc: Option<u32>, keys: Option<&[u8]>) -> Option<&[[u8; Key::BYTES]]> {
    let keys = keys.filter(|keys| crc == Some(crc32fast::hash(keys)))?;
    let (keys, rest) = keys.as_chunks();
    rest.is_empty().then_some(keys)
}

/// Reads the pages from `first` up to, but not including, `end`.
pub fn each_page(
    connection: &Connection,
    period: i64,
    first: i64,
    end: i64,
    mut use_keys: impl FnMut(&mut dyn Iterator<Item = Key>),
) -> Result<(), TableError> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT page, crc, keys FROM pages_{period} WHERE page >= ?1 AND page < ?2 ORDER BY page"
    ))?;
    let mut rows = statement.query([first, end])?;
    while let Some(row) = rows.next()? {
        let damaged = || TableError::Page { period, page: row.get(0).unwrap_or(-1) };
        let keys = checked(row.get(1)?, row.get_ref(2)?.as_blob_or_null().map_err(|_| damaged())?);
        use_keys(&mut keys.ok_or_else(damaged)?.iter().map(|key| Key::from_bytes(*key)));
    }
    Ok(())
}

/// Builds the filter of a period from its keys, with a capacity of at least `capacity` keys.
pub fn build_filter(connection: &Connection, period: i64, capacity: u64) -> Result<BloomFilter, TableError> {
    let filter = BloomFilter::new(capacity);
    each_page(connection, period, 0, i64::MAX, |keys| keys.for_each(|key| filter.add(key)))?;
    Ok(filter)
}

/// Returns the stored filter of a period; `None` if the period is open, or the checksum does not match.
pub fn stored_filter(connection: &Connection, period: i64) -> rusqlite::Result<Option<BloomFilter>> {
    connection.query_row("SELECT filter_crc, filter FROM periods WHERE id = ?1", [period], |row| {
        let (crc, filter) = (row.get::<_, Option<u32>>(0)?, row.get_ref(1)?.as_blob_or_null()?);
        Ok(filter.filter(|filter| crc == Some(crc32fast::hash(filter))).and_then(BloomFilter::from_bytes))
    })
}
