//! The delivery engine: one thread for each sink. It takes records from a source, delivers them to the sink in batches,
//! and reports the results to the source.
//!
//! A source is the log (`from_log`, mode `spool`) or the waiting requests (`from_requests`, mode `direct`). The engine
//! opens the sink, reopens it after a failure, backs off between attempts, reports the sink's state to `/readyz` and the
//! metrics, swaps the sink on a reload, and catches the sink's panics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::backoff::Backoff;
use super::sink_swap::{SinkSwap, SwapOutcome};
use crate::sink::{Fate, OpenError, Outcome, Sink};
use crate::telemetry::{SinkFailed, SinkRecovered, Telemetry};
use dt_log::LogError;
use dt_log::dead::DeadError;
use dt_sink::record::Record;

/// The size of the bodies of a batch, in bytes, above which the engine adds no more records.
const MAX_BATCH_BYTES: usize = 8 << 20;
/// The time between attempts to open a sink that has no records to deliver.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);
/// The limit of the attempt number while the source fails. It keeps the pause under a second.
const MAX_SOURCE_ATTEMPTS: u32 = 4;

/// The number of consecutive calls after which a sink that only asks for its checkpoint to be stored, and accepts no record,
/// counts as failed. A sink needs a few such calls, for example to close files.
const MAX_CHECKPOINT_CALLS: u32 = 8;

/// Why a source cannot return records or store results.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The log cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A dead letter of the sink cannot be stored.
    #[error(transparent)]
    DeadLetters(#[from] DeadError),
}

/// The interface of a source: it provides records to the engine, and stores their results.
pub trait Source: Send + 'static {
    /// The identifier of a record within the source.
    type Ticket: Send;
    /// Whether the source stores the sink's checkpoints.
    const KEEPS_CHECKPOINTS: bool;
    /// Whether the engine retries a record that the sink did not accept. If `false`, the engine reports such a record as failed.
    const RETRIES: bool;

    /// Waits until a record may be available, the time is `until`, or the state of the source has changed. Does not wait if
    /// `has_batch`, which says that records of the current batch are still to be delivered. Returns `false` if there will be no
    /// more records.
    fn wait(&mut self, has_batch: bool, until: Option<Instant>) -> bool;

    /// Adds up to `room` records to the batch, in the order of the source.
    ///
    /// # Errors
    ///
    /// Returns [`SourceError`] if the records cannot be read. Records that were added stay in the batch.
    fn take(&mut self, room: usize, batch: &mut Batch<Self::Ticket>) -> Result<(), SourceError>;

    /// Stores the results of a batch durably.
    ///
    /// # Errors
    ///
    /// Returns [`SourceError`] if a result is not durable. The source keeps the result, and [`flush`](Self::flush) stores it.
    fn complete(&mut self, result: BatchResult<'_, Self::Ticket>) -> Result<(), SourceError>;

    /// Stores the results that are not durable yet. The engine delivers nothing else until this succeeds.
    ///
    /// # Errors
    ///
    /// Returns [`SourceError`] if a result is still not durable.
    fn flush(&mut self) -> Result<(), SourceError> {
        Ok(())
    }

    /// Returns the checkpoint that the sink returned last; `None` if there is none, or if the source stores no checkpoints.
    fn checkpoint(&self) -> Option<&[u8]> {
        None
    }

    /// Waits for `pause` before the next attempt. The source may return earlier, if it has a reason.
    fn pause(&mut self, pause: Duration);

    /// Returns whether the service is stopping. The engine then retries nothing.
    fn is_stopping(&self) -> bool;
}

/// The records that were taken from the source and have no result yet, in order. A record with a result leaves the batch, even if
/// an earlier record has none, so that it is not delivered twice.
pub struct Batch<T> {
    tickets: Vec<T>,
    /// The records with the identifiers `tickets`, in the same order. A sink receives them as one slice.
    records: Vec<Arc<Record>>,
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self { tickets: Vec::new(), records: Vec::new() }
    }
}

impl<T> Batch<T> {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn push(&mut self, ticket: T, record: Arc<Record>) {
        self.tickets.push(ticket);
        self.records.push(record);
    }

    /// Returns all records with the result [`RecordResult::Delivered`].
    #[cfg(test)]
    pub fn into_delivered(self) -> Vec<(T, Arc<Record>, RecordResult)> {
        self.tickets
            .into_iter()
            .zip(self.records)
            .map(|(ticket, record)| (ticket, record, RecordResult::Delivered))
            .collect()
    }

    fn bytes(&self) -> usize {
        self.records.iter().map(|record| record.body.len()).sum()
    }
}

/// The results of the records of a batch.
pub struct BatchResult<'a, T> {
    /// The records that have a result, in order.
    pub done: Vec<(T, Arc<Record>, RecordResult)>,
    /// The identifier of the first record that has no result yet; `None` if all have one.
    pub first_left: Option<&'a T>,
    /// The number of times that the first record of the batch was delivered.
    pub attempts: u32,
    pub checkpoint: Option<Vec<u8>>,
    /// Whether the checkpoint has to be durable before the next batch.
    pub is_checkpoint_due: bool,
}

/// The result of one record.
#[derive(Debug)]
pub enum RecordResult {
    Delivered,
    Rejected(String),
    /// The sink did not accept the record, and the source does not retry. Contains the error.
    Failed(String),
}

/// The state that an engine shares with the handle of its worker.
#[derive(Debug, Default)]
pub struct Shared {
    /// Why the sink does not work; `None` if it works.
    pub last_error: Mutex<Option<String>>,
    /// The request to replace the sink, until the engine takes it.
    pub swap: SinkSwap,
}

/// Delivers the records of one source to one sink.
pub struct Engine<S: Source> {
    name: Arc<str>,
    sink: Box<dyn Sink>,
    is_open: bool,
    /// Whether the source has stored the checkpoint that the sink returned when it was opened.
    has_checkpoint: bool,
    /// Whether the sink has pending records: their delivery is in progress.
    has_pending: bool,
    max_batch: usize,
    batch: Batch<S::Ticket>,
    /// The number of times that the first record of the batch was delivered.
    attempts: u32,
    /// The number of consecutive calls in which the sink asked for its checkpoint to be stored and accepted no record.
    checkpoint_calls: u32,
    backoff: Backoff,
    source: S,
    telemetry: Arc<Telemetry>,
    shared: Arc<Shared>,
}

impl<S: Source> Engine<S> {
    /// Opens the sink at the source's checkpoint, and creates its engine. If the sink is down, the engine is created nevertheless
    /// and retries to open it.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError::Unusable`] if the sink can never work as configured.
    pub fn open(
        name: Arc<str>,
        mut sink: Box<dyn Sink>,
        source: S,
        backoff: Backoff,
        telemetry: Arc<Telemetry>,
    ) -> Result<(Self, Arc<Shared>), OpenError> {
        let shared = Arc::new(Shared::default());
        let opened = match sink.open(source.checkpoint()) {
            Ok(()) => None,
            Err(OpenError::Down(error)) => Some(error),
            Err(error @ OpenError::Unusable(_)) => return Err(error),
        };
        let engine = Self {
            name,
            sink,
            is_open: opened.is_none(),
            has_checkpoint: false,
            has_pending: false,
            max_batch: usize::MAX,
            batch: Batch::default(),
            attempts: 0,
            checkpoint_calls: 0,
            backoff,
            source,
            telemetry,
            shared: Arc::clone(&shared),
        };
        if let Some(error) = opened {
            engine.failed(&error, 0);
        }
        Ok((engine, shared))
    }

    /// Sets the largest number of records in a batch. The sink's own limit applies as well.
    pub const fn with_max_batch(mut self, max_batch: usize) -> Self {
        self.max_batch = max_batch;
        self
    }

    /// Delivers records until the source ends. While the service is stopping, the remaining records are delivered until the first
    /// failure.
    pub fn run(mut self) {
        while self.source.wait(!self.batch.records.is_empty(), self.wake_at()) {
            self.take_replacement();
            match self.step() {
                Ok(()) => self.attempts = 0,
                Err(Failure { error, is_of_sink }) => {
                    self.attempts = self.attempts.saturating_add(1);
                    self.failed(&error, 0);
                    if self.source.is_stopping() {
                        break;
                    }
                    // A failing sink needs rest; a source that failed is retried soon.
                    let most = if is_of_sink { u32::MAX } else { MAX_SOURCE_ATTEMPTS };
                    self.source.pause(self.backoff.pause(self.attempts.min(most)));
                }
            }
        }
        self.sink.close();
        self.shared.swap.end();
    }

    /// Returns when to wake up while there is nothing to deliver, in order to check or to open the sink; `None` if that is not
    /// needed.
    fn wake_at(&self) -> Option<Instant> {
        let every = if self.is_open { self.sink.check_every() } else { Some(REOPEN_INTERVAL) };
        every.and_then(|every| Instant::now().checked_add(every))
    }

    /// Replaces the sink, if that was requested and no record is pending.
    fn take_replacement(&mut self) {
        // The new sink is opened at the checkpoint, which must contain the results of the old one.
        if !self.shared.swap.is_requested() || self.source.flush().is_err() {
            return;
        }
        let Some(request) = self.shared.swap.due(!self.has_pending) else { return };
        match request.swap(&mut self.sink, self.source.checkpoint()) {
            None => return,
            Some(SwapOutcome::Open) => {
                self.is_open = true;
                self.recovered();
            }
            Some(SwapOutcome::Down(error)) => {
                self.is_open = false;
                self.failed(&error, 0);
            }
            Some(SwapOutcome::Kept) => self.is_open = false,
        }
        (self.has_checkpoint, self.has_pending) = (false, false);
        (self.attempts, self.checkpoint_calls) = (0, 0);
    }

    /// Delivers one batch. If there is nothing to deliver, checks the sink, so that `/readyz` shows its state before the next
    /// event is received.
    ///
    /// # Errors
    ///
    /// Returns [`Failure`] if the engine has to pause.
    fn step(&mut self) -> Result<(), Failure> {
        self.source.flush().map_err(|error| Failure::of_source(&error))?;
        let opened = self.ready();
        if opened.is_err() && S::RETRIES {
            return opened;
        }
        let taken = self.take();
        if self.batch.records.is_empty() {
            taken.map_err(|error| Failure::of_source(&error))?;
            opened?;
            return self.check();
        }
        let outcome = match opened {
            Ok(()) => self.deliver(),
            // The waiting requests get the error.
            Err(Failure { error, .. }) => Outcome::retry(self.batch.records.len(), &error),
        };
        self.complete(outcome)?;
        // The records that were taken before the error are delivered first.
        taken.map_err(|error| Failure::of_source(&error))
    }

    fn take(&mut self) -> Result<(), SourceError> {
        let max_batch = self.sink.max_batch().min(self.max_batch).max(1);
        let room = max_batch.saturating_sub(self.batch.records.len());
        // The new sink gets the next records.
        if room == 0 || self.batch.bytes() > MAX_BATCH_BYTES || self.shared.swap.is_requested() {
            return Ok(());
        }
        self.source.take(room, &mut self.batch)
    }

    /// Opens the sink if it is not open, and stores its checkpoint before the first batch: after a crash during that batch, the
    /// sink compares its content with the checkpoint.
    fn ready(&mut self) -> Result<(), Failure> {
        if !self.is_open {
            let (sink, checkpoint) = (&mut self.sink, self.source.checkpoint());
            let opened = std::panic::catch_unwind(AssertUnwindSafe(|| sink.open(checkpoint)));
            let opened = opened.map_err(|_| Failure::of_sink("the sink panicked while it was opened"))?;
            opened.map_err(|error| Failure::of_sink(&error.to_string()))?;
            (self.is_open, self.has_checkpoint) = (true, false);
        }
        if !self.has_checkpoint && S::KEEPS_CHECKPOINTS {
            let checkpoint = self.sink.begin();
            // A checkpoint that was stored before may not be durable yet, and the sink relies on it.
            if checkpoint.is_some() {
                let first_left = self.batch.tickets.first();
                let result = BatchResult {
                    done: Vec::new(),
                    first_left,
                    attempts: 0,
                    checkpoint,
                    is_checkpoint_due: true,
                };
                self.source.complete(result).map_err(|error| Failure::of_source(&error))?;
            }
        }
        self.has_checkpoint = true;
        Ok(())
    }

    /// Checks the sink, if it has a check.
    fn check(&mut self) -> Result<(), Failure> {
        let sink = &mut self.sink;
        if sink.check_every().is_some() {
            let checked = std::panic::catch_unwind(AssertUnwindSafe(|| sink.check()));
            let checked = checked.unwrap_or_else(|_| {
                self.is_open = false;
                Err("the sink panicked while it was checked".into())
            });
            checked.map_err(|error| Failure::of_sink(&error.to_string()))?;
        }
        self.recovered();
        Ok(())
    }

    /// Passes the batch to the sink.
    fn deliver(&mut self) -> Outcome {
        let (sink, records) = (&mut self.sink, &self.batch.records);
        // A sink of an embedder may panic, which must not end the worker.
        let delivered = std::panic::catch_unwind(AssertUnwindSafe(|| sink.deliver(records)));
        let mut outcome = delivered.unwrap_or_else(|_| {
            self.is_open = false;
            Outcome::retry(records.len(), "the sink panicked")
        });
        // Each record needs exactly one fate.
        let error = "the sink returned no result for it".to_owned();
        outcome.fates.resize(records.len(), Fate::Retry { error });
        outcome
    }

    /// Reports the results of a batch to the source, and keeps the records without a result.
    #[expect(clippy::arithmetic_side_effects, reason = "counts the records of one batch")]
    fn complete(&mut self, outcome: Outcome) -> Result<(), Failure> {
        let Outcome { fates, checkpoint, is_checkpoint_due } = outcome;
        let batch = std::mem::take(&mut self.batch);
        let mut done = Vec::with_capacity(fates.len());
        let (mut retry, mut pending_error) = (None, None);
        let (mut delivered, mut rejected, mut retries) = (0_u64, 0_u64, 0_u64);
        self.has_pending = false;
        for ((ticket, record), fate) in batch.tickets.into_iter().zip(batch.records).zip(fates) {
            let result = match fate {
                Fate::Delivered => {
                    delivered += 1;
                    RecordResult::Delivered
                }
                Fate::Rejected { error } => {
                    rejected += 1;
                    RecordResult::Rejected(error)
                }
                Fate::Pending { last_error } => {
                    self.has_pending = true;
                    pending_error = pending_error.or(last_error);
                    self.batch.push(ticket, record);
                    continue;
                }
                Fate::Retry { error } => {
                    retries += 1;
                    retry.get_or_insert_with(|| error.clone());
                    if S::RETRIES {
                        self.batch.push(ticket, record);
                        continue;
                    }
                    RecordResult::Failed(error)
                }
            };
            done.push((ticket, record, result));
        }
        let records = delivered + rejected + retries;
        if records > 0 {
            self.telemetry.sink_batch(&self.name, records, delivered, rejected);
        }
        let is_only_checkpoint = records == 0 && is_checkpoint_due;
        self.checkpoint_calls = if is_only_checkpoint { self.checkpoint_calls.saturating_add(1) } else { 0 };
        let (attempts, first_left) = (self.attempts.saturating_add(1), self.batch.tickets.first());
        let result = BatchResult { done, first_left, attempts, checkpoint, is_checkpoint_due };
        // Before the requests are answered: a client that then reads `/readyz` must see the new state.
        match (&retry, pending_error) {
            // `run` reports the error, and pauses.
            (Some(_), _) if S::RETRIES => self.telemetry.sink_retries(&self.name, retries),
            (Some(error), _) => self.failed(error, retries),
            (None, Some(error)) => self.failed(&error, 0),
            // All records are pending, which does not show that the sink works.
            (None, None) if records == 0 => {}
            (None, None) => self.recovered(),
        }
        self.source.complete(result).map_err(|error| Failure::of_source(&error))?;
        match retry {
            Some(error) if S::RETRIES => Err(Failure::of_sink(&error.to_string())),
            // Each stored checkpoint takes space in the log.
            _ if self.checkpoint_calls >= MAX_CHECKPOINT_CALLS => Err(Failure::of_sink(
                "the sink asks for its checkpoint to be stored again and again, and takes no event",
            )),
            _ => Ok(()),
        }
    }

    /// Records the error of the sink. Logs it if it is a new error, or if `records` records were returned to their senders.
    fn failed(&self, error: &str, records: u64) {
        let before = self.shared.last_error.lock().replace(error.to_owned());
        if records > 0 || before.as_deref() != Some(error) {
            self.telemetry.emit(&SinkFailed { sink: &self.name, error, records });
        }
    }

    /// Clears the error of the sink, and logs that the sink recovered if it had an error.
    fn recovered(&self) {
        if self.shared.last_error.lock().take().is_some() {
            self.telemetry.emit(&SinkRecovered { sink: &self.name });
        }
    }
}

/// Why the engine pauses.
struct Failure {
    error: String,
    is_of_sink: bool,
}

impl Failure {
    fn of_source(error: &SourceError) -> Self {
        Self { error: error.to_string(), is_of_sink: false }
    }

    fn of_sink(error: &str) -> Self {
        Self { error: error.to_owned(), is_of_sink: true }
    }
}
