//! One sink with its worker: a bounded queue, a thread that takes whatever has queued up as one batch, and the window
//! of ids the sink has had. Batching what is in flight is what makes one `fsync` serve many requests.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::dead::DeadLetters;
use super::replace::{ReplaceError, Slot, Swapped};
use super::window::{Fate, Key, Known, Waiter, Window};
use crate::clock::Clock;
use crate::record::{DeadLetter, Record};
use crate::sink::{self, OpenError, Outcome, Sink};
use crate::telemetry::{SinkFailed, SinkRecovered, Telemetry};

/// How long a sink that could not be opened is left alone, unless a record comes for it.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(1);

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
    /// It is queued, or on its way already; the waiter is told what became of it.
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
    shared: Arc<Shared>,
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

/// What the worker and the requests share.
#[derive(Debug)]
struct Shared {
    window: Mutex<Window>,
    /// What is wrong with the sink, if anything.
    trouble: Mutex<Option<String>>,
    /// Another sink that is to take the place of this one.
    slot: Slot,
    /// Whether the sink was removed: its metrics go with it.
    is_removed: AtomicBool,
    clock: Arc<dyn Clock>,
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
        mut sink: Box<dyn Sink>,
        options: LaneOptions,
        clock: Arc<dyn Clock>,
        telemetry: Arc<Telemetry>,
        dead_letters: Arc<DeadLetters>,
    ) -> Result<Self, OpenError> {
        let opened = match sink.open(None) {
            Ok(()) => None,
            Err(OpenError::Down(error)) => Some(error),
            Err(error @ OpenError::Unusable(_)) => return Err(error),
        };
        if let Some(error) = &opened {
            telemetry.emit(&SinkFailed { sink: &name, error, records: 0 });
        }
        let shared = Arc::new(Shared {
            window: Mutex::new(Window::new(options.window_ids, options.window_age)),
            trouble: Mutex::new(opened.clone()),
            slot: Slot::default(),
            is_removed: AtomicBool::new(false),
            clock,
        });
        let (queue, jobs) = mpsc::sync_channel(options.max_queue);
        let worker = Worker {
            name: Arc::clone(&name),
            sink,
            is_open: opened.is_none(),
            failing: opened.is_some(),
            max_batch: options.max_batch,
            shared: Arc::clone(&shared),
            telemetry,
            dead_letters,
        };
        let thread = std::thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn(move || worker.run(&jobs))
            .map_err(|error| OpenError::Unusable(format!("starting a thread: {error}")))?;
        let worker = Arc::new(LaneEnd(Mutex::new(Some(thread))));
        Ok(Self { name, queue: Mutex::new(Some(queue)), worker, shared })
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

    /// Puts another sink in the place of this one, once nothing is on its way; the window of ids stays. Waits so long
    /// for it, and gives the old one, closed. It blocks.
    ///
    /// # Errors
    ///
    /// [`ReplaceError`] when the old one goes on.
    pub fn replace(&self, sink: Box<dyn Sink>, patience: Duration) -> Result<Box<dyn Sink>, ReplaceError> {
        if self.worker.is_finished() {
            return Err(ReplaceError::Ended);
        }
        // With a full queue the worker is awake.
        let wake = || drop(self.queue.lock().as_ref().map(|queue| queue.try_send(None)));
        self.shared.slot.replace(sink, wake, patience)
    }

    /// The sink was removed: the lane ends once nobody has it any more. Gives what is left of it then, to wait for.
    #[must_use]
    pub fn removed(&self) -> Arc<LaneEnd> {
        self.shared.is_removed.store(true, Ordering::SeqCst);
        Arc::clone(&self.worker)
    }

    /// How many delivered ids the window holds.
    #[must_use]
    pub fn window_len(&self) -> usize {
        self.shared.window.lock().len()
    }

    /// Offers a record. `remember` says whether copies of it are caught.
    pub(super) fn offer(&self, record: &Arc<Record>, remember: bool) -> Result<Offered, Undelivered> {
        if !remember {
            let (sender, waiter) = oneshot::channel();
            self.push(record, ResultTo::Waiter(sender))?;
            return Ok(Offered::Waiting { waiter, new: true });
        }
        let key = Key { connector: Arc::clone(&record.connector), event_id: Arc::from(&*record.event_id) };
        let now = self.shared.clock.unix_millis();
        let known = self.shared.window.lock().enter(&key, now);
        match known {
            Known::Delivered => Ok(Offered::Known),
            Known::Pending(waiter) => Ok(Offered::Waiting { waiter, new: false }),
            Known::New(waiter) => match self.push(record, ResultTo::Window(key.clone())) {
                Ok(()) => Ok(Offered::Waiting { waiter, new: true }),
                Err(undelivered) => {
                    self.shared.window.lock().resolve(key, &Err(undelivered.clone()));
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

struct Worker {
    name: Arc<str>,
    sink: Box<dyn Sink>,
    is_open: bool,
    failing: bool,
    max_batch: usize,
    shared: Arc<Shared>,
    telemetry: Arc<Telemetry>,
    dead_letters: Arc<DeadLetters>,
}

impl Worker {
    fn run(mut self, jobs: &mpsc::Receiver<Option<Job>>) {
        // What was taken and is not settled, in order.
        let mut window: Vec<Job> = Vec::new();
        loop {
            self.take_replacement(window.is_empty());
            if window.is_empty() {
                match self.next(jobs) {
                    Some(Some(first)) => window.push(first),
                    Some(None) => continue,
                    None => break,
                }
            }
            // What comes while another sink waits is for that one.
            if !self.shared.slot.is_asked() {
                let room = self.sink.max_batch().min(self.max_batch).saturating_sub(window.len());
                window.extend(jobs.try_iter().flatten().take(room));
            }
            let records: Vec<Arc<Record>> = window.iter().map(|job| Arc::clone(&job.record)).collect();
            let outcome = self.deliver(&records);
            self.report(&outcome);
            let mut fates = outcome.fates.into_iter();
            window = window.into_iter().filter_map(|job| self.settle(job, fates.next()?)).collect();
        }
        self.sink.close();
        self.shared.slot.end();
        if self.shared.is_removed.load(Ordering::SeqCst) {
            self.telemetry.forget_sink(&self.name);
        }
    }

    /// Takes another sink in place of this one, if there is one. Where a record has been on its way for too long, it is
    /// given to the new one as well.
    fn take_replacement(&mut self, is_idle: bool) {
        let Some(request) = self.shared.slot.due(is_idle) else { return };
        match request.swap(&mut self.sink, None) {
            None => {}
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
    }

    /// Waits for a record; `None` when there will be no more, `None` within when there is only something to look at.
    /// Meanwhile a sink that is down is tried again: where
    /// `/readyz` decides who gets requests, none would come to find out that it is up.
    fn next(&mut self, jobs: &mpsc::Receiver<Option<Job>>) -> Option<Option<Job>> {
        loop {
            let every = if self.is_open { self.sink.check_every() } else { Some(OPEN_AGAIN_AFTER) };
            let Some(every) = every else { return jobs.recv().ok() };
            match jobs.recv_timeout(every) {
                Ok(job) => return Some(job),
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let looked = std::panic::catch_unwind(AssertUnwindSafe(|| {
                        self.open()?;
                        self.sink.check()
                    }));
                    match looked {
                        Ok(Ok(())) => self.recovered(),
                        Ok(Err(error)) => self.failed(&error, 0),
                        Err(_panic) => self.is_open = false,
                    }
                }
            }
        }
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        // A sink may come from outside this crate. One that panics must not take its queue along.
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            self.open()?;
            Ok::<_, String>(self.sink.deliver(batch))
        }));
        let mut outcome = match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::retry(batch.len(), &error),
            Err(_panic) => {
                self.is_open = false;
                Outcome::retry(batch.len(), "the sink panicked")
            }
        };
        // One that says too little or too much must not look healthy, nor confuse the counts.
        let error = "the sink did not say what became of it".to_owned();
        outcome.fates.resize(batch.len(), sink::Fate::Retry { error });
        outcome
    }

    /// Makes the sink ready, unless it is.
    fn open(&mut self) -> Result<(), String> {
        if !self.is_open {
            self.sink.open(None).map_err(|error| error.to_string())?;
            self.is_open = true;
        }
        Ok(())
    }

    /// Tells logs, metrics and `/readyz` how the batch went.
    fn report(&mut self, outcome: &Outcome) {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let of = |is: fn(&sink::Fate) -> bool| count(outcome.fates.iter().filter(|fate| is(fate)).count());
        let delivered = of(|fate| matches!(fate, sink::Fate::Delivered));
        let rejected = of(|fate| matches!(fate, sink::Fate::Rejected { .. }));
        let retries = of(|fate| matches!(fate, sink::Fate::Retry { .. }));
        let settled = delivered.saturating_add(rejected).saturating_add(retries);
        if settled > 0 {
            self.telemetry.sink_batch(&self.name, settled, delivered, rejected);
        }
        let trouble = outcome.fates.iter().find_map(|fate| match fate {
            sink::Fate::Retry { error } => Some(error),
            sink::Fate::Pending { trouble } => trouble.as_ref(),
            _ => None,
        });
        match trouble {
            Some(error) => self.failed(error, retries),
            // One that takes its time has not recovered.
            None if settled == 0 => {}
            None => self.recovered(),
        }
    }

    /// The sink does not work; the log says so once for each reason, or with records that come back.
    fn failed(&mut self, error: &str, records: u64) {
        let before = self.shared.trouble.lock().replace(error.to_owned());
        self.failing = true;
        if records > 0 || before.as_deref() != Some(error) {
            self.telemetry.emit(&SinkFailed { sink: &self.name, error, records });
        }
    }

    /// The sink works; tells so if it did not before.
    fn recovered(&mut self) {
        if self.failing {
            self.failing = false;
            *self.shared.trouble.lock() = None;
            self.telemetry.emit(&SinkRecovered { sink: &self.name });
        }
    }

    /// Tells a record's requester what became of it; what was rejected is set aside first. Gives back what is on its way.
    fn settle(&self, job: Job, fate: sink::Fate) -> Option<Job> {
        let fate = match fate {
            sink::Fate::Pending { .. } => return Some(job),
            sink::Fate::Delivered => Ok(()),
            sink::Fate::Retry { error } => Err(Undelivered::SinkUnavailable { error }),
            sink::Fate::Rejected { error } => {
                let letter = DeadLetter::of_record(&job.record, Arc::clone(&self.name), error, 1);
                self.dead_letters
                    .bury(&letter)
                    .map_err(|error| Undelivered::StorageUnavailable { error: error.to_string() })
            }
        };
        match job.result {
            ResultTo::Window(key) => {
                self.shared.window.lock().resolve(key, &fate);
            }
            ResultTo::Waiter(waiter) => {
                // A requester that has given up is not an error.
                let _gone = waiter.send(fate);
            }
        }
        None
    }
}
