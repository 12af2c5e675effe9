//! Mode `spool`: a request waits for the log; workers bring its records to the sinks, however long that takes.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::control::Control;
use super::repair::Repair;
use super::respool;
use super::routes::{Route, Routes};
use super::{Next, Opened, Parts, Ready, ReloadError, StartError, Store};
use crate::config::{Config, SpoolLimits};
use crate::deliver::{Backoff, DeadLetterStore, WorkerHandle, WorkerParts};
use crate::http::{Accepted, Intake, IntakeFuture, Readiness, Unavailable};
use crate::sink::{OpenError, Sink};
use crate::telemetry::Telemetry;
use dt_log::{
    Appended, Bounds, Log, LogError, LogOptions, Observer, SinkSet, SinkState, SinkStatus, StartAt,
};
use dt_sink::clock::Clock;
use dt_sink::record::{DeadLetter, Record};

/// The shortest and the longest wait before a sink is tried again.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// The log, and a worker for each sink.
#[derive(Debug)]
pub(super) struct SpoolStore {
    pub(super) log: Arc<Log>,
    pub(super) workers: RwLock<Vec<Arc<WorkerHandle>>>,
    /// Workers of sinks that were removed, until those have had all that was accepted for them.
    pub(super) leaving: Mutex<Vec<Arc<WorkerHandle>>>,
    dead_letters: DeadLetterStore,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) clock: Arc<dyn Clock>,
    /// It lives as long as it can be asked.
    pub(super) repair: Weak<Repair>,
    /// The ways in, the one in force last. Each lives until the last request that came by it has ended.
    pub(super) intakes: Mutex<Vec<Weak<SpoolIntake>>>,
    control: Option<Control>,
}

/// The way in by one configuration.
#[derive(Debug)]
pub(super) struct SpoolIntake {
    store: Arc<SpoolStore>,
    /// For each connector, by its place: the sinks of its events, and whether copies are caught.
    routes: Vec<(SinkSet, bool)>,
}

impl SpoolIntake {
    /// Brings routes and the numbers of the sinks together; `numbers` has one for each place of a sink.
    pub(super) fn new(store: Arc<SpoolStore>, routes: &Routes, numbers: &[u32]) -> Self {
        let route = |Route { sinks, dedup, .. }: &Route| {
            (SinkSet::new(sinks.iter().filter_map(|place| numbers.get(*place).copied())), *dedup)
        };
        Self { store, routes: routes.0.iter().map(route).collect() }
    }
}

/// Counts what the log does.
#[derive(Debug)]
struct LogMetrics(Arc<Telemetry>);

impl Observer for LogMetrics {
    fn committed(&self, took: Duration, events: u32) {
        self.0.spool_commit(took, usize::try_from(events).unwrap_or(usize::MAX));
    }
}

impl SpoolStore {
    pub(super) fn open(parts: Parts) -> Result<Opened, StartError> {
        let Parts { config, clock, telemetry, routes, sinks, verifiers } = parts;
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
        let names: BTreeSet<Arc<str>> = sinks.iter().map(|(name, _)| Arc::clone(name)).collect();
        forget_removed_sinks(&log, &names)?;
        // All are known before any is given something: what all known ones have passed may go.
        let mut known = Vec::with_capacity(sinks.len());
        for (place, (name, _)) in sinks.iter().enumerate() {
            known.push(register(&log, name, &config, &routes, place)?);
        }
        let numbers: Vec<u32> = known.iter().map(|sink| sink.number).collect();
        let mut workers = Vec::with_capacity(sinks.len());
        for ((_, sink), state) in sinks.into_iter().zip(known) {
            workers.push(start_worker(sink, state, &log, &telemetry, &clock)?);
        }
        let repair = Arc::new(Repair::new(Arc::clone(&log), &config, names.clone()));
        repair.go_by(&config, &verifiers, names);
        // Events are received without it as well.
        let asked = Arc::downgrade(&repair);
        let control = Control::start(&folder, repair)
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
            repair: asked,
            control,
            intakes,
        });
        let intake = Arc::new(SpoolIntake::new(Arc::clone(&store), &routes, &numbers));
        store.intakes.lock().push(Arc::downgrade(&intake));
        Ok((Arc::new(SharedStore(store)), intake))
    }
}

/// Makes a sink known to the log.
pub(super) fn register(
    log: &Log,
    name: &Arc<str>,
    config: &Config,
    routes: &Routes,
    place: usize,
) -> Result<SinkState, LogError> {
    let is_retained = config.sinks.iter().any(|sink| sink.name == *name && sink.from_retained);
    let start = if is_retained { StartAt::Retained } else { StartAt::Now };
    let of_sink = routes.0.iter().filter(|route| route.sinks.contains(&place));
    log.register(name, start, of_sink.map(|route| Arc::clone(&route.connector)).collect())
}

/// Opens a sink where the log knows it to stand, and starts its worker.
pub(super) fn start_worker(
    sink: Box<dyn Sink>,
    state: SinkState,
    log: &Arc<Log>,
    telemetry: &Arc<Telemetry>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<WorkerHandle>, StartError> {
    let name = Arc::clone(&state.name);
    let failed = |source| StartError::Sink { name: Arc::clone(&name), source };
    let backoff = backoff(&name, clock).map_err(failed)?;
    let parts = WorkerParts { log: Arc::clone(log), backoff, telemetry: Arc::clone(telemetry) };
    WorkerHandle::start(sink, state, parts).map(Arc::new).map_err(failed)
}

/// Sinks that fail together are not tried again together.
pub(super) fn backoff(name: &str, clock: &Arc<dyn Clock>) -> Result<Backoff, OpenError> {
    let jitter = RandomState::new().hash_one((name, clock.unix_millis()));
    Backoff::new(BACKOFF.0, BACKOFF.1, jitter).map_err(|error| OpenError::Unusable(error.to_string()))
}

pub(super) fn options(config: &Config) -> LogOptions {
    let defaults = LogOptions::default();
    let SpoolLimits { max_size, min_free, retain, .. } = config.spool;
    let dedup_max = config.dedup_max.and_then(|max| u64::try_from(max).ok()).unwrap_or(defaults.dedup_max);
    let bounds = Bounds { max_size, min_free, retain };
    LogOptions { bounds, dedup_window: config.dedup_window, dedup_max, ..defaults }
}

/// Forgets sinks that are no longer configured and have nothing left to get: their cursors would hold every event from now
/// on. One that is owed events is not forgotten without an operator's word.
fn forget_removed_sinks(log: &Log, configured: &BTreeSet<Arc<str>>) -> Result<(), StartError> {
    for sink in log.sinks().into_iter().filter(|sink| !configured.contains(&sink.name)) {
        let events = log.owed(&sink)?;
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
            match self.store.log.append(Arc::new(record), sinks.clone(), *dedup).await {
                Ok(Appended::New(_)) => Ok(Accepted::New),
                Ok(Appended::Duplicate) => Ok(Accepted::Duplicate),
                Err(error) => Err(unavailable(&error)),
            }
        })
    }

    fn dead_letter(&self, letter: DeadLetter) -> IntakeFuture<'_, ()> {
        let letters = &self.store.dead_letters;
        IntakeFuture::boxed(async move { letters.add(letter).await.map_err(|_| Unavailable::Storage) })
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
        let trouble = tail.last_error();
        let ready = trouble.is_none();
        let shortage = self.log.shortage().filter(|_| ready);
        let shortage = shortage
            .map(|error| format!("no segment can be added, so that soon no events can be stored: {error}"));
        let mut problems: Vec<String> = trouble
            .into_iter()
            .chain(shortage)
            .chain(tail.damage())
            .map(|trouble| format!("spool: {trouble}"))
            .collect();
        problems.extend(self.dead_letters.last_error());
        for worker in self.workers.read().iter() {
            problems.extend(worker.last_error().map(|error| format!("sink {}: {error}", worker.name())));
        }
        for worker in self.leaving.lock().iter().filter(|worker| !worker.is_finished()) {
            let error = worker.last_error().map(|error| format!(": {error}")).unwrap_or_default();
            problems.push(format!(
                "sink {}: removed, and still gets what was accepted for it{error}",
                worker.name()
            ));
        }
        Readiness { ready, problems }
    }

    fn measure(&self) {
        let now = self.clock.unix_millis();
        let metrics = &self.telemetry.metrics;
        metrics.spool_used.set(self.log.used_bytes() as f64);
        metrics.spool_free.set(self.log.free_bytes() as f64);
        // Sinks that the log has no more have no series any more.
        metrics.spool_sink_backlog.reset();
        metrics.spool_sink_oldest.reset();
        // A log that cannot be read shows in `trouble`, or soon will.
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

/// The service's end of a store that the ways in share.
#[derive(Debug)]
pub(super) struct SharedStore(Arc<SpoolStore>);

impl Store for SharedStore {
    fn prepare(&self, next: Next) -> Result<Ready, ReloadError> {
        respool::prepare(&self.0, next)
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
