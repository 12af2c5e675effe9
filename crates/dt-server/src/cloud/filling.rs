//! Walks the windows that have to be fetched, one at a time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::watch;

use super::backfill::{
    Backfill, BackfillError, Fill, HISTORY_MILLIS, INDEXING_DELAY_MILLIS, MANUAL, Missing, Progress, Report,
    WalkOptions,
};
use super::context::Context;
use super::gaps;
use super::store::{
    CloudError, CloudStore, Counts, DeliveredSince, NewWindow, OpenWindow, Window, WindowState,
};
use super::watched::Watched;
use crate::telemetry::WindowClosed;
use dt_verify::event::rfc3339_millis;

/// The time after which a window is fetched again, in milliseconds.
const REWALK_AFTER: i64 = 24 * 3_600_000;
/// The reasons for missing pieces that do not go away.
const FINAL: [&str; 4] = ["expired", "not_found", "refused", "too_large"];

/// The code of the problem that a walk waits for room.
const WAITS: &str = "backfill_waits";

/// The task that walks the windows.
pub struct Filling {
    context: Arc<Context>,
    fill: Arc<dyn Fill>,
    /// When a window whose walk failed is tried again, by its id, in Unix milliseconds.
    retry_at: HashMap<i64, i64>,
}

impl Filling {
    pub fn new(context: Arc<Context>, fill: Arc<dyn Fill>) -> Self {
        Self { context, fill, retry_at: HashMap::new() }
    }

    /// Walks windows for ever.
    pub async fn run(mut self) {
        loop {
            self.context.tick().await;
            if let Err(error) = self.step().await {
                *self.context.fill_problem.lock() = Some((error.code(), format!("back-fill: {error}")));
            }
        }
    }

    /// Walks the oldest window that is due.
    async fn step(&mut self) -> Result<(), CloudError> {
        let now = self.context.now();
        let watched = self.context.watched();
        // A time that is later than the pause is of a clock that was set back.
        let pause = pause(&watched);
        self.retry_at.retain(|_, at| (1..=pause).contains(&at.saturating_sub(now)));
        let later: BTreeSet<i64> = self.retry_at.keys().copied().collect();
        let current = Arc::clone(&watched);
        let is_filled = move |project: &str| current.fills(project);
        let found = self.context.stored(move |store| next_window(store, now, is_filled, &later));
        let Next { window, is_any_open } = found.await?;
        if !is_any_open {
            *self.context.fill_problem.lock() = None;
        }
        let Some(window) = &window else { return Ok(()) };
        if window.until <= now.saturating_sub(HISTORY_MILLIS) {
            let why = "it is older than 31 days: DT has removed its events";
            return self.close(window, &Report::default(), why, (WindowState::Abandoned, None)).await;
        }
        let id = window.id;
        let before = self.context.stored(move |store| store.done_pieces(id)).await?.1;
        let (labels, types) = self.delivered(&window.project, &watched).await?;
        let options =
            WalkOptions { labels, types, rewalk_at: rewalk_at(window, now), ..WalkOptions::default() };
        let context = &self.context;
        let (client, store) = (context.account.client(), Arc::clone(&context.store));
        let backfill = Backfill::new(client, Arc::clone(&self.fill), Some(store), Arc::clone(&context.clock));
        let new = new_window(window);
        let walked = tokio::select! {
            walked = backfill.walk(&new, Some(id), &options) => walked,
            () = self.watch(&watched, &window.project, backfill.progress()) => {
                // The pieces that are done stay so. The walk begins again with the new settings.
                let after = self.context.stored(move |store| store.done_pieces(id)).await?.1;
                self.context.telemetry.metrics.backfill_filled.inc_by(after.filled.saturating_sub(before.filled));
                *self.context.fill_problem.lock() = None;
                return Ok(());
            }
        };
        let report = match walked {
            Ok(report) => report,
            Err(error) => {
                self.failed(window, &error);
                return Ok(());
            }
        };
        let filled = report.counts.filled.saturating_sub(before.filled);
        self.context.telemetry.metrics.backfill_filled.inc_by(filled);
        if report.is_complete() {
            *self.context.fill_problem.lock() = None;
            self.report(window, &report, self.note_skipped(window, &report).as_deref());
            return Ok(());
        }
        let what = still_missing(&report);
        if is_final(&report) {
            *self.context.fill_problem.lock() = None;
            // A device that is not found may have moved: the service account may see it a day later.
            let is_any_gone = report.missing.iter().any(|missing| missing.code == "not_found");
            let again = if is_any_gone { second_walk_at(window, now) } else { rewalk_at(window, now) };
            let skipped = self.note_skipped(window, &report);
            let what = skipped.into_iter().fold(what, |what, skipped| format!("{what}; {skipped}"));
            return self.close(window, &report, &what, (WindowState::Done, again)).await;
        }
        let code = if report.stopped.is_some() { "backfill_stopped" } else { "backfill_incomplete" };
        self.retry_later(window, code, &what);
        Ok(())
    }

    /// Notes that a walk failed, and when it is tried again.
    fn failed(&mut self, window: &Window, error: &BackfillError) {
        self.retry_later(window, error.code(), &error.to_string());
    }

    fn retry_later(&mut self, window: &Window, code: &'static str, why: &str) {
        let pause = pause(&self.context.watched());
        self.retry_at.insert(window.id, self.context.now().saturating_add(pause));
        let text = format!("back-fill of project {}: {why}; it is tried again", window.project);
        *self.context.fill_problem.lock() = Some((code, text));
    }

    /// Closes a window of which a part is missing for good, or until it is fetched again at a time in Unix milliseconds.
    async fn close(
        &self,
        window: &Window,
        report: &Report,
        why: &str,
        (state, again): (WindowState, Option<i64>),
    ) -> Result<(), CloudError> {
        let (id, now) = (window.id, self.context.now());
        self.context.stored(move |store| store.close_window(id, state, now, again)).await?;
        match again {
            Some(at) => {
                let why = format!("{why}; the window is fetched again at {}", rfc3339_millis(at));
                self.report(window, report, Some(&why));
            }
            None => self.report(window, report, Some(why)),
        }
        Ok(())
    }

    /// Notes the events of a window that were fetched and neither stored nor known: a problem until a window has none. Returns
    /// their number and reason in words; `None` if there are none.
    fn note_skipped(&self, window: &Window, report: &Report) -> Option<String> {
        let skipped = skipped(report);
        let mut problems = self.context.skipped.lock();
        match &skipped {
            Some(text) => problems.insert(window.project.clone(), text.clone()),
            None => problems.remove(&window.project),
        };
        skipped
    }

    /// Returns once a walk through a window of a project has to begin again, because the configuration has changed. Meanwhile,
    /// notes that the walk waits for room, if it does so for longer than the time between two checks.
    async fn watch(&self, watched: &Arc<Watched>, project: &str, mut progress: watch::Receiver<Progress>) {
        let mut wait = Wait::default();
        let pause = pause(watched);
        while Arc::ptr_eq(watched, &self.context.watched()) {
            let waiting = progress.borrow_and_update().waiting.clone();
            if let Some(why) = wait.next(waiting, self.context.now(), pause) {
                let problem = why.map(|why| (WAITS, format!("back-fill of project {project} waits: {why}")));
                *self.context.fill_problem.lock() = problem;
            }
            self.context.tick().await;
        }
    }

    fn report(&self, window: &Window, report: &Report, missing: Option<&str>) {
        let Counts { fetched, known, filled, .. } = report.counts;
        self.context.telemetry.emit(&WindowClosed {
            project: &window.project,
            cause: &window.cause,
            from: &rfc3339_millis(window.from),
            until: &rfc3339_millis(window.until),
            devices: report.devices,
            fetched,
            known,
            filled,
            missing,
        });
    }

    /// Returns the keys of the labels, and the event types, that the project's Data Connectors deliver; `None`, for all of them, if
    /// they are not known. Those of a source are not those of a Data Connector.
    async fn delivered(&self, project: &str, watched: &Watched) -> Result<Delivered, CloudError> {
        if watched.sources.contains(project) {
            return Ok((None, None));
        }
        let project = project.to_owned();
        let known = self.context.stored(move |store| {
            let connectors = store.connectors(&project)?;
            let is_known = !connectors.is_empty();
            let types = if is_known { store.delivered_types(&project)? } else { None };
            Ok((is_known.then(|| connectors.into_iter().flat_map(|state| state.labels).collect()), types))
        });
        known.await
    }
}

fn new_window(window: &Window) -> NewWindow {
    let Window { project, from, until, cause, devices, .. } = window.clone();
    NewWindow { project, from, until, cause, devices }
}

/// The keys of the labels that are delivered, and the event types.
type Delivered = (Option<BTreeSet<String>>, Option<DeliveredSince>);

/// What has to be done next.
struct Next {
    /// The oldest window that is due, or that is too old; `None` if none is.
    window: Option<Window>,
    /// Whether a window is open of a project whose missed events are fetched.
    is_any_open: bool,
}

/// Finds the next window. Those of `later` are not due. Blocks.
fn next_window(
    store: &CloudStore,
    now: i64,
    is_filled: impl Fn(&str) -> bool,
    later: &BTreeSet<i64>,
) -> Result<Next, CloudError> {
    let is_ours = |window: &OpenWindow| window.cause != MANUAL && is_filled(&window.project);
    let is_old =
        |window: &OpenWindow| window.cause != MANUAL && window.until <= now.saturating_sub(HISTORY_MILLIS);
    let is_due = |window: &OpenWindow| {
        is_ours(window)
            && window.until.saturating_add(INDEXING_DELAY_MILLIS) <= now
            && !later.contains(&window.id)
    };
    let found = store.find_open(|window| is_old(window) || is_due(window))?;
    Ok(Next {
        window: found.map(|id| store.window(id)).transpose()?.flatten(),
        is_any_open: store.find_open(is_ours)?.is_some(),
    })
}

/// How long a walk has been waiting.
#[derive(Debug, Default)]
struct Wait {
    since: Option<i64>,
    is_reported: bool,
}

impl Wait {
    /// Returns the reason of a wait that has lasted for `pause` milliseconds, or `Some(None)` once such a wait has ended. `waiting` is
    /// why the walk waits at `now` (Unix milliseconds).
    fn next(&mut self, waiting: Option<String>, now: i64, pause: i64) -> Option<Option<String>> {
        let Some(why) = waiting else {
            return std::mem::take(self).is_reported.then_some(None);
        };
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) < pause {
            return None;
        }
        self.is_reported = true;
        Some(Some(why))
    }
}

/// Returns the time between two attempts, in milliseconds.
fn pause(watched: &Watched) -> i64 {
    i64::try_from(watched.interval().as_millis()).unwrap_or(i64::MAX)
}

/// Returns whether all that a walk did not fetch is missing for good.
fn is_final(report: &Report) -> bool {
    let is_final = |missing: &Missing| FINAL.contains(&&*missing.code);
    report.stopped.is_none()
        && report.missing.iter().all(|missing| is_final(missing) || missing.code == "after_failure")
        && report.missing.iter().any(is_final)
}

/// Returns when a window is fetched again: once, a day after it was opened, since devices report some samples late.
fn rewalk_at(window: &Window, now: i64) -> Option<i64> {
    let is_precise = [gaps::SAMPLE, gaps::MISSING].contains(&&*window.cause);
    second_walk_at(window, now).filter(|_| !is_precise)
}

/// Returns the time of the second walk through a window: a day after it was opened; `None` after that.
fn second_walk_at(window: &Window, now: i64) -> Option<i64> {
    let again = window.made_at.saturating_add(REWALK_AFTER);
    (now < again).then_some(again)
}

/// Returns how many events a walk did not store although it fetched them, and why, in words; `None` if there are none.
fn skipped(report: &Report) -> Option<String> {
    let Counts { elsewhere, too_old, .. } = report.counts;
    let mut parts = Vec::new();
    if elsewhere > 0 {
        let why = report.notes.first().map_or("they belong to no connector", String::as_str);
        parts.push(format!("{elsewhere} events are not stored: {why}"));
    }
    if too_old > 0 {
        parts.push(format!(
            "{too_old} events are not stored: they may have been received before, and ids from that time are not kept (see \
             `dedup_window` and `dedup_max`)"
        ));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Returns what a walk did not fetch, and why, in words.
fn still_missing(report: &Report) -> String {
    if let Some(stopped) = &report.stopped {
        return stopped.clone();
    }
    let missing = report.missing.iter().map(|missing| {
        format!("{} days of devices, such as of {}: {}", missing.pieces, missing.device, missing.why)
    });
    missing.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(cause: &str) -> Window {
        Window {
            id: 1,
            project: "p".to_owned(),
            from: 0,
            until: 10,
            cause: cause.to_owned(),
            devices: None,
            state: WindowState::Open,
            made_at: 100,
            closed_at: None,
            rewalk_at: None,
        }
    }

    #[test]
    fn only_windows_of_watched_projects_are_walked() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = CloudStore::open(folder.path()).expect("opened");
        let add = |project: &str, cause: &str, until: i64| {
            let (project, cause) = (project.to_owned(), cause.to_owned());
            let window = NewWindow { project, from: 0, until, cause, devices: None };
            store.add_window(&window, 0).expect("stored")
        };
        let old = add("gone", "outage", 1);
        add("gone", "outage", HISTORY_MILLIS);
        add("p", MANUAL, HISTORY_MILLIS);
        let (first, second) = (add("p", "outage", HISTORY_MILLIS), add("p", "outage", HISTORY_MILLIS));
        let next = |now: i64, later: &[i64]| {
            let later = later.iter().copied().collect();
            let next = next_window(&store, now, |project| project == "p", &later).expect("read");
            (next.window.map(|window| window.id), next.is_any_open)
        };
        let now = HISTORY_MILLIS + INDEXING_DELAY_MILLIS;
        // One that is too old is closed, of whichever project.
        assert_eq!(next(now, &[]), (Some(old), true));
        store.close_window(old, WindowState::Abandoned, 0, None).expect("closed");
        assert_eq!(next(now, &[]), (Some(first), true));
        assert_eq!(next(now, &[first]), (Some(second), true));
        assert_eq!(next(now - 1, &[]), (None, true));
        for id in [first, second] {
            store.close_window(id, WindowState::Done, 0, None).expect("closed");
        }
        assert_eq!(next(now, &[]), (None, false));
    }

    #[test]
    fn a_wait_is_reported_after_a_pause_and_until_it_ends() {
        let mut wait = Wait::default();
        let why = || Some("the log is full".to_owned());
        assert_eq!(wait.next(why(), 0, 10), None);
        assert_eq!(wait.next(None, 5, 10), None);
        assert_eq!(wait.next(why(), 8, 10), None);
        assert_eq!(wait.next(why(), 17, 10), None);
        assert_eq!(wait.next(why(), 18, 10), Some(why()));
        assert_eq!(wait.next(None, 20, 10), Some(None));
        assert_eq!(wait.next(None, 21, 10), None);
    }

    #[test]
    fn events_that_are_not_stored_are_named() {
        let report = |elsewhere, too_old| Report {
            counts: Counts { fetched: 9, filtered: 1, elsewhere, too_old, ..Counts::default() },
            notes: BTreeSet::from(["several connectors accept events of project p".to_owned()]),
            ..Report::default()
        };
        assert_eq!(skipped(&report(0, 0)), None);
        let text = skipped(&report(3, 2)).expect("skipped");
        assert!(text.contains("3 events are not stored: several connectors"), "{text}");
        assert!(text.contains("2 events are not stored: they may have been received"), "{text}");
    }

    #[test]
    fn a_device_that_is_not_found_is_tried_once_more() {
        let missing = |code: &str| Missing {
            code: code.to_owned(),
            why: String::new(),
            device: "d".to_owned(),
            pieces: 1,
        };
        let is_final = |codes: &[&str]| {
            is_final(&Report {
                missing: codes.iter().map(|code| missing(code)).collect(),
                ..Report::default()
            })
        };
        assert!(is_final(&["not_found", "after_failure"]));
        assert!(!is_final(&["not_found", "unavailable"]) && !is_final(&["after_failure"]) && !is_final(&[]));
        assert_eq!(second_walk_at(&window(gaps::MISSING), 200), Some(100 + REWALK_AFTER));
        assert_eq!(second_walk_at(&window(gaps::MISSING), 100 + REWALK_AFTER), None);
    }

    #[test]
    fn a_window_is_fetched_again_once() {
        assert_eq!(rewalk_at(&window("inactive"), 200), Some(100 + REWALK_AFTER));
        assert_eq!(rewalk_at(&window("inactive"), 100 + REWALK_AFTER), None);
        assert_eq!(rewalk_at(&window(gaps::SAMPLE), 200), None);
    }
}
