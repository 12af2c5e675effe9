//! What an operator changes holds, whatever the workers are just doing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::HeaderMap;

use super::*;
use crate::clock::ManualClock;
use crate::record::Reason;

fn open(folder: &Path, options: SpoolOptions) -> Spool {
    Spool::open(folder, SpoolOptions { min_free: 0, ..options }, Arc::new(ManualClock::at(1_000_000)))
        .expect("opens")
}

/// Keeps everything.
fn kept() -> SpoolOptions {
    SpoolOptions { retain: Duration::from_secs(3600), ..SpoolOptions::default() }
}

fn record(id: &str, received_at: i64) -> Arc<Record> {
    Arc::new(Record { received_at, ..Record::sample(id) })
}

fn letter(reason: Reason, body: Vec<u8>, signature: &str) -> DeadLetter {
    let mut headers = HeaderMap::new();
    headers.insert("x-dt-signature", signature.parse().expect("a value"));
    DeadLetter::of_request(Arc::from("default"), reason, "why".to_owned(), 5, &headers, Bytes::from(body))
}

async fn filled(folder: &Path, options: SpoolOptions) -> Arc<Spool> {
    let spool = Arc::new(open(folder, options));
    for at in 1..=5_i64 {
        let appended = spool.append(record(&format!("event-{at}"), at.saturating_mul(1000)), true).await;
        assert_eq!(appended.expect("stored"), Appended::New(at));
    }
    spool
}

/// The calls of workers and operators block, so they run beside the runtime.
async fn blocking<T: Send + 'static>(
    spool: &Arc<Spool>,
    work: impl FnOnce(&Spool) -> T + Send + 'static,
) -> T {
    let spool = Arc::clone(spool);
    tokio::task::spawn_blocking(move || work(&spool)).await.expect("no panic")
}

fn sink() -> Arc<str> {
    Arc::from("file")
}

#[tokio::test]
async fn a_cursor_that_was_moved_back_stays_there_although_the_worker_moves_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = filled(folder.path(), kept()).await;
    blocking(&spool, |spool| {
        spool.register(sink(), StartAt::Retained, BTreeSet::new()).expect("known");
        let to = |from, cursor| Progress { from: Some(from), cursor, ..Progress::default() };
        spool.advance(sink(), to(0, 4)).expect("moved");
        let back = || vec![Change::Rewind { sink: "file".to_owned(), cursor: 1 }];
        assert_eq!(spool.change(back()).expect("changed"), [Changed::Rewound(3)]);
        // It was on its way from 4 to 5 when that happened.
        assert_eq!(spool.advance(sink(), to(4, 5)).expect("stored"), 1);
        let cursor = || spool.reader().and_then(|reader| reader.cursor("file")).expect("read");
        assert_eq!(cursor(), Some(1));
        spool.advance(sink(), to(1, 5)).expect("moved");
        assert_eq!(cursor(), Some(5));
        // Never forward, and never before what is there.
        let change = |cursor| vec![Change::Rewind { sink: "file".to_owned(), cursor }];
        assert_eq!(spool.change(change(9)).expect("changed"), [Changed::Rewound(0)]);
        assert_eq!(spool.change(change(-9)).expect("changed"), [Changed::Rewound(5)]);
        assert_eq!(cursor(), Some(0));
        let nobody = vec![Change::Rewind { sink: "nobody".to_owned(), cursor: 0 }];
        assert_eq!(spool.change(nobody).expect("asked"), [Changed::Gone]);
    })
    .await;
}

#[tokio::test]
async fn what_every_sink_has_is_not_given_again_where_nothing_is_retained_though_some_of_it_is_there() {
    /// More than are removed at once.
    const OLD: i64 = 3000;
    let folder = tempfile::tempdir().expect("a folder");
    let spool = Arc::new(open(folder.path(), SpoolOptions::default()));
    let sinks = || ["file", "other"].map(Arc::<str>::from);
    let settle = |cursor| {
        blocking(&spool, move |spool| {
            for sink in sinks() {
                spool.advance(sink, Progress { cursor, ..Progress::default() }).expect("moved");
            }
            spool.settle().expect("settled");
        })
    };
    blocking(&spool, move |spool| {
        for sink in sinks() {
            spool.register(sink, StartAt::Now, BTreeSet::new()).expect("known");
        }
    })
    .await;
    for number in 1..=OLD {
        spool.append(record(&format!("{number:05}"), 1000), true).await.expect("stored");
    }
    settle(0).await;
    settle(OLD).await;
    // These never get to the database.
    for number in OLD + 1..=OLD + 10 {
        spool.append(record(&format!("{number:05}"), 1000), true).await.expect("stored");
    }
    settle(OLD + 10).await;
    let left = spool.reader().and_then(|reader| reader.status()).expect("read").records;
    assert!(left > 0, "or else this shows nothing");
    blocking(&spool, |spool| {
        let back = vec![Change::Rewind { sink: "file".to_owned(), cursor: 0 }];
        assert_eq!(spool.change(back).expect("changed"), [Changed::Rewound(0)]);
        let new = spool.register(Arc::from("new"), StartAt::Retained, BTreeSet::new()).expect("known");
        assert_eq!(new.cursor, OLD + 10);
        let findings = spool.reader().and_then(|reader| reader.check(|_| {})).expect("read");
        assert!(findings.is_empty(), "{findings:?}");
    })
    .await;
}

#[tokio::test]
async fn the_first_since_is_found_and_exports_go_on_where_they_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = filled(folder.path(), kept()).await;
    let reader = spool.reader().expect("opens");
    assert_eq!(reader.first_since(2500).expect("read"), Some(3));
    assert_eq!(reader.first_since(5001).expect("read"), None);
    let (first, next) = reader.export(2000, None, i64::MIN, 2).expect("read");
    assert_eq!((first.len(), next), (1, Some(2)));
    let (rest, next) = reader.export(2000, None, 2, 10).expect("read");
    assert_eq!((rest.len(), next), (3, Some(5)));
    assert_eq!(
        reader.export(2000, None, 5, 10).map(|(rest, next)| (rest.len(), next)).expect("read"),
        (0, None)
    );
}

#[test]
fn a_start_waits_for_a_command_that_is_about_to_be_done_with_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let held = open::lock(folder.path()).expect("taken");
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| self::open(folder.path(), kept()));
        // As the command, which is done a little later.
        std::thread::yield_now();
        drop(held);
        starting.join().expect("it starts");
    });
    let running = self::open(folder.path(), kept());
    assert!(matches!(open::lock_soon(folder.path()), Err(SpoolError::Locked { .. })), "not for ever");
    drop(running);
}

/// A clock that breaks in the middle of a commit, once nobody holds it any more.
#[derive(Debug, Default)]
struct Broken {
    breaks: AtomicBool,
    /// Whoever asks then says so here.
    is_asked: AtomicBool,
    held: Mutex<()>,
}

impl crate::clock::Clock for Broken {
    fn unix_millis(&self) -> i64 {
        if self.breaks.load(Ordering::SeqCst) {
            self.is_asked.store(true, Ordering::SeqCst);
            let _held = self.held.lock();
            panic!("a panic for the test");
        }
        1_000_000
    }
}

fn open_with_clock(folder: &Path) -> (Arc<Spool>, Arc<Broken>) {
    let clock = Arc::new(Broken::default());
    let options = SpoolOptions { min_free: 0, ..kept() };
    let spool = Spool::open(folder, options, Arc::clone(&clock) as Arc<_>).expect("opens");
    (Arc::new(spool), clock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_the_writer_is_told_when_its_thread_panics() {
    let folder = tempfile::tempdir().expect("a folder");
    let (spool, clock) = open_with_clock(folder.path());
    assert!(spool.append(record("event-1", 1000), true).await.is_ok());
    clock.breaks.store(true, Ordering::SeqCst);
    let held = clock.held.lock();
    // A letter is the thread's affair.
    let burying = Arc::clone(&spool);
    let buried = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(burying.bury(letter(Reason::Expired, b"{}".to_vec(), "a.b.c")))
    });
    while !clock.is_asked.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    let appending = Arc::clone(&spool);
    let runtime = tokio::runtime::Handle::current();
    let appended = runtime.spawn(async move { appending.append(record("event-2", 1000), true).await });
    // Until it waits; if it does not yet, it finds that out by itself.
    for _ in 0..1000 {
        std::thread::yield_now();
    }
    drop(held);
    let patience = Duration::from_secs(10);
    let appended = tokio::time::timeout(patience, appended).await.expect("it is told").expect("no panic");
    assert!(matches!(appended, Err(SpoolError::Closed | SpoolError::Poisoned { .. })), "{appended:?}");
    assert!(buried.join().expect("no panic").is_err());
    spool.close();
    let trouble = spool.tail().trouble().expect("it is told");
    assert!(trouble.contains("a panic on the way"), "{trouble}");
    assert!(spool.append(record("event-3", 1000), true).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_panic_in_a_commit_nothing_is_accepted_and_everyone_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let (spool, clock) = open_with_clock(folder.path());
    assert!(spool.append(record("event-1", 1000), true).await.is_ok());
    clock.breaks.store(true, Ordering::SeqCst);
    assert!(matches!(spool.append(record("event-2", 1000), true).await, Err(SpoolError::Closed)));
    clock.breaks.store(false, Ordering::SeqCst);
    let later = spool.append(record("event-3", 1000), true).await;
    assert!(matches!(later, Err(SpoolError::Poisoned { .. })), "{later:?}");
    let trouble = spool.tail().trouble().expect("it is told");
    assert!(trouble.contains("a panic on the way"), "{trouble}");
}

fn large(id: &str, bytes: usize) -> Arc<Record> {
    Arc::new(Record { body: Bytes::from(vec![b' '; bytes]), ..Record::clone(&record(id, 0)) })
}

#[tokio::test]
async fn large_bodies_are_read_a_few_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = open(folder.path(), kept());
    for number in 0..4 {
        spool.append(large(&format!("event-{number}"), 3 << 20), true).await.expect("stored");
    }
    let reader = spool.reader().expect("opens");
    let numbers = |after| reader.after(after, 256).expect("read").iter().map(|s| s.seq).collect::<Vec<_>>();
    assert_eq!(numbers(0), [1, 2, 3]);
    assert_eq!(numbers(3), [4]);
}

#[tokio::test]
async fn bodies_that_wait_for_a_disk_that_hangs_are_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    // Without a journal, whoever holds the database stands for the disk that hangs.
    let spool = open(folder.path(), SpoolOptions { max_queue_bytes: 1000, journal_bytes: 0, ..kept() });
    let stopped = rusqlite::Connection::open(folder.path().join("spool.db")).expect("opens");
    stopped.execute_batch("BEGIN IMMEDIATE").expect("held");
    let first = spool.append(large("first", 900), true);
    let second = spool.append(large("second", 900), true);
    let (mut first, mut second) = (Box::pin(first), Box::pin(second));
    assert!(futures_ready(&mut first).await.is_none(), "it waits");
    assert!(matches!(futures_ready(&mut second).await, Some(Err(SpoolError::Overloaded))));
    stopped.execute_batch("COMMIT").expect("let go");
    assert_eq!(first.await.expect("stored"), Appended::New(1));
    assert_eq!(spool.append(large("third", 900), true).await.expect("stored"), Appended::New(2));
}

/// Overwrites the page of the database that holds this text. Gives the numbers of the records that were on it.
fn damage_page_of(folder: &Path, text: &str, numbers: std::ops::RangeInclusive<i64>) -> Vec<i64> {
    const PAGE: usize = 4096;
    let path = folder.join("spool.db");
    let mut bytes = std::fs::read(&path).expect("read");
    let find =
        |bytes: &[u8], text: &str| bytes.windows(text.len()).position(|found| found == text.as_bytes());
    let page = find(&bytes, text).expect("it is there") / PAGE;
    let damaged = bytes.chunks_mut(PAGE).nth(page).expect("a page");
    let on_page =
        numbers.filter(|number| find(damaged, &format!("event-{number}-touch")).is_some()).collect();
    damaged.fill(0xAA);
    std::fs::write(&path, bytes).expect("written");
    on_page
}

/// Records 1 to `count`, a handful to a page, in a closed spool.
async fn closed(folder: &Path, count: i64) {
    let spool = Arc::new(open(folder, kept()));
    for at in 1..=count {
        let filler = format!("{}event-{at}-touch", " ".repeat(500));
        let record =
            Record { body: Bytes::from(filler), ..Record::clone(&record(&format!("event-{at}"), at)) };
        spool.append(Arc::new(record), true).await.expect("stored");
    }
    blocking(&spool, |spool| spool.close()).await;
}

fn numbers_of(stored: &[Stored]) -> (Vec<i64>, Vec<i64>) {
    let of = |whole: bool| {
        stored.iter().filter(|s| s.record.is_ok() == whole).map(|stored| stored.seq).collect::<Vec<_>>()
    };
    (of(true), of(false))
}

#[tokio::test]
async fn a_gap_before_a_damaged_page_is_no_end() {
    let folder = tempfile::tempdir().expect("a folder");
    closed(folder.path(), 700).await;
    let database = rusqlite::Connection::open(folder.path().join("spool.db")).expect("opens");
    // What a clean-up in the middle or a rebuilt spool leaves: more numbers than a batch has.
    database.execute("DELETE FROM records WHERE seq BETWEEN 101 AND 500", []).expect("deleted");
    drop(database);
    let bad = damage_page_of(folder.path(), "event-600-touch", 501..=700);
    assert!((1..20).contains(&bad.len()), "{bad:?}");
    let reader = Reader::open(folder.path()).expect("opens");
    let (mut after, mut whole, mut damaged) = (0, Vec::new(), Vec::new());
    loop {
        let stored = reader.after(after, 256).expect("read");
        let Some(last) = stored.last() else { break };
        after = last.seq;
        let (some, others) = numbers_of(&stored);
        whole.extend(some);
        damaged.extend(others);
    }
    assert_eq!(damaged, bad);
    assert_eq!(whole, (1..=100).chain(501..=700).filter(|seq| !bad.contains(seq)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_damaged_page_is_one_however_few_records_are_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    closed(folder.path(), 100).await;
    let bad = damage_page_of(folder.path(), "event-50-touch", 1..=100);
    let reader = Reader::open(folder.path()).expect("opens");
    let first = *bad.first().expect("one");
    for limit in 1..=3 {
        let (whole, damaged) = numbers_of(&reader.after(first.saturating_sub(1), limit).expect("read"));
        assert_eq!((whole.len(), damaged.first()), (0, Some(&first)), "limit {limit}");
        assert_eq!(damaged.len(), limit.min(bad.len()));
    }
    // At the very end there is nothing behind it that could be read.
    let tail = damage_page_of(folder.path(), "event-100-touch", 1..=100);
    let (whole, damaged) = numbers_of(&reader.after(98, 256).expect("read"));
    assert_eq!((whole.len(), damaged.last()), (0, Some(&100)), "{tail:?}");
}

/// What a future gives right away.
async fn futures_ready<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn a_connector_is_skipped_only_from_where_it_was_taken_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = filled(folder.path(), kept()).await;
    let skips = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<BTreeSet<Arc<str>>>();
    let register = |names: &[&str]| {
        let skipped = skips(names);
        blocking(&spool, move |spool| spool.register(sink(), StartAt::Retained, skipped).expect("known"))
    };
    // New, it never had anything of it.
    assert_eq!(register(&["a"]).await.skips, BTreeMap::from([(Arc::from("a"), 0)]));
    // Taken off later, it still gets what came before.
    let both = BTreeMap::from([(Arc::from("a"), 0), (Arc::from("b"), 5)]);
    assert_eq!(register(&["a", "b"]).await.skips, both);
    spool.append(record("event-6", 6000), true).await.expect("stored");
    assert_eq!(register(&["a", "b"]).await.skips, both, "a restart moves nothing");
    assert_eq!(register(&[]).await.skips, BTreeMap::new());
    assert_eq!(register(&["b"]).await.skips, BTreeMap::from([(Arc::from("b"), 6)]));
}

#[tokio::test]
async fn a_rejected_record_becomes_one_letter_and_leaves_once_it_is_delivered() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = filled(folder.path(), kept()).await;
    blocking(&spool, |spool| {
        spool.register(sink(), StartAt::Retained, BTreeSet::new()).expect("known");
        let reader = spool.reader().expect("opens");
        let rejected = || {
            let (record, error) = (record("event-2", 2000), "odd".to_owned());
            let rejected = vec![Rejected { seq: 2, record, error, attempts: 1 }];
            Progress { cursor: 5, rejected, ..Progress::default() }
        };
        spool.advance(sink(), rejected()).expect("moved");
        // The sink saw it again and said the same.
        spool.advance(sink(), rejected()).expect("moved");
        let letters = reader.dead(&Filter::default(), 0, 10, true).expect("read");
        assert_eq!((letters.len(), letters[0].attempts), (1, 2));
        let id = letters[0].id;
        assert!(reader.to_redeliver("file", 0, 10).expect("read").is_empty());
        assert_eq!(spool.change(vec![Change::Redeliver { id }]).expect("changed"), [Changed::Done]);
        assert_eq!(
            reader.to_redeliver("file", 0, 10).expect("read")[0].record.as_ref().expect("whole").event_id,
            record("event-2", 0).event_id
        );
        let again =
            Progress { cursor: 5, rejected_again: vec![(id, "still odd".to_owned())], ..Progress::default() };
        spool.advance(sink(), again).expect("stored");
        let letters = reader.dead(&Filter::default(), 0, 10, false).expect("read");
        assert_eq!((letters[0].replays, letters[0].replay_at, &*letters[0].error), (1, None, "still odd"));
        spool.change(vec![Change::Redeliver { id }]).expect("changed");
        // Nobody else's, though.
        let taken = || Progress { cursor: 5, redelivered: vec![id], ..Progress::default() };
        spool.advance(Arc::from("other"), taken()).expect("stored");
        assert_eq!(reader.status().expect("read").dead_letters["rejected"], 1);
        spool.advance(sink(), taken()).expect("stored");
        assert_eq!(reader.status().expect("read").dead_letters["rejected"], 0);
        assert_eq!(reader.check(|_| {}).expect("read"), []);
    })
    .await;
}

#[tokio::test]
async fn a_letter_that_comes_in_passes_the_duplicate_check_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = filled(folder.path(), kept()).await;
    for body in [b"a".to_vec(), b"b".to_vec()] {
        spool.bury(letter(Reason::Expired, body, "s")).await.expect("stored");
    }
    blocking(&spool, |spool| {
        let accept = |id, event: &str| Change::Accept { id, record: record(event, 7000), dedup: true };
        let changes = vec![accept(1, "event-1"), accept(2, "event-6"), accept(2, "event-7")];
        let changed = spool.change(changes).expect("changed");
        assert_eq!(changed, [Changed::Duplicate, Changed::Done, Changed::Gone]);
        let status = spool.reader().and_then(|reader| reader.status()).expect("read");
        assert_eq!((status.records, status.last_seq, status.dead_letters["expired"]), (6, 6, 0));
    })
    .await;
    assert_eq!(spool.append(record("event-6", 7000), true).await.expect("known"), Appended::Duplicate);
    // Its letter was gone, so it never came in.
    assert_eq!(spool.append(record("event-7", 7000), true).await.expect("stored"), Appended::New(7));
}

/// A writer without its thread.
fn writer(folder: &Path, options: SpoolOptions) -> Writer {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let options = SpoolOptions { min_free: 0, ..options };
    Writer::open(folder, open::database(folder).expect("opens"), options, clock).expect("opens")
}

fn append_command(
    record: Arc<Record>,
    dedup: bool,
) -> (Command, oneshot::Receiver<Result<Appended, SpoolError>>) {
    let (reply, answer) = oneshot::channel();
    let room = Room::take(&Arc::default(), record.body.len(), usize::MAX).expect("room");
    (Command::Append { record, dedup, room, reply }, answer)
}

#[test]
fn nothing_is_changed_once_the_journal_has_failed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = writer(folder.path(), kept());
    writer.poisoned = Some("a sync failed".to_owned());
    let (command, mut answer) = append_command(record("event", 0), true);
    writer.transact(vec![command]);
    assert!(matches!(answer.try_recv(), Ok(Err(SpoolError::Poisoned { .. }))));
    let reader = Reader::open(folder.path()).expect("opens");
    assert_eq!(reader.after(0, 10).expect("read").len(), 0);
}

#[test]
fn an_event_stays_known_when_room_is_made_for_its_frame() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = SpoolOptions { dedup_window: Duration::from_secs(10), journal_bytes: 64 << 10, ..kept() };
    let mut writer = writer(folder.path(), options);
    let note = |writer: &mut Writer, record, dedup| {
        let (command, mut answer) = append_command(record, dedup);
        assert!(writer.note(vec![command]).is_empty());
        answer.try_recv().expect("answered").expect("stored")
    };
    assert_eq!(note(&mut writer, record("first", 0), true), Appended::New(1));
    writer.settle_oldest().expect("settled");
    // So much later that what is known of the first one is pruned with the next part.
    let later =
        Arc::new(Record { body: Bytes::from(vec![b' '; 3000]), ..Record::clone(&record("", 9_000_000)) });
    while writer.journal.as_ref().expect("a journal").has_room(1) {
        note(&mut writer, Arc::clone(&later), false);
    }
    assert!(matches!(note(&mut writer, record("second", 9_000_000), true), Appended::New(_)));
    assert_eq!(note(&mut writer, record("second", 9_000_000), true), Appended::Duplicate);
}

#[tokio::test]
async fn pruning_keeps_up_with_what_comes_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = Arc::new(open(folder.path(), SpoolOptions { dedup_max: 10, ..kept() }));
    let mut appends = tokio::task::JoinSet::new();
    for number in 0..3000 {
        let spool = Arc::clone(&spool);
        appends.spawn(async move { spool.append(record(&format!("event-{number:04}"), 0), true).await });
    }
    while let Some(appended) = appends.join_next().await {
        assert!(matches!(appended, Ok(Ok(Appended::New(_)))), "{appended:?}");
    }
    let seen =
        blocking(&spool, |spool| spool.reader().and_then(|reader| reader.status()).expect("read").seen).await;
    assert_eq!(seen, 10);
}

#[test]
fn a_journal_that_the_database_does_not_know_is_kept_and_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open::database(folder.path()).expect("made"));
    let mut journal = journal::Journal::create(folder.path(), 64 << 10).expect("made");
    journal.write(b"accepted", 1).expect("written");
    drop(journal);
    let spool = open(folder.path(), kept());
    let damage = spool.tail().damage().expect("told of");
    assert!(damage.contains("spool.journal"), "{damage}");
    let kept = std::fs::read_dir(folder.path()).expect("read").filter_map(Result::ok);
    let kept: Vec<_> = kept
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().contains("damaged"))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    drop(spool);
    let again = open(folder.path(), SpoolOptions::default());
    assert_eq!(again.tail().damage(), None, "it is told once");
}

#[tokio::test]
async fn refused_letters_are_bounded_and_a_strangers_copy_keeps_no_other_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = filled(folder.path(), SpoolOptions { max_refused: 10_000, ..kept() }).await;
    for signature in ["bad", "good", "good"] {
        spool.bury(letter(Reason::Refused, b"same".to_vec(), signature)).await.expect("stored");
    }
    let reader = spool.reader().expect("opens");
    assert_eq!(reader.status().expect("read").dead_letters["refused"], 2);
    for at in 0..100_u8 {
        spool.bury(letter(Reason::Refused, vec![at; 1000], "s")).await.expect("stored");
    }
    let letters = reader.dead(&Filter::default(), 0, 1000, true).expect("read");
    assert!((5..=9).contains(&letters.len()), "{}", letters.len());
    assert_eq!(letters.last().map(|letter| letter.body.first().copied()), Some(Some(99)), "the oldest went");
    assert_eq!(reader.check(|_| {}).expect("read"), []);
}

#[tokio::test]
async fn a_cursor_beyond_the_end_does_not_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = filled(folder.path(), kept()).await;
    blocking(&spool, |spool| spool.register(sink(), StartAt::Now, BTreeSet::new()).expect("known")).await;
    drop(spool);
    let database = rusqlite::Connection::open(folder.path().join("spool.db")).expect("opens");
    database.execute("UPDATE sinks SET cursor = 6", []).expect("changed");
    drop(database);
    let error = Spool::open(folder.path(), kept(), Arc::new(ManualClock::at(0))).expect_err("beyond");
    let said = error.to_string();
    assert!(matches!(error, SpoolError::CursorBeyondEnd { cursor: 6, last_seq: 5, .. }), "{said}");
    assert!(said.contains("UPDATE sinks SET cursor = 5 WHERE name = 'file'"), "{said}");
}

#[tokio::test]
async fn a_repair_prunes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = filled(folder.path(), kept()).await;
    blocking(&spool, |spool| spool.register(sink(), StartAt::Now, BTreeSet::new()).expect("known")).await;
    drop(spool);
    let spool = Arc::new(open(folder.path(), SpoolOptions::for_repair()));
    blocking(&spool, |spool| spool.close()).await;
    let status = Reader::open(folder.path()).and_then(|reader| reader.status()).expect("read");
    assert_eq!((status.records, status.seen), (5, 5));
}

#[tokio::test]
async fn whoever_comes_after_the_end_is_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = filled(folder.path(), kept()).await;
    blocking(&spool, Spool::close).await;
    for id in ["late", "later"] {
        let appended = tokio::time::timeout(Duration::from_secs(30), spool.append(record(id, 0), true)).await;
        assert!(matches!(appended, Ok(Err(SpoolError::Closed))), "{appended:?}");
    }
    assert!(!folder.path().join("spool.journal").exists(), "a closed spool is one file");
}
