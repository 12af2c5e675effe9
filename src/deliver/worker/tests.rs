//! When workers rest, for how long, and when they end.

use std::sync::mpsc;

use super::*;
use crate::clock::SystemClock;
use crate::spool::SpoolOptions;

const LONG: Duration = Duration::from_secs(3600);

/// Nobody is there.
struct Down;

impl Sink for Down {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Err(OpenError::Down("nobody is there".to_owned()))
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        Outcome::retry(batch.len(), "nobody is there")
    }
}

#[test]
fn a_removed_sink_that_is_dropped_ends_though_it_has_not_had_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = SpoolOptions { min_free: 0, ..SpoolOptions::default() };
    let spool = Arc::new(Spool::open(folder.path(), options, Arc::new(SystemClock)).expect("opens"));
    let backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(60), 0).expect("good");
    let (name, telemetry) = (Arc::from("gone"), Arc::new(Telemetry::new(Arc::new(SystemClock))));
    let sink = Box::new(Down);
    let worker =
        WorkerHandle::start(name, sink, Skips::new(), StartAt::Now, backoff, Arc::clone(&spool), telemetry);
    let worker = worker.expect("one that is down is no reason");
    worker.leave_after(1);
    spool.change(vec![Change::ForgetSink { sink: "gone".to_owned() }]).expect("dropped");
    let started = Instant::now();
    while !worker.is_finished() {
        assert!(started.elapsed() < Duration::from_secs(30), "it waits for what it cannot get any more");
        std::thread::sleep(Duration::from_millis(5));
    }
    spool.close();
}

/// Tells of each batch what was in it. Five at a time.
struct Telling(mpsc::Sender<Vec<String>>);

impl Sink for Telling {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        self.0.send(batch.iter().map(|record| record.event_id.to_string()).collect()).expect("heard");
        Outcome::delivered(batch.len())
    }

    fn max_batch(&self) -> usize {
        5
    }
}

fn append(spool: &Spool, id: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(spool.append(Arc::new(Record::sample(id)), true)).expect("stored");
}

/// A worker that rests for so long, its spool, and what its sink is given.
fn resting(folder: &std::path::Path, rest: Duration) -> (WorkerHandle, Arc<Spool>, impl Fn() -> Vec<String>) {
    let options = SpoolOptions { min_free: 0, ..SpoolOptions::default() };
    let spool = Arc::new(Spool::open(folder, options, Arc::new(SystemClock)).expect("opens"));
    let backoff = Backoff::new(LONG, LONG, 0).expect("good");
    let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
    let (sender, batches) = mpsc::channel();
    let (sink, skips, start) = (Box::new(Telling(sender)), Skips::new(), StartAt::Now);
    let of_worker = Arc::clone(&spool);
    let name = Arc::from("telling");
    let worker = WorkerHandle::start_with_rest(name, sink, skips, start, backoff, of_worker, telemetry, rest);
    let next = move || batches.recv_timeout(Duration::from_secs(30)).expect("a batch");
    (worker.expect("starts"), spool, next)
}

#[test]
fn a_worker_that_rests_takes_a_full_batch_and_what_is_left_when_the_service_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    let (worker, spool, next) = resting(folder.path(), LONG);
    append(&spool, "first");
    assert_eq!(next(), ["first"], "one that comes after a quiet time is not held back");
    (0..7).for_each(|number| append(&spool, &number.to_string()));
    assert_eq!(next(), ["0", "1", "2", "3", "4"]);
    spool.tail().stop(Instant::now().checked_add(LONG).expect("a time"));
    assert_eq!(next(), ["5", "6"]);
    worker.join();
    spool.close();
}

#[test]
fn a_rest_ends_by_itself_and_when_an_operator_wants_something() {
    let folder = tempfile::tempdir().expect("a folder");
    let (worker, spool, next) = resting(folder.path(), Duration::from_millis(1));
    for id in ["a", "b", "c"] {
        append(&spool, id);
        assert_eq!(next(), [id]);
    }
    spool.tail().stop(Instant::now());
    worker.join();
    spool.close();
    drop(spool);
    let (worker, spool, next) = resting(folder.path(), LONG);
    append(&spool, "d");
    assert_eq!(next(), ["d"]);
    append(&spool, "e");
    spool.tail().wake();
    assert_eq!(next(), ["e"]);
    append(&spool, "f");
    worker.stop();
    worker.join();
    spool.close();
}
