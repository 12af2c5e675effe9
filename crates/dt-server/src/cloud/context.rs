//! What the tasks of the monitor share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::account::Account;
use super::backfill::{HISTORY_MILLIS, INDEXING_DELAY_MILLIS};
use super::store::{CloudError, CloudStore, NewWindow};
use super::watched::Watched;
use crate::http::Endpoint;
use crate::telemetry::{Telemetry, WindowOpened};
use dt_sink::clock::Clock;
use dt_verify::event::rfc3339_millis;

/// How often the tasks compare the clock with what is due, in real time.
const TICK: Duration = Duration::from_secs(1);
/// The shortest tick with a clock that is faster than real time.
const SHORTEST_TICK: Duration = Duration::from_millis(10);

/// How long DT keeps an event that it cannot deliver, in milliseconds.
const QUEUED_FOR: i64 = 12 * 3_600_000;

/// Why a check of the monitor failed.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    #[error(transparent)]
    Api(#[from] dt_api::Error),
    #[error(transparent)]
    Store(#[from] CloudError),
}

impl MonitorError {
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Api(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }
}

/// The parts of the service that the tasks use, and the current configuration.
#[derive(Debug)]
pub struct Context {
    pub account: Arc<Account>,
    pub store: Arc<CloudStore>,
    pub endpoint: Arc<Endpoint>,
    pub telemetry: Arc<Telemetry>,
    pub clock: Arc<dyn Clock>,
    /// How many times as fast as real time the clock is; 1 except in tests.
    pub time_scale: u32,
    pub watched: RwLock<Arc<Watched>>,
    /// Why the last walk through a window failed: its code and the text. `None` if it did not.
    pub fill_problem: Mutex<Option<(&'static str, String)>>,
    /// The events of the last window of a project that were fetched and not stored, in words; only of projects with such events.
    pub skipped: Mutex<BTreeMap<String, String>>,
    /// When DT's API answered last as it should, in Unix milliseconds; `i64::MIN` before the first time.
    pub api_answered_at: AtomicI64,
    /// Why events of a source cannot be read or stored, by the name of the source.
    pub stream_problems: Mutex<BTreeMap<Arc<str>, String>>,
}

impl Context {
    pub fn watched(&self) -> Arc<Watched> {
        Arc::clone(&self.watched.read())
    }

    pub fn now(&self) -> i64 {
        self.clock.unix_millis()
    }

    /// Waits until the next time at which a task should look at the clock.
    pub async fn tick(&self) {
        self.pause(TICK).await;
    }

    /// Waits for a time on the clock, but no less than the shortest tick.
    pub async fn pause(&self, time: Duration) {
        let time = time.checked_div(self.time_scale).unwrap_or(time);
        tokio::time::sleep(time.max(SHORTEST_TICK)).await;
    }

    /// Runs a function on the database, on a thread that may block.
    ///
    /// # Errors
    ///
    /// The error of the function.
    pub async fn stored<T: Send + 'static>(
        &self,
        run: impl FnOnce(&CloudStore) -> Result<T, CloudError> + Send + 'static,
    ) -> Result<T, CloudError> {
        let store = Arc::clone(&self.store);
        let ended = tokio::task::spawn_blocking(move || run(&store)).await;
        ended.unwrap_or_else(|error| {
            let path = self.store.path().to_owned();
            Err(CloudError::Failed { path, doing: "a task", text: error.to_string() })
        })
    }

    /// Adds a window that has to be fetched, without the time before the project's baseline and before DT's history. Nothing is
    /// added if nothing is left. A window of all devices begins 12 hours earlier.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if it cannot be stored.
    pub async fn open_window(&self, window: NewWindow) -> Result<(), CloudError> {
        // Events that DT had not delivered by then were in its queue, and have been removed since.
        let queued = if window.devices.is_none() { QUEUED_FOR } else { 0 };
        let window = NewWindow { from: window.from.saturating_sub(queued), ..window };
        let now = self.now();
        let added = self.stored(move |store| {
            let baseline = store.baseline(&window.project, now)?;
            // A window is fetched from a little before its start.
            let last = window.until.saturating_sub(1);
            let first = baseline.saturating_add(INDEXING_DELAY_MILLIS).min(last).max(baseline);
            let from = window.from.max(first).max(now.saturating_sub(HISTORY_MILLIS));
            let window = NewWindow { from, ..window };
            if window.from >= window.until {
                return Ok(None);
            }
            store.add_window(&window, now)?;
            Ok(Some(window))
        });
        if let Some(NewWindow { project, from, until, cause, devices }) = added.await? {
            self.telemetry.emit(&WindowOpened {
                project: &project,
                cause: &cause,
                from: &rfc3339_millis(from),
                until: &rfc3339_millis(until),
                devices: devices.map(|devices| devices.len()),
            });
        }
        Ok(())
    }
}
