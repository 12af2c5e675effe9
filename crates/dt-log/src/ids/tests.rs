//! Tests the index against a model, with crashes and damage, and at its full size.

#![allow(clippy::arithmetic_side_effects, reason = "tests may fail loudly")]

use std::collections::HashMap;
use std::fs;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3_600_000;
const NOW: i64 = 1_700_000_000_000;

fn options(max_ids: u64) -> IdsOptions {
    IdsOptions { store_id: [7; 16], window: 72 * HOUR, max_ids }
}

fn open(folder: &Path, max_ids: u64) -> Ids {
    let opened = Ids::open(folder.join("ids.db"), options(max_ids), i64::MAX, NOW).expect("an index");
    opened.ids
}

fn keys(range: std::ops::Range<u64>) -> Vec<Key> {
    range.map(|number| Key::new("default", &number.to_string())).collect()
}

/// Looks up a key as a caller does.
fn known(ids: &Ids, key: Key) -> bool {
    ids.may_contain(key) && ids.contains(key).expect("an answer")
}

fn wait_until_loaded(ids: &Ids) {
    while !ids.is_loaded() {
        std::thread::yield_now();
    }
}

#[test]
fn what_was_stored_is_found_after_a_restart_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ids.db");
    let opened = Ids::open(&path, options(100_000), i64::MAX, NOW).expect("an index");
    assert_eq!(opened.rebuilt.map(|why| (why.code, why.renamed_to)), Some(("missing", None)));
    let ids = opened.ids;
    ids.store(&keys(0..20_000), 20_000, NOW).expect("stored");
    ids.store(&keys(20_000..20_010), 20_010, NOW + 1).expect("stored");
    assert_eq!((ids.stored_up_to(), ids.count()), (20_010, 20_010));
    drop(ids);

    let opened = Ids::open(&path, options(100_000), i64::MAX, NOW).expect("an index");
    assert_eq!(opened.rebuilt, None);
    let ids = opened.ids;
    assert_eq!((ids.stored_up_to(), ids.count()), (20_010, 20_010));
    wait_until_loaded(&ids);
    assert!(keys(0..20_010).into_iter().all(|key| known(&ids, key)));
    assert!(!keys(20_010..60_000).into_iter().any(|key| known(&ids, key)));
    let stats = ids.stats();
    assert_eq!(stats.lookups, 60_000);
    assert!((20_010..20_300).contains(&stats.file_reads), "{stats:?}");
}

#[test]
fn the_oldest_go_with_the_window_and_with_the_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let ids = open(folder.path(), 12_000);
    // Twelve periods of 1,000 are full, and the thirteenth replaces the first.
    ids.store(&keys(0..12_000), 12_000, NOW).expect("stored");
    assert_eq!(ids.count(), 12_000);
    ids.store(&keys(12_000..12_001), 12_001, NOW).expect("stored");
    assert_eq!(ids.count(), 11_001);
    assert!(!keys(0..1000).into_iter().any(|key| known(&ids, key)));
    assert!(keys(1000..12_001).into_iter().all(|key| known(&ids, key)));
    // A period that begins six hours later outlives the others.
    ids.store(&keys(20_000..20_001), 12_002, NOW + 6 * HOUR).expect("stored");
    ids.store(&[], 12_002, NOW + 72 * HOUR - 1).expect("stored");
    assert_eq!(ids.count(), 11_002);
    ids.store(&[], 12_003, NOW + 72 * HOUR).expect("stored");
    assert_eq!((ids.count(), ids.stored_up_to()), (1, 12_003));
    assert!(known(&ids, keys(20_000..20_001)[0]) && !known(&ids, keys(12_000..12_001)[0]));
}

#[test]
fn the_time_since_which_no_id_is_missing_moves_with_removed_periods_and_is_durable() {
    let folder = tempfile::tempdir().expect("a folder");
    let ids = open(folder.path(), 12_000);
    assert_eq!(ids.complete_since(), None, "a new file does not know what the log has");
    ids.set_complete_since(NOW - HOUR);
    ids.store(&keys(0..12_000), 12_000, NOW).expect("stored");
    assert_eq!(ids.complete_since(), Some(NOW - HOUR));
    drop(ids);
    let ids = open(folder.path(), 12_000);
    assert_eq!(ids.complete_since(), Some(NOW - HOUR));
    ids.store(&keys(12_000..12_001), 12_001, NOW + HOUR).expect("stored");
    assert_eq!((ids.count(), ids.complete_since()), (11_001, Some(NOW + RECEIPT_SPREAD)));
    drop(ids);
    let ids = open(folder.path(), 12_000);
    assert_eq!(ids.complete_since(), Some(NOW + RECEIPT_SPREAD));
    ids.set_complete_since(NOW - HOUR);
    assert_eq!(ids.complete_since(), Some(NOW + RECEIPT_SPREAD), "it never moves back");
    ids.store(&[], 12_001, NOW + 80 * HOUR).expect("stored");
    assert_eq!((ids.count(), ids.complete_since()), (0, Some(NOW + HOUR + RECEIPT_SPREAD)));
    assert_eq!(check::complete_since(ids.path(), [7; 16]), ids.complete_since());
    assert_eq!(check::complete_since(ids.path(), [8; 16]), None, "of another store");
    ids.reset(NOW).expect("a new index");
    assert_eq!((ids.complete_since(), check::complete_since(ids.path(), [7; 16])), (None, None));
}

#[test]
fn a_file_that_does_not_state_since_when_it_is_complete_is_complete_since_its_oldest_period() {
    for (count, expected) in [(0, None), (10, Some(NOW))] {
        let folder = tempfile::tempdir().expect("a folder");
        let ids = open(folder.path(), 12_000);
        ids.store(&keys(0..count), 10, NOW).expect("stored");
        let path = ids.path().to_owned();
        drop(ids);
        let file = rusqlite::Connection::open(&path).expect("a database");
        file.execute_batch("ALTER TABLE store DROP COLUMN complete_since").expect("changed");
        drop(file);
        let opened = Ids::open(&path, options(12_000), i64::MAX, NOW + HOUR).expect("an index");
        assert_eq!((opened.rebuilt, opened.ids.complete_since()), (None, expected));
        opened.ids.store(&keys(10..20), 20, NOW + HOUR).expect("stored");
        assert_eq!(check::complete_since(&path, [7; 16]), expected);
    }
}

#[test]
fn a_long_window_has_no_more_periods() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = IdsOptions { window: 32 * 24 * HOUR, ..options(1 << 20) };
    let ids = Ids::open(folder.path().join("ids.db"), options, i64::MAX, NOW).expect("an index").ids;
    for step in 0..160_u64 {
        let now = NOW + i64::try_from(step).expect("small") * 6 * HOUR;
        ids.store(&keys(step..step + 1), i64::try_from(step).expect("small"), now).expect("stored");
    }
    let periods = ids.shared.periods.read().len();
    assert!((12..=14).contains(&periods), "{periods}");
    assert!(keys(32..160).into_iter().all(|key| known(&ids, key)));
}

#[test]
fn short_calls_end_in_few_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let ids = open(folder.path(), 1_000_000);
    for call in 0..150 {
        ids.store(&keys(call * 10..call * 10 + 10), i64::try_from(call).expect("a number"), NOW)
            .expect("stored");
    }
    assert_eq!(ids.count(), 1500);
    let runs: i64 = rusqlite::Connection::open(ids.path())
        .and_then(|file| file.query_row("SELECT count(*) FROM runs", [], |row| row.get(0)))
        .expect("a count");
    assert!(runs <= 10, "{runs} runs");
    assert!(keys(0..1500).into_iter().all(|key| known(&ids, key)));
}

#[test]
fn a_question_on_the_own_thread_is_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let ids = open(folder.path(), 1_000_000);
    ids.store(&keys(0..100), 100, NOW).expect("stored");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        for key in keys(0..100) {
            assert!(ids.is_stored(key).await.expect("an answer"));
        }
        assert!(!ids.is_stored(keys(100..101)[0]).await.expect("an answer"));
    });
}

/// Returns the code of an unusable file, and its new path.
fn rebuilt(path: &Path, options: IdsOptions) -> (&'static str, Option<PathBuf>) {
    let opened = Ids::open(path, options, i64::MAX, NOW).expect("an index");
    let why = opened.rebuilt.expect("a reason");
    assert_eq!((opened.ids.stored_up_to(), opened.ids.count()), (0, 0), "{why:?}");
    opened.ids.store(&keys(0..10), 10, NOW).expect("stored");
    assert!(known(&opened.ids, keys(5..6)[0]));
    (why.code, why.renamed_to)
}

#[test]
fn a_file_that_cannot_be_used_is_renamed_and_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ids.db");
    let name = |seconds: i64| Some(folder.path().join(format!("ids.db.damaged-{seconds}")));
    drop(open(folder.path(), 1000));
    let change = |sql: &str| {
        let file = rusqlite::Connection::open(&path).expect("a database");
        file.execute_batch(sql).expect("changed");
    };
    let known = || options(1000);

    // Each problem has its own code, and each old file its own name.
    let other = IdsOptions { store_id: [8; 16], ..known() };
    assert_eq!(rebuilt(&path, other.clone()), ("other_store", name(NOW / 1000)));
    assert_eq!(Ids::open(&path, other.clone(), i64::MAX, NOW).expect("an index").rebuilt, None);
    assert_eq!(rebuilt(&path, known()), ("other_store", name(NOW / 1000 + 1)));
    change("PRAGMA user_version = 2");
    assert_eq!(rebuilt(&path, known()), ("other_version", name(NOW / 1000 + 2)));
    change("PRAGMA application_id = 1");
    assert_eq!(rebuilt(&path, known()), ("not_ours", name(NOW / 1000 + 3)));
    fs::write(&path, b"no database at all, but long enough to have a header of a hundred bytes; so it is read, and refused as it should be").expect("written");
    assert_eq!(rebuilt(&path, known()), ("damaged", name(NOW / 1000 + 4)));
    fs::write(&path, b"").expect("written");
    assert_eq!(rebuilt(&path, known()), ("damaged", name(NOW / 1000 + 5)));
    change("DROP TABLE store");
    assert_eq!(rebuilt(&path, known()), ("damaged", name(NOW / 1000 + 6)));
    fs::remove_file(&path).expect("removed");
    assert_eq!(rebuilt(&path, known()), ("missing", None));
    // The first one was an index of the store that replaced the others.
    for seconds in 0..7 {
        assert_eq!(name(NOW / 1000 + seconds).expect("a name").exists(), seconds > 0, "{seconds}");
    }
}

/// A journal belongs to the file that it was written for.
#[test]
fn what_is_left_beside_the_old_index_is_not_applied_to_the_new_one() {
    const IDS: u64 = 10_000;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ids.db");
    let ids = open(folder.path(), 24_000);
    for first in (0..IDS).step_by(1000) {
        ids.store(&keys(first..first + 1000), i64::try_from(first + 1000).expect("small"), NOW)
            .expect("stored");
    }
    drop(ids);
    // A transaction that has overwritten pages of the file, as a killed process leaves it.
    let file = rusqlite::Connection::open(&path).expect("opens");
    file.execute_batch(
        "PRAGMA cache_size = 1; BEGIN; UPDATE pages_1 SET crc = 0; UPDATE pages_2 SET crc = 0",
    )
    .expect("changed");
    let beside = |ending: &str| super::super::sqlite::with_ending(&path, ending);
    let journal = fs::read(beside("-journal")).expect("a journal");
    assert!(journal.starts_with(&[0xd9, 0xd5, 0x05, 0xf9]), "SQLite would apply it");
    drop(file);
    for what in ["moved", "damaged"] {
        match what {
            "moved" => fs::remove_file(&path).expect("removed"),
            _ => fs::write(&path, "no database at all, but long enough to be read as one").expect("written"),
        }
        for ending in ["-journal", "-wal", "-shm"] {
            fs::write(beside(ending), &journal).expect("written");
        }
        fs::write(beside(".unfinished"), "of an attempt that was interrupted").expect("written");
        fs::write(beside(".unfinished-journal"), &journal).expect("written");
        let ids = open(folder.path(), 24_000);
        ids.store(&keys(0..IDS), 1, NOW).expect("stored");
        drop(ids);
        let opened = Ids::open(&path, options(24_000), i64::MAX, NOW).expect("an index");
        assert_eq!(opened.rebuilt, None, "{what}");
        assert!(keys(0..IDS).into_iter().all(|key| known(&opened.ids, key)), "{what}");
        let names = fs::read_dir(folder.path()).expect("listed").map(|entry| entry.expect("an entry").path());
        let kept = names.filter(|name| fs::read(name).is_ok_and(|bytes| bytes == journal)).count();
        assert!(kept >= 1, "{what}: the journal is not removed");
    }
}

#[test]
fn the_newest_replaced_files_are_kept_and_whatever_is_not_an_index_of_this_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ids.db");
    let ids = open(folder.path(), 1000);
    let name = |number: i64| format!("ids.db.damaged-{number}");
    let put = |name: &str, from: &Path| fs::copy(from, folder.path().join(name)).expect("copied");
    // Of another store, of another program, a journal without its database, and dead letters.
    let other = IdsOptions { store_id: [8; 16], ..options(1000) };
    drop(Ids::open(folder.path().join("other"), other, i64::MAX, NOW).expect("an index"));
    put(&name(1), &folder.path().join("other"));
    fs::write(folder.path().join(name(2)), "{}").expect("written");
    fs::write(folder.path().join("ids.db.damaged-3-journal"), "").expect("written");
    let foreign = rusqlite::Connection::open(folder.path().join(name(4))).expect("opens");
    foreign.execute_batch("CREATE TABLE t (a)").expect("created");
    put("dead.db.set-aside-1", &path);
    let foreign_names: Vec<String> = vec![name(1), name(2), "ids.db.damaged-3-journal".to_owned(), name(4)];
    let damaged = || {
        let names = fs::read_dir(folder.path()).expect("listed");
        let names = names.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
        let mut names: Vec<String> = names.filter(|name| name.contains(".damaged-")).collect();
        names.sort();
        names
    };
    let mut kept: Vec<i64> = Vec::new();
    // The clock may stand still, or go back.
    for (number, now) in [5, 6, 7, 8, 8, 3, 20].into_iter().enumerate() {
        fs::write(folder.path().join("ids.db-journal"), number.to_string()).expect("written");
        let renamed_to = ids.reset(now * 1000).expect("a new index").renamed_to.expect("a name");
        let number = renamed_to.to_str().and_then(|path| path.rsplit('-').next()).expect("a number");
        kept.push(number.parse().expect("a number"));
        let newest = kept
            .iter()
            .rev()
            .take(3)
            .flat_map(|number| [name(*number), format!("{}-journal", name(*number))]);
        let mut expected: Vec<String> = newest.chain(foreign_names.clone()).collect();
        expected.sort();
        assert_eq!(damaged(), expected);
    }
    assert_eq!(kept, [5, 6, 7, 8, 9, 10, 20]);
    assert!(folder.path().join("dead.db.set-aside-1").exists());
    ids.store(&keys(0..10), 10, NOW).expect("stored");
    assert!(known(&ids, keys(5..6)[0]));
    // A name that leaves no number above its own is not one of ours.
    fs::write(folder.path().join(name(i64::MAX)), "").expect("written");
    let renamed_to = ids.reset(21_000).expect("a new index").renamed_to;
    assert_eq!(renamed_to, Some(folder.path().join(name(21))));
}

#[test]
fn a_damaged_page_is_reported_until_the_index_is_reset() {
    let folder = tempfile::tempdir().expect("a folder");
    let ids = open(folder.path(), 100_000);
    ids.store(&keys(0..5000), 5000, NOW).expect("stored");
    // SQLite does not detect a flipped bit in a stored key.
    let needle = keys(77..78)[0].to_bytes();
    let mut bytes = fs::read(ids.path()).expect("the file");
    let at = bytes.windows(16).position(|window| window == needle).expect("the key");
    bytes[at + 9] ^= 4;
    fs::write(ids.path(), bytes).expect("written");
    // The connection must read the page again.
    ids.store(&keys(5000..5001), 5001, NOW).expect("stored");
    for _ in 0..2 {
        let error = ids.contains(keys(77..78)[0]).expect_err("damage");
        assert!(error.is_damage() && error.code() == "ids_damaged", "{error}");
    }
    let rebuilt = ids.reset(NOW).expect("a new index");
    assert!(rebuilt.renamed_to.is_some_and(|path| path.exists()));
    assert_eq!(ids.stored_up_to(), 0);
    ids.store(&keys(0..5001), 5001, NOW).expect("stored");
    assert!(keys(0..5001).into_iter().all(|key| known(&ids, key)));
}

/// By these numbers filters are allocated and periods dropped.
#[test]
fn a_damaged_number_of_ids_is_damage() {
    for ids in [i64::MAX, 1 << 40, 100_000, -1] {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open(folder.path(), 120_000);
        log.store(&keys(0..15_000), 15_000, NOW).expect("stored");
        let set = |path: &Path| {
            let file = rusqlite::Connection::open(path).expect("a database");
            file.execute("UPDATE periods SET ids = ?1 WHERE filter IS NULL", [ids]).expect("changed");
        };
        set(log.path());
        let error = log.store(&keys(15_000..15_001), 15_001, NOW).expect_err("damage");
        assert!(error.is_damage(), "{ids}: {error}");
        log.reset(NOW).expect("a new index");
        log.store(&keys(0..15_000), 15_000, NOW).expect("stored");
        drop(log);
        set(&folder.path().join("ids.db"));
        assert_eq!(rebuilt(&folder.path().join("ids.db"), options(120_000)).0, "damaged", "{ids}");
    }
}

#[test]
fn a_filter_that_was_damaged_is_built_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let ids = open(folder.path(), 120_000);
    ids.store(&keys(0..15_000), 15_000, NOW).expect("stored");
    drop(ids);
    let file = rusqlite::Connection::open(folder.path().join("ids.db")).expect("a database");
    let changed = file
        .execute("UPDATE periods SET filter = zeroblob(length(filter)) WHERE filter IS NOT NULL", [])
        .expect("changed");
    assert_eq!(changed, 1, "the first of the two periods was closed");
    drop(file);
    let ids = open(folder.path(), 120_000);
    wait_until_loaded(&ids);
    assert!(keys(0..15_000).into_iter().all(|key| known(&ids, key)));
}

#[test]
fn an_error_of_the_disk_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let ids = open(folder.path(), 100_000);
    ids.store(&keys(0..100), 100, NOW).expect("stored");
    // No page can be added, as on a full disk.
    let limit = |pages: i64| {
        let writer = ids.shared.writer.lock();
        let writer = writer.connection.as_ref().expect("a connection");
        writer.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).expect("limited");
    };
    limit(1);
    let error = ids.store(&keys(100..5000), 5000, NOW).expect_err("a full disk");
    assert_eq!(error.code(), "ids_full");
    assert_eq!((ids.stored_up_to(), ids.count()), (100, 100));
    assert!(known(&ids, keys(99..100)[0]));
    assert!(!ids.contains(keys(200..201)[0]).expect("an answer"));
    // The next call has a new connection without this limit.
    ids.store(&keys(100..5000), 5000, NOW).expect("stored");
    assert!(keys(0..5000).into_iter().all(|key| known(&ids, key)));
}

#[test]
fn copies_of_the_files_at_any_moment_hold_what_was_reported_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let ids = open(folder.path(), 24_000);
    let (step, calls) = (500_u64, 60_u64);
    let (copied, done) = (folder.path().join("copies"), AtomicBool::new(false));
    let copies = std::thread::scope(|scope| {
        let storing = scope.spawn(|| {
            for call in 0..calls {
                let up_to = i64::try_from((call + 1) * step).expect("a number");
                ids.store(&keys(call * step..(call + 1) * step), up_to, NOW).expect("stored");
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut copies = Vec::new();
        while !done.load(Ordering::Relaxed) {
            // Enough copies were made: only do the remaining calls.
            if copies.len() == 40 {
                std::thread::yield_now();
                continue;
            }
            let folder = copied.join(copies.len().to_string());
            fs::create_dir_all(&folder).expect("a folder");
            // After a power loss: the journal from before the writes, and any part of the writes.
            let (path, before) = (ids.path().with_file_name("ids.db-journal"), ids.stored_up_to());
            let Ok(journal) = fs::read(&path) else { continue };
            fs::write(folder.join("ids.db-journal"), &journal).expect("written");
            let database = fs::copy(ids.path(), folder.join("ids.db"));
            // If the journal changed meanwhile, the disk never had this content. It may have changed without a change of
            // its length, because the number of its pages is written to its header before the database is.
            let is_the_same = fs::read(&path).is_ok_and(|after| after == journal);
            if is_the_same && database.is_ok() && before == ids.stored_up_to() {
                copies.push((folder, before));
            }
        }
        storing.join().expect("stored");
        copies
    });
    assert!(!copies.is_empty());
    for (folder, before) in copies {
        let opened = Ids::open(folder.join("ids.db"), options(24_000), i64::MAX, NOW).expect("an index");
        let up_to = opened.ids.stored_up_to();
        if opened.rebuilt.is_none() {
            assert!(up_to >= before, "{up_to} of {before}");
        }
        wait_until_loaded(&opened.ids);
        let up_to = u64::try_from(up_to).expect("a number");
        assert!(keys(up_to.saturating_sub(22_000)..up_to).into_iter().all(|key| known(&opened.ids, key)));
    }
}

/// The ids of the model are below this number.
const IDS: u16 = 4000;

#[derive(Debug, Clone)]
enum Step {
    Store { ids: Vec<u16>, later: i64 },
    Restart,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let store = (prop::collection::vec(0..IDS, 0..300), 0..9 * HOUR)
        .prop_map(|(ids, later)| Step::Store { ids, later });
    prop::collection::vec(prop_oneof![8 => store, 1 => Just(Step::Restart), 1 => Just(Step::Kill)], 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// An id that was stored within the window is found, unless more ids than the limit were stored since. An id that was
    /// never stored is not found, and an id that is older than the window and a period is removed.
    #[test]
    fn the_index_agrees_with_a_model(steps in steps()) {
        const MAX: u64 = 3000;
        let folder = tempfile::tempdir().expect("a folder");
        let mut ids = Some(open(folder.path(), MAX));
        let (mut now, mut seq) = (NOW, 0);
        // For each id: when it was last stored, and how many keys had been stored by then.
        let (mut model, mut stored) = (HashMap::<u16, (i64, u64)>::new(), 0);
        for step in steps {
            match step {
                Step::Store { ids: new, later } => {
                    now += later;
                    seq += 1;
                    let keys: Vec<Key> = new.iter().map(|id| Key::new("c", &id.to_string())).collect();
                    ids.as_ref().expect("an index").store(&keys, seq, now).expect("stored");
                    stored += u64::try_from(new.len()).expect("a number");
                    model.extend(new.iter().map(|id| (*id, (now, stored))));
                }
                Step::Restart => {
                    drop(ids.take());
                    ids = Some(open(folder.path(), MAX));
                }
                Step::Kill => {
                    let copy = tempfile::tempdir().expect("a folder");
                    for entry in fs::read_dir(folder.path()).expect("a folder") {
                        let entry = entry.expect("an entry");
                        fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
                    }
                    drop(ids.take());
                    for entry in fs::read_dir(copy.path()).expect("a folder") {
                        let entry = entry.expect("an entry");
                        fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copied");
                    }
                    ids = Some(open(folder.path(), MAX));
                }
            }
            let ids = ids.as_ref().expect("an index");
            prop_assert_eq!(ids.stored_up_to(), seq);
            prop_assert!(ids.count() <= MAX);
            for id in 0..IDS {
                let (at, place) = model.get(&id).copied().unwrap_or((i64::MIN, 0));
                let is_known = known(ids, Key::new("c", &id.to_string()));
                if at > now - 72 * HOUR && stored - place < MAX - MAX / 12 - 300 {
                    prop_assert!(is_known, "{} of {} is lost at {}", id, at, now);
                } else if at == i64::MIN || at <= now - 79 * HOUR {
                    prop_assert!(!is_known, "{} was stored at {}, and it is {}", id, at, now);
                }
            }
        }
    }
}

fn status_kib(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0)
}

/// Returns the written bytes, and the processor time in microseconds.
fn spent() -> (u64, u64) {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("wchar: ")).and_then(|text| text.parse().ok());
    let usage = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let time = usage.split(' ').next().and_then(|text| text.parse::<u64>().ok());
    (written.unwrap_or(0), time.unwrap_or(0) / 1000)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Measures the index at its full size: `IDS=20000000 BATCH=65536 cargo test --release -p dt-log --lib ids -- --nocapture
/// full`.
#[test]
fn at_full_size_few_look_ups_read_the_file() {
    let (max_ids, batch) = (setting("IDS", 120_000), setting("BATCH", 8192));
    let folder = std::env::var_os("IDS_FOLDER")
        .map_or_else(|| tempfile::tempdir().expect("a folder").keep(), PathBuf::from);
    let (start, rss) = (Instant::now(), status_kib("VmRSS:"));
    let ids = open(&folder, max_ids);
    let opened = start.elapsed();
    wait_until_loaded(&ids);
    println!("open {opened:?}, filters loaded {:?}", start.elapsed());
    let (mut longest, mut first) = (0, 0);
    if ids.count() == 0 {
        let (mut used, before) = (0, spent());
        while first < max_ids {
            let end = (first + batch).min(max_ids);
            let keys = keys(first..end);
            let (start, cpu) = (Instant::now(), spent().1);
            ids.store(&keys, i64::try_from(end).expect("a number"), NOW).expect("stored");
            used += spent().1 - cpu;
            longest = longest.max(start.elapsed().as_millis());
            first = end;
        }
        println!(
            "batch {batch}: {:.3} us CPU, {} bytes written an id; longest call {longest} ms; file {} MB",
            used as f64 / max_ids as f64,
            (spent().0 - before.0) / max_ids,
            ids.size_bytes() / 1_000_000
        );
    }
    println!("RSS {} KiB, {} KiB before, peak {} KiB", status_kib("VmRSS:"), rss, status_kib("VmHWM:"));
    let (looked_up, reads) = (200_000, ids.stats().file_reads);
    let new = keys(1 << 40..(1 << 40) + looked_up);
    let (start, cpu) = (Instant::now(), spent().1);
    let hits: Vec<Key> = new.into_iter().filter(|key| ids.may_contain(*key)).collect();
    println!(
        "{:.3} us CPU for a filter look-up ({:?})",
        (spent().1 - cpu) as f64 / looked_up as f64,
        start.elapsed()
    );
    let (start, cpu) = (Instant::now(), spent().1);
    assert!(!hits.iter().any(|key| ids.contains(*key).expect("an answer")));
    let reads = ids.stats().file_reads - reads;
    println!(
        "{reads} of {looked_up} read the file, {:?} each",
        start.elapsed() / u32::try_from(reads.max(1)).expect("few")
    );
    assert!(reads < looked_up / 100, "{reads} of {looked_up}");
    println!("{} us CPU for each of them", (spent().1 - cpu) / reads.max(1));
    let stored: Vec<Key> =
        (0..ids.count()).step_by(997).flat_map(|number| keys(number..number + 1)).collect();
    let (start, cpu) = (Instant::now(), spent().1);
    let missing = stored.iter().filter(|key| !known(&ids, **key)).count();
    println!("{:?} for a duplicate", start.elapsed() / u32::try_from(stored.len().max(1)).expect("few"));
    println!(
        "{} us CPU for a duplicate",
        (spent().1 - cpu) / u64::try_from(stored.len().max(1)).expect("few")
    );
    assert_eq!(missing, 0);
    drop(ids);
    if std::env::var_os("IDS_FOLDER").is_none() {
        fs::remove_dir_all(folder).expect("removed");
    }
}
