//! The store of events in mode `direct`: a request waits until its sinks have stored the event. Dead letters are stored in
//! `dead.db`, or by a sink type that supports it.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::reload::{CATCH_UP_TIMEOUT, SINK_TIMEOUT, SwappedSinks, in_use_since};
use super::routes::Routes;
use super::sinks::{NamedSink, give_up_after};
use super::spool_reload::POLL_INTERVAL;
use super::spooled::backoff;
use super::{Next, Opened, Parts, Ready, ReloadError, StartError, Store};
use crate::cloud::LogAccess;
use crate::config::Config;
use crate::deliver::{
    DeadLetterStore, Direct, DirectWorker, DirectWorkerOptions, DirectWorkerParts, DirectWorkerThread,
    ReplaceError, Submitted, Undelivered,
};
use crate::http::{Accepted, Intake, IntakeFuture, Readiness, Unavailable};
use crate::sink::SinkContext;
use crate::telemetry::Telemetry;
use dt_log::dead::DeadLetters;
use dt_sink::clock::Clock;
use dt_sink::record::{DeadLetter, Record};

/// The number of records that may wait for a sink, in addition to those of requests in flight.
const QUEUE_SPARE: usize = 4096;
/// The largest number of records in one batch.
const MAX_BATCH: usize = 4096;
/// The name of the destination of dead letters in logs and metrics.
const DEAD_LETTERS: &str = "dead-letters";

/// The workers of the sinks, and the destination of dead letters.
#[derive(Debug)]
pub struct DirectStore {
    workers: RwLock<Vec<Arc<DirectWorker>>>,
    /// The workers of removed sinks. Each worker ends after the last request that may use it.
    removed: Mutex<Vec<Removed>>,
    shared: Arc<Shared>,
    options: DirectWorkerOptions,
    clock: Arc<dyn Clock>,
}

/// The worker of a removed sink.
#[derive(Debug)]
struct Removed {
    name: Arc<str>,
    worker: Weak<DirectWorker>,
    end: Arc<DirectWorkerThread>,
}

#[derive(Debug)]
struct Shared {
    dead_letters: Arc<DeadLetterStore>,
    telemetry: Arc<Telemetry>,
}

/// The intake of one configuration. It keeps the workers of this configuration running.
#[derive(Debug)]
struct DirectIntake {
    direct: Direct,
    routes: Routes,
    shared: Arc<Shared>,
}

impl DirectStore {
    pub fn open(parts: Parts) -> Result<Opened, StartError> {
        let Parts { config, clock, telemetry, routes, sinks, .. } = parts;
        let dead_letters = Arc::new(open_dead_letters(&config, &clock, &telemetry)?);
        let options = DirectWorkerOptions {
            max_queue: config.limits.max_in_flight.saturating_add(QUEUE_SPARE),
            max_batch: MAX_BATCH,
            window_ids: config.dedup_ids(),
            window_age: config.dedup_window,
        };
        let shared = Arc::new(Shared { dead_letters, telemetry });
        let (workers, removed) = (RwLock::default(), Mutex::default());
        let store = Self { workers, removed, shared, options, clock };
        let workers = sinks.into_iter().map(|sink| store.start(sink)).collect::<Result<Vec<_>, _>>()?;
        let intake = store.intake(workers.clone(), routes);
        *store.workers.write() = workers;
        Ok((Arc::new(store), intake))
    }

    fn start(&self, (name, sink): NamedSink) -> Result<Arc<DirectWorker>, StartError> {
        let Shared { dead_letters, telemetry } = &*self.shared;
        telemetry.register_sink(&name);
        let failed = |source| StartError::Sink { name: Arc::clone(&name), source };
        let parts = DirectWorkerParts {
            clock: Arc::clone(&self.clock),
            telemetry: Arc::clone(telemetry),
            dead_letters: Arc::clone(dead_letters),
            backoff: backoff(&name, &self.clock).map_err(failed)?,
        };
        DirectWorker::start(Arc::clone(&name), sink, self.options, parts).map(Arc::new).map_err(failed)
    }

    /// Waits until removed sinks have ended whose names are used again by added ones. Two sinks with one name would change the
    /// order of a device's events, and the removed one removes the metrics of that name.
    ///
    /// # Errors
    ///
    /// [`ReloadError::Leaving`] after [`CATCH_UP_TIMEOUT`].
    fn refuse_leaving(&self, added: &[NamedSink]) -> Result<(), ReloadError> {
        let started = Instant::now();
        for (name, _) in added {
            while self.removed.lock().iter().any(|gone| gone.name == *name && !gone.end.is_finished()) {
                if started.elapsed() >= CATCH_UP_TIMEOUT {
                    return Err(ReloadError::Leaving(Arc::clone(name)));
                }
                std::thread::sleep(POLL_INTERVAL);
            }
        }
        Ok(())
    }

    fn intake(&self, workers: Vec<Arc<DirectWorker>>, routes: Routes) -> Arc<dyn Intake> {
        Arc::new(DirectIntake { direct: Direct::new(workers), routes, shared: Arc::clone(&self.shared) })
    }
}

fn open_dead_letters(
    config: &Config,
    clock: &Arc<dyn Clock>,
    telemetry: &Arc<Telemetry>,
) -> Result<DeadLetterStore, StartError> {
    let Some(place) = config.dead_letter_place() else {
        let database = DeadLetters::open_without_log(&config.spool_folder(), clock)?;
        return Ok(DeadLetterStore::database(Arc::new(database), Arc::clone(telemetry)));
    };
    let sink = config.dead_letter_sink().ok_or_else(|| StartError::DeadLetters(place.needs_a_sink()))?;
    let reporter = telemetry.sink_reporter(DEAD_LETTERS, sink.settings.metrics());
    let mut context = SinkContext::new(sink.format, reporter);
    // A dead letter follows the attempts of its sink; both have to fit into the deadline.
    context.give_up_after = give_up_after(config).and_then(|limit| limit.checked_div(2));
    let opened = sink.settings.open_dead_letters(place.place, context);
    let elsewhere = opened.map_err(|error| StartError::DeadLetters(error.to_string()))?;
    Ok(DeadLetterStore::elsewhere(elsewhere, Arc::clone(telemetry)))
}

impl Intake for DirectIntake {
    fn accept(&self, connector: usize, record: Record) -> IntakeFuture<'_, Accepted> {
        IntakeFuture::boxed(async move {
            let record = Arc::new(record);
            let Some(route) = self.routes.get(connector) else { return Err(Unavailable::Storage) };
            let sinks = self.routes.sinks_for(route, &record);
            if sinks.is_empty() {
                // By the filters of its sinks, the event is for none of them.
                return Ok(Accepted::New);
            }
            match self.direct.submit(&record, &sinks, route.dedup).await {
                Ok(Submitted::New) => Ok(Accepted::New),
                Ok(Submitted::Duplicate) => Ok(Accepted::Duplicate),
                Err(Undelivered::Overloaded) => Err(Unavailable::Overloaded),
                Err(Undelivered::SinkUnavailable { .. }) => Err(Unavailable::Sink),
                Err(Undelivered::StorageUnavailable { .. }) => Err(Unavailable::Storage),
            }
        })
    }

    fn dead_letter(&self, dead_letter: DeadLetter) -> IntakeFuture<'_, ()> {
        let store = &self.shared.dead_letters;
        IntakeFuture::boxed(async move { store.add(dead_letter).await.map_err(|_| Unavailable::Storage) })
    }

    fn readiness(&self) -> Readiness {
        let sinks = self.direct.workers().iter();
        let sinks =
            sinks.filter_map(|sink| sink.last_error().map(|error| format!("sink {}: {error}", sink.name())));
        let problems: Vec<String> = sinks.chain(self.shared.dead_letters.last_error()).collect();
        Readiness { ready: problems.is_empty(), problems }
    }

    fn measure(&self) {
        for worker in self.direct.workers() {
            let ids = self.shared.telemetry.metrics.sink_window.with_label_values(&[worker.name()]);
            ids.set(worker.window_len() as f64);
        }
        self.shared.dead_letters.measure();
    }
}

impl Store for DirectStore {
    fn prepare(&self, next: Next) -> Result<Ready, ReloadError> {
        let now = self.clock.unix_millis();
        for connector in next.removed_connectors {
            // The sinks' de-duplication windows in memory do not record times by connector, so the metric decides.
            let last_accepted = self.shared.telemetry.last_accepted(&connector).saturating_mul(1000);
            if let Some(reason) = in_use_since(last_accepted, now) {
                return Err(ReloadError::ConnectorInUse { connector, reason });
            }
        }
        self.refuse_leaving(&next.added)?;
        let old = self.workers.read().clone();
        // Without a worker for each sink of the routes, an event could miss a sink.
        let is_known = |name: &Arc<str>| {
            old.iter().any(|worker| worker.name() == name)
                || next.added.iter().any(|(added, _)| added == name)
        };
        if !next.sinks.iter().all(is_known) {
            return Err(ReloadError::Stopping);
        }
        // After a failure, dropping them ends them.
        let added = next.added.into_iter().map(|sink| self.start(sink)).collect::<Result<Vec<_>, _>>()?;
        let worker = |name: &str| old.iter().find(|worker| &**worker.name() == name);
        SwappedSinks::swap_all(next.changed, |name, sink| match worker(name) {
            Some(worker) => worker.replace(sink, SINK_TIMEOUT),
            None => Err(ReplaceError::Ended),
        })?;
        let find = |name: &Arc<str>| old.iter().chain(&added).find(|worker| worker.name() == name).cloned();
        let workers: Vec<Arc<DirectWorker>> = next.sinks.iter().filter_map(find).collect();
        let gone = old.iter().filter(|worker| next.removed_sinks.contains(worker.name()));
        let gone = gone.map(|worker| Removed {
            name: Arc::clone(worker.name()),
            worker: Arc::downgrade(worker),
            end: worker.removed(),
        });
        let mut removed = self.removed.lock();
        removed.retain(|gone| !gone.end.is_finished());
        removed.extend(gone);
        drop(removed);
        self.workers.write().clone_from(&workers);
        Ok(Ready { intake: self.intake(workers, next.routes), finish: Box::new(|| ()) })
    }

    fn log_access(&self) -> Option<LogAccess> {
        None
    }

    fn close(&self, _drain: Duration) {
        let workers = std::mem::take(&mut *self.workers.write());
        let removed = std::mem::take(&mut *self.removed.lock());
        workers.iter().for_each(|worker| worker.close());
        removed.iter().filter_map(|gone| gone.worker.upgrade()).for_each(|worker| worker.close());
        workers.iter().for_each(|worker| worker.join());
        removed.iter().for_each(|gone| gone.end.join());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{OpenError, Outcome, Sink};
    use dt_sink::clock::SystemClock;

    struct AcceptAll;

    impl Sink for AcceptAll {
        fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
            Ok(())
        }

        fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
            Outcome::delivered(batch.len())
        }
    }

    #[test]
    fn a_removed_sink_can_be_added_again_after_it_has_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let telemetry = Arc::new(Telemetry::new(Arc::clone(&clock)));
        let dead_letters = DeadLetters::open_without_log(folder.path(), &clock).expect("opens");
        let dead_letters =
            Arc::new(DeadLetterStore::database(Arc::new(dead_letters), Arc::clone(&telemetry)));
        let shared = Arc::new(Shared { dead_letters, telemetry });
        let options =
            DirectWorkerOptions { max_queue: 1, max_batch: 1, window_ids: 1, window_age: Duration::ZERO };
        let (workers, removed) = (RwLock::default(), Mutex::default());
        let store = DirectStore { workers, removed, shared, options, clock };
        let again = || -> [NamedSink; 1] { [(Arc::from("out"), Box::new(AcceptAll))] };
        // Like a request in flight, this keeps the worker alive.
        let worker = store.start((Arc::from("out"), Box::new(AcceptAll))).expect("starts");
        let (name, end) = (Arc::clone(worker.name()), worker.removed());
        store.removed.lock().push(Removed { name, worker: Arc::downgrade(&worker), end });
        assert!(matches!(store.refuse_leaving(&again()), Err(ReloadError::Leaving(name)) if &*name == "out"));
        drop(worker);
        store.refuse_leaving(&again()).expect("it has gone");
    }
}
