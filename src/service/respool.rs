//! Another configuration in mode `spool`: sinks come, go and change while the spool takes events all the time.
//!
//! A sink's place is its cursor in the spool, so what was accepted for it reaches it whatever happens: a new sink begins
//! before its first event, a changed one goes on where the old one stopped, and a removed one ends behind the last event
//! that was accepted for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reload::{CATCH_UP_TIME, Exchanged, SINK_TIME, in_use_from, in_use_since};
use super::spooled::{Running, SpoolIntake, SpoolStore, options, skips, start_worker};
use super::{Next, Ready, ReloadError};
use crate::deliver::{ReplaceError, Skips};
use crate::sink::Sink;
use crate::spool::{Change, Reader, SpoolError};

/// How often the spool is asked how far a sink is.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Does all that can fail. After a failure everything is as it was.
pub(super) fn prepare(store: &Arc<SpoolStore>, next: Next) -> Result<Ready, ReloadError> {
    let reader = store.spool.reader()?;
    store.leaving.lock().retain(|worker| !worker.is_finished());
    if let Some((name, _)) =
        next.added.iter().find(|(name, _)| store.leaving.lock().iter().any(|worker| worker.name() == name))
    {
        return Err(ReloadError::Leaving(Arc::clone(name)));
    }
    for connector in &next.removed_connectors {
        refuse_in_use(store, &reader, connector)?;
    }
    for sink in &next.removed_sinks {
        refuse_backlog(store, &reader, sink)?;
    }
    let Next { config, routes, verifiers, sinks, added, changed, removed_sinks, .. } = next;
    let skips_of = |name: &str| -> Skips {
        let place = sinks.iter().position(|sink| **sink == *name);
        place.map(|place| skips(&routes, place)).unwrap_or_default()
    };
    let mut begun = Begun { store, known: BTreeSet::new(), added: Vec::new(), skipped: Vec::new() };
    for (name, sink) in added {
        if reader.cursor(&name)?.is_some() {
            begun.known.insert(Arc::clone(&name));
        }
        let (spool, skips) = (&store.spool, skips_of(&name));
        let started =
            start_worker((Arc::clone(&name), sink), skips, &config, spool, &store.telemetry, &store.clock);
        match started {
            Ok(running) => begun.added.push(running),
            Err(error) => {
                begun.forget(&name);
                begun.undo();
                return Err(error.into());
            }
        }
    }
    let old = store.workers.read().clone();
    let replace = |name: &str, sink: Box<dyn Sink>| match find(&old, name) {
        Some(running) => running.worker.replace(sink, SINK_TIME),
        None => Err(ReplaceError::Ended),
    };
    let exchanged = match Exchanged::all(changed, replace) {
        Ok(exchanged) => exchanged,
        Err(error) => {
            begun.undo();
            return Err(error);
        }
    };
    let mut workers = begun.added.clone();
    let mut narrowed = Vec::new();
    for running in old.iter().filter(|running| !removed_sinks.contains(running.worker.name())) {
        let mut skips = skips_of(running.worker.name());
        // Requests that are on their way may still store events of a connector that is removed.
        let is_gone = |name: &&Arc<str>| config.connectors.iter().all(|connector| connector.name != **name);
        skips.extend(running.skips.iter().filter(is_gone).cloned());
        narrowed.push((running.clone(), skips.clone()));
        workers.push(Running { worker: Arc::clone(&running.worker), skips });
    }
    // All sinks get more before any gets less: an event that comes in between must not fall between two sinks.
    let widened = narrowed.iter().map(|(running, skips)| {
        (running.clone(), running.skips.intersection(skips).cloned().collect::<Skips>())
    });
    let steps: Vec<_> = widened.collect::<Vec<_>>().into_iter().chain(narrowed).collect();
    for (running, skips) in steps {
        if let Err(error) = begun.skip(&running, skips) {
            exchanged.undo(replace);
            begun.undo();
            return Err(error.into());
        }
    }
    // From here on, nothing fails.
    let removed: Vec<_> = old
        .iter()
        .filter(|running| removed_sinks.contains(running.worker.name()))
        .map(|running| Arc::clone(&running.worker))
        .collect();
    let intake = Arc::new(SpoolIntake { store: Arc::clone(store), routes });
    let store = Arc::clone(store);
    let finish = move || {
        *store.workers.write() = workers;
        // A spool that is closed has no use for bounds.
        let bounds = options(&config).bounds();
        store.telemetry.spool_max(bounds.max_size);
        let _closed = store.spool.set_bounds(bounds);
        if let Some(repair) = store.repair.upgrade() {
            repair.go_by(&config, &verifiers, sinks.into_iter().collect());
        }
        let last = store.spool.tail().last_seq();
        removed.iter().for_each(|worker| worker.leave_after(last));
        store.leaving.lock().extend(removed);
    };
    Ok(Ready { intake, finish: Box::new(finish) })
}

/// What was begun, to be undone.
struct Begun<'a> {
    store: &'a SpoolStore,
    /// The sinks among the added that the spool knew before: they held records, and go on to do so.
    known: BTreeSet<Arc<str>>,
    added: Vec<Running>,
    /// Workers that skip other connectors now, as they were before; and what they skip now.
    skipped: Vec<(Running, Skips)>,
}

impl Begun<'_> {
    /// Has a worker skip these connectors, unless it does.
    fn skip(&mut self, running: &Running, skips: Skips) -> Result<(), SpoolError> {
        let name = running.worker.name();
        let known = self.skipped.iter_mut().find(|(running, _)| running.worker.name() == name);
        let now = known.as_ref().map_or(&running.skips, |(_, now)| now);
        if *now == skips {
            return Ok(());
        }
        running.worker.skip(skips.clone())?;
        match known {
            Some((_, now)) => *now = skips,
            None => self.skipped.push((running.clone(), skips)),
        }
        Ok(())
    }

    fn undo(self) {
        for (Running { worker, skips }, _) in &self.skipped {
            if let Err(error) = worker.skip(skips.clone()) {
                // It gets more than it should, which is better than less.
                tracing::error!(sink = &**worker.name(), %error, "a sink is not what it was before the reload");
            }
        }
        for Running { worker, .. } in &self.added {
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

    /// Has the spool forget a sink that it did not know before.
    fn forget(&self, name: &Arc<str>) {
        if self.known.contains(name) {
            return;
        }
        let change = Change::ForgetSink { sink: name.to_string() };
        if let Err(error) = self.store.spool.change(vec![change]) {
            tracing::warn!(sink = &**name, %error, "a sink that was not taken is not forgotten");
        }
    }
}

fn find<'a>(workers: &'a [Running], name: &str) -> Option<&'a Running> {
    workers.iter().find(|running| &**running.worker.name() == name)
}

/// A connector that DT may still be sending to is not removed by a mistake in a file.
fn refuse_in_use(store: &SpoolStore, reader: &Reader, connector: &Arc<str>) -> Result<(), ReloadError> {
    let now = store.clock.unix_millis();
    let held = reader.connector_use(connector, in_use_from(now))?;
    // What was not stored twice is in the spool; without the look for duplicates only the counters may know.
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
fn refuse_backlog(store: &SpoolStore, reader: &Reader, sink: &Arc<str>) -> Result<(), ReloadError> {
    let (started, goal) = (Instant::now(), store.spool.tail().last_seq());
    loop {
        let status = reader.status()?;
        let Some(about) = status.sinks.into_iter().find(|about| about.name == **sink) else { return Ok(()) };
        if about.cursor >= goal && about.redeliveries == 0 {
            return Ok(());
        }
        if started.elapsed() >= CATCH_UP_TIME || store.spool.tail().is_stopping() {
            let records = about.backlog.saturating_add(about.redeliveries);
            return Err(ReloadError::Backlog { sink: Arc::clone(sink), records });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
