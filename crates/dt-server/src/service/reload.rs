//! Activates a changed configuration while the service runs: completely or not at all, without dropping a request.
//!
//! Every step that can fail comes first, in this order: the text and its secrets, the keys that need a restart, new keys of
//! issuers, removed parts that are in use, new sinks, changed sinks. A failure rolls these steps back. Then the routing is
//! replaced in one step; a request in flight ends with the routing that it started with. A removed sink ends last, after it
//! has received every event that was accepted for it. One reload runs at a time. `docs/reload.md` describes it for operators.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::certificate::Certificate;
use super::routes::Routes;
use super::sinks::{NamedSink, make_sink};
use super::verifiers::{Live, live_verifiers};
use super::{StartError, Store, check_connectors};
use crate::cloud::Cloud;
use crate::config::{Config, ConfigChange, ConfigError, SinkConfig};
use crate::deliver::ReplaceError;
use crate::http::{Endpoint, Intake, Routing};
use crate::keys::{Keys, LiveVerifier};
use crate::sink::Sink;
use crate::telemetry::{ConfigChanged, ConfigRefused, ConfigReloaded, Telemetry};
use crate::tls::Prepared;
use dt_log::LogError;
use dt_sink::clock::Clock;

/// The time limit for reading the configuration: a file may be a pipe without a writer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit for fetching the keys of a new issuer.
const KEYS_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit for replacing a changed sink.
pub const SINK_TIMEOUT: Duration = Duration::from_secs(15);
/// The time within which a sink that is to be removed has to receive the records accepted so far. A sink that takes longer has a
/// backlog.
pub const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// The time after its last event during which a connector counts as in use: DT retries for this long.
const IN_USE: Duration = Duration::from_secs(12 * 3600);
/// The largest number of changes that the audit lists.
const MAX_AUDITED: usize = 1000;
/// The largest length of an error in logs and `/readyz`, in characters.
const MAX_ERROR: usize = 2000;

/// Why a changed configuration is not activated. The old configuration stays active, as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The configuration cannot be read, or is invalid.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The configuration cannot be read within 30 s.
    #[error("reading it takes more than {} s; is one of its files a pipe?", READ_TIMEOUT.as_secs())]
    TooSlow,
    /// Keys were changed whose values are only read at the start. Contains these keys.
    #[error("{}: {}", .0.join(", "), if .0.len() == 1 { "needs a restart" } else { "need a restart" })]
    NeedsRestart(Vec<String>),
    /// A service with this configuration would not start.
    #[error("{0}")]
    Start(#[from] StartError),
    /// A connector that is in use is missing from the new configuration.
    #[error(
        "connector {connector}: it is removed or renamed, but {reason}; a restart accepts the change deliberately"
    )]
    ConnectorInUse {
        /// The connector's name.
        connector: Arc<str>,
        /// Why it counts as in use.
        reason: String,
    },
    /// A sink with undelivered events is missing from the new configuration.
    #[error(
        "sink {sink}: it is removed or renamed, but {records} events are yet to be delivered to it; let it drain, or \
         discard them with `dt-receiver spool forget {sink} --yes`"
    )]
    Backlog {
        /// The sink's name.
        sink: Arc<str>,
        /// The number of its undelivered events.
        records: u64,
    },
    /// A sink was added again while the removed sink with the same name has not ended. Contains the name.
    #[error("sink {0}: it was removed just now, and still receives its backlog; try again later")]
    Leaving(Arc<str>),
    /// A sink cannot be replaced by one with the changed settings.
    #[error("sink {sink}: {source}")]
    Sink {
        /// The sink's name.
        sink: Arc<str>,
        /// Why the sink was not replaced.
        source: ReplaceError,
    },
    /// The keys of a new issuer cannot be fetched. Contains the problem.
    #[error("{0}; without its keys nothing could be verified")]
    Keys(String),
    /// The log cannot be used.
    #[error("spool: {0}")]
    Log(#[from] LogError),
    /// The service is stopping.
    #[error("the service stops")]
    Stopping,
}

impl ReloadError {
    /// Returns the outcome for metrics and logs: `invalid`, `needs_restart` or `refused`.
    #[must_use]
    pub const fn outcome(&self) -> &'static str {
        match self {
            Self::Config(_) | Self::TooSlow => "invalid",
            Self::NeedsRestart(_) => "needs_restart",
            _ => "refused",
        }
    }
}

/// Changes the configuration of a running [`Service`](super::Service). Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReloadHandle(pub(super) Arc<Reloader>);

impl ReloadHandle {
    /// Reads a configuration with `read`, and activates it completely or not at all. `who` names the requester in the audit.
    /// Returns the changes; an empty list if there are none. Sinks of the embedder are not changed.
    ///
    /// Reloads run one after another. A reload that has started runs to its end, even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`ReloadError`] if the old configuration stays active. The log, the metrics and `/readyz` report the error, too.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use std::path::Path;
    ///
    /// use dt_server::config::{Config, SystemSources};
    /// use dt_server::service::ReloadHandle;
    /// use dt_server::sink::standard_types;
    ///
    /// # async fn run(handle: ReloadHandle) -> Result<(), Box<dyn std::error::Error>> {
    /// let read = || Config::from_file(Path::new("dt-receiver.toml"), &SystemSources, &standard_types());
    /// for change in handle.reload("the operator", read).await? {
    ///     println!("{change}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reload<F>(&self, who: impl Into<String>, read: F) -> Result<Vec<ConfigChange>, ReloadError>
    where
        F: FnOnce() -> Result<Config, ConfigError> + Send + 'static,
    {
        let (reloader, who) = (Arc::clone(&self.0), who.into());
        let done = tokio::spawn(async move { reloader.reload(&who, read).await }).await;
        done.unwrap_or(Err(ReloadError::Stopping))
    }
}

/// The configuration for which a store is prepared.
pub struct Next {
    pub config: Config,
    pub routes: Routes,
    pub verifiers: Vec<Arc<LiveVerifier>>,
    /// The names of all sinks, in the order of the routes.
    pub sinks: Vec<Arc<str>>,
    pub added: Vec<NamedSink>,
    pub changed: Vec<NamedSink>,
    pub removed_sinks: Vec<Arc<str>>,
    pub removed_connectors: Vec<Arc<str>>,
}

/// A store that is prepared for a configuration: the remaining steps cannot fail.
pub struct Ready {
    /// The intake for new requests.
    pub intake: Arc<dyn Intake>,
    /// The last step, to be called after new requests are routed to `intake`.
    pub finish: Box<dyn FnOnce() + Send>,
}

/// The parts of the service that a reload changes.
pub(super) struct Reloadable {
    pub endpoint: Arc<Endpoint>,
    pub store: Arc<dyn Store>,
    pub certificate: Option<Arc<Certificate>>,
    pub cloud: Option<Arc<Cloud>>,
}

/// Reloads the configuration of a service.
pub(super) struct Reloader {
    /// The active configuration. A reload keeps it locked until it has ended, so that only one runs at a time.
    current: tokio::sync::Mutex<Current>,
    parts: Reloadable,
    telemetry: Arc<Telemetry>,
    clock: Arc<dyn Clock>,
    /// The names of the sinks that an embedder added, which a reload does not change.
    own: Vec<Arc<str>>,
    fetching: Mutex<Fetching>,
    drain_timeout: Mutex<Duration>,
    stopping: AtomicBool,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").field("own", &self.own).finish_non_exhaustive()
    }
}

/// The active configuration.
struct Current {
    config: Config,
    keys: HashMap<String, Arc<Keys>>,
}

/// The tasks that fetch keys, by issuer; empty until the service runs.
#[derive(Default)]
struct Fetching {
    runs: bool,
    tasks: HashMap<String, AbortHandle>,
}

impl Reloader {
    /// Creates the reloader with the active configuration. `own` are the names of the sinks that an embedder added.
    pub(super) fn new(
        config: Config,
        keys: HashMap<String, Arc<Keys>>,
        own: Vec<Arc<str>>,
        parts: Reloadable,
        telemetry: Arc<Telemetry>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let drain_timeout = Mutex::new(config.drain_timeout);
        let current = tokio::sync::Mutex::new(Current { config, keys });
        let (fetching, stopping) = (Mutex::default(), AtomicBool::new(false));
        Self { current, parts, telemetry, clock, own, fetching, drain_timeout, stopping }
    }

    /// Returns the drain timeout of the active configuration.
    pub(super) fn drain_timeout(&self) -> Duration {
        *self.drain_timeout.lock()
    }

    /// Starts the tasks that fetch keys from the issuers.
    pub(super) async fn run(&self) {
        self.fetching.lock().runs = true;
        self.fetch(&self.current.lock().await.keys);
    }

    /// Ends the tasks that fetch keys, and refuses new reloads. Waits up to `timeout` for a running reload.
    pub(super) async fn stop(&self, timeout: Duration) {
        self.stopping.store(true, Ordering::SeqCst);
        {
            let mut fetching = self.fetching.lock();
            // A running reload must not start new tasks.
            fetching.runs = false;
            fetching.tasks.drain().for_each(|(_, task)| task.abort());
        }
        let _late = tokio::time::timeout(timeout, self.current.lock()).await;
    }

    /// Fetches keys from these issuers only: starts tasks for new issuers, and ends those of others.
    fn fetch(&self, keys: &HashMap<String, Arc<Keys>>) {
        let mut fetching = self.fetching.lock();
        if !fetching.runs {
            return;
        }
        fetching.tasks.retain(|issuer, task| {
            let stays = keys.contains_key(issuer);
            if !stays {
                task.abort();
            }
            stays
        });
        for (issuer, keys) in keys {
            if !fetching.tasks.contains_key(issuer) {
                let keys = Arc::clone(keys);
                let task = tokio::spawn(async move { keys.keep_fresh().await });
                fetching.tasks.insert(issuer.clone(), task.abort_handle());
            }
        }
    }

    async fn reload<F>(&self, who: &str, read: F) -> Result<Vec<ConfigChange>, ReloadError>
    where
        F: FnOnce() -> Result<Config, ConfigError> + Send + 'static,
    {
        let mut current = self.current.lock().await;
        let done = self.try_reload(&mut current, read).await;
        match &done {
            // `/readyz` changes first: a client that reads the log or metrics may query it next.
            Ok(changes) => {
                self.parts.endpoint.set_config_problem(None);
                for ConfigChange { key, how, values, .. } in changes.iter().take(MAX_AUDITED) {
                    let values = values.as_ref().map(|(from, to)| (from.as_str(), to.as_str()));
                    self.telemetry.emit(&ConfigChanged { who, key, change: how.name(), values });
                }
                self.telemetry.emit(&ConfigReloaded { who, changes: changes.len() });
            }
            // The service ends, so `/readyz` has no use for it.
            Err(ReloadError::Stopping) => {}
            Err(error) => {
                let text: String = error.to_string().chars().take(MAX_ERROR).collect();
                let problem = format!("the configuration was not taken: {text}");
                self.parts.endpoint.set_config_problem(Some(problem));
                self.telemetry.emit(&ConfigRefused { who, outcome: error.outcome(), error: &text });
            }
        }
        done
    }

    async fn try_reload<F>(&self, current: &mut Current, read: F) -> Result<Vec<ConfigChange>, ReloadError>
    where
        F: FnOnce() -> Result<Config, ConfigError> + Send + 'static,
    {
        if self.stopping.load(Ordering::SeqCst) {
            return Err(ReloadError::Stopping);
        }
        let read = tokio::time::timeout(READ_TIMEOUT, tokio::task::spawn_blocking(read)).await;
        let mut config = read.map_err(|_| ReloadError::TooSlow)?.map_err(|_| StartError::Panicked)??;
        config.drop_unbounded_copies();
        if let Some(certificate) = &self.parts.certificate {
            // The files may have changed under the same names. The check reports its own errors.
            certificate.check_soon();
        }
        let changes = current.config.changes_to(&config);
        if changes.is_empty() {
            return Ok(changes);
        }
        check_connectors(&config)?;
        require_no_restart(&current.config, &config, &changes)?;
        let live = live_verifiers(&config, &current.keys, &self.clock, &self.telemetry)?;
        let certificate = self.prepare_certificate(&current.config, &config).await?;
        fetch_new_keys(&live, &current.keys).await?;
        let next = self.next(&current.config, config.clone(), live.verifiers.clone())?;
        let removed = next.removed_connectors.clone();
        next.added.iter().for_each(|(name, _)| self.telemetry.register_sink(name));
        let added: Vec<Arc<str>> = next.added.iter().map(|(name, _)| Arc::clone(name)).collect();
        let store = Arc::clone(&self.parts.store);
        let ready = tokio::task::spawn_blocking(move || store.prepare(next)).await;
        let Ready { intake, finish } = match ready.map_err(|_| StartError::Panicked.into()).flatten() {
            Ok(ready) => ready,
            Err(error) => {
                added.iter().for_each(|name| self.telemetry.unregister_sink(name));
                return Err(error);
            }
        };
        let routing = Routing::new(&config.connectors, config.limits.clone(), intake);
        self.parts.endpoint.route_by(routing.verified_by(&live.verifiers).behind(config.proxies.clone()));
        if let Some((certificate, prepared)) = certificate {
            certificate.activate(prepared);
        }
        // It may wait for a slot in a queue. Removed sinks end later, in the background.
        let _finished = tokio::task::spawn_blocking(finish).await;
        self.fetch(&live.keys);
        *self.drain_timeout.lock() = config.drain_timeout;
        if let Some(cloud) = &self.parts.cloud {
            cloud.reload(&config);
        }
        // The metrics of a removed sink are removed when its worker ends.
        removed.iter().for_each(|connector| self.telemetry.unregister_connector(connector));
        *current = Current { config, keys: live.keys };
        Ok(changes)
    }

    /// Reads the certificate of changed settings; `None` if the settings have not changed.
    async fn prepare_certificate(
        &self,
        old: &Config,
        next: &Config,
    ) -> Result<Option<(Arc<Certificate>, Prepared)>, ReloadError> {
        let (Some(certificate), Some(settings)) = (&self.parts.certificate, &next.tls) else {
            return Ok(None);
        };
        if old.tls.as_ref() == Some(settings) {
            return Ok(None);
        }
        let (certificate, settings) = (Arc::clone(certificate), settings.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            let prepared = certificate.prepare(settings).map_err(StartError::Tls)?;
            Ok::<_, StartError>((certificate, prepared))
        });
        Ok(Some(prepared.await.map_err(|_| StartError::Panicked)??))
    }

    /// Creates new and changed sinks, and lists removed sinks and connectors.
    fn next(
        &self,
        old: &Config,
        config: Config,
        verifiers: Vec<Arc<LiveVerifier>>,
    ) -> Result<Next, ReloadError> {
        let known: BTreeMap<&str, &SinkConfig> = old.sinks.iter().map(|sink| (&*sink.name, sink)).collect();
        let (mut added, mut changed) = (Vec::new(), Vec::new());
        for sink in &config.sinks {
            let target = match known.get(&*sink.name) {
                None => &mut added,
                Some(before) if before.is_other_than(sink) => &mut changed,
                Some(_) => continue,
            };
            target.push((Arc::clone(&sink.name), make_sink(&config, sink, &self.telemetry)?));
        }
        let configured = config.sinks.iter().map(|sink| Arc::clone(&sink.name));
        let sinks: Vec<Arc<str>> = configured.chain(self.own.iter().cloned()).collect();
        if sinks.is_empty() {
            return Err(StartError::NoSink.into());
        }
        let routes = Routes::new(&config, sinks.iter())?;
        let gone = old.sinks.iter().map(|sink| &sink.name).filter(|name| !sinks.contains(name));
        let removed_sinks = gone.cloned().collect();
        let stays = |name: &Arc<str>| config.connectors.iter().any(|connector| connector.name == *name);
        let gone = old.connectors.iter().map(|connector| &connector.name).filter(|name| !stays(name));
        let removed_connectors = gone.cloned().collect();
        Ok(Next { config, routes, verifiers, sinks, added, changed, removed_sinks, removed_connectors })
    }
}

/// Checks that no change needs a restart.
///
/// # Errors
///
/// [`ReloadError::NeedsRestart`] with the keys whose new values need a restart.
fn require_no_restart(old: &Config, next: &Config, changes: &[ConfigChange]) -> Result<(), ReloadError> {
    let mut keys: Vec<String> = old.need_restart(changes).into_iter().map(str::to_owned).collect();
    // Dead letters are written with the settings of the first sink of their type.
    let settings = |config: &Config| config.dead_letter_sink().map(|sink| sink.settings.clone());
    if old.dead_letter_place().is_some() && settings(old) != settings(next) {
        keys.push("the sink whose brokers take the dead letters".to_owned());
    }
    if old.listens() != next.listens() {
        keys.push("the first or the last connector: the receiver listens only with one".to_owned());
    }
    if keys.is_empty() { Ok(()) } else { Err(ReloadError::NeedsRestart(keys)) }
}

/// Fetches the keys of new issuers, before the first request needs them.
///
/// # Errors
///
/// [`ReloadError::Keys`] if an issuer does not return keys within 10 s.
async fn fetch_new_keys(live: &Live, known: &HashMap<String, Arc<Keys>>) -> Result<(), ReloadError> {
    for (issuer, keys) in live.keys.iter().filter(|(issuer, _)| !known.contains_key(*issuer)) {
        let _late = tokio::time::timeout(KEYS_TIMEOUT, keys.refresh()).await;
        if keys.set().is_none() {
            let problem = keys.problem().unwrap_or_else(|| format!("keys of {issuer}: no answer in time"));
            return Err(ReloadError::Keys(problem));
        }
    }
    Ok(())
}

/// Returns why a connector counts as in use: it accepted an event less than 12 hours before `now`. `None` if it does not.
/// `last_accepted` is the time of its last accepted event, or 0 if there was none. Both times are in Unix milliseconds.
pub fn in_use_since(last_accepted: i64, now: i64) -> Option<String> {
    let passed = u64::try_from(now.saturating_sub(last_accepted)).unwrap_or(0);
    let is_recent = last_accepted > 0 && Duration::from_millis(passed) < IN_USE;
    is_recent.then(|| format!("it accepted an event {} min ago (less than 12 hours)", passed / 60_000))
}

/// The swapped sinks of a reload: for each one, the old sink, with its name.
#[derive(Default)]
pub struct SwappedSinks(Vec<NamedSink>);

impl SwappedSinks {
    /// Replaces all sinks, or none: after a failure, the old sinks are restored.
    ///
    /// # Errors
    ///
    /// [`ReloadError::Sink`], with the sink that could not be replaced.
    pub fn swap_all(
        sinks: Vec<NamedSink>,
        replace: impl Fn(&str, Box<dyn Sink>) -> Result<Box<dyn Sink>, ReplaceError>,
    ) -> Result<Self, ReloadError> {
        let mut swapped = Self::default();
        for (sink, new) in sinks {
            match replace(&sink, new) {
                Ok(old) => swapped.0.push((sink, old)),
                Err(source) => {
                    swapped.undo(replace);
                    return Err(ReloadError::Sink { sink, source });
                }
            }
        }
        Ok(swapped)
    }

    /// Restores the old sinks in place of the new ones.
    pub fn undo(self, replace: impl Fn(&str, Box<dyn Sink>) -> Result<Box<dyn Sink>, ReplaceError>) {
        for (sink, old) in self.0 {
            if let Err(error) = replace(&sink, old) {
                tracing::error!(sink = &*sink, %error, "a sink could not be restored after a failed reload; restart the server");
            }
        }
    }
}
