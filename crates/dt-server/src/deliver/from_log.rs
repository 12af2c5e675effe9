//! Mode `spool`: a worker reads the log in order, delivers in batches, and moves its sink's cursor over what is done. It
//! tries again for ever, and moves to the dead letters what the sink rejects.
//!
//! # Batches
//!
//! A batch has a price, however many records it has: whatever the sink syncs or waits for, and a cursor. A worker that has
//! caught up would pay it for each handful of records that come during the batch before, so it rests for [`REST`] after a
//! batch, unless enough for a full one is there. The first record after a quiet time is delivered at once; one that comes
//! during a rest is delivered up to that much later. No request waits for it: in this mode it is answered when its event is
//! stored. A rest ends at once when the service stops or an operator wants something, and there is none while something is
//! on its way or has to be tried again.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::backoff::Backoff;
use super::engine::{Done, Engine, Settled, Shared, Source, Window};
use super::replace::ReplaceError;
use crate::sink::{OpenError, Sink};
use crate::telemetry::{DeadLetterStored, Telemetry};
use dt_log::{Log, LogError, Progress, SinkNumber, SinkState, StoredEvent};
use dt_sink::record::DeadLetter;

/// How long a worker rests after a batch. Measured at 15,000 events a second from 64 connections, to the sink `file`:
/// batches of 227 records instead of 50, and a quarter of the context switches. Nobody who reads a sink minds so short
/// a delay.
pub(super) const REST: Duration = Duration::from_millis(10);
/// How many records make a rest short, at most: enough for a full batch of most sinks.
const ENOUGH: i64 = 256;

/// When a replay is tried again that could not be stored.
const AGAIN: Duration = Duration::from_secs(1);

/// A sink's worker, running.
#[derive(Debug)]
pub struct WorkerHandle {
    name: Arc<str>,
    number: SinkNumber,
    shared: Arc<Shared>,
    leave: Arc<Leave>,
    log: Arc<Log>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// When a worker ends.
#[derive(Debug)]
struct Leave {
    /// After this sequence number it ends,
    after: AtomicI64,
    /// and the log forgets the sink.
    forget: AtomicBool,
}

/// What a worker is started with.
#[derive(Debug)]
pub struct WorkerParts {
    /// The log.
    pub log: Arc<Log>,
    /// How long to wait before the next try.
    pub backoff: Backoff,
    /// Counts and logs how the sink is.
    pub telemetry: Arc<Telemetry>,
}

impl WorkerHandle {
    /// Opens a sink that the log knows where it left off, and starts its worker.
    ///
    /// # Errors
    ///
    /// What the sink says when it can never work as configured.
    pub fn start(sink: Box<dyn Sink>, state: SinkState, parts: WorkerParts) -> Result<Self, OpenError> {
        Self::start_with_rest(sink, state, parts, REST)
    }

    /// The same with another rest after each batch.
    pub(super) fn start_with_rest(
        sink: Box<dyn Sink>,
        state: SinkState,
        parts: WorkerParts,
        rest: Duration,
    ) -> Result<Self, OpenError> {
        let WorkerParts { log, backoff, telemetry } = parts;
        let (name, number) = (Arc::clone(&state.name), state.number);
        let leave = Arc::new(Leave { after: AtomicI64::new(i64::MAX), forget: AtomicBool::new(false) });
        let source = LogSource {
            name: Arc::clone(&name),
            number,
            cursor: state.cursor,
            checkpoint: state.checkpoint.as_deref().map(<[u8]>::to_vec),
            caught_up_at: log.tail().last_seq(),
            reader: log.source(state),
            unstored: Unstored::default(),
            rest,
            enough: ENOUGH,
            rest_until: None,
            changes: 0,
            has_looked: false,
            log: Arc::clone(&log),
            telemetry: Arc::clone(&telemetry),
            leave: Arc::clone(&leave),
        };
        let (engine, shared) = Engine::open(Arc::clone(&name), sink, source, backoff, telemetry)?;
        let thread = std::thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn(move || engine.run())
            .map_err(|error| OpenError::Unusable(format!("starting a thread: {error}")))?;
        Ok(Self { name, number, shared, leave, log, thread: Mutex::new(Some(thread)) })
    }

    /// The sink's name.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The sink's number in the log.
    #[must_use]
    pub const fn number(&self) -> SinkNumber {
        self.number
    }

    /// What is wrong with the sink, if anything.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().clone()
    }

    /// Puts another sink in the place of this one, once nothing is on its way: it goes on where this one stands. Waits so
    /// long for it, and returns the old one, closed. It blocks.
    ///
    /// # Errors
    ///
    /// [`ReplaceError`] when the old one goes on.
    pub fn replace(&self, sink: Box<dyn Sink>, timeout: Duration) -> Result<Box<dyn Sink>, ReplaceError> {
        if self.is_finished() {
            return Err(ReplaceError::Ended);
        }
        self.shared.slot.replace(sink, || self.log.tail().wake(), timeout)
    }

    /// Lets the worker end, and the log forget the sink, once the sink has had everything up to a sequence number.
    pub fn leave_after(&self, seq: i64) {
        self.leave.forget.store(true, Ordering::SeqCst);
        self.leave.after.store(seq, Ordering::SeqCst);
        self.log.tail().wake();
    }

    /// Lets the worker end where it stands. The log still knows the sink.
    pub fn stop(&self) {
        self.leave.after.store(i64::MIN, Ordering::SeqCst);
        self.log.tail().wake();
    }

    /// Whether the worker has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.lock().as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for the worker to end, after the log's tail was told to stop.
    pub fn join(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A worker that panicked has nothing more to deliver; its panic was printed by its thread.
            let _panicked = thread.join();
        }
    }
}

/// The log as a source of records.
struct LogSource {
    name: Arc<str>,
    number: SinkNumber,
    /// What was handed to the log as done.
    cursor: i64,
    /// What the sink said last about where it stands; it is handed back when it has to be opened again.
    checkpoint: Option<Vec<u8>>,
    /// The end of the log when the worker started. A crash may have left a part of what follows the cursor in the sink, so
    /// a replay waits until the sink has been given all that.
    caught_up_at: i64,
    reader: dt_log::Source,
    unstored: Unstored,
    rest: Duration,
    /// How many records make a rest short.
    enough: i64,
    rest_until: Option<Instant>,
    /// How often an operator had changed something when this worker looked last.
    changes: u64,
    has_looked: bool,
    log: Arc<Log>,
    telemetry: Arc<Telemetry>,
    leave: Arc<Leave>,
}

/// What was done and is not stored. Nothing else is delivered until it is: reading on from the old cursor would deliver it
/// twice.
#[derive(Default)]
struct Unstored {
    letters: Vec<DeadLetter>,
    progress: Option<Progress>,
    is_due: bool,
}

impl LogSource {
    /// Everything up to here is done or dropped.
    fn is_over(&mut self) -> Result<bool, LogError> {
        let has_left =
            self.cursor >= self.leave.after.load(Ordering::SeqCst) && self.unstored.progress.is_none();
        if !has_left {
            return Ok(false);
        }
        if self.leave.forget.load(Ordering::SeqCst) {
            self.log.forget(&self.name)?;
            self.telemetry.unregister_sink(&self.name);
            tracing::info!(sink = &*self.name, "a removed sink has had everything, and is forgotten");
        }
        Ok(true)
    }

    /// Whether there may be more to do.
    fn goes_on(&mut self) -> bool {
        match self.is_over() {
            Ok(is_over) => !is_over,
            Err(error) => {
                tracing::warn!(sink = &*self.name, %error, "a removed sink is not forgotten yet");
                self.log.tail().pause(self.rest, self.changes);
                !self.log.tail().is_stopping()
            }
        }
    }

    /// An operator changed something: the sink may have been forgotten, or is to be given events again. `false`: it was
    /// forgotten. What is in the window was taken before a replay, and comes again with it.
    fn look(&mut self, has_window: bool) -> bool {
        let Some(state) = self.log.sink(&self.name).filter(|state| state.number == self.number) else {
            self.telemetry.unregister_sink(&self.name);
            tracing::info!(sink = &*self.name, "a removed sink was forgotten before it had everything");
            return false;
        };
        let is_caught_up =
            !has_window && self.cursor >= self.caught_up_at && self.unstored.progress.is_none();
        let Some(after) = state.replay_after.filter(|_| is_caught_up) else {
            self.has_looked = state.replay_after.is_none();
            return true;
        };
        tracing::info!(sink = &*self.name, after, "events are delivered again, as an operator asked for");
        let checkpoint = self.checkpoint.clone();
        let progress = Progress { sink: self.number, cursor: after, checkpoint, ends_replay: true };
        match self.log.advance(progress, true) {
            Ok(()) => {
                self.cursor = after;
                self.reader.seek(after);
                self.has_looked = true;
            }
            Err(error) => {
                tracing::warn!(sink = &*self.name, %error, "a replay is tried again");
                self.log.tail().pause(AGAIN, self.changes);
            }
        }
        true
    }
}

impl Source for LogSource {
    type Ticket = i64;
    const KEEPS_CHECKPOINTS: bool = true;
    const TRIES_AGAIN: bool = true;

    fn wait(&mut self, has_window: bool, until: Option<Instant>) -> bool {
        let tail = Arc::clone(self.log.tail());
        // The last batch may have been what it had to deliver before it ends.
        if !self.goes_on() {
            return false;
        }
        if let Some(until) = self.rest_until.take().filter(|_| !has_window) {
            tail.rest(self.reader.position().saturating_add(self.enough), self.changes, until);
        }
        // What is in the window or not stored counts as more to do.
        let may_replay = !self.has_looked && self.cursor >= self.caught_up_at;
        let has_more = has_window || may_replay || self.unstored.progress.is_some();
        let after = if has_more { i64::MIN } else { self.cursor };
        let Some(changes) = tail.wait(after, self.changes, until) else { return false };
        if changes != self.changes || !self.has_looked {
            self.changes = changes;
            if !self.look(has_window) {
                return false;
            }
        }
        self.goes_on()
    }

    fn take(&mut self, room: usize, window: &mut Window<i64>) -> Result<(), String> {
        let end = self.leave.after.load(Ordering::SeqCst);
        self.enough = i64::try_from(room).unwrap_or(ENOUGH).min(ENOUGH);
        for StoredEvent { seq, record } in self.reader.read(room, end).map_err(|error| error.to_string())? {
            match record {
                Ok(record) => window.push(seq, record),
                Err(letter) => self.unstored.letters.push(*letter),
            }
        }
        if window.is_empty() && self.reader.position() > self.cursor {
            // All of it was for others, or cannot be read.
            let settled = Settled {
                done: Vec::new(),
                first_left: None,
                attempts: 0,
                checkpoint: None,
                is_checkpoint_due: false,
            };
            self.settle(settled)?;
        }
        Ok(())
    }

    fn settle(&mut self, settled: Settled<'_, i64>) -> Result<(), String> {
        let Settled { done, first_left, attempts, checkpoint, is_checkpoint_due } = settled;
        let has_done = !done.is_empty();
        for (seq, record, done) in done {
            if let Done::Rejected(error) = done {
                let letter = DeadLetter::of_record(&record, Arc::clone(&self.name), error, attempts);
                self.unstored.letters.push(letter.with_seq(seq));
            }
        }
        let cursor = first_left.map_or_else(|| self.reader.position(), |seq| seq.saturating_sub(1));
        if cursor > self.cursor || checkpoint.is_some() || !self.unstored.letters.is_empty() {
            let before = self.unstored.progress.take();
            let checkpoint = checkpoint.or_else(|| before.and_then(|before| before.checkpoint));
            let cursor = cursor.max(self.cursor);
            self.unstored.progress =
                Some(Progress { sink: self.number, cursor, checkpoint, ends_replay: false });
            self.unstored.is_due |= is_checkpoint_due;
        }
        if has_done && first_left.is_none() {
            self.rest_until = Instant::now().checked_add(self.rest);
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), String> {
        if !self.unstored.letters.is_empty() {
            // Before the cursor that depends on them.
            let letters = self.unstored.letters.clone();
            let ids = self.log.dead_letters().add_blocking(letters).map_err(|error| error.to_string())?;
            for (letter, id) in self.unstored.letters.drain(..).zip(ids) {
                let DeadLetter { reason, connector, error, .. } = &letter;
                // Each sink comes by a damaged one; it is one letter.
                if id.is_some() {
                    let (reason, is_copy) = (reason.code(), false);
                    self.telemetry.emit(&DeadLetterStored { reason, connector, error, is_copy });
                }
            }
        }
        let Some(progress) = &self.unstored.progress else { return Ok(()) };
        self.log.advance(progress.clone(), self.unstored.is_due).map_err(|error| error.to_string())?;
        if let Some(Progress { cursor, checkpoint, .. }) = self.unstored.progress.take() {
            self.cursor = cursor;
            self.checkpoint = checkpoint.or_else(|| self.checkpoint.take());
        }
        self.unstored.is_due = false;
        Ok(())
    }

    fn checkpoint(&self) -> Option<&[u8]> {
        self.checkpoint.as_deref()
    }

    fn pause(&mut self, pause: Duration) {
        self.log.tail().pause(pause, self.changes);
    }

    fn is_stopping(&self) -> bool {
        self.log.tail().is_stopping()
    }
}
