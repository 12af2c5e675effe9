//! The walk through a window: device by device, and day by day.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use dt_api::{Client, Error};
use dt_sink::clock::Clock;

use super::super::store::{CloudError, CloudStore, Counts, DeliveredSince, NewWindow, Piece, WindowState};
use super::devices::{self, Target};
use super::fill::{Fill, FillError};
use super::pieces::{self, FetchError};
use super::report::{Progress, Report};
use super::{HISTORY_MILLIS, INDEXING_DELAY_MILLIS};
use crate::spool_admin::record::DeviceFacts;
use crate::spool_admin::{FillReport, FillRequest, MAX_DELIVERY, MAX_FILL_EVENTS};

/// The number of failures in a row after which a walk ends: the API is down.
const MAX_FAILURES: u32 = 3;

/// The pause before events are offered again that could not be stored now.
const WAIT: Duration = Duration::from_secs(1);

/// Why a walk ended without a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackfillError {
    /// The devices cannot be listed.
    #[error(transparent)]
    Api(#[from] Error),
    /// `cloud.db` cannot be read or written.
    #[error(transparent)]
    Store(#[from] CloudError),
    /// The project has more devices than a walk can have.
    #[error("the project has more than 100,000 devices; name devices")]
    TooManyDevices,
    /// A task of the walk panicked.
    #[error("a task of the back-fill panicked")]
    Panicked,
}

impl BackfillError {
    /// Returns the stable code of the error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Api(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::TooManyDevices => "too_many_devices",
            Self::Panicked => "panicked",
        }
    }
}

/// How a window is walked.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct WalkOptions {
    /// The keys of the labels that deliveries contain; `None` for all.
    pub labels: Option<BTreeSet<String>>,
    /// The event types that are fetched, each from the time since which it is delivered; `None` for all.
    pub types: Option<DeliveredSince>,
    /// Whether events are only compared, and nothing is stored.
    pub dry_run: bool,
    /// Whether events are stored that are older than the ids that are kept, and so may be stored a second time.
    pub allow_duplicates: bool,
    /// Whether the walk ends, instead of waiting, while the log has no room for filled events.
    pub stop_if_busy: bool,
    /// When the window is fetched again after it is done, in Unix milliseconds; `None` for never.
    pub rewalk_at: Option<i64>,
}

/// Fetches windows, and stores what is missing.
#[derive(Debug)]
pub struct Backfill {
    client: Client,
    fill: Arc<dyn Fill>,
    /// The database of the progress; `None` if it is not stored.
    store: Option<Arc<CloudStore>>,
    clock: Arc<dyn Clock>,
    progress: watch::Sender<Progress>,
}

/// Whether a walk goes on after a piece.
enum Next {
    /// With the next day.
    Day,
    /// With the next device.
    Device,
    /// The walk ends, for this reason.
    End(String),
}

impl Backfill {
    /// Creates a back-fill. Without a store, its progress is not stored.
    #[must_use]
    pub fn new(
        client: Client,
        fill: Arc<dyn Fill>,
        store: Option<Arc<CloudStore>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { client, fill, store, clock, progress: watch::Sender::default() }
    }

    /// Returns the progress of the current walk.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Fetches a window, and stores what is missing. `id` is the id of the window in the store: its pieces that are done are not
    /// fetched again, and it is closed if all of them are done. With `None`, the whole window is fetched.
    ///
    /// # Errors
    ///
    /// [`BackfillError`] if the devices cannot be listed, or `cloud.db` fails. Other failures are in the report.
    pub async fn walk(
        &self,
        window: &NewWindow,
        id: Option<i64>,
        options: &WalkOptions,
    ) -> Result<Report, BackfillError> {
        self.progress.send_replace(Progress::default());
        let targets =
            devices::of_window(&self.client, self.store.as_ref(), window, options.labels.as_ref()).await?;
        let period = window.from.saturating_sub(INDEXING_DELAY_MILLIS)..window.until;
        let days = u64::try_from(pieces::days(&period).count()).unwrap_or(u64::MAX);
        let devices = u64::try_from(targets.len()).unwrap_or(u64::MAX);
        let mut walk = Walk {
            backfill: self,
            window,
            id,
            options,
            days,
            failures: 0,
            report: Report { devices, pieces: devices.saturating_mul(days), ..Report::default() },
        };
        if let Some((id, store)) = id.zip(self.store.clone()) {
            let (_, counts) = blocking(move || store.done_pieces(id)).await??;
            walk.report.counts = counts;
        }
        let pieces = walk.report.pieces;
        self.progress.send_modify(|progress| {
            (progress.devices, progress.pieces) = (devices, pieces);
            progress.counts = walk.report.counts;
        });
        for target in targets {
            if let Next::End(why) = walk.device(target, &period).await? {
                walk.report.stopped = Some(why);
                break;
            }
        }
        let report = walk.report;
        if report.is_complete()
            && let Some((id, store)) = id.zip(self.store.clone())
        {
            let (now, rewalk_at) = (self.clock.unix_millis(), options.rewalk_at);
            blocking(move || store.close_window(id, WindowState::Done, now, rewalk_at)).await??;
        }
        Ok(report)
    }
}

/// A walk through one window.
struct Walk<'a> {
    backfill: &'a Backfill,
    window: &'a NewWindow,
    id: Option<i64>,
    options: &'a WalkOptions,
    /// The number of pieces of a device.
    days: u64,
    /// The number of failures of the API in a row.
    failures: u32,
    report: Report,
}

impl Walk<'_> {
    /// Fetches the pieces of a device that are not done.
    async fn device(&mut self, (id, facts): Target, period: &Range<i64>) -> Result<Next, BackfillError> {
        let done: BTreeSet<i64> = match self.id.zip(self.backfill.store.clone()) {
            Some((window, store)) => {
                let id = id.clone();
                blocking(move || store.days_done(window, &id)).await??.into_iter().collect()
            }
            None => BTreeSet::new(),
        };
        let facts = match facts {
            Ok(facts) => facts,
            Err(error) => {
                self.visit(self.days, None);
                self.report.miss(&id, self.days, (error.code(), &error.to_string()));
                return Ok(self.after_failure(&error));
            }
        };
        let oldest = self.backfill.clock.unix_millis().saturating_sub(HISTORY_MILLIS);
        let mut skipped = 0_u64;
        let mut next = Next::Device;
        for (day, period) in pieces::days(period) {
            if done.contains(&day) {
                self.report.pieces_done = self.report.pieces_done.saturating_add(1);
                self.visit(1, None);
                continue;
            }
            if period.end <= oldest {
                self.visit(1, None);
                self.report.miss(
                    &id,
                    1,
                    ("expired", "the day is older than 31 days: DT has removed its events"),
                );
                continue;
            }
            if skipped > 0 {
                skipped = skipped.saturating_add(1);
                continue;
            }
            match self.piece(day, &facts, &period).await? {
                Next::Day => {}
                failed => (skipped, next) = (1, failed),
            }
        }
        // The failed piece itself is reported.
        let left = skipped.saturating_sub(1);
        self.visit(left, None);
        if left > 0 {
            self.report.miss(&id, left, ("after_failure", "an earlier day of the device is missing"));
        }
        Ok(next)
    }

    /// Fetches one piece, and stores its events and its result.
    async fn piece(
        &mut self,
        day: i64,
        device: &DeviceFacts,
        period: &Range<i64>,
    ) -> Result<Next, BackfillError> {
        let project = if device.project.is_empty() { &self.window.project } else { &device.project };
        let mut piece = Piece { device: device.id.clone(), day, counts: Counts::default(), why: None };
        let fetched =
            pieces::fetch(&self.backfill.client, project, device, period, self.options.types.as_ref()).await;
        let (code, next) = match fetched {
            Ok(deliveries) => {
                self.failures = 0;
                self.store_events(deliveries, &mut piece).await?
            }
            Err(error) => {
                piece.why = Some(error.to_string());
                match &error {
                    FetchError::Api(error) => (error.code(), self.after_failure(error)),
                    FetchError::TooLarge => ("too_large", Next::Day),
                }
            }
        };
        if let Some(why) = &piece.why {
            self.report.miss(&device.id, 1, (code, why));
        }
        self.report.add(&piece);
        self.visit(1, None);
        if let Some((id, store)) = self.id.zip(self.backfill.store.clone()) {
            blocking(move || store.store_piece(id, &piece)).await??;
        }
        Ok(next)
    }

    /// Stores the events of a piece, and counts them in it. Returns the code of [`Piece::why`], and how the walk goes on.
    async fn store_events(
        &mut self,
        deliveries: Vec<String>,
        piece: &mut Piece,
    ) -> Result<(&'static str, Next), BackfillError> {
        let count = |events: usize| u64::try_from(events).unwrap_or(u64::MAX);
        piece.counts.fetched = count(deliveries.len());
        let (deliveries, large): (Vec<_>, Vec<_>) =
            deliveries.into_iter().partition(|delivery| delivery.len() <= MAX_DELIVERY);
        if !large.is_empty() {
            piece.counts.refused = count(large.len());
            piece.why = Some(format!("{} events are larger than 384 KiB", large.len()));
        }
        for batch in batches(deliveries) {
            let request = FillRequest {
                allow_duplicates: self.options.allow_duplicates,
                dry_run: self.options.dry_run,
                ..FillRequest::new(batch)
            };
            let stored = match self.offer(request).await? {
                Ok(stored) => stored,
                Err(error) => {
                    let why = error.to_string();
                    piece.why = Some(why.clone());
                    return Ok((error.code(), Next::End(why)));
                }
            };
            if let Some(busy) = stored.busy {
                let why = format!("there is no room for filled events: {busy}");
                piece.why = Some(why.clone());
                return Ok(("busy", Next::End(why)));
            }
            piece.counts.add(&Counts {
                fetched: 0,
                known: stored.known,
                filled: stored.filled,
                filtered: stored.filtered,
                elsewhere: stored.elsewhere,
                too_old: stored.too_old,
                refused: stored.refused,
            });
            if stored.refused > 0 {
                let why = stored.notes.first().cloned().unwrap_or_default();
                piece.why = Some(format!("{} events cannot be stored: {why}", piece.counts.refused));
            }
            self.report.note(stored.notes);
        }
        Ok(("refused", Next::Day))
    }

    /// Offers events until they are stored, or until they cannot be. Waits while there is no room.
    async fn offer(&self, request: FillRequest) -> Result<Result<FillReport, FillError>, BackfillError> {
        loop {
            let (fill, offered) = (Arc::clone(&self.backfill.fill), request.clone());
            let stored = blocking(move || fill.fill(offered)).await?;
            match &stored {
                Ok(FillReport { busy: Some(why), .. }) if !self.options.stop_if_busy => {
                    self.visit(0, Some(why.clone()));
                    tokio::time::sleep(WAIT).await;
                }
                _ => return Ok(stored),
            }
        }
    }

    /// Decides how a walk goes on after an error of the API.
    fn after_failure(&mut self, error: &Error) -> Next {
        match error {
            Error::NotFound { .. } => Next::Device,
            Error::Credentials { .. } | Error::Forbidden { .. } | Error::ClockOff { .. } => {
                Next::End(error.to_string())
            }
            _ => {
                self.failures = self.failures.saturating_add(1);
                match self.failures >= MAX_FAILURES {
                    true => Next::End(error.to_string()),
                    false => Next::Device,
                }
            }
        }
    }

    /// Publishes the progress: `pieces` more pieces were visited, and why the walk waits.
    fn visit(&self, pieces: u64, waiting: Option<String>) {
        self.backfill.progress.send_modify(|progress| {
            progress.visited = progress.visited.saturating_add(pieces);
            progress.counts = self.report.counts;
            progress.waiting = waiting;
        });
    }
}

/// Divides deliveries of at most [`MAX_DELIVERY`] bytes into batches that one request can contain.
fn batches(deliveries: Vec<String>) -> Vec<Vec<String>> {
    let mut batches: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0_usize;
    for delivery in deliveries {
        bytes = bytes.saturating_add(delivery.len());
        match batches.last_mut() {
            Some(batch) if batch.len() < MAX_FILL_EVENTS && bytes <= MAX_DELIVERY => batch.push(delivery),
            _ => {
                bytes = delivery.len();
                batches.push(vec![delivery]);
            }
        }
    }
    batches
}

/// Runs a function that blocks.
///
/// # Errors
///
/// [`BackfillError::Panicked`] if it panicked.
pub async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BackfillError> {
    tokio::task::spawn_blocking(run).await.map_err(|_| BackfillError::Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_the_order_and_the_limits() {
        let deliveries: Vec<String> = (0..600).map(|number| number.to_string()).collect();
        let parts = batches(deliveries.clone());
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 88]);
        assert_eq!(parts.concat(), deliveries);
        let large = |count: usize| vec!["x".repeat(MAX_DELIVERY / 3 + 1); count];
        assert_eq!(batches(large(5)).iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        assert!(batches(Vec::new()).is_empty());
    }
}
