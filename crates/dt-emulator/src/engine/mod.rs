//! The delivery engine: a queue per connector, one `POST` per event, back-off, retention, auto-disabling.
//!
//! | rule | here | source |
//! |---|---|---|
//! | an event leaves the queue when it is answered with 2xx | so | DT, "Best Practices" |
//! | an attempt fails on any other status, a redirect too, and without an answer in 10 s | so, on the machine's clock | likewise |
//! | pause before the next attempt | 1 s, doubled each time, 5 min at most | only "grows gradually" is known |
//! | an event is given up | 12 hours after it was queued | DT, "Introduction" |
//! | a connector becomes `SYSTEM_DISABLED` | when an attempt fails 5 days or more after the first failure since the last success; the fault `outage` stops these days | DT, "Configuring a Data Connector" |
//! | attempts at once | 64 a connector, 512 in all, in turn; 4 a connector whatever the others do | only "in parallel" is known |
//! | tokens | made for each attempt; the fault `stale-tokens` keeps the first | not known |
//!
//! One task drives all queues; each attempt is a task of its own. The network is behind [`Transport`], so that tests
//! can let days pass without one.

mod attempt;
mod ledger;
mod metrics;
mod queue;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use ledger::Ledger;
pub use ledger::{Fate, LedgerEntry};
pub(crate) use metrics::Metrics;
pub(crate) use queue::{Item, Queue};
pub use transport::{AttemptRequest, Cut, Transport, TransportFuture};
pub(crate) use transport::{HttpTransport, NoTls};

use super::cloud::Cloud;
use super::state::{Now, State, Status, drop_queue};
use attempt::Attempt;

/// How long an event is kept (DT, "Introduction to Data Connectors").
pub const RETENTION: Duration = Duration::from_secs(12 * 3600);

/// How long a connector may fail without any success (DT, "Configuring a Data Connector").
pub const DISABLE_AFTER: Duration = Duration::from_secs(5 * 86_400);

/// The pause after the first failed attempt at an event, and the longest. DT's are not known.
const FIRST_PAUSE: i64 = 1_000;
const LONGEST_PAUSE: i64 = 300_000;

/// How many attempts are under way at once, over all connectors.
const MAX_ATTEMPTS: usize = 512;

/// How many each connector may have under way even so: receivers that hang must not keep others from theirs.
const OWN_SHARE: usize = 4;

/// The pause after so many failed attempts, in milliseconds.
fn pause(attempts: u32) -> i64 {
    let doubled = attempts.saturating_sub(1).min(30);
    FIRST_PAUSE.checked_shl(doubled).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE)
}

const fn millis(duration: Duration) -> i64 {
    // Both are constants of a few days.
    duration.as_secs().cast_signed().saturating_mul(1_000)
}

/// Drives all queues until told to stop. Attempts under way are then given up.
pub(crate) async fn run(cloud: Arc<Cloud>, mut stop: watch::Receiver<bool>) {
    let mut attempts = JoinSet::new();
    let mut turn = 0_usize;
    loop {
        turn = turn.wrapping_add(1);
        let room = MAX_ATTEMPTS.saturating_sub(attempts.len());
        let (due, wake) = cloud.with_state(|state, now| next(state, now, room, turn));
        for attempt in due {
            attempts.spawn(attempt.make(Arc::clone(&cloud)));
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = cloud.queued() => {}
            () = cloud.time().sleep_until(wake) => {}
            Some(_ended) = attempts.join_next(), if !attempts.is_empty() => {}
        }
    }
}

/// Does what is due: expires, and takes the next attempts; says when to look again. `turn` says which connector is first.
fn next(state: &mut State, now: Now, room: usize, turn: usize) -> (Vec<Attempt>, Option<i64>) {
    let now = now.millis();
    let State { projects, ledger, faults, attempt_rng: rng, .. } = state;
    let mut connectors = Vec::new();
    for (project_id, project) in projects {
        for connector in project.connectors.values_mut().filter(|connector| connector.is_active()) {
            for item in connector.queue.expire(now.saturating_sub(millis(RETENTION))) {
                ledger.decide(item.entry, Fate::Expired, now);
                tracing::debug!(connector = connector.id, event = &*item.event.id, "given up after 12 hours");
            }
            connectors.push((project_id, connector));
        }
    }
    let first = turn.checked_rem(connectors.len()).unwrap_or(0);
    connectors.rotate_left(first);
    let mut due = Vec::new();
    // One each, as long as someone has something: nobody takes all the room.
    let mut again = !faults.outage;
    while std::mem::take(&mut again) {
        for (project_id, connector) in &mut connectors {
            if (due.len() < room || connector.queue.in_flight() < OWN_SHARE)
                && let Some((number, item)) = connector.queue.take(now)
            {
                item.attempts = item.attempts.saturating_add(1);
                let first = *item.first_tried_at.get_or_insert(now);
                let entry = (item.entry, Arc::clone(&item.body));
                due.push(Attempt::new(project_id, connector, number, entry, first, faults, rng));
                again = true;
            }
        }
    }
    let times = connectors.iter().flat_map(|(_, connector)| {
        // What is overdue even now waits for room, which an ended attempt makes.
        let next_due = connector.queue.next_due().filter(|due| !faults.outage && *due > now);
        next_due.into_iter().chain(connector.queue.next_expiry(millis(RETENTION)))
    });
    let wake = times.min();
    (due, wake)
}

/// Notes how an attempt ended.
fn ended(state: &mut State, attempt: &Attempt, took: Duration, how: &str, accepted: bool, now: Now) {
    let now = now.millis();
    let State { projects, ledger, changes, outage_since, .. } = state;
    *changes = changes.saturating_add(1);
    ledger.attempted(attempt.entry, how, accepted, attempt.is_fair(), now);
    let connector =
        projects.get_mut(&attempt.project).and_then(|project| project.connectors.get_mut(&attempt.connector));
    // It may have been deleted meanwhile, and another made under its name.
    let connector = connector.filter(|connector| connector.incarnation == attempt.incarnation);
    let Some(connector) = connector else { return };
    connector.metrics.count(now, took, if accepted { Ok(()) } else { Err(how) });
    if accepted {
        if connector.failing_since.take().is_some() {
            tracing::info!(connector = connector.id, "deliveries succeed again");
        }
        connector.queue.done(attempt.number);
        return;
    }
    if connector.is_active() && connector.failing_since.is_none() {
        connector.failing_since = Some(now);
        tracing::warn!(connector = connector.id, reason = how, "deliveries fail");
    }
    // In an outage of DT nothing can succeed, so its time does not count.
    let counted = outage_since.map_or(now, |since| since.min(now));
    let failing_for = connector.failing_since.map(|since| counted.saturating_sub(since));
    if connector.is_active() && failing_for.is_some_and(|time| time >= millis(DISABLE_AFTER)) {
        connector.settings.status = Status::SystemDisabled;
        connector.disabled_at = Some(now);
        drop_queue(connector, ledger, now);
        tracing::warn!(connector = connector.id, "SYSTEM_DISABLED after 5 days of nothing but failures");
        return;
    }
    let Some(item) = connector.queue.get(attempt.number) else { return };
    let attempts = item.attempts;
    // One line for each would be thousands in an outage; `:metrics` counts them by reason.
    tracing::debug!(
        connector = connector.id,
        event = &*item.event.id,
        attempts,
        reason = how,
        "an attempt failed"
    );
    connector.queue.again(attempt.number, now.saturating_add(pause(attempts)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_minutes() {
        assert_eq!(
            [1, 2, 3, 9, 10, 100, u32::MAX].map(pause),
            [1_000, 2_000, 4_000, 256_000, 300_000, 300_000, 300_000]
        );
        assert_eq!(pause(0), 1_000);
    }
}
