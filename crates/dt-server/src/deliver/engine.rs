//! The delivery engine: one thread a sink, which takes records from a source, gives them to the sink in batches, and tells
//! the source what became of them.
//!
//! A source is the log (`from_log.rs`, mode `spool`) or the requests that wait (`from_requests.rs`, mode `direct`). The engine opens the sink and opens it
//! again after a failure, waits between tries, tells `/readyz` and the metrics how the sink is, exchanges it for another one
//! on a reload, and survives its panics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::backoff::Backoff;
use super::replace::{Slot, Swapped};
use crate::sink::{Fate, OpenError, Outcome, Sink};
use crate::telemetry::{SinkFailed, SinkRecovered, Telemetry};
use dt_sink::record::Record;

/// No more is taken while the window holds so many bytes of bodies.
const MAX_WINDOW_BYTES: usize = 8 << 20;
/// How long a sink that could not be opened is left alone while there is nothing for it.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The number of attempts whose back-off is the longest one while the source itself fails: under a second.
const SOON: u32 = 4;

/// Where records come from, and where it is told what became of them.
pub(super) trait Source: Send + 'static {
    /// What the source knows a record by.
    type Ticket: Send;
    /// Whether the sink's checkpoints are kept.
    const KEEPS_CHECKPOINTS: bool;
    /// Whether a record that is to be tried again stays with the engine. Otherwise whoever waits is told at once.
    const TRIES_AGAIN: bool;

    /// Waits until there may be a record after those in the window, or it is `until`, or there is something else to look
    /// at; with `has_window`, not at all. `false`: there will be no more.
    fn wait(&mut self, has_window: bool, until: Option<Instant>) -> bool;

    /// Takes up to `room` records that come next.
    fn take(&mut self, room: usize, window: &mut Window<Self::Ticket>) -> Result<(), String>;

    /// Takes note of what became of a batch; durably, before it says more than the sink did. What it could not store is
    /// tried again by [`flush`](Self::flush).
    fn settle(&mut self, settled: Settled<'_, Self::Ticket>) -> Result<(), String>;

    /// Stores what could not be stored. Nothing else is delivered before.
    fn flush(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Where the sink stood at the last batch.
    fn checkpoint(&self) -> Option<&[u8]> {
        None
    }

    /// Waits before the next try.
    fn pause(&mut self, pause: Duration);

    /// Whether the service stops: then nothing that fails is tried again.
    fn is_stopping(&self) -> bool;
}

/// The records that were taken and are not done, in order. What was delivered beyond the first that was not is not here any
/// more, so it is not sent again.
pub(super) struct Window<T> {
    tickets: Vec<T>,
    /// As many, in the same order: apart from their tickets, as sinks take them.
    records: Vec<Arc<Record>>,
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { tickets: Vec::new(), records: Vec::new() }
    }
}

impl<T> Window<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn push(&mut self, ticket: T, record: Arc<Record>) {
        self.tickets.push(ticket);
        self.records.push(record);
    }

    /// All of them, as delivered.
    #[cfg(test)]
    pub(super) fn into_delivered(self) -> Vec<(T, Arc<Record>, Done)> {
        self.tickets
            .into_iter()
            .zip(self.records)
            .map(|(ticket, record)| (ticket, record, Done::Delivered))
            .collect()
    }

    fn bytes(&self) -> usize {
        self.records.iter().map(|record| record.body.len()).sum()
    }
}

/// What became of a batch.
pub(super) struct Settled<'a, T> {
    /// The records that are done, in order.
    pub(super) done: Vec<(T, Arc<Record>, Done)>,
    /// The first record that is not.
    pub(super) first_left: Option<&'a T>,
    /// How often the first one has been tried.
    pub(super) attempts: u32,
    pub(super) checkpoint: Option<Vec<u8>>,
    /// Whether the checkpoint has to be durable before the next batch.
    pub(super) is_checkpoint_due: bool,
}

/// What became of a record.
#[derive(Debug)]
pub(super) enum Done {
    Delivered,
    Rejected(String),
    /// Only where the source does not try again.
    Failed(String),
}

/// What the engine and those who run it share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// What is wrong with the sink, if anything.
    pub(super) trouble: Mutex<Option<String>>,
    /// Another sink that is to take the place of this one.
    pub(super) slot: Slot,
}

/// A sink with its source.
pub(super) struct Engine<S: Source> {
    name: Arc<str>,
    sink: Box<dyn Sink>,
    is_open: bool,
    /// Whether the source knows where the sink stood when it was opened.
    is_placed: bool,
    /// Whether something is on its way of which nobody knows yet what becomes of it.
    is_waiting: bool,
    max_batch: usize,
    window: Window<S::Ticket>,
    /// How often the first record in the window has been tried.
    attempts: u32,
    backoff: Backoff,
    source: S,
    telemetry: Arc<Telemetry>,
    shared: Arc<Shared>,
}

impl<S: Source> Engine<S> {
    /// Opens the sink where the source says it stands.
    ///
    /// # Errors
    ///
    /// What the sink says when it can never work as configured. One that is only down is tried again.
    pub(super) fn open(
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
            is_placed: false,
            is_waiting: false,
            max_batch: usize::MAX,
            window: Window::default(),
            attempts: 0,
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

    /// Limits how many records are given to the sink at once, below what the sink takes.
    pub(super) const fn with_max_batch(mut self, max_batch: usize) -> Self {
        self.max_batch = max_batch;
        self
    }

    /// Delivers until there is no more. On a stop, what is there is still delivered, as long as that goes well.
    pub(super) fn run(mut self) {
        while self.source.wait(!self.window.records.is_empty(), self.wake_at()) {
            self.take_replacement();
            match self.step() {
                Ok(()) => self.attempts = 0,
                Err(Failure { error, is_of_sink }) => {
                    self.attempts = self.attempts.saturating_add(1);
                    self.failed(&error, 0);
                    if self.source.is_stopping() {
                        break;
                    }
                    // A sink is spared; the source is asked again soon.
                    let most = if is_of_sink { u32::MAX } else { SOON };
                    self.source.pause(self.backoff.pause(self.attempts.min(most)));
                }
            }
        }
        self.sink.close();
        self.shared.slot.end();
    }

    /// When to look although there is nothing to deliver.
    fn wake_at(&self) -> Option<Instant> {
        let every = if self.is_open { self.sink.check_every() } else { Some(OPEN_AGAIN_AFTER) };
        every.and_then(|every| Instant::now().checked_add(every))
    }

    /// Takes another sink in place of this one, if there is one, and nothing is on its way.
    fn take_replacement(&mut self) {
        // What the old one has done must be stored before the new one is opened at it.
        if !self.shared.slot.is_asked() || self.source.flush().is_err() {
            return;
        }
        let Some(request) = self.shared.slot.due(!self.is_waiting) else { return };
        match request.swap(&mut self.sink, self.source.checkpoint()) {
            None => return,
            Some(Swapped::Open) => {
                self.is_open = true;
                self.recovered();
            }
            Some(Swapped::Down(error)) => {
                self.is_open = false;
                self.failed(&error, 0);
            }
            Some(Swapped::Kept) => self.is_open = false,
        }
        (self.is_placed, self.is_waiting, self.attempts) = (false, false, 0);
    }

    /// Delivers what is due; with nothing due, sees whether something could be delivered: `/readyz` is asked before the
    /// next event comes. An error is a reason to wait.
    fn step(&mut self) -> Result<(), Failure> {
        self.source.flush().map_err(Failure::of_source)?;
        let opened = self.ready();
        if opened.is_err() && S::TRIES_AGAIN {
            return opened;
        }
        let taken = self.take();
        if self.window.records.is_empty() {
            taken.map_err(Failure::of_source)?;
            opened?;
            return self.check();
        }
        let outcome = match opened {
            Ok(()) => self.give(),
            // Whoever waits is told.
            Err(Failure { error, .. }) => Outcome::retry(self.window.records.len(), &error),
        };
        self.settle(outcome)?;
        // What was taken before is delivered all the same.
        taken.map_err(Failure::of_source)
    }

    fn take(&mut self) -> Result<(), String> {
        let max_batch = self.sink.max_batch().min(self.max_batch).max(1);
        let room = max_batch.saturating_sub(self.window.records.len());
        // What comes while another sink waits is for that one.
        if room == 0 || self.window.bytes() > MAX_WINDOW_BYTES || self.shared.slot.is_asked() {
            return Ok(());
        }
        self.source.take(room, &mut self.window)
    }

    /// Opens the sink if it is not open, and has it stored where it stands before it is given anything: a crash in its
    /// first batch is measured against that.
    fn ready(&mut self) -> Result<(), Failure> {
        if !self.is_open {
            let (sink, checkpoint) = (&mut self.sink, self.source.checkpoint());
            let opened = std::panic::catch_unwind(AssertUnwindSafe(|| sink.open(checkpoint)));
            let opened = opened.map_err(|_| Failure::of_sink("the sink panicked while it was opened"))?;
            opened.map_err(|error| Failure::of_sink(&error.to_string()))?;
            (self.is_open, self.is_placed) = (true, false);
        }
        if !self.is_placed && S::KEEPS_CHECKPOINTS {
            let checkpoint = self.sink.begin();
            // Also one that was handed on before: it may not be durable yet, and the sink goes by it.
            if checkpoint.is_some() {
                let first_left = self.window.tickets.first();
                let settled = Settled {
                    done: Vec::new(),
                    first_left,
                    attempts: 0,
                    checkpoint,
                    is_checkpoint_due: true,
                };
                self.source.settle(settled).map_err(Failure::of_source)?;
            }
        }
        self.is_placed = true;
        Ok(())
    }

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

    fn give(&mut self) -> Outcome {
        let (sink, records) = (&mut self.sink, &self.window.records);
        // A sink may come from outside this crate. One that panics must not take its queue along.
        let given = std::panic::catch_unwind(AssertUnwindSafe(|| sink.deliver(records)));
        let mut outcome = given.unwrap_or_else(|_| {
            self.is_open = false;
            Outcome::retry(records.len(), "the sink panicked")
        });
        // One that says too little or too much must not look healthy, nor confuse the counts.
        let error = "the sink did not say what became of it".to_owned();
        outcome.fates.resize(records.len(), Fate::Retry { error });
        outcome
    }

    /// Tells the source what is done, and keeps the rest.
    fn settle(&mut self, outcome: Outcome) -> Result<(), Failure> {
        let Outcome { fates, checkpoint, is_checkpoint_due } = outcome;
        let window = std::mem::take(&mut self.window);
        let mut done = Vec::with_capacity(fates.len());
        let (mut retry, mut trouble) = (None, None);
        let (mut delivered, mut rejected, mut retries) = (0_u64, 0_u64, 0_u64);
        self.is_waiting = false;
        for ((ticket, record), fate) in window.tickets.into_iter().zip(window.records).zip(fates) {
            let settled = match fate {
                Fate::Delivered => {
                    delivered = delivered.saturating_add(1);
                    Done::Delivered
                }
                Fate::Rejected { error } => {
                    rejected = rejected.saturating_add(1);
                    Done::Rejected(error)
                }
                Fate::Pending { last_error: text } => {
                    self.is_waiting = true;
                    trouble = trouble.or(text);
                    self.window.push(ticket, record);
                    continue;
                }
                Fate::Retry { error } => {
                    retries = retries.saturating_add(1);
                    retry.get_or_insert_with(|| error.clone());
                    if S::TRIES_AGAIN {
                        self.window.push(ticket, record);
                        continue;
                    }
                    Done::Failed(error)
                }
            };
            done.push((ticket, record, settled));
        }
        let settled = delivered.saturating_add(rejected).saturating_add(retries);
        if settled > 0 {
            self.telemetry.sink_batch(&self.name, settled, delivered, rejected);
        }
        let (attempts, first_left) = (self.attempts.saturating_add(1), self.window.tickets.first());
        let settled_batch = Settled { done, first_left, attempts, checkpoint, is_checkpoint_due };
        // Before anybody is answered: who asks `/readyz` because of the answer is not told what was before.
        match (&retry, trouble) {
            // `run` says it, and waits.
            (Some(_), _) if S::TRIES_AGAIN => self.telemetry.sink_retries(&self.name, retries),
            (Some(error), _) => self.failed(error, retries),
            (None, Some(trouble)) => self.failed(&trouble, 0),
            // One that takes its time has not recovered.
            (None, None) if settled == 0 => {}
            (None, None) => self.recovered(),
        }
        self.source.settle(settled_batch).map_err(Failure::of_source)?;
        match retry {
            Some(error) if S::TRIES_AGAIN => Err(Failure::of_sink(&error.to_string())),
            _ => Ok(()),
        }
    }

    /// The sink does not work; the log says so once for each reason, or with records that come back.
    fn failed(&self, error: &str, records: u64) {
        let before = self.shared.trouble.lock().replace(error.to_owned());
        if records > 0 || before.as_deref() != Some(error) {
            self.telemetry.emit(&SinkFailed { sink: &self.name, error, records });
        }
    }

    fn recovered(&self) {
        if self.shared.trouble.lock().take().is_some() {
            self.telemetry.emit(&SinkRecovered { sink: &self.name });
        }
    }
}

/// Why a step was not made.
struct Failure {
    error: String,
    is_of_sink: bool,
}

impl Failure {
    const fn of_source(error: String) -> Self {
        Self { error, is_of_sink: false }
    }

    fn of_sink(error: &str) -> Self {
        Self { error: error.to_owned(), is_of_sink: true }
    }
}
