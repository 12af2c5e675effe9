//! The paths through the spool. In a runtime of one thread its writer has a thread of its own, which takes whatever has
//! queued up as one frame: how much that is would be chance. So the clock, which the writer asks for each frame, holds it
//! up until the next batch has queued up.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use dt_receiver::clock::Clock;
use dt_receiver::record::Record;
use dt_receiver::spool::{Appended, Reader, Spool, SpoolError, SpoolOptions, Tail};

use crate::inputs;
use crate::paths::{BATCH, MOST};

/// Long enough for a transaction under valgrind on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn append(count: usize, folder: &Path) {
    let records = inputs::records(MOST + 1);
    store(folder, &records[..=count]);
}

/// Fills a spool for [`drain`].
pub(crate) fn fill(folder: &Path) {
    store(folder, &inputs::records(MOST));
}

pub(crate) fn drain(count: usize, folder: &Path) {
    let reader = Reader::open(folder).expect("opened");
    let (mut seq, mut read) = (0, 0);
    while read < count {
        let stored = reader.after(seq, BATCH).expect("read");
        assert!(stored.len() == BATCH && stored.iter().all(|stored| stored.record.is_ok()));
        (seq, read) = (stored[BATCH - 1].seq, read + BATCH);
    }
}

type Append<'a> = Pin<Box<dyn Future<Output = Result<Appended, SpoolError>> + 'a>>;

/// Stores the first record alone, and all others in batches.
fn store(folder: &Path, records: &[Arc<Record>]) {
    let clock = Arc::new(HoldingClock::default());
    let options = SpoolOptions { min_free: 0, ..SpoolOptions::default() };
    let spool = Spool::open(folder, options, Arc::clone(&clock) as Arc<dyn Clock>).expect("opened");
    clock.hold(&spool);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let finish = |mut waiting: Vec<Append<'_>>| {
        // They are answered in order: with the last, all are. So there is one wake-up a batch, and not a few by chance.
        while let Some(append) = waiting.pop() {
            assert!(matches!(runtime.block_on(append), Ok(Appended::New(_))));
        }
    };
    let mut before = queue(&spool, &records[..1]);
    clock.queued(1);
    for batch in records[1..].chunks(BATCH) {
        clock.until_held();
        let waiting = queue(&spool, batch);
        clock.queued(batch.len());
        finish(std::mem::replace(&mut before, waiting));
    }
    clock.let_go();
    finish(before);
}

fn queue<'a>(spool: &'a Spool, records: &[Arc<Record>]) -> Vec<Append<'a>> {
    let begin = |record: &Arc<Record>| {
        let mut append: Append<'a> = Box::pin(spool.append(Arc::clone(record), true));
        let begun = append.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(begun, Poll::Pending), "the writer was not held up");
        append
    };
    records.iter().map(begin).collect()
}

/// A clock that stands still, and holds up the writer that asks it until more has queued up than it has taken.
#[derive(Debug, Default)]
struct HoldingClock {
    state: Mutex<Held>,
    changed: Condvar,
    /// How many records are stored.
    tail: OnceLock<Arc<Tail>>,
}

#[derive(Debug, Default)]
struct Held {
    queued: usize,
    is_held: bool,
    may_go: bool,
}

impl HoldingClock {
    fn hold(&self, spool: &Spool) {
        self.tail.set(Arc::clone(spool.tail())).expect("held once");
    }

    fn queued(&self, count: usize) {
        self.state.lock().expect("no panic").queued += count;
        self.changed.notify_all();
    }

    fn let_go(&self) {
        self.state.lock().expect("no panic").may_go = true;
        self.changed.notify_all();
    }

    fn until_held(&self) {
        let state = self.state.lock().expect("no panic");
        let (state, waited) =
            self.changed.wait_timeout_while(state, PATIENCE, |state| !state.is_held).expect("no panic");
        assert!(
            !waited.timed_out(),
            "the spool's writer asks for no time; this has to hold it up in another way"
        );
        drop(state);
    }
}

impl Clock for HoldingClock {
    fn unix_millis(&self) -> i64 {
        let Some(tail) = self.tail.get() else { return inputs::NOW * 1000 };
        let mut state = self.state.lock().expect("no panic");
        let stored = usize::try_from(tail.last_seq()).expect("not negative");
        while !state.may_go && state.queued.saturating_sub(stored) <= BATCH {
            state.is_held = true;
            self.changed.notify_all();
            state = self.changed.wait(state).expect("no panic");
        }
        state.is_held = false;
        inputs::NOW * 1000
    }
}
