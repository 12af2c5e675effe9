//! One sink with its worker in mode `spool`: reads records in order, delivers them in batches, and moves the cursor
//! over what is done. Retries for ever; buries what the sink rejects; remembers what was delivered beyond a retry.
//! Dead letters that the sink is given again (`redeliver.rs`) go beside the records.
//!
//! # Batches
//!
//! A batch has a price, however many records it has: a read of the spool, whatever the sink syncs or waits for, and a
//! transaction that moves the cursor. A worker that has caught up would pay it for each handful of records that come
//! during the batch before, so it rests for [`REST`] after a batch, unless enough for a full one is there. The first
//! record after a quiet time is delivered at once; one that comes during a rest is delivered up to that much later. No
//! request waits for it: in this mode it is answered when its event is stored. A rest ends at once when the service
//! stops or an operator wants something, and there is none while something is on its way or has to be tried again.

mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::window::Window;
use super::backoff::Backoff;
use super::redeliver::Redeliveries;
use super::replace::{ReplaceError, Slot, Swapped};
use crate::record::{DeadLetter, Record};
use crate::sink::{Fate, OpenError, Outcome, Sink};
use crate::spool::{Change, Progress, Reader, Registered, Rejected, Spool, SpoolError, StartAt, Stored};
use crate::telemetry::{DeadLetterBuried, SinkFailed, SinkRecovered, Telemetry};

/// How long a worker rests after a batch. Measured at 15,000 events a second from 64 connections, to the sink `file`:
/// batches of 227 records instead of 50, and a quarter of the context switches. Nobody who reads a sink minds so short
/// a delay.
const REST: Duration = Duration::from_millis(10);
/// No more is read while the window holds so many bytes of bodies.
const MAX_WINDOW_BYTES: usize = 8 << 20;
/// How long a sink that could not be opened is left alone while there is nothing for it.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The number of attempts whose back-off is the longest one while progress cannot be stored: under a second.
const SOON: u32 = 4;

/// The connectors whose records a sink does not take from now on. All others' are, also those of a connector that is no
/// longer configured, and those that came before a connector was skipped: what was acknowledged is delivered rather than
/// lost.
pub type Skips = BTreeSet<Arc<str>>;

/// A sink's worker, running.
#[derive(Debug)]
pub struct WorkerHandle {
    name: Arc<str>,
    shared: Arc<Shared>,
    spool: Arc<Spool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a worker and those who run it share.
#[derive(Debug)]
struct Shared {
    /// What is wrong with the sink, if anything.
    trouble: Mutex<Option<String>>,
    /// The connectors whose records the sink is not given, each from the number after this one.
    skips: Mutex<BTreeMap<Arc<str>, i64>>,
    /// Another sink that is to take the place of this one.
    slot: Slot,
    /// After this number the worker ends.
    leave_after: AtomicI64,
    /// Whether the spool forgets the sink then.
    forget: AtomicBool,
}

impl WorkerHandle {
    /// Opens the sink where it left off, and starts its worker. A sink that the spool does not know starts at `start`.
    ///
    /// # Errors
    ///
    /// What the sink says when it can never work as configured, or the spool when it cannot make the sink known.
    pub fn start(
        name: Arc<str>,
        sink: Box<dyn Sink>,
        skips: Skips,
        start: StartAt,
        backoff: Backoff,
        spool: Arc<Spool>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, OpenError> {
        Self::start_with_rest(name, sink, skips, start, backoff, spool, telemetry, REST)
    }

    /// The same with another rest after each batch.
    #[expect(clippy::too_many_arguments, reason = "one more than the public one has, for tests")]
    fn start_with_rest(
        name: Arc<str>,
        mut sink: Box<dyn Sink>,
        skips: Skips,
        start: StartAt,
        backoff: Backoff,
        spool: Arc<Spool>,
        telemetry: Arc<Telemetry>,
        rest: Duration,
    ) -> Result<Self, OpenError> {
        let unusable = |error: SpoolError| OpenError::Unusable(error.to_string());
        let Registered { cursor, checkpoint, skips } =
            spool.register(Arc::clone(&name), start, skips).map_err(unusable)?;
        let reader = spool.reader().map_err(unusable)?;
        let opened = match sink.open(checkpoint.as_deref()) {
            Ok(()) => None,
            Err(OpenError::Down(error)) => Some(error),
            Err(error @ OpenError::Unusable(_)) => return Err(error),
        };
        if let Some(error) = &opened {
            telemetry.emit(&SinkFailed { sink: &name, error, records: 0 });
        }
        let shared = Arc::new(Shared {
            trouble: Mutex::new(opened.clone()),
            skips: Mutex::new(skips),
            slot: Slot::default(),
            leave_after: AtomicI64::new(i64::MAX),
            forget: AtomicBool::new(false),
        });
        let worker = Worker {
            name: Arc::clone(&name),
            sink,
            is_open: opened.is_none(),
            is_placed: false,
            is_waiting: false,
            checkpoint,
            cursor,
            unstored: None,
            rejected: Vec::new(),
            window: Window::default(),
            read_to: cursor,
            rest,
            rest_until: None,
            attempts: 0,
            redeliveries: Redeliveries::new(backoff.clone()),
            is_dropped: false,
            changes: 0,
            backoff,
            spool: Arc::clone(&spool),
            reader,
            telemetry,
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn(move || worker.run())
            .map_err(|error| OpenError::Unusable(format!("starting a thread: {error}")))?;
        Ok(Self { name, shared, spool, thread: Mutex::new(Some(thread)) })
    }

    /// The sink's name.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What is wrong with the sink, if anything.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().clone()
    }

    /// Puts another sink in the place of this one, once nothing is on its way: it goes on where this one stands. Waits so
    /// long for it, and gives the old one, closed. It blocks.
    ///
    /// # Errors
    ///
    /// [`ReplaceError`] when the old one goes on.
    pub fn replace(&self, sink: Box<dyn Sink>, patience: Duration) -> Result<Box<dyn Sink>, ReplaceError> {
        if self.is_finished() {
            return Err(ReplaceError::Ended);
        }
        self.shared.slot.replace(sink, || self.spool.tail().wake(), patience)
    }

    /// Changes the connectors whose records the sink is not given, for all records that are stored from now on. It
    /// blocks.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when that cannot be stored; all is as it was.
    pub fn skip(&self, skips: Skips) -> Result<(), SpoolError> {
        let registered = self.spool.register(Arc::clone(&self.name), StartAt::Now, skips)?;
        *self.shared.skips.lock() = registered.skips;
        Ok(())
    }

    /// Lets the worker end, and the spool forget the sink, once the sink has had everything up to a number.
    pub fn leave_after(&self, seq: i64) {
        self.shared.forget.store(true, Ordering::SeqCst);
        self.shared.leave_after.store(seq, Ordering::SeqCst);
        self.spool.tail().wake();
    }

    /// Lets the worker end where it stands. The spool still knows the sink.
    pub fn stop(&self) {
        self.shared.leave_after.store(i64::MIN, Ordering::SeqCst);
        self.spool.tail().wake();
    }

    /// Whether the worker has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.lock().as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the worker to end, after the spool's tail was told to stop.
    pub fn join(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A worker that panicked has nothing more to deliver; its panic was printed by its thread.
            let _panicked = thread.join();
        }
    }
}

pub(super) struct Worker {
    pub(super) name: Arc<str>,
    sink: Box<dyn Sink>,
    is_open: bool,
    /// Whether the spool knows where the sink stood when it was opened.
    is_placed: bool,
    /// Whether something is on its way of which nobody knows yet what becomes of it.
    is_waiting: bool,
    /// What the sink said last about where it stands; it is handed back when it has to be opened again.
    pub(super) checkpoint: Option<Vec<u8>>,
    pub(super) cursor: i64,
    /// What the sink has done and the spool could not store. Nothing else is delivered until it is: reading on from the
    /// old cursor would deliver it twice.
    pub(super) unstored: Option<Progress>,
    /// The connectors and errors of what it rejects, to be told once that is stored.
    rejected: Vec<(Arc<str>, String)>,
    /// What was read and is not settled.
    window: Window,
    /// The last number that was read into the window.
    read_to: i64,
    /// How long it rests after a batch.
    rest: Duration,
    /// Until when it rests: there after a batch that took all there was.
    rest_until: Option<Instant>,
    /// How often the first record that is due has been tried.
    pub(super) attempts: u32,
    pub(super) redeliveries: Redeliveries,
    /// Whether an operator gave up what a removed sink has yet to get.
    is_dropped: bool,
    /// How often an operator had changed something when this worker looked last.
    changes: u64,
    backoff: Backoff,
    pub(super) spool: Arc<Spool>,
    pub(super) reader: Reader,
    pub(super) telemetry: Arc<Telemetry>,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(mut self) {
        let tail = Arc::clone(self.spool.tail());
        // On a stop, what is there is still delivered, as long as it goes well.
        loop {
            if let Some(until) = self.rest_until.take() {
                let full = i64::try_from(self.sink.max_batch()).unwrap_or(i64::MAX);
                tail.rest(self.read_to.saturating_add(full), self.changes, until);
            }
            let Some(changes) = tail.wait(self.cursor, self.changes, self.wake_at()) else { break };
            if changes != self.changes {
                self.changes = changes;
                self.look_again();
            }
            match self.has_left() {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    self.attempts = self.attempts.saturating_add(1);
                    self.failed(&error);
                    if tail.is_stopping() {
                        break;
                    }
                    tail.pause(self.backoff.pause(self.attempts.min(SOON)), self.changes);
                    continue;
                }
            }
            self.take_replacement();
            let has_more = tail.last_seq() > self.cursor || self.unstored.is_some();
            let done = if has_more { self.deliver_some() } else { self.look_at_sink() };
            match done {
                Ok(()) => self.attempts = 0,
                Err(error) => {
                    self.attempts = self.attempts.saturating_add(1);
                    self.failed(&error);
                    if tail.is_stopping() {
                        break;
                    }
                    // A sink is spared; the spool, where its progress found no place, is asked again soon.
                    let most = if self.unstored.is_some() { SOON } else { u32::MAX };
                    tail.pause(self.backoff.pause(self.attempts.min(most)), self.changes);
                    continue;
                }
            }
            if self.redeliveries.due().is_some_and(|due| due <= Instant::now()) && !tail.is_stopping() {
                self.redeliver_some();
            }
        }
        self.sink.close();
        self.shared.slot.end();
    }

    /// Whether the sink was removed, and has had what was accepted for it. It is forgotten then. `Err` is a reason to try
    /// that again: a sink that stays known holds every record from now on.
    fn has_left(&mut self) -> Result<bool, String> {
        if self.is_dropped {
            self.telemetry.forget_sink(&self.name);
            tracing::info!(sink = &*self.name, "a removed sink was dropped before it had everything");
            return Ok(true);
        }
        if self.cursor < self.shared.leave_after.load(Ordering::SeqCst) || self.unstored.is_some() {
            return Ok(false);
        }
        if !self.shared.forget.load(Ordering::SeqCst) {
            return Ok(true);
        }
        let forgotten = self.spool.change(vec![Change::ForgetSink { sink: self.name.to_string() }]);
        forgotten.map_err(|error| format!("a removed sink is not forgotten: {error}"))?;
        self.telemetry.forget_sink(&self.name);
        tracing::info!(sink = &*self.name, "a removed sink has had everything, and is forgotten");
        Ok(true)
    }

    /// Takes another sink in place of this one, if there is one, and nothing is on its way.
    fn take_replacement(&mut self) {
        // What the old one has done must be stored before the new one is opened at it.
        if !self.shared.slot.is_asked() || self.store_progress().is_err() {
            return;
        }
        let Some(request) = self.shared.slot.due(!self.is_waiting) else { return };
        match request.swap(&mut self.sink, self.checkpoint.as_deref()) {
            None => return,
            Some(Swapped::Open) => {
                self.is_open = true;
                self.recovered();
            }
            Some(Swapped::Down(error)) => {
                self.is_open = false;
                self.failed(&error);
            }
            Some(Swapped::Kept) => self.is_open = false,
        }
        (self.is_placed, self.is_waiting, self.attempts) = (false, false, 0);
    }

    /// When this worker looks again although there is nothing to deliver.
    fn wake_at(&self) -> Option<Instant> {
        let every = if self.is_open { self.sink.check_every() } else { Some(OPEN_AGAIN_AFTER) };
        let check = every.and_then(|every| Instant::now().checked_add(every));
        self.redeliveries.due().into_iter().chain(check).min()
    }

    /// With nothing to deliver, sees whether something could be: `/readyz` is asked before the next event comes.
    fn look_at_sink(&mut self) -> Result<(), String> {
        self.open()?;
        let sink = &mut self.sink;
        if sink.check_every().is_some() {
            let checked = std::panic::catch_unwind(AssertUnwindSafe(|| sink.check()));
            checked.unwrap_or_else(|_| Err("the sink panicked while it was checked".to_owned()))?;
        }
        self.recovered();
        Ok(())
    }

    /// An operator changed something: the cursor may have been moved back, and letters may wait.
    fn look_again(&mut self) {
        match self.reader.cursor(&self.name) {
            Ok(Some(cursor)) if cursor < self.cursor => self.go_back_to(cursor),
            Ok(None) if self.shared.forget.load(Ordering::SeqCst) => self.is_dropped = true,
            Ok(_) => {}
            // What is stored counts: a later move of the cursor fails to continue it, and changes nothing.
            Err(error) => self.failed(&error.to_string()),
        }
        self.redeliveries.look_now();
    }

    /// All that comes after the cursor is delivered again.
    fn go_back_to(&mut self, cursor: i64) {
        tracing::info!(sink = &*self.name, from = cursor, "records are delivered again, as asked for");
        self.cursor = cursor;
        self.window = Window::default();
        self.read_to = cursor;
    }

    /// Delivers what is due, and stores how far that went. `Err` is a reason to wait.
    fn deliver_some(&mut self) -> Result<(), String> {
        self.store_progress()?;
        self.open()?;
        // What was read before is delivered all the same.
        let (damaged, unread) = match self.read_on() {
            Ok(damaged) => (damaged, None),
            Err(error) if self.window.records.is_empty() => return Err(error),
            Err(error) => (Vec::new(), Some(error)),
        };
        let mut window = std::mem::take(&mut self.window);
        let Outcome { fates, checkpoint, .. } =
            if window.records.is_empty() { Outcome::default() } else { self.give(&window.records) };
        let (from, cursor) = (Some(self.cursor), self.cursor);
        let mut progress = Progress { from, cursor, checkpoint, damaged, ..Progress::default() };
        let mut fates = fates.into_iter();
        let (mut retry, mut trouble, mut retries, mut delivered) = (None, None, 0_u64, 0_u64);
        let attempt = self.attempts.saturating_add(1);
        let mut is_waiting = false;
        let rejected = &mut self.rejected;
        window.retain(|seq, record| match fates.next() {
            Some(Fate::Delivered) => {
                delivered = delivered.saturating_add(1);
                false
            }
            Some(Fate::Rejected { error }) => {
                rejected.push((Arc::clone(&record.connector), error.clone()));
                let record = Arc::clone(record);
                progress.rejected.push(Rejected { seq, record, error, attempts: attempt });
                false
            }
            Some(Fate::Pending { trouble: text }) => {
                is_waiting = true;
                trouble = trouble.take().or(text);
                true
            }
            fate => {
                retries = retries.saturating_add(1);
                let error = match fate {
                    Some(Fate::Retry { error }) => error,
                    _ => "the sink did not say what became of it".to_owned(),
                };
                retry.get_or_insert(error);
                true
            }
        });
        self.is_waiting = is_waiting;
        self.window = window;
        progress.cursor = self.window.seqs.first().map_or(self.read_to, |seq| seq.saturating_sub(1));
        let rejected = u64::try_from(progress.rejected.len()).unwrap_or(u64::MAX);
        let moved = progress.cursor > self.cursor
            || !progress.rejected.is_empty()
            || !progress.damaged.is_empty()
            || progress.checkpoint.is_some();
        let settled = delivered.saturating_add(rejected).saturating_add(retries);
        if settled > 0 {
            self.telemetry.sink_batch(&self.name, settled, delivered, rejected);
        }
        if moved {
            self.unstored = Some(progress);
            self.store_progress()?;
        }
        if let Some(error) = retry {
            self.telemetry.sink_retries(&self.name, retries);
            return Err(error);
        }
        if let Some(error) = unread {
            return Err(error);
        }
        match trouble {
            Some(trouble) => self.failed(&trouble),
            // One that takes its time has not recovered.
            None if delivered == 0 && rejected == 0 && !self.window.records.is_empty() => {}
            None => self.recovered(),
        }
        if settled > 0 && self.window.records.is_empty() {
            self.rest_until = Instant::now().checked_add(self.rest);
        }
        Ok(())
    }

    /// Fills the window with the records that come next. Gives those that are damaged.
    fn read_on(&mut self) -> Result<Vec<(i64, DeadLetter)>, String> {
        let mut damaged = Vec::new();
        let room = self.sink.max_batch().max(1).saturating_sub(self.window.records.len());
        let bytes: usize = self.window.records.iter().map(|record| record.body.len()).sum();
        // Before the read: what comes while it runs is not skipped.
        let leave_after = self.shared.leave_after.load(Ordering::SeqCst);
        let end = self.spool.tail().last_seq().min(leave_after);
        if room == 0 || bytes > MAX_WINDOW_BYTES || self.read_to >= end || self.shared.slot.is_asked() {
            return Ok(damaged);
        }
        let mut stored =
            self.spool.next(&self.reader, self.read_to, room).map_err(|error| error.to_string())?;
        stored.retain(|stored| stored.seq <= leave_after);
        // Everything up to the tail was pruned already if there is none.
        self.read_to = stored.last().map_or(end, |stored| stored.seq);
        let skips = self.shared.skips.lock();
        let skipped =
            |seq: i64, record: &Record| skips.get(&record.connector).is_some_and(|since| seq > *since);
        for Stored { seq, record } in stored {
            match record {
                Ok(record) if skipped(seq, &record) => {}
                Ok(record) => self.window.push(seq, record),
                Err(letter) => damaged.push((seq, *letter)),
            }
        }
        Ok(damaged)
    }

    /// Stores what the sink has done, unless that is stored.
    pub(super) fn store_progress(&mut self) -> Result<(), String> {
        let Some(progress) = &self.unstored else { return Ok(()) };
        let stored = self.spool.advance(Arc::clone(&self.name), progress.clone());
        let cursor = stored.map_err(|error| error.to_string())?;
        if let Some(progress) = self.unstored.take() {
            self.checkpoint = progress.checkpoint.or_else(|| self.checkpoint.take());
            // Where an operator moved it back in the meantime.
            if cursor < progress.cursor {
                self.go_back_to(cursor);
            } else {
                self.cursor = cursor;
            }
        }
        for (connector, error) in self.rejected.drain(..) {
            self.telemetry.emit(&DeadLetterBuried {
                reason: "rejected",
                connector: &connector,
                error: &error,
            });
        }
        Ok(())
    }

    /// Opens the sink if it is not open, and stores where it stands before it gets anything: a crash in its first batch
    /// is measured against that.
    pub(super) fn open(&mut self) -> Result<(), String> {
        if !self.is_open {
            let (sink, checkpoint) = (&mut self.sink, self.checkpoint.as_deref());
            let opened = std::panic::catch_unwind(AssertUnwindSafe(|| sink.open(checkpoint)));
            let opened = opened.map_err(|_| "the sink panicked while it was opened".to_owned())?;
            opened.map_err(|error| error.to_string())?;
            self.is_open = true;
            self.is_placed = false;
        }
        if !self.is_placed {
            let checkpoint = self.sink.begin();
            if checkpoint.is_some() && checkpoint != self.checkpoint {
                let (from, cursor) = (Some(self.cursor), self.cursor);
                self.unstored = Some(Progress { from, cursor, checkpoint, ..Progress::default() });
                self.store_progress()?;
            }
            self.is_placed = true;
        }
        Ok(())
    }

    pub(super) fn give(&mut self, records: &[Arc<Record>]) -> Outcome {
        let sink = &mut self.sink;
        // A sink may come from outside this crate. One that panics must not take its queue along.
        std::panic::catch_unwind(AssertUnwindSafe(|| sink.deliver(records))).unwrap_or_else(|_| {
            self.is_open = false;
            Outcome::retry(records.len(), "the sink panicked")
        })
    }

    pub(super) fn failed(&self, error: &str) {
        let before = self.shared.trouble.lock().replace(error.to_owned());
        // One that says the same every second says it once.
        if before.as_deref() != Some(error) {
            self.telemetry.emit(&SinkFailed { sink: &self.name, error, records: 0 });
        }
    }

    pub(super) fn recovered(&self) {
        if self.shared.trouble.lock().take().is_some() {
            self.telemetry.emit(&SinkRecovered { sink: &self.name });
        }
    }
}

#[cfg(test)]
mod tests;
