//! Another configuration in mode `spool`: sinks come, go and change while the log takes events all the time.
//!
//! Every event in the log carries the numbers of its sinks, so what was accepted under one configuration goes where that
//! one says. A new sink is known before its first event, a changed one goes on where the old one stopped, and a removed one
//! ends behind the last event that was accepted for it.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::reload::{CATCH_UP_TIME, Exchanged, SINK_TIME, in_use_since};
use super::spooled::{SpoolIntake, SpoolStore, options, register, start_worker};
use super::{Next, Ready, ReloadError};
use crate::deliver::{ReplaceError, WorkerHandle};
use crate::sink::Sink;

/// How often the log is asked how far a sink is.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Does all that can fail. After a failure everything is as it was.
pub(super) fn prepare(store: &Arc<SpoolStore>, next: Next) -> Result<Ready, ReloadError> {
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
    let mut begun = Begun { store, known: BTreeSet::new(), added: Vec::new() };
    for (name, sink) in added {
        if store.log.sink(&name).is_some() {
            begun.known.insert(Arc::clone(&name));
        }
        let place = sinks.iter().position(|known| *known == name).unwrap_or(usize::MAX);
        let started = register(&store.log, &name, &config, &routes, place)
            .map_err(ReloadError::from)
            .and_then(|state| Ok(start_worker(sink, state, &store.log, &store.telemetry, &store.clock)?));
        match started {
            Ok(worker) => begun.added.push(worker),
            Err(error) => {
                begun.forget(&name);
                begun.undo();
                return Err(error);
            }
        }
    }
    let old = store.workers.read().clone();
    let replace = |name: &str, sink: Box<dyn Sink>| match find(&old, name) {
        Some(worker) => worker.replace(sink, SINK_TIME),
        None => Err(ReplaceError::Ended),
    };
    if let Err(error) = Exchanged::all(changed, replace) {
        begun.undo();
        return Err(error);
    }
    // From here on, nothing fails.
    let is_removed = |worker: &&Arc<WorkerHandle>| removed_sinks.contains(worker.name());
    let removed: Vec<_> = old.iter().filter(is_removed).cloned().collect();
    let stays = old.iter().filter(|worker| !removed_sinks.contains(worker.name()));
    let workers: Vec<_> = begun.added.iter().chain(stays).cloned().collect();
    let number = |name: &Arc<str>| find(&workers, name).map_or(u32::MAX, |worker| worker.number());
    let numbers: Vec<u32> = sinks.iter().map(number).collect();
    let intake = Arc::new(SpoolIntake::new(Arc::clone(store), &routes, &numbers));
    let (store, in_force) = (Arc::clone(store), Arc::downgrade(&intake));
    let finish = move || {
        *store.workers.write() = workers;
        let bounds = options(&config).bounds;
        store.telemetry.metrics.spool_max.set(bounds.max_size as f64);
        store.log.set_bounds(bounds);
        if let Some(repair) = store.repair.upgrade() {
            repair.go_by(&config, &verifiers, sinks.into_iter().collect());
        }
        let mut intakes = store.intakes.lock();
        intakes.retain(|intake| intake.strong_count() > 0);
        let before = intakes.clone();
        intakes.push(in_force);
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

/// Lets workers end after the last event that can be for them: a request ends with the routing that it began with.
fn leave(store: &SpoolStore, workers: &[Arc<WorkerHandle>], before: &[Weak<SpoolIntake>]) {
    let is_used = || before.iter().any(|intake| intake.strong_count() > 0);
    while is_used() && !store.log.tail().is_stopping() {
        std::thread::sleep(LOOK_EVERY);
    }
    // One that was given up at its deadline may still have its event wait.
    store.log.flush();
    let last = store.log.tail().last_seq();
    workers.iter().for_each(|worker| worker.leave_after(last));
}

/// What was begun, to be undone.
struct Begun<'a> {
    store: &'a SpoolStore,
    /// The sinks among the added that the log knew before: they held events, and go on to do so.
    known: BTreeSet<Arc<str>>,
    added: Vec<Arc<WorkerHandle>>,
}

impl Begun<'_> {
    fn undo(self) {
        for worker in &self.added {
            worker.stop();
            let started = Instant::now();
            while !worker.is_finished() && started.elapsed() < CATCH_UP_TIME {
                std::thread::sleep(LOOK_EVERY);
            }
            self.forget(worker.name());
            // One that hangs is waited for when the service stops.
            self.store.leaving.lock().push(Arc::clone(worker));
        }
    }

    /// Has the log forget a sink that it did not know before.
    fn forget(&self, name: &Arc<str>) {
        if self.known.contains(name) {
            return;
        }
        if let Err(error) = self.store.log.forget(name) {
            tracing::warn!(sink = &**name, %error, "a sink that was not taken is not forgotten");
        }
    }
}

fn find<'a>(workers: &'a [Arc<WorkerHandle>], name: &str) -> Option<&'a Arc<WorkerHandle>> {
    workers.iter().find(|worker| &**worker.name() == name)
}

/// A connector that DT may still be sending to is not removed by a mistake in a file.
fn refuse_in_use(store: &SpoolStore, connector: &Arc<str>) -> Result<(), ReloadError> {
    let now = store.clock.unix_millis();
    let held = store.log.connector_use(connector)?;
    let counted = store.telemetry.last_accepted(connector).saturating_mul(1000);
    let last_accepted = held.last_accepted.unwrap_or(0).max(counted);
    let reason = match in_use_since(last_accepted, now) {
        Some(reason) => reason,
        None if held.undelivered => "a sink has not had all of its records".to_owned(),
        None => return Ok(()),
    };
    Err(ReloadError::ConnectorInUse { connector: Arc::clone(connector), reason })
}

/// Under load a sink is always a little behind. One that gets what was accepted until now within a few seconds keeps up,
/// and will have the rest as well.
fn refuse_backlog(store: &SpoolStore, sink: &Arc<str>) -> Result<(), ReloadError> {
    let (started, goal) = (Instant::now(), store.log.tail().last_seq());
    loop {
        let Some(state) = store.log.sink(sink) else { return Ok(()) };
        if state.cursor >= goal {
            return Ok(());
        }
        if started.elapsed() >= CATCH_UP_TIME || store.log.tail().is_stopping() {
            let records = store.log.owed(&state)?;
            return Err(ReloadError::Backlog { sink: Arc::clone(sink), records });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
