//! The delivery engine: a queue per connector, one `POST` per event, back-off, retention, auto-disabling.
//!
//! | rule | here | source |
//! |---|---|---|
//! | an event leaves the queue when it is answered with 2xx | so | DT, "Best Practices" |
//! | an attempt fails on any other status, a redirect too, and without an answer in 10 s | so, on the machine's clock | likewise |
//! | pause before the next attempt | 1 s, doubled each time, 5 min at most | only "grows gradually" is known |
//! | an event is given up | 12 hours after it was queued | DT, "Introduction" |
//! | a connector becomes `SYSTEM_DISABLED` | 5 days after the first failure since the last success | DT, "Configuring a Data Connector" |
//! | attempts at once | 64 a connector; none waits for another | only "in parallel" is known |
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
pub(crate) use transport::HttpTransport;
pub use transport::{AttemptRequest, Cut, Transport, TransportFuture};

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
    loop {
        let room = MAX_ATTEMPTS.saturating_sub(attempts.len());
        let (due, wake) = cloud.with_state(|state, now| next(state, now, room));
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

/// Does what is due: expires, disables, and takes the next attempts; says when to look again.
fn next(state: &mut State, now: Now, room: usize) -> (Vec<Attempt>, Option<i64>) {
    let now = now.millis();
    let State { projects, ledger, faults, dice, changes, .. } = state;
    let (mut due, mut wake) = (Vec::new(), None::<i64>);
    for (project_id, project) in projects {
        for connector in project.connectors.values_mut().filter(|connector| connector.is_active()) {
            for item in connector.queue.expire(now.saturating_sub(millis(RETENTION))) {
                ledger.decide(item.entry, Fate::Expired, now);
                tracing::debug!(connector = connector.id, event = &*item.event.id, "given up after 12 hours");
            }
            let disable_at = connector.failing_since.map(|since| since.saturating_add(millis(DISABLE_AFTER)));
            if disable_at.is_some_and(|at| at <= now) {
                connector.settings.status = Status::SystemDisabled;
                connector.disabled_at = Some(now);
                drop_queue(connector, ledger, now);
                *changes = changes.saturating_add(1);
                tracing::warn!(
                    connector = connector.id,
                    "SYSTEM_DISABLED after 5 days of nothing but failures"
                );
                continue;
            }
            while !faults.outage
                && due.len() < room
                && let Some((number, item)) = connector.queue.take(now)
            {
                item.attempts = item.attempts.saturating_add(1);
                let first = *item.first_tried_at.get_or_insert(now);
                let place = (project_id.as_str(), connector.id.as_str());
                due.push(Attempt::new(place, number, item, first, &connector.settings, faults, dice));
            }
            let next_due = connector.queue.next_due().filter(|_| !faults.outage);
            let next_expiry = connector.queue.next_expiry(millis(RETENTION));
            wake = wake.into_iter().chain(next_due).chain(next_expiry).chain(disable_at).min();
        }
    }
    // What is overdue waits for room, which an ended attempt makes.
    let full = due.len() >= room;
    (due, if full { wake.filter(|wake| *wake > now) } else { wake })
}

/// Notes how an attempt ended.
fn ended(state: &mut State, attempt: &Attempt, took: Duration, how: &str, accepted: bool, now: Now) {
    let now = now.millis();
    let State { projects, ledger, changes, .. } = state;
    *changes = changes.saturating_add(1);
    ledger.attempted(attempt.entry, how, accepted, attempt.is_fair(), now);
    let connector =
        projects.get_mut(&attempt.project).and_then(|project| project.connectors.get_mut(&attempt.connector));
    // It was deleted meanwhile.
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
