//! Reads what is left of a damaged index, and checks an index without changing it.

use std::fmt;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::super::remedy;
use super::super::sqlite::{self, Salvaged};
use super::key::Key;
use super::store::{Unusable, unusable};
use super::table::{self, PeriodRow, TableError};
use super::{IdsError, IndexShared};

/// The largest number of keys of one call. A run has fewer.
const MAX_KEYS: usize = 262_144;
/// The largest number of pages of a period, if the last one cannot be read: for far more ids than any index has.
const MAX_PAGES: i64 = 1 << 20;

/// The ids of a damaged index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The number of ids that can be read.
    pub ids: u64,
    /// The number of ids that cannot be read; `None` if it is unknown.
    pub lost: Option<u64>,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lost {
            Some(lost) => write!(f, "{} ids can be read, and {lost} cannot", self.ids),
            None => write!(f, "{} ids can be read, and an unknown number cannot", self.ids),
        }
    }
}

impl IndexShared {
    /// Fills a new index with the ids that can be read of a damaged one, like [`copy_from`](Self::copy_from). If that fails, the
    /// new index is empty: a start needs no free space for a copy.
    ///
    /// # Errors
    ///
    /// [`IdsError`] if the new index cannot be created again.
    pub fn fill_from(&self, damaged: &Path, last_seq: i64) -> Result<Option<Kept>, IdsError> {
        self.copy_from(damaged, last_seq).or_else(|error| {
            tracing::warn!(code = error.code(), %error, "the ids of a damaged index cannot be kept");
            self.create().map(|()| None)
        })
    }

    /// Adds the ids that can be read of the damaged index in a file; `None` if its format, its store or the names of its tables
    /// cannot be read, or if it has ids of events after `last_seq`.
    ///
    /// # Errors
    ///
    /// [`IdsError`] if the ids cannot be stored, or the file cannot be accessed.
    fn copy_from(&self, damaged: &Path, last_seq: i64) -> Result<Option<Kept>, IdsError> {
        if !damaged.exists() {
            return Ok(None);
        }
        let open = || -> rusqlite::Result<_> {
            let connection = Connection::open_with_flags(damaged, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            // Otherwise SQLite refuses a file that has lost its end.
            connection.pragma_update(None, "writable_schema", true)?;
            let is_ours = unusable(&connection, self.options.store_id, last_seq)?.is_none();
            let (periods, are_whole) = table::periods_left(&connection)?;
            Ok(is_ours.then_some((connection, periods, are_whole)))
        };
        match open() {
            Ok(None) => Ok(None),
            Ok(Some((connection, periods, are_whole))) => {
                let take = |keys: &[Key], last_at| self.store(keys, 0, last_at);
                let (ids, lost) = read(damaged, &connection, &periods, take)?;
                Ok(Some(Kept { ids, lost: are_whole.then_some(lost) }))
            }
            Err(error) if sqlite::is_unreadable(&error) => Ok(None),
            Err(error) => Err(IdsError::sqlite(damaged, "reading what is left", &error)),
        }
    }
}

/// Reads all keys of an index that can be read. Passes them to `take` run by run, with the time of the newest in their
/// period. Returns how many there are, and how many others.
fn read(
    path: &Path,
    connection: &Connection,
    periods: &[PeriodRow],
    mut take: impl FnMut(&[Key], i64) -> Result<(), IdsError>,
) -> Result<(u64, u64), IdsError> {
    let (mut ids, mut lost) = (0_u64, 0_u64);
    for period in periods {
        let last_page = table::last_page(connection, period.id).unwrap_or(Some(MAX_PAGES));
        let mut run = Vec::new();
        let read_page = |page: i64| {
            let mut keys = Vec::new();
            match table::each_page(connection, period.id, page, page.saturating_add(1), |found| {
                keys.extend(found)
            }) {
                Ok(()) => {}
                Err(TableError::Page { .. }) => return Ok(None),
                Err(TableError::Sqlite(error)) if sqlite::is_unreadable(&error) => return Ok(None),
                Err(TableError::Sqlite(error)) => return Err(IdsError::sqlite(path, "reading ids", &error)),
            }
            // A run is sorted, so smaller keys are of the next one.
            let is_next = keys.first().zip(run.last()).is_some_and(|(first, last)| first < last);
            if is_next || run.len() >= MAX_KEYS {
                take(&run, period.last_at)?;
                run.clear();
            }
            let count = u64::try_from(keys.len()).unwrap_or(u64::MAX);
            run.append(&mut keys);
            Ok(Some(count))
        };
        let Salvaged { rows, .. } = sqlite::read_each(0..=last_page.unwrap_or(-1), read_page)?;
        if !run.is_empty() {
            take(&run, period.last_at)?;
        }
        ids = ids.saturating_add(rows);
        lost = lost.saturating_add(period.ids.saturating_sub(rows));
    }
    Ok((ids, lost))
}

/// Reads an index beside a running server or without one, and changes nothing. Returns what is wrong with it and the remedy;
/// `None` if nothing is.
///
/// # Errors
///
/// [`IdsError`] if the file cannot be accessed.
pub fn check(path: &Path, store_id: [u8; 16]) -> Result<Option<String>, IdsError> {
    let finding = |text: &str| Ok(Some(format!("ids.db: {text}; {}", remedy::IDS)));
    if !path.try_exists().map_err(|error| IdsError::failed(path, "looking for the file", &error))? {
        return finding("the file is missing");
    }
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        // A killed process left a journal, which the next start applies.
        Some(ErrorCode::ReadOnly) => Ok(None),
        _ if sqlite::is_unreadable(&error) => finding(&format!("damaged ({error})")),
        _ => Err(IdsError::sqlite(path, "checking", &error)),
    };
    let open = || -> rusqlite::Result<_> {
        let connection = sqlite::open_read_only(path, false)?;
        // A running server may have added ids since the caller has read the log.
        let unusable = unusable(&connection, store_id, i64::MAX)?;
        let periods = if unusable.is_none() { table::periods(&connection)? } else { Vec::new() };
        Ok((connection, unusable, periods))
    };
    let (connection, unusable, periods) = match open() {
        Ok(opened) => opened,
        Err(error) => return failed(error),
    };
    if let Some(Unusable { text, .. }) = unusable {
        return finding(&text);
    }
    let (mut ids, mut lost) = (0_u64, 0_u64);
    for PeriodRow { id, .. } in periods {
        // A running server changes a period only after this transaction, which is short.
        let started = connection.unchecked_transaction().and_then(|started| {
            let rows = table::periods(&connection)?;
            Ok((started, rows.into_iter().filter(|row| row.id == id).collect::<Vec<_>>()))
        });
        let (_transaction, row) = match started {
            Ok(started) => started,
            Err(error) => return failed(error),
        };
        let found = read(path, &connection, &row, |_, _| Ok(()))?;
        (ids, lost) = (ids.saturating_add(found.0), lost.saturating_add(found.1));
    }
    if lost == 0 { Ok(None) } else { finding(&format!("damaged: {}", Kept { ids, lost: Some(lost) })) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "tests may fail loudly")]

    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::Ordering;

    use super::super::{Ids, IdsOptions};
    use super::*;

    const NOW: i64 = 1_700_000_000_000;
    const IDS: u64 = 10_000;
    const PAGE: usize = 4096;

    type Damage<'a> = &'a dyn Fn(&Path);

    fn options() -> IdsOptions {
        IdsOptions { store_id: [7; 16], window: 72 * 3_600_000, max_ids: 24_000 }
    }

    fn key(number: u64) -> Key {
        Key::new("default", &number.to_string())
    }

    /// Creates an index with five periods of two runs each.
    fn index(folder: &Path) -> PathBuf {
        let path = folder.join("ids.db");
        let ids = Ids::open(&path, options(), 0, NOW).expect("an index").ids;
        for first in (0..IDS).step_by(1000) {
            let keys: Vec<Key> = (first..first + 1000).map(key).collect();
            ids.store(&keys, i64::try_from(first + 1000).expect("small"), NOW).expect("stored");
        }
        path
    }

    fn root_of(path: &Path, table: &str) -> usize {
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        let root = Connection::open(path).and_then(|file| file.query_row(sql, [table], |row| row.get(0)));
        usize::try_from(root.unwrap_or(0_i64)).expect("small")
    }

    fn spoil_page(path: &Path, page: usize) {
        let mut bytes = fs::read(path).expect("read");
        bytes[(page - 1) * PAGE..page * PAGE].fill(0xAA);
        fs::write(path, bytes).expect("written");
    }

    /// Returns the page of the file with the key of this number.
    fn page_of(path: &Path, number: u64) -> usize {
        let (bytes, needle) = (fs::read(path).expect("read"), key(number).to_bytes());
        bytes.windows(needle.len()).position(|found| found == needle).expect("the key") / PAGE + 1
    }

    fn known(ids: &Ids) -> u64 {
        let is_known =
            |number: &u64| ids.may_contain(key(*number)) && ids.contains(key(*number)).expect("an answer");
        u64::try_from((0..IDS).filter(is_known).count()).expect("small")
    }

    #[test]
    fn what_can_be_read_of_a_damaged_index_is_kept_and_the_rest_is_counted() {
        let root = |table: &'static str| move |path: &Path| spoil_page(path, root_of(path, table));
        let leaf = |path: &Path| spoil_page(path, page_of(path, 5000));
        let bit = |path: &Path| {
            let mut bytes = fs::read(path).expect("read");
            let needle = key(5000).to_bytes();
            let at = bytes.windows(needle.len()).position(|found| found == needle).expect("the key");
            bytes[at + 3] ^= 16;
            fs::write(path, bytes).expect("written");
        };
        let end = |path: &Path| {
            let bytes = fs::read(path).expect("read");
            fs::write(path, &bytes[..bytes.len() / PAGE * 3 / 4 * PAGE]).expect("written");
        };
        let cases: [(&str, Damage<'_>, std::ops::RangeInclusive<u64>, bool); 7] = [
            ("a page", &leaf, 100..=600, true),
            ("a bit", &bit, 100..=300, true),
            ("the inner page of a period", &root("pages_3"), 2000..=2000, true),
            ("the list of the runs", &root("runs"), 0..=0, true),
            ("the list of the periods", &root("periods"), 0..=0, false),
            ("the end of the file", &end, 100..=5000, false),
            ("nothing", &|_| {}, 0..=0, true),
        ];
        for (what, damage, lost, is_counted) in cases {
            let folder = tempfile::tempdir().expect("a folder");
            let path = index(folder.path());
            damage(&path);
            let is_whole = what == "nothing" || what == "the list of the runs";
            let checked = check(&path, [7; 16]).expect("checked");
            assert_eq!(checked.is_none(), is_whole, "{what}: {checked:?}");
            let opened = Ids::open(&path, options(), i64::MAX, NOW).expect("an index");
            let rebuilt = match opened.rebuilt {
                Some(rebuilt) => rebuilt,
                None => opened.ids.reset(NOW).expect("a new index"),
            };
            let kept = rebuilt.kept.unwrap_or_else(|| panic!("{what}: {rebuilt}"));
            assert!(lost.contains(&(IDS - kept.ids)), "{what}: {kept:?}");
            assert_eq!(kept.lost, is_counted.then_some(IDS - kept.ids), "{what}");
            assert_eq!(known(&opened.ids), kept.ids, "{what}");
            assert_eq!((opened.ids.count(), opened.ids.stored_up_to()), (kept.ids, 0), "{what}");
            assert!(opened.ids.is_loaded(), "{what}: look-ups of new events would read the file");
            let says = rebuilt.to_string();
            assert_eq!(says.contains("accepted as new"), kept.lost != Some(0), "{says}");
            drop(opened.ids);
            assert_eq!(check(&path, [7; 16]).expect("checked"), None, "{what}: the new one");
            let opened = Ids::open(&path, options(), i64::MAX, NOW).expect("an index");
            assert_eq!((opened.rebuilt, known(&opened.ids)), (None, kept.ids), "{what}: after a restart");
        }
    }

    /// Copies of events that were lost must be accepted: their ids are of no use, and harmful.
    #[test]
    fn nothing_is_kept_of_another_store_or_of_events_that_the_log_has_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = index(folder.path());
        let whole = fs::read(&path).expect("read");
        let after = i64::try_from(IDS).expect("small") - 1;
        let opened = Ids::open(&path, options(), after, NOW).expect("an index");
        let rebuilt = opened.rebuilt.expect("a reason");
        assert_eq!((rebuilt.code, rebuilt.kept, known(&opened.ids)), ("newer_than_log", None, 0));
        drop(opened.ids);
        for (what, store_id, last_seq) in [("another store", [8; 16], i64::MAX), ("lost", [7; 16], after)] {
            fs::write(&path, &whole[..whole.len() / PAGE * 3 / 4 * PAGE]).expect("written");
            let options = IdsOptions { store_id, ..options() };
            let opened = Ids::open(&path, options, last_seq, NOW).expect("an index");
            let rebuilt = opened.rebuilt.expect("a reason");
            assert_eq!((rebuilt.code, rebuilt.kept, known(&opened.ids)), ("damaged", None, 0), "{what}");
            assert!(rebuilt.to_string().contains("accepted as new"), "{rebuilt}");
        }
    }

    /// A journal belongs to the file that it was written for.
    #[test]
    fn what_is_left_beside_the_old_index_is_not_applied_to_the_new_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = index(folder.path());
        // A transaction that has overwritten pages of the file, as a killed process leaves it.
        let file = Connection::open(&path).expect("opens");
        file.execute_batch(
            "PRAGMA cache_size = 1; BEGIN; UPDATE pages_1 SET crc = 0; UPDATE pages_2 SET crc = 0",
        )
        .expect("changed");
        let beside = |ending: &str| sqlite::with_ending(&path, ending);
        let journal = fs::read(beside("-journal")).expect("a journal");
        assert!(journal.starts_with(&[0xd9, 0xd5, 0x05, 0xf9]), "SQLite would apply it");
        drop(file);
        for what in ["moved", "damaged"] {
            match what {
                "moved" => fs::remove_file(&path).expect("removed"),
                _ => fs::write(&path, "no database at all, but long enough to be read as one")
                    .expect("written"),
            }
            for ending in ["-journal", "-wal", "-shm"] {
                fs::write(beside(ending), &journal).expect("written");
            }
            fs::write(beside(".unfinished"), "of an attempt that was interrupted").expect("written");
            fs::write(beside(".unfinished-journal"), &journal).expect("written");
            let ids = Ids::open(&path, options(), i64::MAX, NOW).expect("an index").ids;
            ids.store(&(0..IDS).map(key).collect::<Vec<_>>(), 1, NOW).expect("stored");
            drop(ids);
            let opened = Ids::open(&path, options(), i64::MAX, NOW).expect("an index");
            assert_eq!((opened.rebuilt, known(&opened.ids)), (None, IDS), "{what}");
            let names =
                fs::read_dir(folder.path()).expect("listed").map(|entry| entry.expect("an entry").path());
            let kept = names.filter(|name| fs::read(name).is_ok_and(|bytes| bytes == journal)).count();
            assert!(kept >= 1, "{what}: the journal is not removed");
        }
    }

    #[test]
    fn without_room_for_the_copy_an_empty_index_is_created() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = index(folder.path());
        let bytes = fs::read(&path).expect("read");
        fs::write(&path, &bytes[..bytes.len() / PAGE * 3 / 4 * PAGE]).expect("written");
        let new = IndexShared::new(folder.path().join("new.db"), options());
        new.create().expect("created");
        let writer = super::super::lookup::connect(&new.path, 512).expect("opens");
        writer.pragma_update_and_check(None, "max_page_count", 20, |_| Ok(())).expect("limited");
        new.writer.lock().connection = Some(writer);
        assert_eq!(new.fill_from(&path, i64::MAX).expect("created"), None);
        new.store(&[key(1)], 1, NOW).expect("stored");
        assert_eq!((new.count.load(Ordering::Relaxed), new.periods.read().len()), (1, 1));
    }
}
