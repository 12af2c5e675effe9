//! The receiver's own history: a heartbeat each minute of the clock, outages, jumps of the clock, and the ids of events that were
//! answered 503.
//!
//! After more than 11 hours in which no event could be stored, DT may have dropped events from its queue, which keeps them for 12
//! hours. It does not matter why: the process did not run, requests were answered 503, or the machine had no network. A short
//! recovery does not end an outage, since DT may not have tried to deliver meanwhile ([`Recovery`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::context::Context;
use super::missing::MissingNotes;
use super::store::{Alive, CloudError, MissingEvent, NewWindow, Outage};
use crate::http::outcomes;
use crate::telemetry::{Answers, ClockJumped};

/// The time between two heartbeats, in milliseconds.
const INTERVAL: i64 = 60_000;
/// The shortest time without heartbeat that is kept as an outage, in milliseconds.
const OUTAGE: i64 = 2 * INTERVAL;
/// The shortest time without a delivery, and without an answer of DT's API, that may be an outage, in milliseconds.
const SILENCE: i64 = 30 * 60_000;
/// How long the receiver has to be available after an outage until it has recovered, in milliseconds. DT tries a failed delivery
/// again at least this often.
const RECOVERED: i64 = 3_600_000;
/// The length of an outage after which events may be lost, in milliseconds: an hour less than DT keeps them.
const LONG_OUTAGE: i64 = 11 * 3_600_000;
/// The least difference between the clock and real time that counts as a jump, in milliseconds.
const JUMP: i64 = 5 * 60_000;
/// The largest number of missing events that wait until `cloud.db` can be written.
const MAX_WAITING: usize = 20_000;
/// The cause of a window after an outage.
pub const CAUSE: &str = "outage";

/// The task that keeps the history.
pub struct Heartbeat {
    context: Arc<Context>,
    notes: MissingNotes,
    waiting: Vec<MissingEvent>,
    /// The last tick: the real time, and the clock in Unix milliseconds.
    ticked: Option<(Instant, i64)>,
    /// The last heartbeat that was stored; `None` before the first.
    alive: Option<Alive>,
    /// Whether the stored heartbeat of an earlier process was read.
    is_loaded: bool,
    answers: Answers,
    /// Whether requests were answered 503, and none 2xx since.
    is_failing: bool,
    /// When a request was answered 2xx last, in Unix milliseconds; `None` before the first.
    success_at: Option<i64>,
    recovery: Recovery,
    jumps: Vec<Outage>,
    /// Whether the clock was set back, and stored times are not corrected yet.
    is_set_back: bool,
}

/// What a heartbeat sees of the receiver's availability.
#[derive(Debug, Clone, Copy)]
struct Observed {
    now: i64,
    /// When something was received last, if events can be stored now; `None` if they cannot, or if that was too long ago.
    reached_at: Option<i64>,
    /// Whether a request was answered 2xx since the last heartbeat.
    has_success: bool,
    /// How long nothing may be received without an outage, in milliseconds.
    silence: i64,
}

/// What follows from a heartbeat.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    alive: Alive,
    /// From when all devices have to be fetched, after a long outage.
    fetch_from: Option<i64>,
    /// The start of a time without availability that has ended.
    unavailable_from: Option<i64>,
}

/// How far the receiver has recovered from an outage. The outage ends once the receiver was available for an hour without a break,
/// and has answered a request with 2xx. Until then, the next time without availability belongs to the same outage.
#[derive(Debug, Default)]
struct Recovery {
    /// Since when the receiver is available without a break, in Unix milliseconds.
    since: Option<i64>,
    has_success: bool,
    /// Since when it is not available, in Unix milliseconds.
    unavailable_from: Option<i64>,
}

impl Recovery {
    fn next(&mut self, before: Alive, observed: Observed) -> Step {
        let now = observed.now;
        let available_at = before.available_at.min(now);
        let mut outage_from = before.outage_from.map(|from| from.min(now));
        let Some(reached_at) = observed.reached_at else {
            let unavailable_from = self.unavailable_from.unwrap_or(now).min(now);
            *self = Self { unavailable_from: Some(unavailable_from), ..Self::default() };
            let alive = Alive { alive_at: now, available_at, outage_from };
            return Step { alive, fetch_from: None, unavailable_from: None };
        };
        let is_long = |from: &i64| now.saturating_sub(*from) > observed.silence;
        let unavailable_from = self.unavailable_from.take().filter(is_long);
        if reached_at.saturating_sub(available_at) > observed.silence {
            outage_from = outage_from.or(Some(available_at));
            *self = Self::default();
        }
        let since = *self.since.insert(self.since.unwrap_or(now).min(now));
        self.has_success |= observed.has_success;
        let mut fetch_from = None;
        if let Some(from) = outage_from {
            if since.saturating_sub(from) > LONG_OUTAGE {
                // What comes from now on may still be lost in the next part of the outage.
                (fetch_from, outage_from) = (Some(from), Some(since));
            }
            if self.has_success && now.saturating_sub(since) >= RECOVERED {
                outage_from = None;
            }
        }
        let available_at = available_at.max(reached_at);
        Step { alive: Alive { alive_at: now, available_at, outage_from }, fetch_from, unavailable_from }
    }
}

impl Heartbeat {
    pub fn new(context: Arc<Context>, notes: MissingNotes) -> Self {
        Self {
            context,
            notes,
            waiting: Vec::new(),
            ticked: None,
            alive: None,
            is_loaded: false,
            answers: Answers::default(),
            is_failing: false,
            success_at: None,
            recovery: Recovery::default(),
            jumps: Vec::new(),
            is_set_back: false,
        }
    }

    /// Runs until `stop` is `true`, and stores the time of the stop.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let context = Arc::clone(&self.context);
            tokio::select! {
                // It fails only if the service was dropped.
                _ = stop.wait_for(|stop| *stop) => break,
                () = context.tick() => {}
            }
            self.watch_clock();
            self.store_missing().await;
            let now = self.context.now();
            let is_due =
                self.alive.is_none_or(|alive| !(0..INTERVAL).contains(&now.saturating_sub(alive.alive_at)));
            if is_due && let Err(error) = self.store_heartbeat().await {
                tracing::debug!(%error, "the heartbeat cannot be stored");
            }
        }
        self.store_missing().await;
        if let Err(error) = self.store_heartbeat().await {
            tracing::warn!(%error, "the time of the stop cannot be stored");
        }
    }

    /// Notices that the clock was set.
    fn watch_clock(&mut self) {
        let (instant, now) = (Instant::now(), self.context.now());
        let Some((before, then)) = self.ticked.replace((instant, now)) else { return };
        let passed = instant.saturating_duration_since(before).saturating_mul(self.context.time_scale);
        let expected = then.saturating_add(millis(passed));
        let jump = now.saturating_sub(expected);
        if jump.saturating_abs() > JUMP {
            self.context.telemetry.emit(&ClockJumped { seconds: jump.div_euclid(1000) });
            self.is_set_back |= jump < 0;
            self.jumps.push(Outage { kind: "clock".to_owned(), from: expected, until: now });
            if let Some(alive) = &mut self.alive {
                // Otherwise the time until the clock has caught up would look like availability.
                alive.available_at = alive.available_at.min(now);
            }
        }
    }

    /// Stores the ids of events that were answered 503. They wait in memory while that fails.
    async fn store_missing(&mut self) {
        while self.waiting.len() < MAX_WAITING
            && let Ok(event) = self.notes.notes.try_recv()
        {
            self.waiting.push(event);
        }
        let now = self.context.now();
        if !self.waiting.is_empty() {
            let events = self.waiting.clone();
            let stored = self.context.stored(move |store| store.add_missing(&events, now)).await;
            if stored.is_ok() {
                self.waiting.clear();
            }
        }
        // Those that did not fit into the queue.
        if let Some(from) = self.notes.take_dropped() {
            let until = now.saturating_add(1);
            if self.open_windows(from, until, super::gaps::MISSING).await.is_err() {
                self.notes.put_back(from);
            }
        }
    }

    /// Stores that the receiver is alive, and whether it is available. Opens windows after a long outage.
    async fn store_heartbeat(&mut self) -> Result<(), CloudError> {
        if !self.is_loaded {
            self.alive = self.context.stored(|store| store.alive()).await?;
            self.is_loaded = true;
        }
        let now = self.context.now();
        let before = self.alive.unwrap_or(Alive { alive_at: now, available_at: now, outage_from: None });
        if self.is_set_back || before.alive_at > now {
            self.context.stored(move |store| store.correct_times(now)).await?;
            self.is_set_back = false;
        }
        let mut ended = self.jumps.clone();
        let mut note = |kind: &str, from: i64| {
            if now.saturating_sub(from) > OUTAGE {
                ended.push(Outage { kind: kind.to_owned(), from, until: now });
            }
        };
        note("down", before.alive_at);
        let observed = self.observe(now);
        let Step { alive, fetch_from, unavailable_from } = self.recovery.next(before, observed);
        if let Some(from) = unavailable_from {
            note("unavailable", from);
        }
        if let Some(from) = fetch_from {
            self.open_windows(from, now, CAUSE).await?;
        }
        self.context.stored(move |store| store.set_alive(alive, &ended)).await?;
        self.jumps.clear();
        self.alive = Some(alive);
        Ok(())
    }

    /// Returns whether the receiver is available: events can be stored, the last request was not answered 503, and a request or
    /// an answer of DT's API has been received.
    fn observe(&mut self, now: i64) -> Observed {
        let (context, outcomes) = (&self.context, outcomes());
        let mut answers = Answers::default();
        for connector in &context.watched().connectors {
            let found = context.telemetry.answers(&connector.name, &outcomes);
            answers.successes = answers.successes.saturating_add(found.successes);
            answers.unavailable = answers.unavailable.saturating_add(found.unavailable);
        }
        let recent = answers.since(std::mem::replace(&mut self.answers, answers));
        let has_success = recent.successes > 0;
        self.is_failing = !has_success && (self.is_failing || recent.unavailable > 0);
        if has_success {
            self.success_at = Some(now);
        }
        let interval = millis(context.watched().interval());
        let silence = interval.saturating_mul(2).max(SILENCE);
        let is_recent = |at: &i64| (0..=silence).contains(&now.saturating_sub(*at));
        let answered_at = context.api_answered_at.load(Ordering::Relaxed);
        // While the service stops, its last heartbeat was a minute ago at most.
        let can_store = context.endpoint.readiness().ready && !self.is_failing;
        let reached = [self.success_at.unwrap_or(i64::MIN), answered_at];
        let reached_at = reached.into_iter().filter(is_recent).max().filter(|_| can_store);
        Observed { now, reached_at, has_success, silence }
    }

    /// Opens a window for all devices of each project.
    async fn open_windows(&self, from: i64, until: i64, cause: &str) -> Result<(), CloudError> {
        let watched = self.context.watched();
        if !watched.monitor_fills() {
            return Ok(());
        }
        for project in &watched.projects {
            let (project, cause) = (project.clone(), cause.to_owned());
            self.context.open_window(NewWindow { project, from, until, cause, devices: None }).await?;
        }
        Ok(())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;

    /// A receiver with a heartbeat each minute.
    struct Receiver {
        recovery: Recovery,
        alive: Alive,
        fetched: Vec<(i64, i64)>,
        unavailable: Vec<i64>,
    }

    impl Receiver {
        fn new() -> Self {
            let alive = Alive { alive_at: 0, available_at: 0, outage_from: None };
            Self { recovery: Recovery::default(), alive, fetched: Vec::new(), unavailable: Vec::new() }
        }

        /// Runs until a time; `is_reached` says whether it is available, `has_success` whether each minute has a delivery.
        fn run(&mut self, until: i64, is_reached: bool, has_success: bool) {
            while self.alive.alive_at < until {
                let now = self.alive.alive_at.saturating_add(MINUTE);
                let observed =
                    Observed { now, reached_at: is_reached.then_some(now), has_success, silence: SILENCE };
                let step = self.recovery.next(self.alive, observed);
                self.alive = step.alive;
                self.fetched.extend(step.fetch_from.map(|from| (from, now)));
                self.unavailable.extend(step.unavailable_from);
            }
        }

        /// The process does not run.
        fn be_down(&mut self, until: i64) {
            self.alive.alive_at = until;
            self.recovery = Recovery::default();
        }
    }

    #[test]
    fn a_process_without_network_is_not_available() {
        let mut receiver = Receiver::new();
        receiver.run(HOUR, true, true);
        receiver.run(14 * HOUR, false, false);
        assert_eq!(receiver.fetched, []);
        receiver.run(16 * HOUR, true, true);
        assert_eq!(receiver.fetched, [(HOUR, 14 * HOUR + MINUTE)]);
        assert_eq!(receiver.unavailable, [HOUR + MINUTE]);
        assert_eq!(receiver.alive.outage_from, None);
    }

    #[test]
    fn two_minutes_between_two_outages_do_not_count() {
        for has_success in [false, true] {
            let mut receiver = Receiver::new();
            receiver.run(HOUR, true, true);
            receiver.be_down(11 * HOUR);
            receiver.run(11 * HOUR + 2 * MINUTE, true, has_success);
            assert_eq!(receiver.fetched, []);
            receiver.be_down(21 * HOUR);
            receiver.run(21 * HOUR + 2 * MINUTE, true, has_success);
            assert_eq!(receiver.fetched, [(HOUR, 21 * HOUR + MINUTE)]);
            // Only what came since then can be lost now.
            receiver.be_down(31 * HOUR);
            receiver.run(33 * HOUR, true, true);
            assert_eq!(receiver.fetched, [(HOUR, 21 * HOUR + MINUTE)]);
            assert_eq!(receiver.alive.outage_from, None);
        }
    }

    #[test]
    fn an_hour_with_deliveries_ends_an_outage() {
        for (has_success, fetched) in [(true, 0), (false, 1)] {
            let mut receiver = Receiver::new();
            receiver.run(HOUR, true, true);
            receiver.be_down(11 * HOUR);
            receiver.run(12 * HOUR + 2 * MINUTE, true, has_success);
            receiver.be_down(22 * HOUR);
            receiver.run(24 * HOUR, true, true);
            assert_eq!(receiver.fetched.len(), fetched, "{has_success}: {:?}", receiver.fetched);
        }
    }

    #[test]
    fn a_short_silence_is_no_outage() {
        let mut receiver = Receiver::new();
        receiver.run(HOUR, true, true);
        receiver.run(HOUR + 20 * MINUTE, false, false);
        receiver.run(2 * HOUR, true, true);
        receiver.be_down(2 * HOUR + 20 * MINUTE);
        receiver.run(3 * HOUR, true, true);
        assert_eq!((receiver.alive.outage_from, receiver.fetched.len()), (None, 0));
        assert_eq!(receiver.unavailable, [0_i64; 0]);
    }
}
