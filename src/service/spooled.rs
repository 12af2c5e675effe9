//! Mode `spool`: a request waits for the spool; workers bring its records to the sinks, however long that takes.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::control::Control;
use super::repair::Repair;
use super::respool;
use super::routes::Routes;
use super::sinks::NamedSink;
use super::{Next, Opened, Parts, Ready, ReloadError, StartError, Store};
use parking_lot::{Mutex, RwLock};

use crate::clock::Clock;
use crate::config::{Config, SpoolLimits};
use crate::deliver::{Backoff, Skips, WorkerHandle};
use crate::http::{Accepted, Intake, IntakeFuture, Readiness, Unavailable};
use crate::record::{DeadLetter, Record};
use crate::sink::OpenError;
use crate::spool::{Appended, Change, Reader, SinkStatus, Spool, SpoolError, SpoolOptions, StartAt, Status};
use crate::telemetry::{DeadLetterBuried, DeadLetterFailed, Telemetry};

/// The shortest and the longest wait before a sink is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// The spool, and a worker for each sink.
#[derive(Debug)]
pub(super) struct SpoolStore {
    pub(super) spool: Arc<Spool>,
    pub(super) workers: RwLock<Vec<Running>>,
    /// Workers of sinks that were removed, until those have had all that was accepted for them.
    pub(super) leaving: Mutex<Vec<Arc<WorkerHandle>>>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) clock: Arc<dyn Clock>,
    /// For the gauges; gone once the store is closed, so that the last connection leaves one file behind.
    reader: Mutex<Option<Reader>>,
    /// It lives as long as it can be asked: it reads as well.
    pub(super) repair: Weak<Repair>,
    control: Option<Control>,
}

/// A sink's worker, and the connectors that it was told to skip.
#[derive(Debug, Clone)]
pub(super) struct Running {
    pub(super) worker: Arc<WorkerHandle>,
    pub(super) skips: Skips,
}

/// The way in by one configuration.
#[derive(Debug)]
pub(super) struct SpoolIntake {
    pub(super) store: Arc<SpoolStore>,
    pub(super) routes: Routes,
}

impl SpoolStore {
    pub(super) fn open(parts: Parts) -> Result<Opened, StartError> {
        let Parts { config, clock, telemetry, routes, sinks, verifiers } = parts;
        let folder = std::path::absolute(config.spool_folder()).unwrap_or_else(|_| config.spool_folder());
        let options = SpoolOptions { telemetry: Some(Arc::clone(&telemetry)), ..options(&config) };
        telemetry.spool_max(options.max_size);
        let spool = Arc::new(Spool::open(&folder, options, Arc::clone(&clock))?);
        let names: BTreeSet<Arc<str>> = sinks.iter().map(|(name, _)| Arc::clone(name)).collect();
        // Those that want what is retained come first: once all sinks there are have passed a record, it may go.
        let (retained, others): (Vec<_>, Vec<_>) = sinks
            .into_iter()
            .enumerate()
            .partition(|(_, (name, _))| starts_at(&config, name) == StartAt::Retained);
        let mut workers = Vec::with_capacity(names.len());
        for (place, sink) in retained.into_iter().chain(others) {
            let skips = skips(&routes, place);
            workers.push(start_worker(sink, skips, &config, &spool, &telemetry, &clock)?);
        }
        let reader = spool.reader()?;
        forget_removed_sinks(&spool, &reader.status()?, &names)?;
        tell_of_removed_sinks(&reader.status()?, &names);
        let repair = Arc::new(Repair::new(Arc::clone(&spool), &config, names.clone())?);
        repair.go_by(&config, &verifiers, names);
        // Events are received without it as well.
        let asked = Arc::downgrade(&repair);
        let control = Control::start(&folder, repair)
            .map_err(|error| {
                let path = folder.display();
                tracing::warn!(%path, %error, "no control socket: `dead` and `spool` cannot change this spool while it runs");
            })
            .ok();
        let (workers, leaving) = (RwLock::new(workers), Mutex::default());
        let reader = Mutex::new(Some(reader));
        let repair = asked;
        let store = Arc::new(Self { spool, workers, leaving, telemetry, clock, reader, repair, control });
        let intake = SpoolIntake { store: Arc::clone(&store), routes };
        Ok((Arc::new(SharedStore(store)), Arc::new(intake)))
    }
}

/// Where a sink starts that the spool does not know yet.
fn starts_at(config: &Config, name: &str) -> StartAt {
    match config.sinks.iter().find(|config| &*config.name == name) {
        Some(config) if config.from_retained => StartAt::Retained,
        _ => StartAt::Now,
    }
}

/// Opens a sink where the spool knows it to stand, and starts its worker.
pub(super) fn start_worker(
    (name, sink): NamedSink,
    skips: Skips,
    config: &Config,
    spool: &Arc<Spool>,
    telemetry: &Arc<Telemetry>,
    clock: &Arc<dyn Clock>,
) -> Result<Running, StartError> {
    let start = starts_at(config, &name);
    let failed = |source| StartError::Sink { name: Arc::clone(&name), source };
    // Sinks that fail together are not tried again together.
    let jitter = RandomState::new().hash_one((&name, clock.unix_millis()));
    let backoff = Backoff::new(BACKOFF.0, BACKOFF.1, jitter)
        .map_err(|error| failed(OpenError::Unusable(error.to_string())))?;
    let (spool, telemetry) = (Arc::clone(spool), Arc::clone(telemetry));
    let worker =
        WorkerHandle::start(Arc::clone(&name), sink, skips.clone(), start, backoff, spool, telemetry);
    Ok(Running { worker: Arc::new(worker.map_err(failed)?), skips })
}

/// A sink that was removed from the configuration holds its records until it is dropped, or comes back.
fn tell_of_removed_sinks(status: &Status, names: &BTreeSet<Arc<str>>) {
    for sink in status.sinks.iter().filter(|sink| !names.contains(&*sink.name)) {
        let SinkStatus { name, backlog, .. } = sink;
        tracing::warn!(
            sink = name,
            backlog,
            "a sink that is not in the configuration any more holds records; `dt-receiver spool drop-sink` forgets it"
        );
    }
}

pub(super) fn options(config: &Config) -> SpoolOptions {
    let defaults = SpoolOptions::default();
    let SpoolLimits { max_size, min_free, retain, .. } = config.spool;
    let dedup_max = config.dedup_max.and_then(|max| u64::try_from(max).ok()).unwrap_or(defaults.dedup_max);
    SpoolOptions { max_size, min_free, retain, dedup_window: config.dedup_window, dedup_max, ..defaults }
}

/// The connectors whose records do not go to the sink at this place.
pub(super) fn skips(routes: &Routes, place: usize) -> Skips {
    let others = routes.0.iter().filter(|route| !route.sinks.contains(&place));
    others.map(|route| Arc::clone(&route.connector)).collect()
}

/// Forgets sinks that are no longer configured and have nothing left to get: their cursors would hold every record from
/// now on.
fn forget_removed_sinks(
    spool: &Spool,
    status: &Status,
    configured: &BTreeSet<Arc<str>>,
) -> Result<(), SpoolError> {
    let is_gone = |sink: &&SinkStatus| !configured.contains(&*sink.name);
    let done = status.sinks.iter().filter(is_gone).filter(|sink| sink.backlog == 0 && sink.redeliveries == 0);
    let changes: Vec<Change> = done.map(|sink| Change::ForgetSink { sink: sink.name.clone() }).collect();
    if changes.is_empty() { Ok(()) } else { spool.change(changes).map(drop) }
}

fn unavailable(error: &SpoolError) -> Unavailable {
    match error {
        SpoolError::Overloaded => Unavailable::Overloaded,
        _ => Unavailable::Storage,
    }
}

impl Intake for SpoolIntake {
    fn accept(&self, connector: usize, record: Record) -> IntakeFuture<'_, Accepted> {
        IntakeFuture::boxed(async move {
            let record = Arc::new(record);
            let Some(route) = self.routes.get(connector) else { return Err(Unavailable::Storage) };
            match self.store.spool.append(record, route.dedup).await {
                Ok(Appended::New(_)) => Ok(Accepted::New),
                Ok(Appended::Duplicate) => Ok(Accepted::Duplicate),
                Err(error) => Err(unavailable(&error)),
            }
        })
    }

    fn dead_letter(&self, letter: DeadLetter) -> IntakeFuture<'_, ()> {
        let SpoolStore { spool, telemetry, .. } = &*self.store;
        IntakeFuture::boxed(async move {
            let (reason, connector, text) =
                (letter.reason.code(), Arc::clone(&letter.connector), letter.error.clone());
            match spool.bury(letter).await {
                Ok(true) => {
                    telemetry.emit(&DeadLetterBuried { reason, connector: &connector, error: &text });
                    Ok(())
                }
                // A copy of one that is there.
                Ok(false) => Ok(()),
                Err(error) => {
                    telemetry.emit(&DeadLetterFailed { reason, error: &error.to_string() });
                    Err(unavailable(&error))
                }
            }
        })
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
        let tail = self.spool.tail();
        let (trouble, damage) = (tail.trouble(), tail.damage());
        let ready = trouble.is_none();
        let mut troubles: Vec<String> =
            trouble.into_iter().chain(damage).map(|trouble| format!("spool: {trouble}")).collect();
        for Running { worker, .. } in self.workers.read().iter() {
            troubles.extend(worker.trouble().map(|trouble| format!("sink {}: {trouble}", worker.name())));
        }
        for worker in self.leaving.lock().iter().filter(|worker| !worker.is_finished()) {
            let trouble = worker.trouble().map(|trouble| format!(": {trouble}")).unwrap_or_default();
            troubles.push(format!(
                "sink {}: removed, and still gets what was accepted for it{trouble}",
                worker.name()
            ));
        }
        Readiness { ready, troubles }
    }

    fn measure(&self) {
        // A spool that cannot be read shows in `trouble`, or soon will.
        let Some(Ok(status)) = self.reader.lock().as_ref().map(Reader::status) else { return };
        let now = self.clock.unix_millis();
        self.telemetry.spool_used(status.used_bytes);
        self.telemetry.spool_forget_sinks();
        for sink in &status.sinks {
            let waited = sink.oldest_received_at.map_or(0, |received_at| now.saturating_sub(received_at));
            let waited = Duration::from_millis(u64::try_from(waited).unwrap_or(0));
            self.telemetry.spool_sink(&sink.name, sink.backlog, waited);
        }
        for (reason, count) in &status.dead_letters {
            self.telemetry.spool_dead_letters(reason, *count);
        }
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
        store.spool.tail().stop(now.checked_add(drain).unwrap_or(now));
        if let Some(control) = &store.control {
            control.stop();
        }
        let workers: Vec<_> =
            store.workers.read().iter().map(|running| Arc::clone(&running.worker)).collect();
        let leaving = store.leaving.lock().clone();
        workers.iter().chain(&leaving).for_each(|worker| worker.join());
        *store.reader.lock() = None;
        store.spool.close();
    }
}
