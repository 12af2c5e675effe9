//! Mode `spool`: a worker reads the log in order, delivers in batches, and advances its sink's cursor over the records that
//! have a result. It retries without limit, and moves the records that the sink rejects to the dead letters.
//!
//! # Batches
//!
//! Each batch has a fixed cost, regardless of its size: a sync of the sink and an update of the cursor. A worker that has
//! caught up would pay it for every few records, so it rests for [`REST`] after a batch, unless the records for a full
//! batch are there. The first record after an idle period is delivered at once; a record that arrives during a rest is
//! delivered up to [`REST`] later. No request waits for it, since in this mode a request is answered when its event is in
//! the log. A rest ends when the service stops or an operator changes the sink, and there is none while records are pending
//! or have to be retried.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::backoff::Backoff;
use super::engine::{Batch, BatchResult, Engine, RecordResult, Shared, Source, SourceError};
use super::sink_swap::ReplaceError;
use crate::config::RecordFilter;
use crate::sink::{OpenError, Sink};
use crate::telemetry::{DeadLetterStored, Telemetry};
use dt_log::{Log, LogError, Progress, SinkNumber, SinkState, StoredEvent};
use dt_sink::record::DeadLetter;

/// How long a worker rests after a batch. At 15,000 events a second from 64 connections to the sink `file`, it makes batches
/// of 227 records instead of 50, with a quarter of the context switches.
pub const REST: Duration = Duration::from_millis(10);
/// The largest number of records that a rest waits for. A full batch of a sink may be smaller.
const MAX_REST_RECORDS: i64 = 256;

/// The pause after a failure to store the start of a replay.
const REPLAY_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A handle of the running worker of a sink.
#[derive(Debug)]
pub struct WorkerHandle {
    name: Arc<str>,
    number: SinkNumber,
    shared: Arc<Shared>,
    leave: Arc<Leave>,
    filter: Arc<Mutex<Arc<RecordFilter>>>,
    log: Arc<Log>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The condition under which a worker ends before the service stops.
#[derive(Debug)]
struct Leave {
    /// The sequence number that the cursor must have reached before the worker ends.
    after: AtomicI64,
    /// Whether the log forgets the sink when the worker ends.
    forget: AtomicBool,
}

/// The arguments for creating a worker.
#[derive(Debug)]
pub struct WorkerParts {
    /// The log from which the worker reads.
    pub log: Arc<Log>,
    /// The pauses between the attempts.
    pub backoff: Backoff,
    /// Receives the results of the sink, for metrics and log lines.
    pub telemetry: Arc<Telemetry>,
    /// The filter of the sink: which of the events that the log has for the sink it receives.
    pub filter: Arc<RecordFilter>,
}

impl WorkerHandle {
    /// Opens a sink at the checkpoint that the log has stored for it, and starts its worker. A sink that is down is opened later.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError::Unusable`] if the sink can never work as configured, or if the thread cannot be started.
    pub fn start(sink: Box<dyn Sink>, state: SinkState, parts: WorkerParts) -> Result<Self, OpenError> {
        Self::start_with_rest(sink, state, parts, REST)
    }

    /// Starts a worker as [`start`](Self::start) does, with the given duration of the rest after each batch.
    pub(super) fn start_with_rest(
        sink: Box<dyn Sink>,
        state: SinkState,
        parts: WorkerParts,
        rest: Duration,
    ) -> Result<Self, OpenError> {
        let WorkerParts { log, backoff, telemetry, filter } = parts;
        let next_filter = Arc::new(Mutex::new(Arc::clone(&filter)));
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
            filter,
            next_filter: Arc::clone(&next_filter),
            rest,
            rest_records: MAX_REST_RECORDS,
            rest_until: None,
            changes: 0,
            has_read_state: false,
            log: Arc::clone(&log),
            telemetry: Arc::clone(&telemetry),
            leave: Arc::clone(&leave),
        };
        let (engine, shared) = Engine::open(Arc::clone(&name), sink, source, backoff, telemetry)?;
        let thread = std::thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn(move || engine.run())
            .map_err(|error| OpenError::Unusable(format!("starting a thread: {error}")))?;
        let (filter, thread) = (next_filter, Mutex::new(Some(thread)));
        Ok(Self { name, number, shared, leave, filter, log, thread })
    }

    /// Returns the sink's name.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns the number of the sink in the log.
    #[must_use]
    pub const fn number(&self) -> SinkNumber {
        self.number
    }

    /// Returns why the sink does not work; `None` if it works.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.shared.last_error.lock().clone()
    }

    /// Replaces the sink as soon as the old sink has no pending record. The new sink continues at the cursor. Returns the old
    /// sink, closed. Blocks until the sink is replaced, but at most for `timeout`.
    ///
    /// # Errors
    ///
    /// Returns [`ReplaceError`] if the old sink stays in use.
    pub fn replace(&self, sink: Box<dyn Sink>, timeout: Duration) -> Result<Box<dyn Sink>, ReplaceError> {
        if self.is_finished() {
            return Err(ReplaceError::Ended);
        }
        self.shared.swap.replace(sink, || self.log.tail().wake(), timeout)
    }

    /// Replaces the filter of the sink, for records that the worker takes from now on.
    pub fn set_filter(&self, filter: RecordFilter) {
        let mut current = self.filter.lock();
        if **current != filter {
            *current = Arc::new(filter);
        }
    }

    /// Ends the worker, and makes the log forget the sink, once the cursor has reached this sequence number.
    pub fn leave_after(&self, seq: i64) {
        self.leave.forget.store(true, Ordering::SeqCst);
        self.leave.after.store(seq, Ordering::SeqCst);
        self.log.tail().wake();
    }

    /// Ends the worker at its current cursor. The sink stays registered in the log.
    pub fn stop(&self) {
        self.leave.after.store(i64::MIN, Ordering::SeqCst);
        self.log.tail().wake();
    }

    /// Returns whether the worker has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.lock().as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the worker has ended, after [`stop`](Self::stop) or after the log's tail was stopped. Blocks as long as the
    /// sink blocks.
    pub fn join(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic was printed by the thread itself.
            let _panicked = thread.join();
        }
    }
}

/// The log as a source of records.
struct LogSource {
    name: Arc<str>,
    number: SinkNumber,
    /// The sequence number up to which all records are recorded in the log as delivered or rejected.
    cursor: i64,
    /// The checkpoint that the sink returned last, with which it is reopened; `None` if there is none.
    checkpoint: Option<Vec<u8>>,
    /// The last sequence number of the log when the worker started. After a crash, the sink may already have some of the records
    /// between the cursor and this number, so a replay begins only after all of them are delivered.
    caught_up_at: i64,
    reader: dt_log::Source,
    unstored: Unstored,
    /// The filter of the sink. A record that does not match counts as done, like a record for other sinks.
    filter: Arc<RecordFilter>,
    /// The filter of the active configuration. It replaces `filter` after the batch.
    next_filter: Arc<Mutex<Arc<RecordFilter>>>,
    rest: Duration,
    /// The number of available records at which a rest ends.
    rest_records: i64,
    rest_until: Option<Instant>,
    /// The number of changes by operators when the sink's state was last read.
    changes: u64,
    /// Whether the sink's state was read after the last change, and no replay is waiting to begin.
    has_read_state: bool,
    log: Arc<Log>,
    telemetry: Arc<Telemetry>,
    leave: Arc<Leave>,
}

/// Results that are not durable yet. The worker delivers no other records until they are: after a restart from the old cursor, it
/// would deliver those records again.
#[derive(Default)]
struct Unstored {
    dead_letters: Vec<DeadLetter>,
    progress: Option<Progress>,
    /// Whether the progress must be synced now.
    is_due: bool,
}

impl LogSource {
    /// Returns whether the worker has delivered everything that it has to deliver before it ends. In this case, makes the log
    /// forget the sink if that was requested.
    fn has_left(&mut self) -> Result<bool, LogError> {
        let is_complete =
            self.cursor >= self.leave.after.load(Ordering::SeqCst) && self.unstored.progress.is_none();
        if !is_complete {
            return Ok(false);
        }
        if self.leave.forget.load(Ordering::SeqCst) {
            self.log.forget(&self.name)?;
            self.telemetry.unregister_sink(&self.name);
            tracing::info!(sink = &*self.name, "a removed sink has received all its events and is forgotten");
        }
        Ok(true)
    }

    /// Returns whether the worker continues. It ends once [`has_left`](Self::has_left).
    fn goes_on(&mut self) -> bool {
        match self.has_left() {
            Ok(has_left) => !has_left,
            Err(error) => {
                tracing::warn!(sink = &*self.name, %error, "a removed sink is not forgotten yet");
                self.log.tail().pause(self.rest, self.changes);
                !self.log.tail().is_stopping()
            }
        }
    }

    /// Activates the filter of the active configuration. Returns `false` while the batch has records that matched the previous
    /// filter, if the sink has a checkpoint.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if the cursor cannot be stored.
    fn take_filter(&mut self, has_batch: bool) -> Result<bool, SourceError> {
        let next = Arc::clone(&self.next_filter.lock());
        if Arc::ptr_eq(&next, &self.filter) {
            return Ok(true);
        }
        // After a crash a sink with a checkpoint may compare its content with the records after the stored cursor, so these have
        // to be the same ones: the change begins after a batch, and its cursor is durable first. Any other sink may have records
        // in its batch that are retried for long.
        if self.checkpoint.is_some() {
            if has_batch {
                return Ok(false);
            }
            let checkpoint = self.checkpoint.clone();
            let progress =
                Progress { sink: self.number, cursor: self.cursor, checkpoint, ends_replay: false };
            self.log.advance(progress, true)?;
        }
        self.filter = next;
        Ok(true)
    }

    /// Reads the sink's state, which an operator may have changed. Returns `false` if the sink was forgotten. Begins a
    /// requested replay once no batch is open (`has_batch`), the records from before the worker's start are delivered, and
    /// all results are stored. If the start of the replay cannot be stored, waits `REPLAY_RETRY_INTERVAL`, and a later call
    /// tries again.
    fn read_state(&mut self, has_batch: bool) -> bool {
        let Some(state) = self.log.sink(&self.name).filter(|state| state.number == self.number) else {
            self.telemetry.unregister_sink(&self.name);
            tracing::info!(
                sink = &*self.name,
                "a removed sink was forgotten before it received all its events"
            );
            return false;
        };
        let is_caught_up = !has_batch && self.cursor >= self.caught_up_at && self.unstored.progress.is_none();
        let Some(after) = state.replay_after.filter(|_| is_caught_up) else {
            self.has_read_state = state.replay_after.is_none();
            return true;
        };
        tracing::info!(sink = &*self.name, after, "a replay begins, as an operator requested");
        let checkpoint = self.checkpoint.clone();
        let progress = Progress { sink: self.number, cursor: after, checkpoint, ends_replay: true };
        match self.log.advance(progress, true) {
            Ok(()) => {
                self.cursor = after;
                self.reader.seek(after);
                self.has_read_state = true;
            }
            Err(error) => {
                tracing::warn!(sink = &*self.name, %error, "a replay cannot begin yet; it is retried");
                self.log.tail().pause(REPLAY_RETRY_INTERVAL, self.changes);
            }
        }
        true
    }
}

impl Source for LogSource {
    type Ticket = i64;
    const KEEPS_CHECKPOINTS: bool = true;
    const RETRIES: bool = true;

    fn wait(&mut self, has_batch: bool, until: Option<Instant>) -> bool {
        let tail = Arc::clone(self.log.tail());
        // The last batch may have reached the end at which the worker leaves.
        if !self.goes_on() {
            return false;
        }
        if let Some(until) = self.rest_until.take().filter(|_| !has_batch) {
            tail.rest(self.reader.position().saturating_add(self.rest_records), self.changes, until);
        }
        // With anything left to do, the tail does not wait for new records.
        let may_replay = !self.has_read_state && self.cursor >= self.caught_up_at;
        let has_more = has_batch || may_replay || self.unstored.progress.is_some();
        let after = if has_more { i64::MIN } else { self.cursor };
        let Some(changes) = tail.wait(after, self.changes, until) else { return false };
        if changes != self.changes || !self.has_read_state {
            self.changes = changes;
            if !self.read_state(has_batch) {
                return false;
            }
        }
        self.goes_on()
    }

    fn take(&mut self, room: usize, batch: &mut Batch<i64>) -> Result<(), SourceError> {
        if !self.take_filter(!batch.is_empty())? {
            return Ok(());
        }
        let end = self.leave.after.load(Ordering::SeqCst);
        self.rest_records = i64::try_from(room).unwrap_or(MAX_REST_RECORDS).min(MAX_REST_RECORDS);
        for StoredEvent { seq, record } in self.reader.read(room, end)? {
            match record {
                Ok(record) if self.filter.wants(&record) => batch.push(seq, record),
                Ok(_) => {}
                Err(dead_letter) => self.unstored.dead_letters.push(*dead_letter),
            }
        }
        if batch.is_empty() && self.reader.position() > self.cursor {
            // All records were for other sinks, are unreadable, or do not pass the filter.
            let result = BatchResult {
                done: Vec::new(),
                first_left: None,
                attempts: 0,
                checkpoint: None,
                is_checkpoint_due: false,
            };
            self.complete(result)?;
        }
        Ok(())
    }

    #[expect(clippy::arithmetic_side_effects, reason = "sequence numbers start at 1")]
    fn complete(&mut self, result: BatchResult<'_, i64>) -> Result<(), SourceError> {
        let BatchResult { done, first_left, attempts, checkpoint, is_checkpoint_due } = result;
        let has_done = !done.is_empty();
        for (seq, record, result) in done {
            if let RecordResult::Rejected(error) = result {
                let dead_letter = DeadLetter::of_record(&record, Arc::clone(&self.name), error, attempts);
                self.unstored.dead_letters.push(dead_letter.with_seq(seq));
            }
        }
        let cursor = first_left.map_or_else(|| self.reader.position(), |seq| *seq - 1);
        if cursor > self.cursor || checkpoint.is_some() || !self.unstored.dead_letters.is_empty() {
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

    fn flush(&mut self) -> Result<(), SourceError> {
        if !self.unstored.dead_letters.is_empty() {
            // Before the cursor passes their records.
            let ids = self.log.dead_letters().add_blocking(self.unstored.dead_letters.clone())?;
            for (dead_letter, id) in self.unstored.dead_letters.drain(..).zip(ids) {
                let DeadLetter { reason, connector, error, .. } = &dead_letter;
                // The workers of all sinks read a damaged record; it is stored once.
                if id.is_some() {
                    let (reason, is_copy) = (reason.code(), false);
                    self.telemetry.emit(&DeadLetterStored { reason, connector, error, is_copy });
                }
            }
        }
        let Some(progress) = &self.unstored.progress else { return Ok(()) };
        self.log.advance(progress.clone(), self.unstored.is_due)?;
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
