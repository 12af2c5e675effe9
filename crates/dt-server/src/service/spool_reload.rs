//! Reload of the spool: adds, changes and removes sinks while the log accepts events.
//!
//! Each event in the log has the numbers of its sinks, so an event goes to the sinks of the configuration under which it was
//! accepted. A new sink is registered before its first event, a changed one continues where the old one stopped, and a removed
//! one ends after the last event that was accepted for it. The filter of a sink (`only`, `backfill`) is no part of that: its worker applies
//! the current one to every event that it takes from the log.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::reload::{CATCH_UP_TIMEOUT, SINK_TIMEOUT, SwappedSinks, in_use_since};
use super::spooled::{SpoolIntake, SpoolStore, options, register, start_worker, worker_parts};
use super::{Next, Ready, ReloadError};
use crate::deliver::{ReplaceError, WorkerHandle};
use crate::sink::Sink;

/// The interval between two checks of a sink's progress.
pub const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Carries out every step that can fail; [`Ready::finish`] carries out the others.
///
/// # Errors
///
/// [`ReloadError`]; in this case, all steps are undone.
pub fn prepare(store: &Arc<SpoolStore>, next: Next) -> Result<Ready, ReloadError> {
    store.leaving.lock().retain(|worker| !worker.is_finished());
    if let Some((name, _)) =
        next.added.iter().find(|(name, _)| store.leaving.lock().iter().any(|worker| worker.name() == name))
    {
        return Err(ReloadError::Leaving(Arc::clone(name)));
    }
    for connector in &next.removed_connectors {
        refuse_in_use(store, connector)?;
    }
    for sink in &next.removed_sinks {
        refuse_backlog(store, sink)?;
    }
    let Next { config, routes, verifiers, sinks, added, changed, removed_sinks, .. } = next;
    let mut rollback = Rollback { store, known: BTreeSet::new(), added: Vec::new() };
    for (name, sink) in added {
        if store.log.sink(&name).is_some() {
            rollback.known.insert(Arc::clone(&name));
        }
        let place = sinks.iter().position(|known| *known == name).unwrap_or(usize::MAX);
        let parts = worker_parts(&name, &config, &store.log, &store.telemetry, &store.clock);
        let started = register(&store.log, &name, &config, &routes, place)
            .map_err(ReloadError::from)
            .and_then(|state| Ok(start_worker(sink, state, parts?)?));
        match started {
            Ok(worker) => rollback.added.push(worker),
            Err(error) => {
                rollback.forget(&name);
                rollback.undo();
                return Err(error);
            }
        }
    }
    let old = store.workers.read().clone();
    let replace = |name: &str, sink: Box<dyn Sink>| match find(&old, name) {
        Some(worker) => worker.replace(sink, SINK_TIMEOUT),
        None => Err(ReplaceError::Ended),
    };
    if let Err(error) = SwappedSinks::swap_all(changed, replace) {
        rollback.undo();
        return Err(error);
    }
    // From here on, nothing fails.
    let is_removed = |worker: &&Arc<WorkerHandle>| removed_sinks.contains(worker.name());
    let removed: Vec<_> = old.iter().filter(is_removed).cloned().collect();
    let stays = old.iter().filter(|worker| !removed_sinks.contains(worker.name()));
    let workers: Vec<_> = rollback.added.iter().chain(stays).cloned().collect();
    let number = |name: &Arc<str>| find(&workers, name).map_or(u32::MAX, |worker| worker.number());
    let numbers: Vec<u32> = sinks.iter().map(number).collect();
    let intake = Arc::new(SpoolIntake::new(Arc::clone(store), &routes, &numbers));
    let (store, current) = (Arc::clone(store), Arc::downgrade(&intake));
    let finish = move || {
        // Here, since a refused reload must not have let a cursor pass records that its sink should receive.
        workers.iter().for_each(|worker| worker.set_filter(config.sink_filter(worker.name())));
        *store.workers.write() = workers;
        let bounds = options(&config).bounds;
        store.telemetry.metrics.spool_max.set(bounds.max_size as f64);
        store.log.set_bounds(bounds);
        store.repair.set_config(&config, &verifiers, sinks.into_iter().collect());
        let mut intakes = store.intakes.lock();
        intakes.retain(|intake| intake.strong_count() > 0);
        let before = intakes.clone();
        intakes.push(current);
        drop(intakes);
        store.leaving.lock().extend(removed.iter().cloned());
        if !removed.is_empty() {
            let leaving = move || leave(&store, &removed, &before);
            if let Err(error) = std::thread::Builder::new().name("leaving".to_owned()).spawn(leaving) {
                tracing::warn!(%error, "removed sinks stay until the receiver stops");
            }
        }
    };
    Ok(Ready { intake, finish: Box::new(finish) })
}

/// Makes workers end after the last event that can be for them. Waits for the requests of earlier intakes, which may still store
/// events for these workers.
fn leave(store: &SpoolStore, workers: &[Arc<WorkerHandle>], before: &[Weak<SpoolIntake>]) {
    let is_used = || before.iter().any(|intake| intake.strong_count() > 0);
    while is_used() && !store.log.tail().is_stopping() {
        std::thread::sleep(POLL_INTERVAL);
    }
    // The event of a request that ended at its deadline may still be pending.
    store.log.flush();
    let last = store.log.tail().last_seq();
    workers.iter().for_each(|worker| worker.leave_after(last));
}

/// The added sinks, which are removed again if the reload fails.
struct Rollback<'a> {
    store: &'a SpoolStore,
    /// The added sinks that were already registered in the log, which keeps their events and positions.
    known: BTreeSet<Arc<str>>,
    added: Vec<Arc<WorkerHandle>>,
}

impl Rollback<'_> {
    fn undo(self) {
        for worker in &self.added {
            worker.stop();
            let started = Instant::now();
            while !worker.is_finished() && started.elapsed() < CATCH_UP_TIMEOUT {
                std::thread::sleep(POLL_INTERVAL);
            }
            self.forget(worker.name());
            // A worker that hangs is joined when the service stops.
            self.store.leaving.lock().push(Arc::clone(worker));
        }
    }

    /// Removes a sink from the log, unless it was registered before the reload.
    fn forget(&self, name: &Arc<str>) {
        if self.known.contains(name) {
            return;
        }
        if let Err(error) = self.store.log.forget(name) {
            tracing::warn!(sink = &**name, %error, "the rollback of a reload could not remove a sink from the spool");
        }
    }
}

fn find<'a>(workers: &'a [Arc<WorkerHandle>], name: &str) -> Option<&'a Arc<WorkerHandle>> {
    workers.iter().find(|worker| &**worker.name() == name)
}

/// Prevents that a connector to which DT may still send events is removed by mistake.
///
/// # Errors
///
/// [`ReloadError::ConnectorInUse`] if the connector accepted an event within 12 hours, or has undelivered records.
fn refuse_in_use(store: &SpoolStore, connector: &Arc<str>) -> Result<(), ReloadError> {
    let now = store.clock.unix_millis();
    let held = store.log.connector_use(connector)?;
    let counted = store.telemetry.last_accepted(connector).saturating_mul(1000);
    let last_accepted = held.last_accepted.unwrap_or(0).max(counted);
    let reason = match in_use_since(last_accepted, now) {
        Some(reason) => reason,
        None if held.undelivered => "a sink has not received all of its records".to_owned(),
        None => return Ok(()),
    };
    Err(ReloadError::ConnectorInUse { connector: Arc::clone(connector), reason })
}

/// Waits until a sink has received the records that are in the log now. A sink under load is always a little behind; this wait
/// distinguishes it from a sink with a backlog.
///
/// # Errors
///
/// [`ReloadError::Backlog`] after [`CATCH_UP_TIMEOUT`].
fn refuse_backlog(store: &SpoolStore, sink: &Arc<str>) -> Result<(), ReloadError> {
    let (started, goal) = (Instant::now(), store.log.tail().last_seq());
    loop {
        let Some(state) = store.log.sink(sink) else { return Ok(()) };
        if state.cursor >= goal {
            return Ok(());
        }
        if started.elapsed() >= CATCH_UP_TIMEOUT || store.log.tail().is_stopping() {
            let records = store.log.owed(&state)?;
            return Err(ReloadError::Backlog { sink: Arc::clone(sink), records });
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}
