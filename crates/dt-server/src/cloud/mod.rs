//! Calls DT's REST API from inside the receiver: watches the Data Connectors, and finds and fills holes in what was received.
//!
//! | module | what it does |
//! |---|---|
//! | [`account`] | the client of DT's REST API |
//! | `watched` | the part of the configuration that the monitor uses |
//! | `monitor`, `reach` | the status of the Data Connectors; sets those that DT disabled to `ACTIVE` again if the receiver is healthy |
//! | `alive`, `missing` | the receiver's own history: outages, jumps of the clock, and the ids of events that were answered 503 |
//! | `gaps` | decides which windows of time have to be fetched |
//! | `filling` | walks these windows |
//! | `stream` | reads the events of a `[[source]]` |
//! | `problems` | the log lines and the lines of `/readyz` about all of them |
//! | [`store`] | the database `DATA/cloud.db`: the newest event of each device and type, the windows of time that have to be fetched, the ids of events that were answered 503 |
//! | [`newest`] | an internal sink of the log that keeps `cloud.db` up to date with every accepted event |
//! | [`backfill`] | fetches windows of the event history, device by device and day by day, and stores what is missing |
//!
//! Nothing here is part of the path of a request: if the API is down, the receiver does its main job as before.

pub mod account;
mod alive;
pub mod backfill;
mod context;
mod filling;
mod gaps;
mod missing;
mod monitor;
pub mod newest;
mod problems;
mod reach;
pub mod store;
mod stream;
mod watched;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use account::Account;

use crate::config::{Config, SourceConfig};
use crate::http::Endpoint;
use crate::sink::Sink;
use crate::telemetry::Telemetry;
use alive::Heartbeat;
use backfill::Fill;
use context::Context;
use dt_api::BuildError;
use dt_log::Log;
use dt_sink::clock::Clock;
use filling::Filling;
use gaps::Gaps;
use missing::MissingNotes;
pub(crate) use missing::{MissingSender, Unstored};
use monitor::Monitor;
use newest::NewestSink;
use problems::Problems;
use store::{CloudError, CloudStore};
use stream::Stream;
use watched::Watched;

/// How long a stop waits until the time of the stop is stored.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the monitor cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloudStartError {
    /// The table `[api]` is missing or invalid.
    #[error("api: {0}")]
    Account(#[from] BuildError),
    /// `cloud.db` cannot be used.
    #[error("monitor: {0}")]
    Store(#[from] CloudError),
}

impl CloudStartError {
    /// Returns the stable code of the error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Account(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }
}

/// The parts of the monitor that exist before the log is opened.
pub(crate) struct CloudParts {
    account: Account,
    store: Arc<CloudStore>,
    watched: Watched,
    sources: Vec<SourceConfig>,
    notes: MissingNotes,
    clock: Arc<dyn Clock>,
    /// Notes the events that could not be stored; `None` without back-fill.
    pub missing: Option<MissingSender>,
}

impl CloudParts {
    /// Opens `cloud.db`, and creates the client; `None` if nothing in the configuration needs them. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudStartError`] if `cloud.db` cannot be opened, or the service account is missing or invalid.
    pub fn open(config: &Config, clock: &Arc<dyn Clock>) -> Result<Option<Self>, CloudStartError> {
        let Some(watched) = Watched::of(config) else { return Ok(None) };
        // Settings that were read from a file have an account.
        let settings = config.api.as_ref().ok_or(BuildError::Credentials)?;
        let account = Account::new(settings, Arc::clone(clock))?;
        let store = Arc::new(CloudStore::open(&config.data)?);
        let (sender, notes) = missing::queue(Arc::clone(clock));
        let missing = config.fills_gaps().then_some(sender);
        let (sources, clock) = (config.sources.clone(), Arc::clone(clock));
        Ok(Some(Self { account, store, watched, sources, notes, clock, missing }))
    }

    /// Returns the internal sink, which has to be registered in the log; `None` without back-fill.
    pub fn sink(&self) -> Option<Box<dyn Sink>> {
        self.missing.as_ref()?;
        Some(Box::new(NewestSink::new(Arc::clone(&self.store), Arc::clone(&self.clock))))
    }

    /// Returns the database if the internal sink keeps it up to date; `None` without back-fill.
    pub fn filled_store(&self) -> Option<Arc<CloudStore>> {
        self.missing.as_ref().map(|_| Arc::clone(&self.store))
    }
}

/// The log, as the monitor uses it.
pub(crate) struct LogAccess {
    pub log: Arc<Log>,
    pub fill: Arc<dyn Fill>,
}

/// The monitor of a running service.
pub(crate) struct Cloud {
    context: Arc<Context>,
    log: Option<LogAccess>,
    sources: Vec<SourceConfig>,
    notes: Mutex<Option<MissingNotes>>,
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloud").field("context", &self.context).finish_non_exhaustive()
    }
}

/// The running tasks of the monitor. They end when this is dropped.
pub(crate) struct CloudTasks {
    stop: watch::Sender<bool>,
    heartbeat: JoinHandle<()>,
    tasks: JoinSet<()>,
}

impl Cloud {
    /// Creates the monitor. `log` is the log if missed events are fetched. `time_scale` says how many times as fast as real time
    /// the clock is.
    pub fn new(
        parts: CloudParts,
        endpoint: Arc<Endpoint>,
        log: Option<LogAccess>,
        telemetry: Arc<Telemetry>,
        time_scale: u32,
    ) -> Self {
        let CloudParts { account, store, watched, sources, notes, clock, missing: _ } = parts;
        let context = Context {
            account: Arc::new(account),
            store,
            endpoint,
            telemetry,
            clock,
            time_scale: time_scale.max(1),
            watched: RwLock::new(Arc::new(watched)),
            fill_problem: Mutex::default(),
            skipped: Mutex::default(),
            api_answered_at: AtomicI64::new(i64::MIN),
            stream_problems: Mutex::default(),
        };
        Self { context: Arc::new(context), log, sources, notes: Mutex::new(Some(notes)) }
    }

    /// Starts the tasks; `None` if they were started before.
    pub fn start(&self) -> Option<CloudTasks> {
        let notes = self.notes.lock().take()?;
        let (stop, stopped) = watch::channel(false);
        let heartbeat = tokio::spawn(Heartbeat::new(Arc::clone(&self.context), notes).run(stopped));
        let mut tasks = JoinSet::new();
        let gaps = self.log.as_ref().map(|log| Gaps::new(Arc::clone(&self.context), Arc::clone(&log.log)));
        tasks.spawn(check_regularly(Arc::clone(&self.context), gaps));
        if let Some(log) = &self.log {
            tasks.spawn(Filling::new(Arc::clone(&self.context), Arc::clone(&log.fill)).run());
            for source in &self.sources {
                let stream = Stream::new(Arc::clone(&self.context), Arc::clone(&log.fill), source.clone());
                tasks.spawn(stream.run());
            }
        }
        Some(CloudTasks { stop, heartbeat, tasks })
    }

    /// Activates another configuration.
    pub fn reload(&self, config: &Config) {
        if let Some(watched) = Watched::of(config) {
            *self.context.watched.write() = Arc::new(watched);
        }
        if let Some(Err(error)) = config.api.as_ref().map(|settings| self.context.account.replace(settings)) {
            // Settings that were read from a file were checked.
            tracing::error!(%error, "the new service account is not used");
        }
    }
}

impl CloudTasks {
    /// Ends the tasks, after the time of the stop is stored.
    pub async fn stop(mut self) {
        self.tasks.abort_all();
        self.stop.send_replace(true);
        let _late = tokio::time::timeout(STOP_TIMEOUT, self.heartbeat).await;
    }
}

/// Checks all projects at the configured interval, for ever.
async fn check_regularly(context: Arc<Context>, mut gaps: Option<Gaps>) {
    let mut monitor = Monitor::new(Arc::clone(&context));
    let mut problems = Problems::default();
    let mut checked_at: Option<i64> = None;
    let mut before = context.watched();
    loop {
        let (watched, now) = (context.watched(), context.now());
        let interval = i64::try_from(watched.interval().as_millis()).unwrap_or(i64::MAX);
        // A clock that was set back must not prevent checks.
        let is_due = checked_at.is_none_or(|at| !(0..interval).contains(&now.saturating_sub(at)));
        if is_due || !Arc::ptr_eq(&watched, &before) {
            if !Arc::ptr_eq(&watched, &before) {
                context.telemetry.forget_cloud();
                before = Arc::clone(&watched);
            }
            checked_at = Some(now);
            check_all(&context, &watched, (&mut monitor, gaps.as_mut()), &mut problems).await;
            problems.report(&context.endpoint, &context.telemetry);
        }
        context.tick().await;
    }
}

/// Checks all projects once.
async fn check_all(
    context: &Context,
    watched: &Watched,
    (monitor, mut gaps): (&mut Monitor, Option<&mut Gaps>),
    problems: &mut Problems,
) {
    let metrics = &context.telemetry.metrics;
    let recent = monitor.recent_answers(watched);
    let mut are_all_compared = true;
    for project in &watched.projects {
        let checked = async {
            let delivered = monitor.check(project, watched, &recent, problems).await?;
            match &mut gaps {
                Some(gaps) if watched.monitor_fills() => gaps.compare(project, watched, &delivered).await,
                _ => Ok(()),
            }
        };
        let checked = checked.await;
        let label = [project.as_str()];
        metrics.cloud_up.with_label_values(&label).set(f64::from(checked.is_ok()));
        match checked {
            Ok(()) => {
                context.api_answered_at.store(context.now(), Ordering::Relaxed);
                metrics.cloud_checked.with_label_values(&label).set(context.clock.unix_seconds());
            }
            Err(error) => {
                are_all_compared = false;
                problems.add(project.clone(), error.code(), format!("project {project}: {error}"));
            }
        }
    }
    if let Some(gaps) = gaps {
        if let Err(error) = gaps.follow_up(watched).await {
            problems.add("", error.code(), error.to_string());
        } else if are_all_compared {
            metrics.backfill_checked.set(context.clock.unix_seconds() as f64);
        }
    }
    for (project, text) in context.skipped.lock().iter().filter(|(of, _)| watched.fills(of)) {
        let text = format!("back-fill of project {project}: {text}");
        problems.add(format!("{project}/skipped"), "backfill_skipped", text);
    }
    if let Some((code, text)) = context.fill_problem.lock().clone() {
        problems.add("back-fill", code, text);
    }
}
