//! Mode `spool`: a request waits for the spool; workers bring its records to the sinks, however long that takes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::Control;
use super::repair::Repair;
use super::routes::Routes;
use super::{Parts, StartError, Store};
use parking_lot::Mutex;

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
    spool: Arc<Spool>,
    workers: Vec<WorkerHandle>,
    routes: Routes,
    telemetry: Arc<Telemetry>,
    clock: Arc<dyn Clock>,
    /// For the gauges; gone once the store is closed, so that the last connection leaves one file behind.
    reader: Mutex<Option<Reader>>,
    control: Option<Control>,
}

impl SpoolStore {
    pub(super) fn open(parts: Parts) -> Result<Self, StartError> {
        let Parts { config, clock, telemetry, routes, sinks, verifiers } = parts;
        let folder = std::path::absolute(config.spool_folder()).unwrap_or_else(|_| config.spool_folder());
        let seed = clock.unix_millis().unsigned_abs();
        let options = SpoolOptions { telemetry: Some(Arc::clone(&telemetry)), ..options(&config) };
        telemetry.spool_max(options.max_size);
        let spool = Arc::new(Spool::open(&folder, options, Arc::clone(&clock))?);
        let names: BTreeSet<Arc<str>> = sinks.iter().map(|(name, _)| Arc::clone(name)).collect();
        let mut workers = Vec::with_capacity(sinks.len());
        for (place, (name, sink)) in sinks.into_iter().enumerate() {
            let start = match config.sinks.iter().find(|config| config.name == name) {
                Some(config) if config.from_retained => StartAt::Retained,
                _ => StartAt::Now,
            };
            let failed = |source| StartError::Sink { name: Arc::clone(&name), source };
            let jitter = seed.wrapping_add(u64::try_from(place).unwrap_or(0));
            let backoff = Backoff::new(BACKOFF.0, BACKOFF.1, jitter)
                .map_err(|error| failed(OpenError::Unusable(error.to_string())))?;
            let skips = skips(&routes, place);
            let (spool, telemetry) = (Arc::clone(&spool), Arc::clone(&telemetry));
            let worker =
                WorkerHandle::start(Arc::clone(&name), sink, skips, start, backoff, spool, telemetry);
            workers.push(worker.map_err(failed)?);
        }
        let reader = spool.reader()?;
        forget_removed_sinks(&spool, &reader.status()?, &names)?;
        tell_of_removed_sinks(&reader.status()?, &names);
        let repair = Repair::new(Arc::clone(&spool), &config, names)?.verified_by(&config, &verifiers);
        // Events are received without it as well.
        let control = Control::start(&folder, repair)
            .map_err(|error| {
                let path = folder.display();
                tracing::warn!(%path, %error, "no control socket: `dead` and `spool` cannot change this spool while it runs");
            })
            .ok();
        Ok(Self { spool, workers, routes, telemetry, clock, reader: Mutex::new(Some(reader)), control })
    }
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

fn options(config: &Config) -> SpoolOptions {
    let defaults = SpoolOptions::default();
    let SpoolLimits { max_size, min_free, retain, .. } = config.spool;
    let dedup_max = config.dedup_max.and_then(|max| u64::try_from(max).ok()).unwrap_or(defaults.dedup_max);
    SpoolOptions { max_size, min_free, retain, dedup_window: config.dedup_window, dedup_max, ..defaults }
}

/// The connectors whose records do not go to the sink at this place.
fn skips(routes: &Routes, place: usize) -> Skips {
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

impl Intake for SpoolStore {
    fn accept(&self, connector: usize, record: Arc<Record>) -> IntakeFuture<'_, Accepted> {
        Box::pin(async move {
            let Some(route) = self.routes.get(connector) else { return Err(Unavailable::Storage) };
            match self.spool.append(record, route.dedup).await {
                Ok(Appended::New(_)) => Ok(Accepted::New),
                Ok(Appended::Duplicate) => Ok(Accepted::Duplicate),
                Err(error) => Err(unavailable(&error)),
            }
        })
    }

    fn bury(&self, letter: DeadLetter) -> IntakeFuture<'_, ()> {
        Box::pin(async move {
            let (reason, connector, text) =
                (letter.reason.code(), Arc::clone(&letter.connector), letter.error.clone());
            match self.spool.bury(letter).await {
                Ok(true) => {
                    self.telemetry.emit(&DeadLetterBuried { reason, connector: &connector, error: &text });
                    Ok(())
                }
                // A copy of one that is there.
                Ok(false) => Ok(()),
                Err(error) => {
                    self.telemetry.emit(&DeadLetterFailed { reason, error: &error.to_string() });
                    Err(unavailable(&error))
                }
            }
        })
    }

    fn late(&self) -> Unavailable {
        Unavailable::Storage
    }

    fn readiness(&self) -> Readiness {
        let tail = self.spool.tail();
        let (trouble, damage) = (tail.trouble(), tail.damage());
        let ready = trouble.is_none();
        let spool = trouble.into_iter().chain(damage).map(|trouble| format!("spool: {trouble}"));
        let sinks = self.workers.iter();
        let sinks =
            sinks.filter_map(|worker| worker.trouble().map(|t| format!("sink {}: {t}", worker.name())));
        Readiness { ready, troubles: spool.chain(sinks).collect() }
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

impl Store for SpoolStore {
    fn close(&self, drain: Duration) {
        let now = Instant::now();
        self.spool.tail().stop(now.checked_add(drain).unwrap_or(now));
        if let Some(control) = &self.control {
            control.stop();
        }
        for worker in &self.workers {
            worker.join();
        }
        *self.reader.lock() = None;
        self.spool.close();
    }

    fn into_intake(self: Arc<Self>) -> Arc<dyn Intake> {
        self
    }
}
