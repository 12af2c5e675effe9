//! One sink with its worker in mode `spool`: reads records in order, delivers them in batches, and moves the cursor
//! over what is done. Retries for ever; buries what the sink rejects; remembers what was delivered beyond a retry.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::backoff::Backoff;
use crate::record::Record;
use crate::sink::{Fate, OpenError, Outcome, Sink};
use crate::spool::{Progress, Reader, Spool, SpoolError, StartAt, Stored};
use crate::telemetry::{SinkFailed, SinkRecovered, Telemetry};

/// How many records are read and delivered at once.
const MAX_BATCH: usize = 256;

/// Which connectors' records a sink takes; `None` for all.
pub type Takes = Option<BTreeSet<Arc<str>>>;

/// A sink's worker, running.
#[derive(Debug)]
pub struct WorkerHandle {
    name: Arc<str>,
    trouble: Arc<Mutex<Option<String>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl WorkerHandle {
    /// Opens the sink where it left off, and starts its worker. A sink that the spool does not know starts at `start`.
    ///
    /// # Errors
    ///
    /// What the sink says when it can never work as configured, or the spool when it cannot make the sink known.
    pub fn start(
        name: Arc<str>,
        mut sink: Box<dyn Sink>,
        takes: Takes,
        start: StartAt,
        backoff: Backoff,
        spool: Arc<Spool>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, OpenError> {
        let unusable = |error: SpoolError| OpenError::Unusable(error.to_string());
        let (cursor, checkpoint) = spool.register(Arc::clone(&name), start).map_err(unusable)?;
        let reader = spool.reader().map_err(unusable)?;
        let opened = match sink.open(checkpoint.as_deref()) {
            Ok(()) => None,
            Err(OpenError::Down(error)) => Some(error),
            Err(error @ OpenError::Unusable(_)) => return Err(error),
        };
        if let Some(error) = &opened {
            telemetry.emit(&SinkFailed { sink: &name, error, records: 0 });
        }
        let trouble = Arc::new(Mutex::new(opened.clone()));
        let mut worker = Worker {
            name: Arc::clone(&name),
            sink,
            is_open: opened.is_none(),
            checkpoint,
            takes,
            cursor,
            ahead: BTreeSet::new(),
            unsaved: None,
            attempts: 0,
            backoff,
            spool,
            reader,
            telemetry,
            trouble: Arc::clone(&trouble),
        };
        if worker.is_open {
            worker.begin().map_err(OpenError::Unusable)?;
        }
        let thread = std::thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn(move || worker.run())
            .map_err(|error| OpenError::Unusable(format!("starting a thread: {error}")))?;
        Ok(Self { name, trouble, thread: Mutex::new(Some(thread)) })
    }

    /// The sink's name.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What is wrong with the sink, if anything.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
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

struct Worker {
    name: Arc<str>,
    sink: Box<dyn Sink>,
    is_open: bool,
    /// What the sink said last about where it stands; it is handed back when it has to be opened again.
    checkpoint: Option<Vec<u8>>,
    takes: Takes,
    cursor: i64,
    /// What was delivered beyond the first record that was not.
    ahead: BTreeSet<i64>,
    /// What was done and could not be stored yet. Until it is, the sink gets nothing more: a batch that comes twice
    /// would be a double, and a sink counts on its last checkpoint being stored.
    unsaved: Option<Progress>,
    /// How often the first record that is due has been tried.
    attempts: u32,
    backoff: Backoff,
    spool: Arc<Spool>,
    reader: Reader,
    telemetry: Arc<Telemetry>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Worker {
    fn run(mut self) {
        let tail = Arc::clone(self.spool.tail());
        // On a stop, what is there is still delivered, as long as it goes well.
        while tail.wait_beyond(self.cursor) {
            match self.deliver_some() {
                Ok(()) => self.attempts = 0,
                Err(error) => {
                    self.attempts = self.attempts.saturating_add(1);
                    self.failed(&error);
                    if tail.is_stopping() {
                        break;
                    }
                    tail.pause(self.backoff.pause(self.attempts));
                }
            }
        }
        self.sink.close();
    }

    /// Reads a batch, delivers what is due of it, and stores how far that went. `Err` is a reason to wait.
    fn deliver_some(&mut self) -> Result<(), String> {
        self.save()?;
        let stored = self.reader.after(self.cursor, MAX_BATCH).map_err(|error| error.to_string())?;
        let Some(last) = stored.last().map(|stored| stored.seq) else {
            // Everything up to the tail was pruned already.
            self.cursor = self.spool.tail().last_seq();
            return Ok(());
        };
        let due: Vec<&Stored> = stored.iter().filter(|stored| self.is_due(stored)).collect();
        let records: Vec<Arc<Record>> = due.iter().map(|stored| Arc::clone(&stored.record)).collect();
        let Outcome { fates, checkpoint } =
            if records.is_empty() { Outcome::default() } else { self.give(&records) };
        let mut fates = fates.into_iter();
        let mut progress = Progress { cursor: self.cursor, checkpoint, rejected: Vec::new() };
        let (mut first_retry, mut retries, mut delivered) = (None, 0_u64, 0_u64);
        for stored in &due {
            match fates.next() {
                Some(Fate::Delivered) => {
                    delivered = delivered.saturating_add(1);
                    self.ahead.insert(stored.seq);
                }
                Some(Fate::Rejected { error }) => {
                    progress.rejected.push((stored.seq, error, self.attempts.saturating_add(1)));
                    self.ahead.insert(stored.seq);
                }
                fate => {
                    retries = retries.saturating_add(1);
                    let error = match fate {
                        Some(Fate::Retry { error }) => error,
                        _ => "the sink did not say what became of it".to_owned(),
                    };
                    first_retry.get_or_insert((stored.seq, error));
                }
            }
        }
        progress.cursor = first_retry.as_ref().map_or(last, |(seq, _)| seq.saturating_sub(1));
        let moved =
            progress.cursor > self.cursor || !progress.rejected.is_empty() || progress.checkpoint.is_some();
        if moved {
            self.unsaved = Some(progress);
            self.save()?;
        }
        let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
        if count > 0 {
            self.telemetry.sink_batch(&self.name, count, delivered);
        }
        match first_retry {
            None => {
                self.recovered();
                Ok(())
            }
            Some((_, error)) => {
                self.telemetry.sink_retries(&self.name, retries);
                Err(error)
            }
        }
    }

    /// Stores what was done last, unless that is stored.
    fn save(&mut self) -> Result<(), String> {
        if let Some(Progress { cursor, checkpoint, rejected }) = &self.unsaved {
            let progress =
                Progress { cursor: *cursor, checkpoint: checkpoint.clone(), rejected: rejected.clone() };
            self.spool.advance(Arc::clone(&self.name), progress).map_err(|error| error.to_string())?;
        }
        if let Some(Progress { cursor, checkpoint, .. }) = self.unsaved.take() {
            self.cursor = cursor;
            self.ahead.retain(|seq| *seq > cursor);
            if checkpoint.is_some() {
                self.checkpoint = checkpoint;
            }
        }
        Ok(())
    }

    /// Stores where the sink stands before its first delivery.
    fn begin(&mut self) -> Result<(), String> {
        if let Some(checkpoint) = self.sink.begin() {
            self.unsaved =
                Some(Progress { cursor: self.cursor, checkpoint: Some(checkpoint), rejected: Vec::new() });
            self.save()?;
        }
        Ok(())
    }

    /// Whether the sink takes this record and does not have it.
    fn is_due(&self, stored: &Stored) -> bool {
        let taken = self.takes.as_ref().is_none_or(|takes| takes.contains(&stored.record.connector));
        taken && !self.ahead.contains(&stored.seq)
    }

    fn give(&mut self, records: &[Arc<Record>]) -> Outcome {
        if !self.is_open {
            if let Err(error) = self.sink.open(self.checkpoint.as_deref()) {
                return Outcome::retry(records.len(), &error.to_string());
            }
            if let Err(error) = self.begin() {
                return Outcome::retry(records.len(), &error);
            }
            self.is_open = true;
        }
        let sink = &mut self.sink;
        // A sink may come from outside this crate. One that panics must not take its queue along.
        std::panic::catch_unwind(AssertUnwindSafe(|| sink.deliver(records))).unwrap_or_else(|_| {
            self.is_open = false;
            Outcome::retry(records.len(), "the sink panicked")
        })
    }

    fn failed(&self, error: &str) {
        *self.trouble.lock() = Some(error.to_owned());
        self.telemetry.emit(&SinkFailed { sink: &self.name, error, records: 0 });
    }

    fn recovered(&self) {
        if self.trouble.lock().take().is_some() {
            self.telemetry.emit(&SinkRecovered { sink: &self.name });
        }
    }
}
