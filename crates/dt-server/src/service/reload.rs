//! A changed configuration is put in force while the service runs: all of it or nothing, without dropping a request.
//!
//! Everything that can fail comes first, in this order: the text and its secrets, what needs a restart, new keys, what is
//! in use and would be removed, new sinks, changed sinks. A failure undoes what was begun. Then the routing is exchanged
//! in one step: requests on their way end with the one they began with. What was removed leaves last, once it has had
//! all that was accepted for it. One reload runs at a time. What an operator sees of it is in `docs/reload.md`.

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
use crate::config::{Config, ConfigChange, ConfigError, SinkConfig};
use crate::deliver::ReplaceError;
use crate::http::{Endpoint, Intake, Routing};
use crate::keys::{Keys, LiveVerifier};
use crate::sink::Sink;
use crate::telemetry::{ConfigChanged, ConfigRefused, ConfigReloaded, Telemetry};
use crate::tls::Prepared;
use dt_log::LogError;
use dt_sink::clock::Clock;

/// How long reading the configuration may take: a file may be a pipe that nobody writes to.
const READ_TIME: Duration = Duration::from_secs(30);
/// How long a new issuer of keys may take to answer.
const KEYS_TIME: Duration = Duration::from_secs(10);
/// How long a changed sink is waited for.
pub(super) const SINK_TIME: Duration = Duration::from_secs(15);
/// How long a removed sink may take to get what was accepted until now. Longer is a backlog.
pub(super) const CATCH_UP_TIME: Duration = Duration::from_secs(5);
/// How long ago a connector must have accepted its last event to be removed: as long as DT tries.
const IN_USE: Duration = Duration::from_secs(12 * 3600);
/// How many things the audit names one by one.
const MAX_AUDITED: usize = 1000;
/// The most text of an error that logs and `/readyz` show.
const MAX_ERROR: usize = 2000;

/// Why a changed configuration is not put in force. The old one stays, as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// It cannot be read, or it is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// It cannot be read in time.
    #[error("reading it takes more than {} s; is one of its files a pipe?", READ_TIME.as_secs())]
    TooSlow,
    /// Something is changed that is made at the start.
    #[error("{}: {}", .0.join(", "), if .0.len() == 1 { "needs a restart" } else { "need a restart" })]
    NeedsRestart(Vec<String>),
    /// It would not start.
    #[error("{0}")]
    Start(#[from] StartError),
    /// A connector would be removed that is in use.
    #[error(
        "connector {connector}: it is removed or renamed, but {reason}; a restart takes that deliberately"
    )]
    ConnectorInUse {
        /// The connector's name.
        connector: Arc<str>,
        /// What shows that it is in use.
        reason: String,
    },
    /// A sink would be removed that has not had everything.
    #[error(
        "sink {sink}: it is removed or renamed, but {records} events are yet to be delivered to it; let it drain, or give \
         them up with `dt-receiver spool forget {sink} --yes`"
    )]
    Backlog {
        /// The sink's name.
        sink: Arc<str>,
        /// How many events it has yet to get.
        records: u64,
    },
    /// A sink comes back before it has gone.
    #[error(
        "sink {0}: it was removed just now, and still gets what was accepted for it; try again once it has it"
    )]
    Leaving(Arc<str>),
    /// A sink cannot be exchanged for the one that is configured now.
    #[error("sink {sink}: {source}")]
    Sink {
        /// The sink's name.
        sink: Arc<str>,
        /// What is wrong.
        source: ReplaceError,
    },
    /// An issuer of keys that is new cannot be asked.
    #[error("{0}; without its keys nothing could be verified")]
    Keys(String),
    /// The log cannot be used.
    #[error("spool: {0}")]
    Log(#[from] LogError),
    /// The service stops.
    #[error("the service stops")]
    Stopping,
}

impl ReloadError {
    /// What became of it, in one word: `invalid`, `needs_restart` or `refused`. Metrics and logs say so.
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
    /// Reads a configuration with `read`, and puts it in force, all or nothing. `who` asked for it, for the audit. Gives
    /// what is different; nothing, when nothing is. Sinks of the embedder's own stay as they are.
    ///
    /// Reloads run one after another, and to their end, also when the future is dropped.
    ///
    /// # Errors
    ///
    /// [`ReloadError`], when the old configuration stays in force. Log, metrics and `/readyz` tell so as well.
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

/// What the store is to go on with.
pub(super) struct Next {
    pub(super) config: Config,
    pub(super) routes: Routes,
    pub(super) verifiers: Vec<Arc<LiveVerifier>>,
    /// All sinks, in the order of the routes.
    pub(super) sinks: Vec<Arc<str>>,
    pub(super) added: Vec<NamedSink>,
    pub(super) changed: Vec<NamedSink>,
    pub(super) removed_sinks: Vec<Arc<str>>,
    pub(super) removed_connectors: Vec<Arc<str>>,
}

/// What the store goes on with: nothing that follows can fail.
pub(super) struct Ready {
    /// For the requests that come from now on.
    pub(super) intake: Arc<dyn Intake>,
    /// To be called once those are routed to it.
    pub(super) finish: Box<dyn FnOnce() + Send>,
}

/// The parts of the service that a reload changes.
pub(super) struct Reloadable {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) store: Arc<dyn Store>,
    pub(super) certificate: Option<Arc<Certificate>>,
}

/// Everything that a reload needs of the service.
pub(super) struct Reloader {
    /// Held by the reload that runs.
    current: tokio::sync::Mutex<Current>,
    parts: Reloadable,
    telemetry: Arc<Telemetry>,
    clock: Arc<dyn Clock>,
    /// The sinks that an embedder added.
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

/// What is in force.
struct Current {
    config: Config,
    keys: HashMap<String, Arc<Keys>>,
}

/// Who asks the issuers of keys, once the service runs.
#[derive(Default)]
struct Fetching {
    runs: bool,
    tasks: HashMap<String, AbortHandle>,
}

impl Reloader {
    /// Begins with what is in force. `own` are the sinks that an embedder added.
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

    pub(super) fn drain_timeout(&self) -> Duration {
        *self.drain_timeout.lock()
    }

    /// The service runs: issuers are asked for their keys from now on.
    pub(super) async fn run(&self) {
        self.fetching.lock().runs = true;
        self.fetch(&self.current.lock().await.keys);
    }

    /// The service stops: no reload begins any more, and one that runs is waited for, but not for long.
    pub(super) async fn stop(&self, patience: Duration) {
        self.stopping.store(true, Ordering::SeqCst);
        {
            let mut fetching = self.fetching.lock();
            // The reload that runs must not begin to ask again.
            fetching.runs = false;
            fetching.tasks.drain().for_each(|(_, task)| task.abort());
        }
        let _late = tokio::time::timeout(patience, self.current.lock()).await;
    }

    /// Asks these issuers, and no others any more.
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
            // Whoever is told by log or metrics asks for readiness next, so that knows it first.
            Ok(changes) => {
                self.parts.endpoint.set_config_problem(None);
                for ConfigChange { key, how, values, .. } in changes.iter().take(MAX_AUDITED) {
                    let values = values.as_ref().map(|(from, to)| (from.as_str(), to.as_str()));
                    self.telemetry.emit(&ConfigChanged { who, key, change: how.name(), values });
                }
                self.telemetry.emit(&ConfigReloaded { who, changes: changes.len() });
            }
            // Nobody asks for readiness any more.
            Err(ReloadError::Stopping) => {}
            Err(error) => {
                let text: String = error.to_string().chars().take(MAX_ERROR).collect();
                let trouble = format!("the configuration was not taken: {text}");
                self.parts.endpoint.set_config_problem(Some(trouble));
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
        let read = tokio::time::timeout(READ_TIME, tokio::task::spawn_blocking(read)).await;
        let mut config = read.map_err(|_| ReloadError::TooSlow)?.map_err(|_| StartError::Panicked)??;
        config.drop_unbounded_copies();
        if let Some(certificate) = &self.parts.certificate {
            // Its files may have changed under the same names. What is wrong with them then is told by themselves.
            certificate.look_soon();
        }
        let changes = current.config.changes_to(&config);
        if changes.is_empty() {
            return Ok(changes);
        }
        needs_no_restart(&current.config, &config, &changes)?;
        check_connectors(&config.connectors)?;
        let live = live_verifiers(&config, &current.keys, &self.clock, &self.telemetry)?;
        let certificate = self.prepare_certificate(&current.config, &config).await?;
        ask_new_issuers(&live, &current.keys).await?;
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
            certificate.put(prepared);
        }
        // It wakes and notes, and may wait for a place in a queue; what it removes goes in its own time.
        let _finished = tokio::task::spawn_blocking(finish).await;
        self.fetch(&live.keys);
        *self.drain_timeout.lock() = config.drain_timeout;
        // A sink's metrics go when its worker does.
        removed.iter().for_each(|connector| self.telemetry.unregister_connector(connector));
        *current = Current { config, keys: live.keys };
        Ok(changes)
    }

    /// Reads the certificate that other settings name; `None` where they are the same.
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

    /// Makes what is new, and names what goes.
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

fn needs_no_restart(old: &Config, next: &Config, changes: &[ConfigChange]) -> Result<(), ReloadError> {
    let mut keys: Vec<String> = old.need_restart(changes).into_iter().map(str::to_owned).collect();
    // The dead letters have a producer of their own, by the settings of the first such sink.
    let settings = |config: &Config| config.dead_letter_sink().map(|sink| sink.settings.clone());
    if old.dead_letter_place().is_some() && settings(old) != settings(next) {
        keys.push("the sink whose brokers take the dead letters".to_owned());
    }
    if keys.is_empty() { Ok(()) } else { Err(ReloadError::NeedsRestart(keys)) }
}

/// Has the keys of new issuers before any request needs them.
async fn ask_new_issuers(live: &Live, known: &HashMap<String, Arc<Keys>>) -> Result<(), ReloadError> {
    for (issuer, keys) in live.keys.iter().filter(|(issuer, _)| !known.contains_key(*issuer)) {
        let _asked = tokio::time::timeout(KEYS_TIME, keys.refresh()).await;
        if keys.set().is_none() {
            let problem = keys.problem().unwrap_or_else(|| format!("keys of {issuer}: no answer in time"));
            return Err(ReloadError::Keys(problem));
        }
    }
    Ok(())
}

/// Why a connector counts as in use: when it accepted an event last, in Unix milliseconds.
pub(super) fn in_use_since(last_accepted: i64, now: i64) -> Option<String> {
    let passed = u64::try_from(now.saturating_sub(last_accepted)).unwrap_or(0);
    let is_recent = last_accepted > 0 && Duration::from_millis(passed) < IN_USE;
    is_recent.then(|| format!("it accepted an event {} min ago (less than 12 hours)", passed / 60_000))
}

/// Sinks that have taken the places of others, until all have.
#[derive(Default)]
pub(super) struct Exchanged(Vec<NamedSink>);

impl Exchanged {
    /// Exchanges all sinks, or none: after a failure those that were exchanged get their old ones back.
    pub(super) fn all(
        sinks: Vec<NamedSink>,
        replace: impl Fn(&str, Box<dyn Sink>) -> Result<Box<dyn Sink>, ReplaceError>,
    ) -> Result<Self, ReloadError> {
        let mut exchanged = Self::default();
        for (sink, new) in sinks {
            match replace(&sink, new) {
                Ok(old) => exchanged.0.push((sink, old)),
                Err(source) => {
                    exchanged.undo(replace);
                    return Err(ReloadError::Sink { sink, source });
                }
            }
        }
        Ok(exchanged)
    }

    /// Puts the old ones back.
    pub(super) fn undo(self, replace: impl Fn(&str, Box<dyn Sink>) -> Result<Box<dyn Sink>, ReplaceError>) {
        for (sink, old) in self.0 {
            if let Err(error) = replace(&sink, old) {
                tracing::error!(sink = &*sink, %error, "a sink is not what it was before the reload; restart");
            }
        }
    }
}
