//! Mode `direct`: one sink with a bounded queue of the records that requests wait for, and the window of the ids that the
//! sink has received. The engine delivers all queued records as one batch, so that one sync serves many requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::backoff::Backoff;
use super::dead_letters::DeadLetterStore;
use super::dedup_window::{DedupWindow, DeliveryResult, Key, Lookup, Waiter};
use super::engine::{self, Batch, BatchResult, Engine, RecordResult, Source, SourceError};
use super::sink_swap::ReplaceError;
use crate::sink::{OpenError, Sink};
use crate::telemetry::Telemetry;
use dt_sink::clock::Clock;
use dt_sink::record::{DeadLetter, Record};

/// Why a record was not delivered. A retry may succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Undelivered {
    /// The queue of the sink is full.
    #[error("too many records wait for the sink")]
    Overloaded,
    /// The sink did not accept the record.
    #[error("the sink did not take it: {error}")]
    SinkUnavailable {
        /// The error that the sink returned, or the information that its worker has stopped.
        error: String,
    },
    /// The sink rejected the record, and the dead letter could not be stored.
    #[error("it could not be moved to the dead letters: {error}")]
    StorageUnavailable {
        /// Why the dead letter could not be stored.
        error: String,
    },
}

/// The limits of a [`DirectWorker`].
#[derive(Debug, Clone, Copy)]
pub struct DirectWorkerOptions {
    /// The largest number of records that wait for the sink.
    pub max_queue: usize,
    /// The largest number of records in a batch.
    pub max_batch: usize,
    /// The largest number of ids in the de-duplication window.
    pub window_ids: usize,
    /// The age at which an id is removed from the de-duplication window.
    pub window_age: Duration,
}

/// The result of offering a record to a worker.
#[derive(Debug)]
pub(super) enum Offered {
    /// The record is being delivered, and the waiter receives the result. `new` is false if an earlier copy is being delivered.
    Waiting { waiter: Waiter, new: bool },
    /// The sink has received the record before.
    Duplicate,
}

#[derive(Debug)]
struct Job {
    record: Arc<Record>,
    result: ResultTo,
}

/// The receiver of the result of a record.
#[derive(Debug)]
enum ResultTo {
    /// The de-duplication window, which sends the result to all requests that wait for this event.
    Window(Key),
    /// The only request that waits for the result.
    Waiter(oneshot::Sender<DeliveryResult>),
}

/// Delivers the records of requests to one sink. Consists of a queue, a thread and a de-duplication window.
#[derive(Debug)]
pub struct DirectWorker {
    name: Arc<str>,
    /// The queue to the thread. The message `None` only wakes the thread. Absent after [`close`](Self::close).
    queue: Mutex<Option<mpsc::SyncSender<Option<Job>>>>,
    thread: Arc<DirectWorkerThread>,
    window: Arc<Mutex<DedupWindow>>,
    engine: Arc<engine::Shared>,
    /// Whether the sink was removed. If so, its metrics are removed when the thread ends.
    is_removed: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
}

/// The arguments for creating a [`DirectWorker`].
#[derive(Debug, Clone)]
pub struct DirectWorkerParts {
    /// The clock by which ids in the de-duplication window expire.
    pub clock: Arc<dyn Clock>,
    /// Receives the results of the sink, for metrics and log lines.
    pub telemetry: Arc<Telemetry>,
    /// The store for the records that the sink rejects.
    pub dead_letters: Arc<DeadLetterStore>,
    /// The pauses before the sink is reopened.
    pub backoff: Backoff,
}

/// The thread of a [`DirectWorker`]. It delivers all queued records before it ends, even after the worker was dropped.
#[derive(Debug)]
pub struct DirectWorkerThread(Mutex<Option<JoinHandle<()>>>);

impl DirectWorkerThread {
    /// Waits until the thread has ended. Blocks as long as the sink blocks.
    pub fn join(&self) {
        let thread = self.0.lock().take();
        if let Some(thread) = thread {
            // A panic was printed by the thread itself.
            let _panicked = thread.join();
        }
    }

    /// Returns whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.lock().as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl DirectWorker {
    /// Opens the sink and starts its thread. A sink that is down is opened later.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError::Unusable`] if the sink can never work as configured, or if the thread cannot be started.
    pub fn start(
        name: Arc<str>,
        sink: Box<dyn Sink>,
        options: DirectWorkerOptions,
        parts: DirectWorkerParts,
    ) -> Result<Self, OpenError> {
        let DirectWorkerParts { clock, telemetry, dead_letters, backoff } = parts;
        let window = Arc::new(Mutex::new(DedupWindow::new(options.window_ids, options.window_age)));
        let is_removed = Arc::new(AtomicBool::new(false));
        let (queue, jobs) = mpsc::sync_channel(options.max_queue);
        let source = RequestSource {
            name: Arc::clone(&name),
            jobs,
            first: None,
            has_ended: false,
            window: Arc::clone(&window),
            dead_letters,
            is_removed: Arc::clone(&is_removed),
            telemetry: Arc::clone(&telemetry),
        };
        let (engine, shared) = Engine::open(Arc::clone(&name), sink, source, backoff, telemetry)?;
        let engine = engine.with_max_batch(options.max_batch);
        let thread = std::thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn(move || engine.run())
            .map_err(|error| OpenError::Unusable(format!("starting a thread: {error}")))?;
        let thread = Arc::new(DirectWorkerThread(Mutex::new(Some(thread))));
        Ok(Self { name, queue: Mutex::new(Some(queue)), thread, window, engine: shared, is_removed, clock })
    }

    /// Returns the sink's name.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns why the sink does not work; `None` if it works.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.engine.last_error.lock().clone()
    }

    /// Replaces the sink as soon as the old sink has no pending record, and returns the old sink, closed. The de-duplication
    /// window is kept, so that copies are still recognised. Blocks until the sink is replaced, but at most for `timeout`.
    ///
    /// # Errors
    ///
    /// Returns [`ReplaceError`] if the old sink stays in use.
    pub fn replace(&self, sink: Box<dyn Sink>, timeout: Duration) -> Result<Box<dyn Sink>, ReplaceError> {
        if self.thread.is_finished() {
            return Err(ReplaceError::Ended);
        }
        // It fails if the queue is full, and then the thread is awake.
        let wake = || drop(self.queue.lock().as_ref().map(|queue| queue.try_send(None)));
        self.engine.swap.replace(sink, wake, timeout)
    }

    /// Marks the sink as removed, so that its metrics are removed when the thread ends. Returns the thread, which ends when
    /// the last reference to this worker is dropped.
    #[must_use]
    pub fn removed(&self) -> Arc<DirectWorkerThread> {
        self.is_removed.store(true, Ordering::SeqCst);
        Arc::clone(&self.thread)
    }

    /// Returns the number of delivered ids in the de-duplication window.
    #[must_use]
    pub fn window_len(&self) -> usize {
        self.window.lock().len()
    }

    /// Queues a record, unless the sink has received it before. With `remember`, later copies of the record are recognised.
    ///
    /// # Errors
    ///
    /// Returns [`Undelivered`] if the queue is full, or if the thread has ended.
    pub(super) fn offer(&self, record: &Arc<Record>, remember: bool) -> Result<Offered, Undelivered> {
        if !remember {
            let (sender, waiter) = oneshot::channel();
            self.push(record, ResultTo::Waiter(sender))?;
            return Ok(Offered::Waiting { waiter, new: true });
        }
        let key = Key { connector: Arc::clone(&record.connector), event_id: Arc::from(&*record.event_id) };
        let now = self.clock.unix_millis();
        let found = self.window.lock().enter(&key, now);
        match found {
            Lookup::Delivered => Ok(Offered::Duplicate),
            Lookup::Pending(waiter) => Ok(Offered::Waiting { waiter, new: false }),
            Lookup::New(waiter) => match self.push(record, ResultTo::Window(key.clone())) {
                Ok(()) => Ok(Offered::Waiting { waiter, new: true }),
                Err(undelivered) => {
                    self.window.lock().resolve(key, &Err(undelivered.clone()));
                    Err(undelivered)
                }
            },
        }
    }

    fn push(&self, record: &Arc<Record>, result: ResultTo) -> Result<(), Undelivered> {
        let job = Job { record: Arc::clone(record), result };
        match self.queue.lock().as_ref().map(|queue| queue.try_send(Some(job))) {
            Some(Ok(())) => Ok(()),
            Some(Err(mpsc::TrySendError::Full(_))) => Err(Undelivered::Overloaded),
            Some(Err(mpsc::TrySendError::Disconnected(_))) | None => {
                Err(Undelivered::SinkUnavailable { error: "its worker has stopped".to_owned() })
            }
        }
    }

    /// Closes the queue to new records. The thread delivers the queued records, then closes the sink.
    pub fn close(&self) {
        *self.queue.lock() = None;
    }

    /// Waits until the thread has ended, after [`close`](Self::close). Blocks as long as the sink blocks.
    pub fn join(&self) {
        self.thread.join();
    }
}

/// The records of waiting requests, as a source for the engine.
struct RequestSource {
    name: Arc<str>,
    jobs: mpsc::Receiver<Option<Job>>,
    /// The job that ended the last `wait`. The next `take` adds it to the batch.
    first: Option<Job>,
    /// Whether the queue was closed, so that no further record follows: the worker was closed or dropped.
    has_ended: bool,
    window: Arc<Mutex<DedupWindow>>,
    dead_letters: Arc<DeadLetterStore>,
    is_removed: Arc<AtomicBool>,
    telemetry: Arc<Telemetry>,
}

impl Source for RequestSource {
    type Ticket = ResultTo;
    const KEEPS_CHECKPOINTS: bool = false;
    const RETRIES: bool = false;

    fn wait(&mut self, has_batch: bool, until: Option<Instant>) -> bool {
        // A job that arrived during a pause is due; `first` has room for no other.
        if has_batch || self.first.is_some() {
            return true;
        }
        let received = match until {
            None => self.jobs.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
            Some(until) => self.jobs.recv_timeout(until.saturating_duration_since(Instant::now())),
        };
        match received {
            Ok(job) => self.first = job,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => self.has_ended = true,
        }
        !self.has_ended
    }

    fn take(&mut self, room: usize, batch: &mut Batch<ResultTo>) -> Result<(), SourceError> {
        for Job { record, result } in
            self.first.take().into_iter().chain(self.jobs.try_iter().flatten()).take(room)
        {
            batch.push(result, record);
        }
        Ok(())
    }

    fn complete(&mut self, batch: BatchResult<'_, ResultTo>) -> Result<(), SourceError> {
        for (result_to, record, result) in batch.done {
            let result = match result {
                RecordResult::Delivered => Ok(()),
                RecordResult::Failed(error) => Err(Undelivered::SinkUnavailable { error }),
                RecordResult::Rejected(error) => {
                    let dead_letter = DeadLetter::of_record(&record, Arc::clone(&self.name), error, 1);
                    let stored = self.dead_letters.add_blocking(&dead_letter);
                    stored.map_err(|error| Undelivered::StorageUnavailable { error: error.to_string() })
                }
            };
            match result_to {
                ResultTo::Window(key) => self.window.lock().resolve(key, &result),
                ResultTo::Waiter(waiter) => {
                    // It fails if the request has been answered already, by its deadline.
                    let _gone = waiter.send(result);
                }
            }
        }
        Ok(())
    }

    /// Ends the pause when a record arrives, since a request waits for it.
    fn pause(&mut self, pause: Duration) {
        if self.first.is_none()
            && let Ok(job) = self.jobs.recv_timeout(pause)
        {
            self.first = job;
        }
    }

    fn is_stopping(&self) -> bool {
        self.has_ended
    }
}

impl Drop for RequestSource {
    fn drop(&mut self) {
        if self.is_removed.load(Ordering::SeqCst) {
            self.telemetry.unregister_sink(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{DeadLetterSink, SinkError};
    use dt_sink::clock::SystemClock;

    #[derive(Debug)]
    struct NoDeadLetters;

    impl DeadLetterSink for NoDeadLetters {
        fn store(&self, _dead_letter: &DeadLetter) -> Result<(), SinkError> {
            Ok(())
        }

        fn last_error(&self) -> Option<String> {
            None
        }
    }

    #[test]
    fn what_comes_during_a_pause_keeps_its_place() {
        let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
        let (queue, jobs) = mpsc::sync_channel(8);
        let mut source = RequestSource {
            name: Arc::from("sink"),
            jobs,
            first: None,
            has_ended: false,
            window: Arc::new(Mutex::new(DedupWindow::new(8, Duration::ZERO))),
            dead_letters: Arc::new(DeadLetterStore::elsewhere(
                Arc::new(NoDeadLetters),
                Arc::clone(&telemetry),
            )),
            is_removed: Arc::default(),
            telemetry,
        };
        let waiters: Vec<_> = ["1", "2", "3"]
            .map(|id| {
                let (sender, waiter) = oneshot::channel();
                let record = Arc::new(Record::sample(id));
                queue.send(Some(Job { record, result: ResultTo::Waiter(sender) })).expect("room");
                waiter
            })
            .into();
        source.pause(Duration::from_secs(60));
        source.pause(Duration::from_secs(60));
        assert!(source.wait(false, None));
        let mut batch = Batch::default();
        source.take(8, &mut batch).expect("taken");
        let done = batch.into_delivered();
        assert_eq!(done.len(), 3);
        let result =
            BatchResult { done, first_left: None, attempts: 1, checkpoint: None, is_checkpoint_due: false };
        source.complete(result).expect("stored");
        for waiter in waiters {
            assert_eq!(waiter.blocking_recv().expect("it hears"), Ok(()));
        }
    }
}
