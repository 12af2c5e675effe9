//! The paths through the log. Its writer has a thread of its own, which takes whatever waits as one group: how much that is
//! would be chance. So the observer, which the writer calls after each group, holds it up until the next batch waits.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dt_receiver::clock::ManualClock;
use dt_receiver::log::{Appended, Bounds, Log, LogError, LogOptions, Observer, SinkSet, SinkState, StartAt};
use dt_receiver::record::Record;

use crate::inputs;
use crate::paths::{BATCH, MOST};

/// Long enough for a group under valgrind on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stores events for a registered sink, as production does: their ids go to the index in the end.
pub(crate) fn append(count: usize, folder: &Path) {
    let records = inputs::records(MOST + 1);
    store(folder, &records[..=count]);
}

/// Fills a log for [`drain`].
pub(crate) fn fill(folder: &Path) {
    store(folder, &inputs::records(MOST));
}

/// What a worker that is behind reads from the segments.
pub(crate) fn drain(count: usize, folder: &Path) {
    let log = open(folder, Arc::new(()));
    let mut source = log.source(sink_of(&log));
    let mut read = 0;
    while read < count {
        let stored = source.read(BATCH, i64::MAX).expect("read");
        assert!(!stored.is_empty() && stored.iter().all(|stored| stored.record.is_ok()));
        read += stored.len();
    }
}

fn open(folder: &Path, observer: Arc<dyn Observer>) -> Log {
    let bounds = Bounds { min_free: 0, ..LogOptions::default().bounds };
    let options = LogOptions { bounds, observer, ..LogOptions::default() };
    Log::open(folder, options, Arc::new(ManualClock::at(inputs::NOW * 1000))).expect("opened")
}

fn sink_of(log: &Log) -> SinkState {
    log.register(&Arc::from("sink"), StartAt::Now, Vec::new()).expect("known")
}

type Append<'a> = Pin<Box<dyn Future<Output = Result<Appended, LogError>> + 'a>>;

/// Stores the first record alone, and all others in batches.
fn store(folder: &Path, records: &[Arc<Record>]) {
    let holder = Arc::new(Holder::default());
    let log = open(folder, Arc::clone(&holder) as Arc<dyn Observer>);
    let sinks = SinkSet::new([sink_of(&log).number]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let finish = |mut waiting: Vec<Append<'_>>| {
        // They are answered in order: with the last, all are. So there is one wake-up a batch, and not a few by chance.
        while let Some(append) = waiting.pop() {
            assert!(matches!(runtime.block_on(append), Ok(Appended::New(_))));
        }
    };
    let mut before = queue(&log, &sinks, &records[..1]);
    holder.until_held();
    for batch in records[1..].chunks(BATCH) {
        let waiting = queue(&log, &sinks, batch);
        holder.let_one_go();
        finish(std::mem::replace(&mut before, waiting));
        holder.until_held();
    }
    holder.let_one_go();
    finish(before);
}

fn queue<'a>(log: &'a Log, sinks: &SinkSet, records: &[Arc<Record>]) -> Vec<Append<'a>> {
    let begin = |record: &Arc<Record>| {
        let mut append: Append<'a> = Box::pin(log.append(Arc::clone(record), sinks.clone(), true));
        let begun = append.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(begun, Poll::Pending), "the writer was not held up");
        append
    };
    records.iter().map(begin).collect()
}

/// Holds up the writer after each group of events.
#[derive(Debug, Default)]
struct Holder {
    state: Mutex<Held>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    /// How many groups were written, and how many of them the writer may leave behind.
    written: u64,
    released: u64,
}

impl Holder {
    fn let_one_go(&self) {
        self.state.lock().expect("no panic").released += 1;
        self.changed.notify_all();
    }

    fn until_held(&self) {
        let state = self.state.lock().expect("no panic");
        let is_running = |state: &mut Held| state.written <= state.released;
        let (_state, waited) =
            self.changed.wait_timeout_while(state, PATIENCE, is_running).expect("no panic");
        assert!(
            !waited.timed_out(),
            "the log's writer calls no observer; this has to hold it up in another way"
        );
    }
}

impl Observer for Holder {
    fn committed(&self, _took: Duration, events: u32) {
        if events == 0 {
            return;
        }
        let mut state = self.state.lock().expect("no panic");
        state.written += 1;
        self.changed.notify_all();
        let is_held = |state: &mut Held| state.released < state.written;
        drop(self.changed.wait_while(state, is_held).expect("no panic"));
    }
}
