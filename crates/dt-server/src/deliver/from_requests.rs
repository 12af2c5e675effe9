//! Mode `direct`: one sink with a bounded queue of the records that requests wait for, and the window of the ids that the
//! sink has had. The engine takes whatever has queued up as one batch, so that one sync serves many requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::backoff::Backoff;
use super::engine::{self, Done, Engine, Settled, Source, Window as Batch};
use super::letters::DeadLetterStore;
use super::replace::ReplaceError;
use super::window::{Fate, Key, Known, Waiter, Window};
use crate::sink::{OpenError, Sink};
use crate::telemetry::Telemetry;
use dt_sink::clock::Clock;
use dt_sink::record::{DeadLetter, Record};

/// Why a record is not delivered, though it may be later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Undelivered {
    /// More records wait for the sink than it may keep waiting.
    #[error("too many records wait for the sink")]
    Overloaded,
    /// The sink did not take it.
    #[error("the sink did not take it: {error}")]
    SinkUnavailable {
        /// What the sink says.
        error: String,
    },
    /// The sink rejects it, and it could not be set aside.
    #[error("it could not be set aside: {error}")]
    StorageUnavailable {
        /// What happened.
        error: String,
    },
}

/// The bounds of a lane.
#[derive(Debug, Clone, Copy)]
pub struct LaneOptions {
    /// How many records may wait for the sink.
    pub max_queue: usize,
    /// How many of them are given to it at once.
    pub max_batch: usize,
    /// How many ids the window holds.
    pub window_ids: usize,
    /// How long it holds them.
    pub window_age: Duration,
}

/// What a lane says to a record that is offered to it.
#[derive(Debug)]
pub(super) enum Offered {
    /// It is queued, or on its way already; the waiter gets the outcome.
    Waiting { waiter: Waiter, new: bool },
    /// The sink has it already.
    Known,
}

#[derive(Debug)]
struct Job {
    record: Arc<Record>,
    /// Where the result goes: to the window under this key, or straight to the one who waits.
    result: ResultTo,
}

#[derive(Debug)]
enum ResultTo {
    Window(Key),
    Waiter(oneshot::Sender<Fate>),
}

/// One sink, its queue and its window.
#[derive(Debug)]
pub struct Lane {
    name: Arc<str>,
    /// `None` in it only wakes the worker.
    queue: Mutex<Option<mpsc::SyncSender<Option<Job>>>>,
    worker: Arc<LaneEnd>,
    window: Arc<Mutex<Window>>,
    engine: Arc<engine::Shared>,
    /// Whether the sink was removed: its metrics go with it.
    is_removed: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
}

/// What a lane is started with.
#[derive(Debug, Clone)]
pub struct LaneParts {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counts and logs how the sink is.
    pub telemetry: Arc<Telemetry>,
    /// Where rejected records go.
    pub letters: Arc<DeadLetterStore>,
    /// How long to wait before the sink is opened again.
    pub backoff: Backoff,
}

/// The end of a lane: its worker goes on until it has delivered what is queued, also when the lane itself is gone.
#[derive(Debug)]
pub struct LaneEnd(Mutex<Option<JoinHandle<()>>>);

impl LaneEnd {
    /// Waits for the worker to end. It blocks as long as the sink does.
    pub fn join(&self) {
        let worker = self.0.lock().take();
        if let Some(worker) = worker {
            // A worker that panicked has nothing more to deliver; its panic was printed by its thread.
            let _panicked = worker.join();
        }
    }

    /// Whether the worker has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.lock().as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Lane {
    /// Opens the sink and starts its worker.
    ///
    /// # Errors
    ///
    /// What the sink says when it can never work as configured, or the error of starting a thread. A sink that is only
    /// down does not stop the start.
    pub fn start(
        name: Arc<str>,
        sink: Box<dyn Sink>,
        options: LaneOptions,
        parts: LaneParts,
    ) -> Result<Self, OpenError> {
        let LaneParts { clock, telemetry, letters, backoff } = parts;
        let window = Arc::new(Mutex::new(Window::new(options.window_ids, options.window_age)));
        let is_removed = Arc::new(AtomicBool::new(false));
        let (queue, jobs) = mpsc::sync_channel(options.max_queue);
        let source = RequestSource {
            name: Arc::clone(&name),
            jobs,
            first: None,
            has_ended: false,
            window: Arc::clone(&window),
            letters,
            is_removed: Arc::clone(&is_removed),
            telemetry: Arc::clone(&telemetry),
        };
        let (engine, shared) = Engine::open(Arc::clone(&name), sink, source, backoff, telemetry)?;
        let engine = engine.with_max_batch(options.max_batch);
        let thread = std::thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn(move || engine.run())
            .map_err(|error| OpenError::Unusable(format!("starting a thread: {error}")))?;
        let worker = Arc::new(LaneEnd(Mutex::new(Some(thread))));
        Ok(Self { name, queue: Mutex::new(Some(queue)), worker, window, engine: shared, is_removed, clock })
    }

    /// The sink's name.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What is wrong with the sink, if anything.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.engine.trouble.lock().clone()
    }

    /// Puts another sink in the place of this one, once nothing is on its way; the window of ids stays. Waits so long
    /// for it, and gives the old one, closed. It blocks.
    ///
    /// # Errors
    ///
    /// [`ReplaceError`] when the old one goes on.
    pub fn replace(&self, sink: Box<dyn Sink>, timeout: Duration) -> Result<Box<dyn Sink>, ReplaceError> {
        if self.worker.is_finished() {
            return Err(ReplaceError::Ended);
        }
        // With a full queue the worker is awake.
        let wake = || drop(self.queue.lock().as_ref().map(|queue| queue.try_send(None)));
        self.engine.slot.replace(sink, wake, timeout)
    }

    /// The sink was removed: the lane ends once nobody has it any more. Gives what is left of it then, to wait for.
    #[must_use]
    pub fn removed(&self) -> Arc<LaneEnd> {
        self.is_removed.store(true, Ordering::SeqCst);
        Arc::clone(&self.worker)
    }

    /// How many delivered ids the window holds.
    #[must_use]
    pub fn window_len(&self) -> usize {
        self.window.lock().len()
    }

    /// Offers a record. `remember` says whether copies of it are caught.
    pub(super) fn offer(&self, record: &Arc<Record>, remember: bool) -> Result<Offered, Undelivered> {
        if !remember {
            let (sender, waiter) = oneshot::channel();
            self.push(record, ResultTo::Waiter(sender))?;
            return Ok(Offered::Waiting { waiter, new: true });
        }
        let key = Key { connector: Arc::clone(&record.connector), event_id: Arc::from(&*record.event_id) };
        let now = self.clock.unix_millis();
        let known = self.window.lock().enter(&key, now);
        match known {
            Known::Delivered => Ok(Offered::Known),
            Known::Pending(waiter) => Ok(Offered::Waiting { waiter, new: false }),
            Known::New(waiter) => match self.push(record, ResultTo::Window(key.clone())) {
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

    /// Takes no more records. The worker delivers what is queued, then closes the sink.
    pub fn close(&self) {
        *self.queue.lock() = None;
    }

    /// Waits for the worker to end, after [`close`](Self::close). It blocks as long as the sink does.
    pub fn join(&self) {
        self.worker.join();
    }
}

/// The requests that wait, as a source of records.
struct RequestSource {
    name: Arc<str>,
    jobs: mpsc::Receiver<Option<Job>>,
    /// The record that ended the wait.
    first: Option<Job>,
    /// Nobody can offer a record any more.
    has_ended: bool,
    window: Arc<Mutex<Window>>,
    letters: Arc<DeadLetterStore>,
    is_removed: Arc<AtomicBool>,
    telemetry: Arc<Telemetry>,
}

impl Source for RequestSource {
    type Ticket = ResultTo;
    const KEEPS_CHECKPOINTS: bool = false;
    const TRIES_AGAIN: bool = false;

    fn wait(&mut self, has_window: bool, until: Option<Instant>) -> bool {
        // One that came during a pause is due; another one must not take its place.
        if has_window || self.first.is_some() {
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

    fn take(&mut self, room: usize, window: &mut Batch<ResultTo>) -> Result<(), String> {
        for Job { record, result } in
            self.first.take().into_iter().chain(self.jobs.try_iter().flatten()).take(room)
        {
            window.push(result, record);
        }
        Ok(())
    }

    fn settle(&mut self, settled: Settled<'_, ResultTo>) -> Result<(), String> {
        for (result, record, done) in settled.done {
            let fate = match done {
                Done::Delivered => Ok(()),
                Done::Failed(error) => Err(Undelivered::SinkUnavailable { error }),
                Done::Rejected(error) => {
                    let letter = DeadLetter::of_record(&record, Arc::clone(&self.name), error, 1);
                    let stored = self.letters.add_blocking(&letter);
                    stored.map_err(|error| Undelivered::StorageUnavailable { error })
                }
            };
            match result {
                ResultTo::Window(key) => self.window.lock().resolve(key, &fate),
                ResultTo::Waiter(waiter) => {
                    // A requester that has given up is not an error.
                    let _gone = waiter.send(fate);
                }
            }
        }
        Ok(())
    }

    /// The next record that comes is a reason to try at once: somebody waits.
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
    struct NoLetters;

    impl DeadLetterSink for NoLetters {
        fn store(&self, _letter: &DeadLetter) -> Result<(), SinkError> {
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
            window: Arc::new(Mutex::new(Window::new(8, Duration::ZERO))),
            letters: Arc::new(DeadLetterStore::elsewhere(Arc::new(NoLetters), Arc::clone(&telemetry))),
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
        let settled =
            Settled { done, first_left: None, attempts: 1, checkpoint: None, is_checkpoint_due: false };
        source.settle(settled).expect("settled");
        for waiter in waiters {
            assert_eq!(waiter.blocking_recv().expect("it hears"), Ok(()));
        }
    }
}
