//! The store of events in mode `spool`: a request waits until its event is in the log. Workers deliver the records of the log to
//! the sinks, without a time limit.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::routes::{Route, Routes};
use super::spool_reload;
use super::{Next, Opened, Parts, Ready, ReloadError, StartError, Store};
use crate::cloud::backfill::Fill;
use crate::cloud::{CloudStartError, LogAccess, MissingSender, Unstored, newest};
use crate::config::{Config, SpoolLimits};
use crate::deliver::{Backoff, DeadLetterStore, WorkerHandle, WorkerParts};
use crate::http::{Accepted, Intake, IntakeFuture, Readiness, Unavailable};
use crate::sink::{OpenError, Sink};
use crate::spool_admin::NEWEST_SINK;
use crate::spool_admin::{Control, Repair};
use crate::telemetry::Telemetry;
use dt_log::{
    Appended, Bounds, Log, LogError, LogOptions, Observer, SinkSet, SinkState, SinkStatus, StartAt,
};
use dt_sink::clock::Clock;
use dt_sink::record::{DeadLetter, Record};

/// The shortest and the longest pause between two attempts of a sink.
pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// How long ids are kept if missed events are fetched: a day longer than DT's event history.
const FILLED_IDS: Duration = Duration::from_secs(32 * 24 * 3600);

/// The log, and a worker for each sink.
#[derive(Debug)]
pub struct SpoolStore {
    pub log: Arc<Log>,
    pub workers: RwLock<Vec<Arc<WorkerHandle>>>,
    /// The workers of removed sinks, until they have delivered every event that was accepted for them.
    pub leaving: Mutex<Vec<Arc<WorkerHandle>>>,
    dead_letters: DeadLetterStore,
    pub telemetry: Arc<Telemetry>,
    pub clock: Arc<dyn Clock>,
    /// The handler of administration requests, and of fetched events.
    pub repair: Arc<Repair>,
    /// The intakes, with the current one last. Each exists until its last request has ended.
    pub intakes: Mutex<Vec<Weak<SpoolIntake>>>,
    control: Option<Control>,
    /// Notes the events that could not be stored; `None` without back-fill.
    missing: Option<MissingSender>,
}

/// The intake of one configuration.
#[derive(Debug)]
pub struct SpoolIntake {
    store: Arc<SpoolStore>,
    /// For each connector, in the order of the configuration: the set of its sinks, and whether its events are de-duplicated.
    routes: Vec<(SinkSet, bool)>,
}

impl SpoolIntake {
    /// Creates an intake from the routes. `numbers` are the numbers of the sinks in the log, in the order of the sinks.
    pub fn new(store: Arc<SpoolStore>, routes: &Routes, numbers: &[u32]) -> Self {
        let route = |Route { sinks, dedup, .. }: &Route| {
            (SinkSet::new(sinks.iter().filter_map(|place| numbers.get(*place).copied())), *dedup)
        };
        Self { store, routes: routes.connectors.iter().map(route).collect() }
    }
}

/// Counts the commits of the log in the metrics.
#[derive(Debug)]
struct LogMetrics(Arc<Telemetry>);

impl Observer for LogMetrics {
    fn committed(&self, took: Duration, events: u32) {
        self.0.spool_commit(took, usize::try_from(events).unwrap_or(usize::MAX));
    }
}

impl SpoolStore {
    pub fn open(parts: Parts) -> Result<Opened, StartError> {
        let Parts { config, clock, telemetry, routes, sinks, verifiers, missing, cloud_store } = parts;
        let folder = std::path::absolute(config.spool_folder()).unwrap_or_else(|_| config.spool_folder());
        let observer = Arc::new(LogMetrics(Arc::clone(&telemetry)));
        let options = LogOptions { observer, ..options(&config) };
        telemetry.metrics.spool_max.set(options.bounds.max_size as f64);
        let log = Arc::new(Log::open(&folder, options, Arc::clone(&clock))?);
        for connector in &config.connectors {
            if let Some(at) = log.last_accepted(&connector.name) {
                telemetry.restore_last_accepted(&connector.name, at.div_euclid(1000));
            }
        }
        // Before the sink is registered: if this start is interrupted, the next one does the same.
        if let Some(store) = cloud_store {
            newest::prepare(&store, &log, clock.unix_millis()).map_err(CloudStartError::from)?;
        }
        let names: BTreeSet<Arc<str>> = sinks.iter().map(|(name, _)| Arc::clone(name)).collect();
        forget_removed_sinks(&log, &names)?;
        // All sinks are registered before a worker starts: the log may remove records that every registered sink has.
        let mut known = Vec::with_capacity(sinks.len());
        for (place, (name, _)) in sinks.iter().enumerate() {
            known.push(register(&log, name, &config, &routes, place)?);
        }
        let numbers: Vec<u32> = known.iter().map(|sink| sink.number).collect();
        let mut workers = Vec::with_capacity(sinks.len());
        for ((_, sink), state) in sinks.into_iter().zip(known) {
            let parts = worker_parts(&state.name, &config, &log, &telemetry, &clock)?;
            workers.push(start_worker(sink, state, parts)?);
        }
        let repair =
            Arc::new(Repair::new(Arc::clone(&log), &config, names.clone()).with_clock(Arc::clone(&clock)));
        repair.set_config(&config, &verifiers, names);
        // Without the control socket, the server still receives events.
        let control = Control::start(&folder, Arc::clone(&repair))
            .map_err(|error| {
                let path = folder.display();
                tracing::warn!(%path, %error, "no control socket: `dead` and `spool` cannot change this spool while it runs");
            })
            .ok();
        let (workers, leaving, intakes) = (RwLock::new(workers), Mutex::default(), Mutex::default());
        let dead_letters = DeadLetterStore::database(Arc::clone(log.dead_letters()), Arc::clone(&telemetry));
        let store = Arc::new(Self {
            log,
            workers,
            leaving,
            dead_letters,
            telemetry,
            clock,
            repair,
            control,
            intakes,
            missing,
        });
        let intake = Arc::new(SpoolIntake::new(Arc::clone(&store), &routes, &numbers));
        store.intakes.lock().push(Arc::downgrade(&intake));
        Ok((Arc::new(SharedStore(store)), intake))
    }
}

/// Registers a sink in the log. `place` is the sink's index in the routes.
pub fn register(
    log: &Log,
    name: &Arc<str>,
    config: &Config,
    routes: &Routes,
    place: usize,
) -> Result<SinkState, LogError> {
    let is_retained = config.sinks.iter().any(|sink| sink.name == *name && sink.from_retained);
    let start = if is_retained { StartAt::Retained } else { StartAt::Now };
    let of_sink = routes.connectors.iter().filter(|route| route.sinks.contains(&place));
    log.register(name, start, of_sink.map(|route| Arc::clone(&route.connector)).collect())
}

/// Opens a sink at its position in the log, and starts its worker.
pub fn start_worker(
    sink: Box<dyn Sink>,
    state: SinkState,
    parts: WorkerParts,
) -> Result<Arc<WorkerHandle>, StartError> {
    let name = Arc::clone(&state.name);
    let failed = |source| StartError::Sink { name, source };
    WorkerHandle::start(sink, state, parts).map(Arc::new).map_err(failed)
}

/// Returns the arguments for creating the worker of a sink.
pub fn worker_parts(
    name: &Arc<str>,
    config: &Config,
    log: &Arc<Log>,
    telemetry: &Arc<Telemetry>,
    clock: &Arc<dyn Clock>,
) -> Result<WorkerParts, StartError> {
    let failed = |source| StartError::Sink { name: Arc::clone(name), source };
    let (log, telemetry) = (Arc::clone(log), Arc::clone(telemetry));
    let filter = Arc::new(config.sink_filter(name));
    Ok(WorkerParts { log, backoff: backoff(name, clock).map_err(failed)?, telemetry, filter })
}

/// Returns the pauses between attempts, with random jitter, so that sinks that fail together are not retried at the same time.
pub fn backoff(name: &str, clock: &Arc<dyn Clock>) -> Result<Backoff, OpenError> {
    let jitter = RandomState::new().hash_one((name, clock.unix_millis()));
    Backoff::new(BACKOFF.0, BACKOFF.1, jitter).map_err(|error| OpenError::Unusable(error.to_string()))
}

pub fn options(config: &Config) -> LogOptions {
    let defaults = LogOptions::default();
    let SpoolLimits { max_size, min_free, retain, .. } = config.spool;
    let dedup_max = config.dedup_max.and_then(|max| u64::try_from(max).ok()).unwrap_or(defaults.dedup_max);
    let bounds = Bounds { max_size, min_free, retain };
    // Accepting events is more important than what the monitor knows about them.
    let gives_way = config.fills_gaps().then(|| Arc::from(NEWEST_SINK));
    LogOptions { bounds, dedup_window: dedup_window(config), dedup_max, gives_way, ..defaults }
}

/// Returns how long the ids of events are kept. If missed events are fetched, that is at least as long as DT's event history, since
/// otherwise an event that was received days ago would be stored again.
fn dedup_window(config: &Config) -> Duration {
    let least = if config.fills_gaps() { FILLED_IDS } else { Duration::ZERO };
    config.dedup_window.max(least)
}

/// Removes the positions of sinks that are no longer configured and have no undelivered events. Such a position would keep every
/// later event in the log.
///
/// # Errors
///
/// [`StartError::Owed`] if such a sink has undelivered events: only an operator may discard them.
fn forget_removed_sinks(log: &Log, configured: &BTreeSet<Arc<str>>) -> Result<(), StartError> {
    for sink in log.sinks().into_iter().filter(|sink| !configured.contains(&sink.name)) {
        // Without the monitor, the internal sink is not needed, and loses nothing of the user's.
        let events = if *sink.name == *NEWEST_SINK { 0 } else { log.owed(&sink)? };
        if events > 0 {
            return Err(StartError::Owed { sink: sink.name, events });
        }
        log.forget(&sink.name)?;
    }
    Ok(())
}

fn unavailable(error: &LogError) -> Unavailable {
    match error {
        LogError::Overloaded => Unavailable::Overloaded,
        _ => Unavailable::Storage,
    }
}

impl Intake for SpoolIntake {
    fn accept(&self, connector: usize, record: Record) -> IntakeFuture<'_, Accepted> {
        let Some((sinks, dedup)) = self.routes.get(connector) else {
            return IntakeFuture::Ready(Err(Unavailable::Storage));
        };
        IntakeFuture::boxed(async move {
            let record = Arc::new(record);
            let unstored = self.store.missing.as_ref().map(|missing| Unstored::new(missing, &record));
            // An error, and a request that reaches its deadline here, drop `unstored`.
            let appended = self.store.log.append(record, sinks.clone(), *dedup).await;
            let accepted = match appended.map_err(|error| unavailable(&error))? {
                Appended::New(_) => Accepted::New,
                Appended::Duplicate => Accepted::Duplicate,
            };
            if let Some(unstored) = unstored {
                unstored.disarm();
            }
            Ok(accepted)
        })
    }

    fn dead_letter(&self, dead_letter: DeadLetter) -> IntakeFuture<'_, ()> {
        let store = &self.store.dead_letters;
        IntakeFuture::boxed(async move { store.add(dead_letter).await.map_err(|_| Unavailable::Storage) })
    }

    fn late(&self) -> Unavailable {
        Unavailable::Storage
    }

    fn readiness(&self) -> Readiness {
        self.store.readiness()
    }

    fn measure(&self) {
        self.store.measure();
    }
}

impl SpoolStore {
    fn readiness(&self) -> Readiness {
        let tail = self.log.tail();
        let last_error = tail.last_error();
        let ready = last_error.is_none();
        let shortage = self.log.shortage().filter(|_| ready);
        let shortage = shortage
            .map(|error| format!("no segment can be added, so that soon no events can be stored: {error}"));
        let mut problems: Vec<String> = last_error
            .into_iter()
            .chain(shortage)
            .chain(tail.damage())
            .map(|problem| format!("spool: {problem}"))
            .collect();
        problems.extend(self.dead_letters.last_error());
        for worker in self.workers.read().iter() {
            problems.extend(worker.last_error().map(|error| format!("sink {}: {error}", worker.name())));
        }
        for worker in self.leaving.lock().iter().filter(|worker| !worker.is_finished()) {
            let error = worker.last_error().map(|error| format!(": {error}")).unwrap_or_default();
            problems.push(format!("sink {}: removed, and still receives its backlog{error}", worker.name()));
        }
        Readiness { ready, problems }
    }

    fn measure(&self) {
        let now = self.clock.unix_millis();
        let metrics = &self.telemetry.metrics;
        metrics.spool_used.set(self.log.used_bytes() as f64);
        metrics.spool_removable.set(self.log.removable_bytes() as f64);
        metrics.spool_free.set(self.log.free_bytes() as f64);
        // The series of sinks that the log no longer has are removed.
        metrics.spool_sink_backlog.reset();
        metrics.spool_sink_oldest.reset();
        // If the log cannot be read, `/readyz` reports that, so an error is ignored here.
        for SinkStatus { name, backlog, oldest_received_at, .. } in
            self.log.sink_statuses().unwrap_or_default()
        {
            let waited = oldest_received_at.map_or(0, |received_at| now.saturating_sub(received_at));
            let waited = Duration::from_millis(u64::try_from(waited).unwrap_or(0));
            metrics.spool_sink_backlog.with_label_values(&[&name]).set(backlog as f64);
            metrics.spool_sink_oldest.with_label_values(&[&name]).set(waited.as_secs_f64());
        }
        self.dead_letters.measure();
    }
}

/// The store, as the service owns it. The intakes share it.
#[derive(Debug)]
pub struct SharedStore(Arc<SpoolStore>);

impl Store for SharedStore {
    fn prepare(&self, next: Next) -> Result<Ready, ReloadError> {
        spool_reload::prepare(&self.0, next)
    }

    fn log_access(&self) -> Option<LogAccess> {
        let store = &self.0;
        store.missing.as_ref()?;
        let fill: Arc<dyn Fill> = Arc::clone(&store.repair) as Arc<dyn Fill>;
        Some(LogAccess { log: Arc::clone(&store.log), fill })
    }

    fn close(&self, drain: Duration) {
        let store = &self.0;
        let now = Instant::now();
        store.log.tail().stop(now.checked_add(drain).unwrap_or(now));
        if let Some(control) = &store.control {
            control.stop();
        }
        let workers: Vec<_> = store.workers.read().clone();
        let leaving = store.leaving.lock().clone();
        workers.iter().chain(&leaving).for_each(|worker| worker.join());
        store.log.close();
    }
}
