//! The sink `http`: sends records to a URL, each in a request of its own or several in a batch.
//!
//! # Delivery
//!
//! A record is delivered once the target has answered its request with 2xx. Requests run on a runtime of their own, which
//! only works while the engine calls the sink: there is no thread beside the engine's, but for the resolution of host names.
//! Up to `concurrency` requests are in flight. Of each device there is one at a time, so that a device's events arrive in
//! order (`schedule.rs`). A slow request does not hold up other devices: its records are pending until it is answered.
//!
//! # When a record fails
//!
//! `answer.rs` classifies the statuses.
//!
//! - The target rejects the record. The record becomes a dead letter; a rejected batch is halved until the record is alone. After
//!   ten consecutive rejections, the target is assumed to be the cause: the sink rejects no more records until the target
//!   accepts one. A record that the target rejects then waits, and records of other devices are sent. After a restart or a
//!   changed key, ten more records can be rejected.
//! - The target is busy, down or misconfigured. The sink starts no more requests and waits for those in flight, and the engine
//!   retries the records later. Later records of a device wait for the one that failed.

mod answer;
mod auth;
mod client;
mod exchange;
mod fields;
mod headers;
mod metrics;
mod request;
mod schedule;
mod settings;
mod signature;
mod url;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinError, JoinSet};

pub use auth::Auth;
use exchange::{Exchange, Sent};
pub use fields::Fields;
pub use headers::{PlainHeaders, SecretHeaders};
pub use request::{BatchFormat, CloudEventsMode, UnknownWord};
use schedule::Schedule;
pub use settings::{HttpBatch, HttpConfig};
pub use url::{BadUrl, TargetUrl};

use dt_sink::clock::{Clock, SystemClock};
use dt_sink::{Fate, Metric, OpenError, Outcome, Record, Sink, SinkContext};

/// The largest number of records in a batch of the engine, unless four times the records of one request are more.
const MAX_BATCH: usize = 1024;
/// The number of records in a batch for each request that may be in flight, so that the batch has enough devices to choose from.
/// It is small, since a changed configuration waits for the end of a batch.
const BATCH_PER_REQUEST: usize = 16;
/// The number of records for each request that may be in flight. The engine adds records as long as the batch has fewer.
const GATHERED_PER_REQUEST: usize = 2;
/// How long `deliver` works on a batch of which no record has a result, unless the previous batch failed.
const TURN: Duration = Duration::from_millis(500);
/// How long `deliver` works on a batch of which some records have a result.
const SHORT_TURN: Duration = Duration::from_millis(20);
/// The time without a response after which an error is reported, while requests are in flight.
const STALLED: Duration = Duration::from_secs(3);

/// A sink that sends records to a URL.
pub struct HttpSink {
    config: HttpConfig,
    context: SinkContext,
    clock: Arc<dyn Clock>,
    /// The number of consecutive rejected records.
    rejected_in_a_row: Arc<AtomicU32>,
    /// The runtime and the worker of the open sink; `None` until the sink is opened, and after it was closed.
    running: Option<Running>,
}

impl std::fmt::Debug for HttpSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpSink")
            .field("reporter", &self.context.reporter)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl HttpSink {
    /// The metrics that an HTTP sink reports.
    pub const METRICS: &'static [Metric] = metrics::ALL;

    /// Creates a sink. It opens connections when it sends the first record.
    #[must_use]
    pub fn new(config: HttpConfig, context: SinkContext) -> Self {
        Self {
            config,
            context,
            clock: Arc::new(SystemClock),
            rejected_in_a_row: Arc::default(),
            running: None,
        }
    }

    /// Sets the clock. It determines whether a token is still valid, and the time of a new token.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Returns the largest number of records in a request.
    fn max_events(&self) -> usize {
        self.config.batch.map_or(1, |batch| batch.max_events)
    }

    /// Adds the requests since the last call to the metrics.
    fn report(&self, exchange: &Exchange) {
        let counts = &exchange.counts;
        let report = |metric: &Metric, count: &AtomicU64| match count.swap(0, Ordering::Relaxed) {
            0 => {}
            count => self.context.reporter.add(metric, count),
        };
        report(&metrics::REQUESTS_ACCEPTED, &counts.accepted);
        report(&metrics::REQUESTS_REJECTED, &counts.rejected);
        report(&metrics::REQUESTS_FAILED, &counts.failed);
        report(&metrics::REQUESTS_SIGNED, &counts.signed);
    }
}

impl Sink for HttpSink {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        // After a panic the state of requests in flight is unknown; their records are sent again.
        self.close();
        let timeout =
            self.context.give_up_after.map_or(self.config.timeout, |limit| limit.min(self.config.timeout));
        let (clock, rejected) = (Arc::clone(&self.clock), Arc::clone(&self.rejected_in_a_row));
        let exchange = Exchange::new(&self.config, self.context.format, timeout, clock, rejected)?;
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // They resolve host names.
            .max_blocking_threads(2)
            .build()
            .map_err(|error| OpenError::Down(format!("starting a runtime: {error}")))?;
        let worker = Worker {
            exchange: Arc::new(exchange),
            jobs: JoinSet::new(),
            in_flight: HashSet::new(),
            pause: None,
            last_progress: Instant::now(),
            left: 0,
            has_failed: false,
        };
        self.running = Some(Running { runtime: Some(runtime), worker });
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        let (concurrency, max_events) = (self.config.concurrency, self.max_events());
        let enough =
            concurrency.saturating_mul(max_events).saturating_mul(GATHERED_PER_REQUEST).min(self.max_batch());
        let Some(Running { runtime: Some(runtime), worker }) = &mut self.running else {
            return Outcome::retry(batch.len(), "the sink is not open");
        };
        if let Some(error) = worker.pause_error() {
            return Outcome::retry(batch.len(), &error);
        }
        if worker.gathers(batch.len(), enough) {
            return Outcome {
                fates: vec![Fate::Pending { last_error: None }; batch.len()],
                ..Outcome::default()
            };
        }
        let mut schedule = Schedule::new(batch, &worker.in_flight);
        runtime.block_on(worker.work(&mut schedule, concurrency, max_events));
        let last_error = worker.stall_error();
        let exchange = Arc::clone(&worker.exchange);
        let fates = schedule.into_fates(last_error);
        worker.has_failed = fates.iter().any(|fate| matches!(fate, Fate::Retry { .. }));
        worker.left =
            fates.iter().filter(|fate| matches!(fate, Fate::Retry { .. } | Fate::Pending { .. })).count();
        self.report(&exchange);
        Outcome { fates, ..Outcome::default() }
    }

    fn max_batch(&self) -> usize {
        let per_request = self.max_events();
        let wanted = self.config.concurrency.saturating_mul(per_request).saturating_mul(BATCH_PER_REQUEST);
        wanted.min(MAX_BATCH.max(per_request.saturating_mul(4)))
    }

    fn close(&mut self) {
        // Records in flight are sent again after the next start.
        self.running = None;
    }
}

/// The parts of an open sink.
struct Running {
    /// The runtime of the requests; `None` only while the sink is dropped.
    runtime: Option<Runtime>,
    worker: Worker,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Does not wait for a host name that is being resolved, and may be called on any thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The state of an open sink: its requests in flight, and the progress of the current batch.
struct Worker {
    exchange: Arc<Exchange>,
    /// The tasks of the requests in flight. Each returns the addresses of its records, and their results.
    jobs: JoinSet<(Vec<usize>, Sent)>,
    /// The addresses of the records in flight. The requests keep the records alive, so the addresses stay unique.
    in_flight: HashSet<usize>,
    /// The end of the pause that the target requested, and the error to report until then; `None` without a pause.
    pause: Option<(Instant, String)>,
    /// When the last response was received, or when a call began with no request in flight.
    last_progress: Instant,
    /// The number of records of the last batch that are still to be delivered.
    left: usize,
    /// Whether a record of the last batch failed.
    has_failed: bool,
}

impl Worker {
    /// Returns whether the engine shall add records to the batch before requests are started. After an outage, the engine reads
    /// the log group by group, and a group may have a single record: without this, there would be one request at a time. `true`
    /// as long as each call has added records, and there are fewer than `enough`. `false` after a failure, since a batch without
    /// a result ends the engine's back-off.
    fn gathers(&mut self, records: usize, enough: usize) -> bool {
        let has_grown = records > self.left;
        self.left = records;
        has_grown && records < enough && !self.has_failed
    }

    /// Starts requests for the records of a batch, and collects the results. Returns once half of the records have a result, or
    /// the time for this call has expired. After a failure, waits for all requests in flight: the engine pauses then, and
    /// requests make no progress during the pause.
    async fn work(&mut self, schedule: &mut Schedule<'_>, concurrency: usize, max_events: usize) {
        // Connections that the target has closed meanwhile are noticed before they are used.
        for _ in 0..2 {
            tokio::task::yield_now().await;
        }
        let started = Instant::now();
        if self.jobs.is_empty() {
            self.last_progress = started;
        }
        self.exchange.is_closing.store(false, Ordering::Relaxed);
        loop {
            while let Some(done) = self.jobs.try_join_next() {
                self.finish(done, schedule);
            }
            let turn = if schedule.finished() == 0 || schedule.has_failed() { TURN } else { SHORT_TURN };
            // After a failure a call without a result would end the engine's back-off.
            let needs_result = self.has_failed && schedule.finished() == 0;
            let is_over = started.elapsed() >= turn && !needs_result;
            let is_closing = schedule.is_stopped() || (schedule.has_failed() && is_over);
            if is_closing {
                self.exchange.is_closing.store(true, Ordering::Relaxed);
            } else {
                self.start(schedule, concurrency, max_events);
            }
            let is_half_done = schedule.finished() >= schedule.len().div_ceil(2);
            if self.jobs.is_empty() || (!schedule.has_failed() && (is_over || is_half_done)) {
                return;
            }
            let left = turn.saturating_sub(started.elapsed());
            let next = self.jobs.join_next();
            let done = if is_closing || needs_result {
                next.await
            } else {
                tokio::time::timeout(left, next).await.ok().flatten()
            };
            if let Some(done) = done {
                self.finish(done, schedule);
            }
        }
    }

    /// Starts as many requests as may be in flight. A request that would not be full waits for the end of those in flight, since
    /// their devices may have more records for it.
    fn start(&mut self, schedule: &mut Schedule<'_>, concurrency: usize, max_events: usize) {
        while self.jobs.len() < concurrency {
            // A batch of records that may all be rejected would hide the one that is accepted.
            let most = if self.exchange.is_holding() { 1 } else { max_events };
            if !self.jobs.is_empty() && !schedule.has_ready(most) {
                return;
            }
            let records = schedule.next(most);
            if records.is_empty() {
                return;
            }
            let addresses: Vec<usize> = records.iter().map(schedule::address).collect();
            self.in_flight.extend(&addresses);
            let exchange = Arc::clone(&self.exchange);
            self.jobs.spawn(async move { (addresses, exchange.send(&records).await) });
        }
    }

    fn finish(&mut self, done: Result<(Vec<usize>, Sent), JoinError>, schedule: &mut Schedule<'_>) {
        let (addresses, sent) = match done {
            Ok(done) => done,
            // The engine handles a panic, and opens the sink anew.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return,
            },
        };
        self.last_progress = Instant::now();
        for address in &addresses {
            self.in_flight.remove(address);
        }
        if let Some(failure) = &sent.failure
            && let Some(pause) = failure.pause
            && let Some(until) = self.last_progress.checked_add(pause)
        {
            self.pause = Some((until, failure.error.clone()));
        }
        schedule.finish(&addresses, sent);
    }

    /// Returns the error that led to the requested pause; `None` if requests may be started.
    fn pause_error(&mut self) -> Option<String> {
        self.pause = self.pause.take().filter(|(until, _)| *until > Instant::now());
        self.pause.as_ref().map(|(_, error)| error.clone())
    }

    /// Returns an error if requests are in flight and no response was received for [`STALLED`]; otherwise `None`.
    fn stall_error(&self) -> Option<&'static str> {
        let is_stalled = !self.jobs.is_empty() && self.last_progress.elapsed() >= STALLED;
        // A constant text, so that the log has it once.
        is_stalled.then_some("the target has not answered for 3 s; requests are in flight")
    }
}
