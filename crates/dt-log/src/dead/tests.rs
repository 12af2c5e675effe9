//! Dead letters: what is kept and what is removed, which files are rejected, and how disk errors are handled.

use std::fs;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;

use super::*;
use dt_sink::clock::ManualClock;
use dt_sink::record::{Reason, Record, RequestIds};
use dt_verify::VerifiedBy;

const STORE: [u8; 16] = [7; 16];
const NEW: Expect = Expect::New { store_id: STORE };

const fn existing(highest_id: i64) -> Expect {
    Expect::Existing { store_id: STORE, highest_id }
}

fn open(folder: &Path, expect: Expect) -> Result<DeadLetters, DeadError> {
    let options = DeadOptions { max_expired: 10_000, max_refused: 10_000, expect };
    DeadLetters::open(folder.join("dead.db"), options, Arc::new(ManualClock::at(5000)))
}

fn dead_letter(reason: Reason, body: &[u8], signature: &str) -> DeadLetter {
    let mut headers = HeaderMap::new();
    headers.insert("x-dt-signature", signature.parse().expect("a value"));
    headers.insert("cookie", "secret".parse().expect("a value"));
    let body = Bytes::copy_from_slice(body);
    DeadLetter::of_request(Arc::from("default"), reason, "why".to_owned(), 4000, body).with_headers(&headers)
}

fn record() -> Record {
    let mut headers = HeaderMap::new();
    headers.insert("dt-asymmetric-signature", "a.\"b\\".parse().expect("a value"));
    headers.insert("host", "example.com".parse().expect("a value"));
    Record {
        provenance: VerifiedBy::Asymmetric { kid: Arc::from("k:1") }.into(),
        project: Some("p".into()),
        device: Some("d".into()),
        body: Bytes::from_static(b"{\"a\":\0\xff}"),
        ..Record::sample("e1")
    }
    .with_headers(&headers)
    .with_request_id(Some(RequestIds::new(1).next()))
}

fn rejected(seq: i64, attempts: u32) -> DeadLetter {
    DeadLetter::of_record(&record(), Arc::from("archive"), format!("attempt {attempts}"), attempts)
        .with_seq(seq)
}

fn all(dead_letters: &DeadLetters) -> Vec<StoredDeadLetter> {
    dead_letters.list(&Filter::default(), 0, 1000, true).expect("opens")
}

fn count(dead_letters: &DeadLetters, reason: &str) -> u64 {
    dead_letters.counts().iter().find(|count| count.reason == reason).map_or(0, |count| count.dead_letters)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

#[test]
fn a_rejected_record_is_made_again_exactly() {
    let folder = tempfile::tempdir().expect("a folder");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    assert_eq!(dead_letters.add_blocking(vec![rejected(9, 3)]).expect("stored"), [Some(1)]);
    let stored = all(&dead_letters).remove(0);
    let (made, was) = (stored.record().expect("a record"), record());
    assert_eq!(format!("{made:?}"), format!("{was:?}"));
    assert_eq!((made.headers == was.headers, made.body == was.body), (true, true));
    assert_eq!((stored.dead_letter.seq, stored.dead_letter.attempts, stored.dead_at), (Some(9), 3, 5000));
    // Without its body it is no record.
    let listed = dead_letters.list(&Filter::default(), 0, 10, false).expect("opens").remove(0);
    assert!(listed.record().is_none() && listed.dead_letter.body.is_empty());
    assert_eq!(listed.body_bytes, was.body.len());
}

#[test]
fn one_dead_letter_for_each_record_and_sink() {
    let folder = tempfile::tempdir().expect("a folder");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    let other = DeadLetter { reason: Reason::Rejected { sink: Arc::from("other") }, ..rejected(9, 1) };
    let damaged = DeadLetter { reason: Reason::Damaged, ..rejected(9, 0) };
    let added =
        dead_letters.add_blocking(vec![rejected(9, 1), rejected(10, 1), other, damaged.clone(), damaged]);
    assert_eq!(added.expect("stored"), [Some(1), Some(2), Some(3), Some(4), None]);
    assert_eq!(dead_letters.add_blocking(vec![rejected(9, 2)]).expect("stored"), [None]);
    let again = &all(&dead_letters)[0];
    assert_eq!((again.dead_letter.attempts, &*again.dead_letter.error), (3, "attempt 2"));
    assert_eq!(
        (count(&dead_letters, "rejected"), count(&dead_letters, "damaged"), dead_letters.highest_id()),
        (3, 1, 4)
    );
    block_on(async {
        assert!(dead_letters.still_dead_blocking(2, "still".to_owned()).expect("stored"));
        assert!(!dead_letters.still_dead_blocking(7, "still".to_owned()).expect("stored"));
        assert_eq!(dead_letters.remove_blocking(vec![1, 3, 7]).expect("removed"), 2);
    });
    let rest = all(&dead_letters);
    assert_eq!(
        rest.iter().map(|dead_letter| (dead_letter.id, dead_letter.replays)).collect::<Vec<_>>(),
        [(2, 1), (4, 0)]
    );
    // No id is reused, not even the highest one.
    assert_eq!(dead_letters.remove_blocking(vec![4]).expect("removed"), 1);
    assert_eq!(dead_letters.add_blocking(vec![rejected(11, 1)]).expect("stored"), [Some(5)]);
    assert!(dead_letters.check().expect("checked").is_empty());
}

#[test]
fn copies_are_stored_once_and_the_oldest_of_them_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    block_on(async {
        let unreadable = dead_letter(Reason::Unreadable, b"odd", "a.b.c");
        assert_eq!(dead_letters.add(unreadable.clone()).await.expect("stored"), Some(1));
        assert_eq!(dead_letters.add(unreadable).await.expect("stored"), None);
        // Copies of refused requests also differ by their signatures.
        for (signature, id) in [("a", Some(2)), ("b", Some(3)), ("a", None)] {
            let refused = dead_letter(Reason::Refused, b"odd", signature);
            assert_eq!(dead_letters.add(refused).await.expect("stored"), id);
        }
        for number in 0..100_u8 {
            dead_letters.add(dead_letter(Reason::Expired, &[number; 1000], "a")).await.expect("stored");
        }
    });
    assert_eq!((count(&dead_letters, "unreadable"), count(&dead_letters, "refused")), (1, 2));
    let expired = dead_letters.counts().into_iter().find(|count| count.reason == "expired").expect("a count");
    assert!((7..=9).contains(&expired.dead_letters) && expired.bytes <= 10_000, "{expired:?}");
    assert_eq!(dead_letters.dropped(), Dropped { expired: 100 - expired.dead_letters, refused: 0 });
    let filter = Filter { reason: Some("expired".to_owned()), ..Filter::default() };
    let newest = dead_letters.list(&filter, 0, 100, true).expect("opens").pop().expect("a dead letter");
    assert_eq!((newest.id, newest.dead_letter.body), (103, Bytes::from_static(&[99; 1000])));
    assert!(dead_letters.size_bytes() < 11_000);
    assert!(dead_letters.check().expect("checked").is_empty());
}

#[test]
fn dead_letters_survive_and_the_file_must_be_the_expected_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("dead.db");
    let code = |expect| open(folder.path(), expect).map(drop).map_err(|error| error.code());
    let change = |sql: &str| {
        rusqlite::Connection::open(&path).and_then(|file| file.execute_batch(sql)).expect("changed");
    };
    // A file that the log has recorded is not replaced.
    assert_eq!(code(existing(0)), Err("dead_missing"));
    assert!(!path.exists());
    fs::write(&path, b"").expect("written");
    assert_eq!(code(existing(0)), Err("dead_missing"));
    // An interrupted start leaves an empty file, or one without dead letters.
    change("PRAGMA journal_mode = WAL");
    assert!(fs::metadata(&path).expect("a file").len() > 0);
    assert_eq!(code(existing(0)), Err("dead_missing"));
    assert_eq!(code(Expect::New { store_id: [1; 16] }), Ok(()));
    assert_eq!(code(NEW), Ok(()));
    assert_eq!(code(existing(0)), Ok(()));
    let dead_letters = open(folder.path(), existing(0)).expect("opens");
    dead_letters.add_blocking(vec![rejected(1, 1), rejected(2, 1)]).expect("stored");
    drop(dead_letters);
    let dead_letters = open(folder.path(), existing(2)).expect("opens");
    assert_eq!(
        (all(&dead_letters).len(), dead_letters.highest_id(), count(&dead_letters, "rejected")),
        (2, 2, 2)
    );
    drop(dead_letters);

    assert_eq!(code(existing(3)), Err("dead_older"));
    assert_eq!(code(Expect::New { store_id: [1; 16] }), Err("dead_foreign"));
    assert_eq!(code(Expect::Existing { store_id: [1; 16], highest_id: 0 }), Err("dead_foreign"));
    assert_eq!(code(Expect::Anything), Ok(()));
    change("PRAGMA user_version = 2");
    assert_eq!(code(existing(2)), Err("dead_newer"));
    assert_eq!(code(Expect::Anything), Err("dead_newer"));
    change("PRAGMA application_id = 1");
    assert_eq!(code(existing(2)), Err("dead_not_ours"));
    fs::write(&path, "no database at all ".repeat(99)).expect("written");
    for expect in [existing(2), NEW, Expect::Anything] {
        assert_eq!(code(expect), Err("dead_not_ours"));
    }
    assert!(fs::read(&path).expect("the file").starts_with(b"no database"), "nothing is overwritten");
}

#[test]
fn what_mode_direct_made_becomes_the_store_s() {
    let folder = tempfile::tempdir().expect("a folder");
    let dead_letters = open(folder.path(), Expect::Anything).expect("opens");
    dead_letters.add_blocking(vec![dead_letter(Reason::Unreadable, b"a", "a")]).expect("stored");
    drop(dead_letters);
    assert_eq!(all(&open(folder.path(), NEW).expect("opens")).len(), 1);
    assert!(open(folder.path(), existing(1)).is_ok());
}

#[test]
fn a_reader_creates_nothing_and_sees_what_a_running_writer_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("dead.db");
    assert_eq!(ReadOnly::open(&path).map(drop).expect_err("missing").code(), "dead_missing");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    dead_letters.add_blocking(vec![rejected(1, 1)]).expect("stored");
    let beside = ReadOnly::open(&path).expect("a reader");
    assert_eq!(beside.list(&Filter::default(), 0, 10, true).expect("opens").len(), 1);
    dead_letters.add_blocking(vec![rejected(2, 1)]).expect("stored");
    assert_eq!(beside.list(&Filter::default(), 0, 10, true).expect("opens").len(), 2);
    drop((beside, dead_letters));
    let names = || {
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["dead.db"]);
    let alone = ReadOnly::open(&path).expect("a reader");
    assert_eq!((alone.highest_id().expect("an id"), alone.counts().expect("counts").len()), (2, 5));
    assert!(alone.check().expect("checked").is_empty());
    assert_eq!(names(), ["dead.db"]);
}

#[test]
fn a_flipped_bit_shows() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("dead.db");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    dead_letters.add_blocking(vec![rejected(1, 1), rejected(2, 1)]).expect("stored");
    drop(dead_letters);
    let mut bytes = fs::read(&path).expect("the file");
    let at = bytes.windows(5).position(|window| window == b"{\"a\":").expect("the body");
    bytes[at + 2] ^= 1;
    fs::write(&path, bytes).expect("written");
    let dead_letters = open(folder.path(), existing(2)).expect("opens");
    let stored = all(&dead_letters);
    assert_eq!(stored.iter().filter(|dead_letter| dead_letter.is_intact).count(), 1);
    assert_eq!(stored.iter().filter(|dead_letter| dead_letter.record().is_some()).count(), 1);
    assert_eq!(dead_letters.check().expect("checked").len(), 1);
}

#[test]
fn the_highest_possible_id_is_not_assigned_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    let other = rusqlite::Connection::open(folder.path().join("dead.db")).expect("a database");
    other.execute("UPDATE store SET highest_id = ?1", [i64::MAX - 1]).expect("changed");
    assert_eq!(dead_letters.add_blocking(vec![rejected(1, 1)]).expect("stored"), [Some(i64::MAX)]);
    dead_letters.add_blocking(vec![rejected(2, 1)]).expect_err("there is no id");
    assert_eq!(all(&dead_letters).len(), 1);
}

#[test]
fn a_removed_file_takes_no_more_dead_letters_until_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, moved) = (folder.path().join("dead.db"), folder.path().join("aside"));
    let dead_letters = open(folder.path(), NEW).expect("opens");
    dead_letters.add_blocking(vec![rejected(1, 1)]).expect("stored");
    assert_eq!(dead_letters.last_error(), None);
    fs::rename(&path, &moved).expect("renamed");
    let error = dead_letters.add_blocking(vec![rejected(2, 1)]).expect_err("missing");
    assert_eq!(error.code(), "dead_missing");
    assert!(dead_letters.last_error().is_some_and(|text| text.contains("missing")));
    // An empty file is rejected too, and stays empty.
    fs::write(&path, b"").expect("written");
    assert_eq!(dead_letters.add_blocking(vec![rejected(2, 1)]).expect_err("empty").code(), "dead_missing");
    // The dead letters are in the write-ahead log only, so no new file may be created beside it.
    assert_eq!(open(folder.path(), NEW).map(drop).expect_err("a log").code(), "dead_not_ours");
    assert_eq!(fs::metadata(&path).expect("a file").len(), 0);
    fs::rename(&moved, &path).expect("renamed");
    assert_eq!(dead_letters.add_blocking(vec![rejected(2, 1)]).expect("stored"), [Some(2)]);
    assert_eq!((dead_letters.last_error(), all(&dead_letters).len()), (None, 2));
}

#[test]
fn an_error_fails_its_callers_only_and_is_cleared_by_the_next_probe() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("dead.db");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    dead_letters.add_blocking(vec![rejected(1, 1)]).expect("stored");
    // A failing trigger stands for any failure of the disk.
    let other = rusqlite::Connection::open(&path).expect("a database");
    other
        .execute_batch(
            "CREATE TRIGGER fails BEFORE UPDATE ON store BEGIN SELECT RAISE(ABORT, 'no disk'); END",
        )
        .expect("made");
    let error = dead_letters.add_blocking(vec![rejected(2, 1)]).expect_err("no disk");
    assert!(error.to_string().contains("no disk"), "{error}");
    assert_eq!((all(&dead_letters).len(), dead_letters.highest_id()), (1, 1));
    assert!(dead_letters.last_error().is_some_and(|text| text.contains("no disk")));
    other.execute_batch("DROP TRIGGER fails").expect("dropped");
    drop(other);
    // Without a caller, the writer tests the disk itself.
    let start = Instant::now();
    while dead_letters.last_error().is_some() {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", dead_letters.last_error());
        std::thread::yield_now();
    }
    assert_eq!(dead_letters.add_blocking(vec![rejected(2, 1)]).expect("stored"), [Some(2)]);
}

#[test]
fn queued_copies_neither_delay_nor_displace_other_dead_letters() {
    let folder = tempfile::tempdir().expect("a folder");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    let other = rusqlite::Connection::open(folder.path().join("dead.db")).expect("a database");
    // Nothing is committed while another program writes, so everything waits.
    other.execute_batch("BEGIN IMMEDIATE").expect("begun");
    block_on(async {
        let mut copies = Vec::new();
        for number in 0..300_u32 {
            let mut body = vec![0; 100_000];
            body.extend(number.to_le_bytes());
            let copy = dead_letter(Reason::Refused, &body, "a");
            let mut adding = Box::pin(dead_letters.add(copy));
            // Polled once, it is queued.
            tokio::select! { biased; added = &mut adding => copies.push(added), () = std::future::ready(()) => {} }
        }
        let overloaded = copies.iter().filter(|added| matches!(added, Err(DeadError::Overloaded))).count();
        assert!(overloaded > 50, "{overloaded}");
        let mut waiting = Box::pin(dead_letters.add(rejected(1, 1)));
        tokio::select! { biased; added = &mut waiting => panic!("{added:?}"), () = std::future::ready(()) => {} }
        other.execute_batch("COMMIT").expect("committed");
        let id = waiting.await.expect("stored").expect("it is new");
        // At most the running transaction of copies and one more were committed before.
        assert!(id <= 129, "{id}");
    });
}

/// A request that gives up leaves its dead letter in the queue.
#[test]
fn a_database_that_hangs_holds_few_dead_letters_of_requests_and_all_of_sinks() {
    let folder = tempfile::tempdir().expect("a folder");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    let other = rusqlite::Connection::open(folder.path().join("dead.db")).expect("a database");
    other.execute_batch("BEGIN IMMEDIATE").expect("begun");
    block_on(async {
        let mut are_kept = Vec::new();
        for number in 0..300_u32 {
            let mut body = vec![0; 100_000];
            body.extend(number.to_le_bytes());
            let mut adding = Box::pin(dead_letters.add(dead_letter(Reason::Unreadable, &body, "a")));
            tokio::select! {
                biased;
                added = &mut adding => {
                    assert!(matches!(added, Err(DeadError::Overloaded)), "{added:?}");
                    are_kept.push(false);
                }
                () = std::future::ready(()) => are_kept.push(true),
            }
        }
        // 16 MiB, and what the writer has taken.
        let kept = are_kept.iter().filter(|is_kept| **is_kept).count();
        assert!((161..250).contains(&kept), "{kept} of 300 are kept");
        let mut waiting = Box::pin(dead_letters.add(rejected(1, 1)));
        tokio::select! { biased; added = &mut waiting => panic!("{added:?}"), () = std::future::ready(()) => {} }
        other.execute_batch("COMMIT").expect("committed");
        assert!(waiting.await.expect("stored").is_some());
        let body = dead_letter(Reason::Unreadable, b"there is room again", "a");
        assert!(dead_letters.add(body).await.expect("stored").is_some());
    });
}

#[test]
fn a_copy_of_the_files_at_any_moment_has_every_dead_letter_that_was_reported_stored() {
    let folder = tempfile::tempdir().expect("a folder");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    for seq in 1..40 {
        dead_letters.add_blocking(vec![rejected(seq, 1)]).expect("stored");
        // As `kill -9` leaves it.
        let copy = tempfile::tempdir().expect("a folder");
        for name in ["dead.db", "dead.db-wal"] {
            fs::copy(folder.path().join(name), copy.path().join(name)).expect("copied");
        }
        let copied = open(copy.path(), existing(seq)).expect("opens");
        assert_eq!(all(&copied).len(), usize::try_from(seq).expect("a number"));
        // Opening has written all of it to the database, so a power loss removes nothing that counts as stored.
        let log = fs::metadata(copy.path().join("dead.db-wal")).expect("a file").len();
        let database = tempfile::tempdir().expect("a folder");
        fs::copy(copy.path().join("dead.db"), database.path().join("dead.db")).expect("copied");
        let alone = ReadOnly::open(database.path().join("dead.db")).expect("a reader");
        assert_eq!(alone.highest_id().expect("an id"), seq, "with a log of {log} bytes");
    }
}

#[test]
fn what_does_not_fit_on_the_disk_is_not_taken_for_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    dead_letters.add_blocking((1..=200).map(|seq| rejected(seq, 1)).collect()).expect("stored");
    drop(dead_letters);
    let (from, to) = (folder.path().join("dead.db"), folder.path().join("new.db"));
    repair::create(&to, STORE, 200).expect("created");
    let connection = super::open::open_writer(&to).expect("opens");
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).expect("a number");
    connection.pragma_update_and_check(None, "max_page_count", pages + 3, |_| Ok(())).expect("limited");
    let error = repair::salvage_with(&connection, &from, &to, 200).expect_err("a full disk");
    assert!(matches!(error, DeadError::Full { .. }), "{error}");
}

/// With a number of its own that is damaged too: the ids are not counted up to it.
#[test]
fn all_readable_rows_around_a_damaged_page_are_saved_whatever_the_highest_id_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    // Two have a page.
    let body = |seq: i64| format!("<<{seq}>>{}", "x".repeat(1500));
    let rejections = |first: i64| {
        (first..first + 30).map(|seq| DeadLetter { body: body(seq).into(), ..rejected(seq, 1) }).collect()
    };
    dead_letters.add_blocking(rejections(1)).expect("stored");
    let other = rusqlite::Connection::open(folder.path().join("dead.db")).expect("opens");
    other.execute("UPDATE store SET highest_id = 4000000", []).expect("changed");
    dead_letters.add_blocking(rejections(31)).expect("stored");
    other.execute("UPDATE store SET highest_id = ?1", [i64::MAX]).expect("changed");
    drop((other, dead_letters));
    let (from, to) = (folder.path().join("dead.db"), folder.path().join("new.db"));
    let mut bytes = fs::read(&from).expect("read");
    let text = b"<<15>>";
    let at = bytes.windows(text.len()).position(|window| window == text).expect("the body");
    bytes[at / 4096 * 4096..][..4096].fill(0xAA);
    fs::write(&from, bytes).expect("written");
    // A thread, since it must not take for ever.
    let (sender, result) = std::sync::mpsc::channel();
    let damaged = from.clone();
    std::thread::spawn(move || {
        repair::create(&to, STORE, 0).expect("created");
        let saved = repair::salvage(&damaged, &to, i64::MAX).expect("done");
        let connection = super::open::open_writer(&to).expect("opens");
        let highest = super::read::highest_id(&connection).expect("read");
        sender.send((saved, highest)).expect("waited for");
    });
    let (saved, highest) = result.recv_timeout(Duration::from_secs(60)).expect("an end");
    let lost = saved.unreadable;
    assert!((1..=4).contains(&lost), "one page has few rows: {lost}");
    assert_eq!((saved.dead_letters, highest), (60 - lost, 4_000_030));
    assert_eq!(repair::highest_in(&from), 0, "no id would be left above the one that is stated");
}

/// SQLite finds no damage in some of these pages, and returns rows that do not exist.
#[test]
fn a_torn_sector_costs_no_more_than_its_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    let body = |seq: i64| format!("<<{seq}>>{}", "x".repeat(100));
    let rejections = (1..=400).map(|seq| DeadLetter { body: body(seq).into(), ..rejected(seq, 1) });
    dead_letters.add_blocking(rejections.collect()).expect("stored");
    drop(dead_letters);
    let intact = fs::read(folder.path().join("dead.db")).expect("read");
    let text = b"<<100>>";
    let at = intact.windows(text.len()).position(|window| window == text).expect("the body");
    let (page, from) = (at / 4096 * 4096, folder.path().join("torn.db"));
    for (number, (sector, fill)) in
        (0..8).flat_map(|sector| [0x00, 0x01, 0x55, 0xAA, 0xFF].map(|fill| (sector, fill))).enumerate()
    {
        let mut bytes = intact.clone();
        bytes[page + sector * 512..][..512].fill(fill);
        fs::write(&from, bytes).expect("written");
        let to = folder.path().join(format!("{number}.db"));
        repair::create(&to, STORE, 0).expect("created");
        let saved = repair::salvage(&from, &to, 400).expect("done");
        assert!(saved.dead_letters >= 370, "sector {sector} with {fill:#x}: {saved:?}");
        // Such a row cannot be distinguished from others.
        assert!(saved.dead_letters <= 401, "sector {sector} with {fill:#x}: {saved:?}");
    }
}

#[test]
fn ids_in_a_wrong_order_end_a_list_and_a_check() {
    let folder = tempfile::tempdir().expect("a folder");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    dead_letters.add_blocking((1..=5).map(|seq| rejected(seq, 1)).collect()).expect("stored");
    drop(dead_letters);
    let path = folder.path().join("dead.db");
    let file = rusqlite::Connection::open(&path).expect("opens");
    let page = "SELECT rootpage FROM sqlite_schema WHERE name = 'dead'";
    let page: u32 = file.query_row(page, [], |row| row.get(0)).expect("a page");
    drop(file);
    // A leaf: after 8 bytes come the places of its rows, each with 2 bytes of its length, and its id.
    let mut bytes = fs::read(&path).expect("read");
    let page = &mut bytes[(usize::try_from(page).expect("fits") - 1) * 4096..][..4096];
    let last = 8 + 2 * 4;
    let row = usize::from(u16::from_be_bytes([page[last], page[last + 1]]));
    assert_eq!(std::mem::replace(&mut page[row + 2], 2), 5);
    fs::write(&path, bytes).expect("written");
    // A thread, since it must not take for ever.
    let (sender, results) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let reader = ReadOnly::open(path).expect("opens");
        let listed = reader.list(&Filter::default(), 0, 1000, true).map(drop);
        sender.send((listed, reader.check().map(drop))).expect("waited for");
    });
    let (listed, checked) = results.recv_timeout(Duration::from_secs(20)).expect("an end");
    for error in [listed.expect_err("damage"), checked.expect_err("damage")] {
        assert!(error.to_string().contains("dead letter 2 is stored after 4"), "{error}");
    }
}

#[test]
fn what_cannot_be_saved_is_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let dead_letters = open(folder.path(), NEW).expect("opens");
    dead_letters.add_blocking(vec![rejected(1, 1)]).expect("stored");
    drop(dead_letters);
    let (from, to) = (folder.path().join("dead.db"), folder.path().join("new.db"));
    let file = rusqlite::Connection::open(&from).expect("opens");
    let page = "SELECT rootpage FROM sqlite_schema WHERE name = 'dead'";
    let page: u32 = file.query_row(page, [], |row| row.get(0)).expect("a page");
    let page = usize::try_from(page).expect("fits");
    drop(file);
    let mut bytes = fs::read(&from).expect("read");
    bytes[(page - 1) * 4096..page * 4096].fill(0xAA);
    fs::write(&from, bytes).expect("written");
    repair::create(&to, STORE, 5000).expect("created");
    let saved = repair::salvage(&from, &to, 5000).expect("done");
    assert_eq!((saved.dead_letters, saved.unreadable), (0, 5000), "most ids are not even tried");
    let saved = repair::salvage(&from, &to, 0).expect("done");
    assert_eq!((saved.dead_letters, saved.unreadable), (0, 1), "their number is not known");
}
