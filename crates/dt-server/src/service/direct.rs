//! Mode `direct`: a request waits for its sinks; dead letters go to `dead.db`, or where a type of sink takes them.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::reload::{CATCH_UP_TIME, Exchanged, SINK_TIME, in_use_since};
use super::respool::LOOK_EVERY;
use super::routes::Routes;
use super::sinks::{NamedSink, give_up_after};
use super::spooled::backoff;
use super::{Next, Opened, Parts, Ready, ReloadError, StartError, Store};
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

/// How many records may wait for a sink, beyond those that requests in flight wait for.
const QUEUE_SPARE: usize = 4096;
/// How many records a sink is given at once.
const MAX_BATCH: usize = 4096;
/// The name under which logs and metrics have the place of dead letters.
const DEAD_LETTERS: &str = "dead-letters";

/// The sinks themselves, and the place of dead letters.
#[derive(Debug)]
pub(super) struct DirectStore {
    lanes: RwLock<Vec<Arc<DirectWorker>>>,
    /// Lanes of sinks that were removed. They end when the last request is gone that may use them.
    removed: Mutex<Vec<Removed>>,
    shared: Arc<Shared>,
    options: DirectWorkerOptions,
    clock: Arc<dyn Clock>,
}

/// A sink that was removed.
#[derive(Debug)]
struct Removed {
    name: Arc<str>,
    lane: Weak<DirectWorker>,
    end: Arc<DirectWorkerThread>,
}

#[derive(Debug)]
struct Shared {
    dead_letters: Arc<DeadLetterStore>,
    telemetry: Arc<Telemetry>,
}

/// The way in by one configuration: whoever holds it may use its lanes.
#[derive(Debug)]
struct DirectIntake {
    direct: Direct,
    routes: Routes,
    shared: Arc<Shared>,
}

impl DirectStore {
    pub(super) fn open(parts: Parts) -> Result<Opened, StartError> {
        let Parts { config, clock, telemetry, routes, sinks, .. } = parts;
        let dead_letters = Arc::new(open_dead_letters(&config, &clock, &telemetry)?);
        let options = DirectWorkerOptions {
            max_queue: config.limits.max_in_flight.saturating_add(QUEUE_SPARE),
            max_batch: MAX_BATCH,
            window_ids: config.dedup_ids(),
            window_age: config.dedup_window,
        };
        let shared = Arc::new(Shared { dead_letters, telemetry });
        let (lanes, removed) = (RwLock::default(), Mutex::default());
        let store = Self { lanes, removed, shared, options, clock };
        let lanes = sinks.into_iter().map(|sink| store.start(sink)).collect::<Result<Vec<_>, _>>()?;
        let intake = store.intake(lanes.clone(), routes);
        *store.lanes.write() = lanes;
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

    /// A sink that comes back waits until it has gone: two of one name would mix up the order of a device's events, and the
    /// first takes its metrics along.
    fn refuse_leaving(&self, added: &[NamedSink]) -> Result<(), ReloadError> {
        let started = Instant::now();
        for (name, _) in added {
            while self.removed.lock().iter().any(|gone| gone.name == *name && !gone.end.is_finished()) {
                if started.elapsed() >= CATCH_UP_TIME {
                    return Err(ReloadError::Leaving(Arc::clone(name)));
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    fn intake(&self, lanes: Vec<Arc<DirectWorker>>, routes: Routes) -> Arc<dyn Intake> {
        Arc::new(DirectIntake { direct: Direct::new(lanes), routes, shared: Arc::clone(&self.shared) })
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
    // A dead letter comes after its sink has tried; both have to fit in the deadline.
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
            match self.direct.submit(&record, &route.sinks, route.dedup).await {
                Ok(Submitted::New) => Ok(Accepted::New),
                Ok(Submitted::Duplicate) => Ok(Accepted::Duplicate),
                Err(Undelivered::Overloaded) => Err(Unavailable::Overloaded),
                Err(Undelivered::SinkUnavailable { .. }) => Err(Unavailable::Sink),
                Err(Undelivered::StorageUnavailable { .. }) => Err(Unavailable::Storage),
            }
        })
    }

    fn dead_letter(&self, letter: DeadLetter) -> IntakeFuture<'_, ()> {
        let letters = &self.shared.dead_letters;
        IntakeFuture::boxed(async move { letters.add(letter).await.map_err(|_| Unavailable::Storage) })
    }

    fn readiness(&self) -> Readiness {
        let sinks = self.direct.workers().iter();
        let sinks =
            sinks.filter_map(|sink| sink.last_error().map(|error| format!("sink {}: {error}", sink.name())));
        let problems: Vec<String> = sinks.chain(self.shared.dead_letters.last_error()).collect();
        Readiness { ready: problems.is_empty(), problems }
    }

    fn measure(&self) {
        for lane in self.direct.workers() {
            let ids = self.shared.telemetry.metrics.sink_window.with_label_values(&[lane.name()]);
            ids.set(lane.window_len() as f64);
        }
        self.shared.dead_letters.measure();
    }
}

impl Store for DirectStore {
    fn prepare(&self, next: Next) -> Result<Ready, ReloadError> {
        let now = self.clock.unix_millis();
        for connector in next.removed_connectors {
            // What is kept in memory of the sinks' ids does not tell the connectors apart by time.
            let last_accepted = self.shared.telemetry.last_accepted(&connector).saturating_mul(1000);
            if let Some(reason) = in_use_since(last_accepted, now) {
                return Err(ReloadError::ConnectorInUse { connector, reason });
            }
        }
        self.refuse_leaving(&next.added)?;
        let old = self.lanes.read().clone();
        // A place without a lane would be an event without a sink.
        let is_known = |name: &Arc<str>| {
            old.iter().any(|lane| lane.name() == name) || next.added.iter().any(|(added, _)| added == name)
        };
        if !next.sinks.iter().all(is_known) {
            return Err(ReloadError::Stopping);
        }
        // After a failure they are dropped, which ends them.
        let added = next.added.into_iter().map(|sink| self.start(sink)).collect::<Result<Vec<_>, _>>()?;
        let lane = |name: &str| old.iter().find(|lane| &**lane.name() == name);
        Exchanged::all(next.changed, |name, sink| match lane(name) {
            Some(lane) => lane.replace(sink, SINK_TIME),
            None => Err(ReplaceError::Ended),
        })?;
        let find = |name: &Arc<str>| old.iter().chain(&added).find(|lane| lane.name() == name).cloned();
        let lanes: Vec<Arc<DirectWorker>> = next.sinks.iter().filter_map(find).collect();
        let gone = old.iter().filter(|lane| next.removed_sinks.contains(lane.name()));
        let gone = gone.map(|lane| Removed {
            name: Arc::clone(lane.name()),
            lane: Arc::downgrade(lane),
            end: lane.removed(),
        });
        let mut removed = self.removed.lock();
        removed.retain(|gone| !gone.end.is_finished());
        removed.extend(gone);
        drop(removed);
        self.lanes.write().clone_from(&lanes);
        Ok(Ready { intake: self.intake(lanes, next.routes), finish: Box::new(|| ()) })
    }

    fn close(&self, _drain: Duration) {
        let lanes = std::mem::take(&mut *self.lanes.write());
        let removed = std::mem::take(&mut *self.removed.lock());
        lanes.iter().for_each(|lane| lane.close());
        removed.iter().filter_map(|gone| gone.lane.upgrade()).for_each(|lane| lane.close());
        lanes.iter().for_each(|lane| lane.join());
        removed.iter().for_each(|gone| gone.end.join());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{OpenError, Outcome, Sink};
    use dt_sink::clock::SystemClock;

    struct Takes;

    impl Sink for Takes {
        fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
            Ok(())
        }

        fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
            Outcome::delivered(batch.len())
        }
    }

    #[test]
    fn a_sink_comes_back_only_once_it_has_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let telemetry = Arc::new(Telemetry::new(Arc::clone(&clock)));
        let dead_letters = DeadLetters::open_without_log(folder.path(), &clock).expect("opens");
        let dead_letters =
            Arc::new(DeadLetterStore::database(Arc::new(dead_letters), Arc::clone(&telemetry)));
        let shared = Arc::new(Shared { dead_letters, telemetry });
        let options =
            DirectWorkerOptions { max_queue: 1, max_batch: 1, window_ids: 1, window_age: Duration::ZERO };
        let (lanes, removed) = (RwLock::default(), Mutex::default());
        let store = DirectStore { lanes, removed, shared, options, clock };
        let again = || -> [NamedSink; 1] { [(Arc::from("out"), Box::new(Takes))] };
        // A request that is on its way holds it.
        let lane = store.start((Arc::from("out"), Box::new(Takes))).expect("starts");
        let (name, end) = (Arc::clone(lane.name()), lane.removed());
        store.removed.lock().push(Removed { name, lane: Arc::downgrade(&lane), end });
        assert!(matches!(store.refuse_leaving(&again()), Err(ReloadError::Leaving(name)) if &*name == "out"));
        drop(lane);
        store.refuse_leaving(&again()).expect("it has gone");
    }
}
