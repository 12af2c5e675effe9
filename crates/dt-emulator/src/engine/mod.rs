//! The delivery engine: a queue per connector, one `POST` per event, back-off, retention, auto-disabling.
//!
//! | rule | here | source |
//! |---|---|---|
//! | an event leaves the queue when it is answered 2xx | yes | DT, "Best Practices" |
//! | an attempt fails on any other status, also a redirect, and without a response in 10 s | yes, on the machine's clock | DT, "Best Practices" |
//! | pause before the next attempt | by default 1 s, doubled after each failure, at most 5 min | only "grows gradually" is known |
//! | an event expires | 12 hours after it was queued | DT, "Introduction" |
//! | a connector becomes `SYSTEM_DISABLED` | when an attempt fails 5 days or more after the first failure since the last success; the fault `outage` stops these days | DT, "Configuring a Data Connector" |
//! | attempts at once | 64 a connector and 512 in all, in turn; each connector has at least 4 | only "in parallel" is known |
//! | tokens | made for each attempt; the fault `stale-tokens` keeps the first | not known |
//!
//! One task drives all queues, and each attempt is a task of its own. [`Transport`] hides the network, so that tests can
//! emulate days without one.

mod attempt;
mod ledger;
mod metrics;
mod queue;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use ledger::{DEFAULT_ENTRIES, Ledger};
pub use ledger::{DeliveryStatus, LedgerEntry};
pub(crate) use metrics::Metrics;
pub(crate) use queue::{Queue, QueuedEvent};
pub use transport::{AttemptRequest, Cut, Transport, TransportFuture};
pub(crate) use transport::{HttpTransport, TlsSetupError};

use super::cloud::Cloud;
use super::state::{Now, State, system_disable};
use attempt::{Attempt, AttemptResult};

/// The time after which an undelivered event expires (DT, "Introduction to Data Connectors").
pub const RETENTION: Duration = Duration::from_secs(12 * 3600);

/// The time of failures without any success after which a connector is disabled (DT, "Configuring a Data Connector").
pub const DISABLE_AFTER: Duration = Duration::from_secs(5 * 86_400);

/// The largest number of attempts in progress, of all connectors.
const MAX_ATTEMPTS: usize = 512;

/// The number of attempts that each connector may have in progress above [`MAX_ATTEMPTS`], so that a receiver that does not
/// respond does not stop the deliveries to others.
const RESERVED_ATTEMPTS: usize = 4;

/// The pauses between the attempts to deliver an event, in milliseconds of the emulated clock. DT's are not known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryPauses {
    /// The pause after the first attempt. It doubles after each further one.
    pub first: i64,
    pub longest: i64,
}

impl Default for RetryPauses {
    fn default() -> Self {
        Self { first: 1_000, longest: 300_000 }
    }
}

impl RetryPauses {
    /// Returns the pause after a number of failed attempts.
    fn after(self, attempts: u32) -> i64 {
        let factor = 2_i64.saturating_pow(attempts.saturating_sub(1));
        self.first.saturating_mul(factor).min(self.longest)
    }
}

/// Converts a duration of a few days to milliseconds.
const fn millis(duration: Duration) -> i64 {
    duration.as_secs().cast_signed().saturating_mul(1_000)
}

/// Drives all queues until `stop` is true, and then cancels the attempts in progress.
pub async fn run(cloud: Arc<Cloud>, mut stop: watch::Receiver<bool>) {
    let mut attempts = JoinSet::new();
    let mut turn = 0_usize;
    loop {
        turn = turn.wrapping_add(1);
        let room = MAX_ATTEMPTS.saturating_sub(attempts.len());
        let (due, wake_at) = cloud.with_state(|state, now| next(state, now, room, turn));
        for attempt in due {
            attempts.spawn(attempt.make(Arc::clone(&cloud)));
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = cloud.queued() => {}
            () = cloud.time().sleep_until(wake_at) => {}
            Some(_ended) = attempts.join_next(), if !attempts.is_empty() => {}
        }
    }
}

/// Expires old events and takes at most `room` attempts that are due, beginning with connector number `turn`. Returns them and
/// the time of the next call, in Unix milliseconds of the emulated clock.
fn next(state: &mut State, now: Now, room: usize, turn: usize) -> (Vec<Attempt>, Option<i64>) {
    let now = now.millis();
    let State { projects, ledger, faults, attempt_rng: rng, .. } = state;
    let mut connectors = Vec::new();
    for (project_id, project) in projects {
        for connector in project.connectors.values_mut().filter(|connector| connector.is_active()) {
            for expired in connector.queue.expire(now.saturating_sub(millis(RETENTION))) {
                ledger.decide(expired.entry, DeliveryStatus::Expired, now);
                tracing::debug!(
                    connector = connector.id,
                    event = &*expired.event.id,
                    "expired after 12 hours"
                );
            }
            connectors.push((project_id, connector));
        }
    }
    let first = turn.checked_rem(connectors.len()).unwrap_or(0);
    connectors.rotate_left(first);
    let mut due = Vec::new();
    // One attempt of each connector in turn, so that no connector takes all the room.
    let mut again = !faults.outage;
    while std::mem::take(&mut again) {
        for (project_id, connector) in &mut connectors {
            if (due.len() < room || connector.queue.in_flight() < RESERVED_ATTEMPTS)
                && let Some((number, event)) = connector.queue.take(now)
            {
                event.attempts = event.attempts.saturating_add(1);
                event.first_tried_at.get_or_insert(now);
                let event = event.clone();
                due.push(Attempt::new(project_id, connector, (number, &event), faults, rng));
                again = true;
            }
        }
    }
    let times = connectors.iter().flat_map(|(_, connector)| {
        // An event that is still due waits for the end of an attempt.
        let next_due = connector.queue.next_due().filter(|due| !faults.outage && *due > now);
        next_due.into_iter().chain(connector.queue.next_expiry(millis(RETENTION)))
    });
    let wake_at = times.min();
    (due, wake_at)
}

/// Records the result of an attempt to deliver an event: in the ledger and in the metrics of its connector. An accepted event
/// leaves the queue; a failure may disable the connector.
fn record(state: &mut State, attempt: &Attempt, result: &AttemptResult, now: Now) {
    let now = now.millis();
    state.mark_changed();
    let State { projects, ledger, outage_since, retry_pauses, .. } = state;
    ledger.attempted(attempt.entry, result, attempt.is_valid(), now);
    let connector =
        projects.get_mut(&attempt.project).and_then(|project| project.connectors.get_mut(&attempt.connector));
    // It may have been deleted meanwhile, and another one created with its name.
    let connector = connector.filter(|connector| connector.incarnation == attempt.incarnation);
    let Some(connector) = connector else { return };
    let reason = &*result.outcome;
    connector.metrics.count(now, result.duration, if result.is_accepted { Ok(()) } else { Err(reason) });
    if result.is_accepted {
        if connector.failing_since.take().is_some() {
            tracing::info!(connector = connector.id, "deliveries succeed again");
        }
        connector.queue.done(attempt.number);
        return;
    }
    if connector.is_active() && connector.failing_since.is_none() {
        connector.failing_since = Some(now);
        tracing::warn!(connector = connector.id, reason, "deliveries fail");
    }
    // During an outage of DT no attempt can succeed, so its time does not count.
    let counted = outage_since.map_or(now, |since| since.min(now));
    let failing_for = connector.failing_since.map(|since| counted.saturating_sub(since));
    if connector.is_active() && failing_for.is_some_and(|time| time >= millis(DISABLE_AFTER)) {
        system_disable(connector, ledger, now);
        tracing::warn!(connector = connector.id, "SYSTEM_DISABLED after 5 days of failures only");
        return;
    }
    let Some(event) = connector.queue.get(attempt.number) else { return };
    let attempts = event.attempts;
    // Not a warning: an outage would log thousands. `:metrics` counts them by reason.
    tracing::debug!(
        connector = connector.id,
        event = &*event.event.id,
        attempts,
        reason,
        "an attempt failed"
    );
    connector.queue.again(attempt.number, now.saturating_add(retry_pauses.after(attempts)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_minutes() {
        let pause = |attempts| RetryPauses::default().after(attempts);
        assert_eq!(
            [1, 2, 3, 9, 10, 100, u32::MAX].map(pause),
            [1_000, 2_000, 4_000, 256_000, 300_000, 300_000, 300_000]
        );
        assert_eq!(pause(0), 1_000);
        assert_eq!(RetryPauses { first: i64::MAX, longest: 7 }.after(u32::MAX), 7);
    }
}
