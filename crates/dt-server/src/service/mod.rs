//! Connects the modules of the server: opens the store of events, starts the sinks' workers, then listens. Stops in reverse
//! order, each step with a deadline. Each mode has its own store: `spooled.rs` and `direct.rs`.

mod certificate;
mod direct;
mod reload;
mod routes;
mod sinks;
mod spool_reload;
mod spooled;
mod verifiers;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::cloud::store::CloudStore;
use crate::cloud::{Cloud, CloudParts, CloudStartError, LogAccess, MissingSender};
use crate::config::{Config, ConnectorConfig, Listen, Mode, is_name};
use crate::http::{AdminServer, Endpoint, Inherited, Intake, Listener, Routing, Server};
use crate::keys::{BadIssuer, LiveVerifier};
use crate::sink::{OpenError, Sink};
use crate::spool_admin::NEWEST_SINK;
use crate::telemetry::Telemetry;
use crate::tls::TlsError;
use dt_log::LogError;
use dt_sink::clock::{Clock, SystemClock};

use certificate::Certificate;
use reload::{Next, Ready, Reloadable, Reloader};
pub use reload::{ReloadError, ReloadHandle};
use routes::Routes;
use sinks::{NamedSink, make_sinks};
use verifiers::live_verifiers;

/// The time that a stop waits for sinks to close, after the drain timeout.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The service cannot listen on an address or a socket.
    #[error("{key} = \"{listen}\": {source}")]
    Listen {
        /// The key in the configuration that names the address.
        key: &'static str,
        /// The address or socket that cannot be listened on.
        listen: Listen,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error("tls.{}: {}", .0.key(), .0)]
    Tls(#[from] TlsError),
    /// A sink can never work with its settings.
    #[error("sink {name}: {source}")]
    Sink {
        /// The sink's name.
        name: Arc<str>,
        /// Why the sink cannot work.
        source: OpenError,
    },
    /// Keys cannot be fetched from the issuer of a connector.
    #[error("connector {connector}: issuer: {source}")]
    Issuer {
        /// The connector's name.
        connector: Arc<str>,
        /// The error in the issuer's URL.
        source: BadIssuer,
    },
    /// The destination of dead letters cannot be used.
    #[error("dead_letters: {0}")]
    DeadLetters(String),
    /// The log cannot be used.
    #[error("spool: {0}")]
    Log(#[from] LogError),
    /// The monitor cannot start.
    #[error(transparent)]
    Cloud(#[from] CloudStartError),
    /// A sink that was removed from the configuration still has undelivered events.
    #[error(
        "sink {sink}: it is not in the configuration any more, and {events} events are yet to be delivered to it; \
         put it back, or discard them with `dt-receiver spool forget {sink} --yes`"
    )]
    Owed {
        /// The sink's name.
        sink: Arc<str>,
        /// The number of its undelivered events.
        events: u64,
    },
    /// A connector names a sink that is not configured.
    #[error("connector {connector}: there is no sink \"{sink}\"")]
    UnknownSink {
        /// The connector's name.
        connector: Arc<str>,
        /// The name of the sink that is not configured.
        sink: String,
    },
    /// A sink panicked while it was opened.
    #[error("a sink panicked while it was opened")]
    Panicked,
    /// Neither a connector nor a source is configured.
    #[error("there is no connector and no source")]
    NoConnector,
    /// No sink is configured, so that no event could be delivered.
    #[error("there is no sink; add a [[sink]], or one of your own")]
    NoSink,
    /// A connector has an empty list of sinks, so that its events would be acknowledged and lost.
    #[error("connector {0}: its list of sinks is empty, so its events would be lost")]
    ConnectorWithoutSink(Arc<str>),
    /// The name of a connector or a sink cannot be used in labels and file names.
    #[error("\"{}\" is no name; expected 1 to 64 letters, digits, - and _", .0.escape_debug())]
    BadName(Arc<str>),
    /// Two sinks have one name.
    #[error("two sinks are named \"{0}\"")]
    RepeatedSink(Arc<str>),
    /// Two connectors have one name or one path.
    #[error("two connectors have the {key} \"{value}\"")]
    RepeatedConnector {
        /// The key with the common value: `name` or `path`.
        key: &'static str,
        /// The value that both connectors have.
        value: String,
    },
}

/// Builds a [`Service`] from a configuration. An embedder can add its own sinks, a clock and inherited sockets.
///
/// # Examples
///
/// ```no_run
/// use std::path::Path;
///
/// use dt_server::config::{Config, SystemSources};
/// use dt_server::service::Service;
/// use dt_server::sink::standard_types;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::from_file(Path::new("dt-receiver.toml"), &SystemSources, &standard_types())?;
/// let service = Service::builder(config).start().await?;
/// service.run_until(async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await;
/// # Ok(())
/// # }
/// ```
pub struct ServiceBuilder {
    config: Config,
    clock: Arc<dyn Clock>,
    sinks: Vec<NamedSink>,
    inherited: Inherited,
    time_scale: u32,
}

impl fmt::Debug for ServiceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ServiceBuilder {
    /// Adds a sink of the embedder, in addition to those of the configuration.
    #[must_use]
    pub fn sink(mut self, name: impl Into<Arc<str>>, sink: impl Sink + 'static) -> Self {
        self.sinks.push((name.into(), Box::new(sink)));
        self
    }

    /// Sets the clock. The default is the system clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Says that the clock is so many times as fast as real time, for tests of the monitor: its tasks then look at the clock more
    /// often. The default is 1.
    #[must_use]
    pub const fn time_scale(mut self, scale: u32) -> Self {
        self.time_scale = scale;
        self
    }

    /// Sets the sockets that systemd opened, for `listen = "systemd"`.
    #[must_use]
    pub fn inherited(mut self, inherited: Inherited) -> Self {
        self.inherited = inherited;
        self
    }

    /// Opens the store and the sinks, and binds the listeners. No connection is accepted before [`Service::run_until`].
    ///
    /// # Errors
    ///
    /// [`StartError`] if a part can never work as configured. A sink that is down is not an error.
    pub async fn start(self) -> Result<Service, StartError> {
        let Self { mut config, clock, sinks: mut own, mut inherited, time_scale } = self;
        check_connectors(&config)?;
        config.drop_unbounded_copies();
        let telemetry = Arc::new(Telemetry::new(Arc::clone(&clock)));
        let certificate = match config.tls.clone() {
            Some(settings) => Some(Arc::new(Certificate::load(settings, &clock, &telemetry)?)),
            None => None,
        };
        let (for_cloud, its_clock) = (config.clone(), Arc::clone(&clock));
        let opened = tokio::task::spawn_blocking(move || CloudParts::open(&for_cloud, &its_clock)).await;
        let cloud = opened.map_err(|_| StartError::Panicked)??;
        own.extend(cloud.as_ref().and_then(CloudParts::sink).map(|sink| (Arc::from(NEWEST_SINK), sink)));
        let own_names = own.iter().map(|(name, _)| Arc::clone(name)).collect();
        let sinks = make_sinks(&config, own, &telemetry)?;
        if sinks.iter().all(|(name, _)| **name == *NEWEST_SINK) {
            return Err(StartError::NoSink);
        }
        for (name, _) in &sinks {
            telemetry.register_sink(name);
        }
        let live = live_verifiers(&config, &HashMap::new(), &clock, &telemetry)?;
        let routes = Routes::new(&config, sinks.iter().map(|(name, _)| name))?;
        let parts = Parts {
            config: config.clone(),
            clock: Arc::clone(&clock),
            telemetry: Arc::clone(&telemetry),
            routes,
            sinks,
            verifiers: live.verifiers.clone(),
            missing: cloud.as_ref().and_then(|cloud| cloud.missing.clone()),
            cloud_store: cloud.as_ref().and_then(CloudParts::filled_store),
        };
        // Opening blocks: it recovers the log after a crash.
        let opened = tokio::task::spawn_blocking(move || open_store(parts)).await;
        let (store, intake) = opened.map_err(|_| StartError::Panicked)??;
        let routing = Routing::new(&config.connectors, config.limits.clone(), intake);
        let routing = routing.verified_by(&live.verifiers).behind(config.proxies.clone());
        let endpoint = Endpoint::new(routing, Arc::clone(&telemetry), Arc::clone(&clock));
        let tls = certificate.as_ref().map(|certificate| certificate.identity());
        let endpoint = Arc::new(endpoint.with_tls(tls));
        let mut bind = |key: &'static str, listen: Listen| {
            let bound = Listener::bind(&listen, config.socket_mode, &mut inherited);
            bound.map_err(|source| StartError::Listen { key, listen, source })
        };
        let mut listeners = || {
            // Without a connector, there is nothing that DT could reach.
            let listener = match config.listens() {
                true => Some(bind("listen", config.listen.clone())?),
                false => None,
            };
            let admin = match config.admin.clone() {
                Some(listen) => Some(bind("admin", listen)?),
                None => None,
            };
            Ok((listener, admin))
        };
        let (listener, admin) = match listeners() {
            Ok(bound) => bound,
            Err(error) => {
                // The workers already run; without this they would keep the spool's folder locked.
                let _closed = tokio::task::spawn_blocking(move || store.close(Duration::ZERO)).await;
                return Err(error);
            }
        };
        let cloud = cloud.map(|parts| {
            let (endpoint, log) = (Arc::clone(&endpoint), store.log_access());
            Arc::new(Cloud::new(parts, endpoint, log, Arc::clone(&telemetry), time_scale))
        });
        let parts = Reloadable {
            endpoint: Arc::clone(&endpoint),
            store: Arc::clone(&store),
            certificate: certificate.clone(),
            cloud: cloud.clone(),
        };
        let reloader = Reloader::new(config, live.keys, own_names, parts, telemetry, clock);
        Ok(Service { listener, admin, endpoint, store, certificate, cloud, reloader: Arc::new(reloader) })
    }
}

/// Checks the connectors. A configuration that was read from TOML always passes; one that was built in code may not.
fn check_connectors(config: &Config) -> Result<(), StartError> {
    let Config { connectors, sources, .. } = config;
    if connectors.is_empty() && sources.is_empty() {
        return Err(StartError::NoConnector);
    }
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for ConnectorConfig { name, path, sinks, .. } in connectors {
        if !is_name(name) {
            return Err(StartError::BadName(Arc::clone(name)));
        }
        if sinks.as_ref().is_some_and(Vec::is_empty) {
            return Err(StartError::ConnectorWithoutSink(Arc::clone(name)));
        }
        for (key, value, seen) in [("name", &**name, &mut names), ("path", &**path, &mut paths)] {
            if !seen.insert(value) {
                return Err(StartError::RepeatedConnector { key, value: value.to_owned() });
            }
        }
    }
    Ok(())
}

/// The store of events in one mode.
trait Store: fmt::Debug + Send + Sync {
    /// Prepares the store for another configuration. Blocks.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]; in this case, nothing has changed.
    fn prepare(&self, next: Next) -> Result<Ready, ReloadError>;

    /// Returns the log for the back-fill; `None` if there is none, or if missed events are not fetched.
    fn log_access(&self) -> Option<LogAccess>;

    /// Waits up to `drain` for the sinks to finish, then closes the store. Blocks.
    fn close(&self, drain: Duration);
}

/// A store, and the intake of its first configuration.
type Opened = (Arc<dyn Store>, Arc<dyn Intake>);

/// The arguments for opening a store.
struct Parts {
    config: Config,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
    routes: Routes,
    sinks: Vec<NamedSink>,
    verifiers: Vec<Arc<LiveVerifier>>,
    /// Notes the events that could not be stored.
    missing: Option<MissingSender>,
    /// The database that the internal sink keeps up to date.
    cloud_store: Option<Arc<CloudStore>>,
}

fn open_store(parts: Parts) -> Result<Opened, StartError> {
    match parts.config.mode {
        Mode::Direct => direct::DirectStore::open(parts),
        Mode::Spool => spooled::SpoolStore::open(parts),
    }
}

/// A receiver whose listeners are bound, and which is ready to serve.
#[derive(Debug)]
pub struct Service {
    /// The listener for DT's requests; `None` without a connector.
    listener: Option<Listener>,
    admin: Option<Listener>,
    endpoint: Arc<Endpoint>,
    store: Arc<dyn Store>,
    certificate: Option<Arc<Certificate>>,
    cloud: Option<Arc<Cloud>>,
    reloader: Arc<Reloader>,
}

impl Service {
    /// Starts a service.
    #[must_use]
    pub fn builder(config: Config) -> ServiceBuilder {
        ServiceBuilder {
            config,
            clock: Arc::new(SystemClock),
            sinks: Vec::new(),
            inherited: Inherited::none(),
            time_scale: 1,
        }
    }

    /// Returns the address that receives DT's requests, with the actual port if the configured port is 0. `None` for a Unix
    /// socket, or if there is no connector.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.as_ref().and_then(Listener::address)
    }

    /// Returns the address of `/healthz`, `/readyz` and `/metrics`; `None` for a Unix socket, or if `admin` is off.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(Listener::address)
    }

    /// Returns the listener that receives DT's requests; `None` if there is no connector.
    #[must_use]
    pub const fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Returns the listener of `/healthz`, `/readyz` and `/metrics`; `None` if `admin` is off.
    #[must_use]
    pub const fn admin_listener(&self) -> Option<&Listener> {
        self.admin.as_ref()
    }

    /// Returns a handle that changes the configuration while the service runs.
    #[must_use]
    pub fn reload_handle(&self) -> ReloadHandle {
        ReloadHandle(Arc::clone(&self.reloader))
    }

    /// Serves until `stop` resolves. Then accepts no more connections, finishes the requests in flight, and lets the sinks
    /// finish and close. This takes at most twice the drain timeout.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        let Self { listener, admin, endpoint, store, certificate, cloud, reloader } = self;
        // Listening does not wait for the issuers' keys; a request that needs a key does.
        reloader.run().await;
        // The task ends when the set is dropped.
        let mut watching = tokio::task::JoinSet::new();
        if let Some(certificate) = certificate {
            watching.spawn(async move { certificate.keep_fresh().await });
        }
        let cloud = cloud.and_then(|cloud| cloud.start());
        let (stop_public, public_stopped) = watch::channel(false);
        let (stop_admin, admin_stopped) = watch::channel(false);
        let admin = admin.map(|listener| {
            tokio::spawn(AdminServer::new(listener, Arc::clone(&endpoint)).run(admin_stopped))
        });
        // The drain timeout is read at the stop, since a reload may change it.
        let mut public = tokio::spawn(async move {
            if let Some(listener) = listener {
                Server::new(listener, endpoint).run(public_stopped, Duration::MAX).await;
            }
        });
        stop.await;
        if let Some(cloud) = cloud {
            cloud.stop().await;
        }
        let drain_timeout = reloader.drain_timeout();
        tracing::info!("stopping: no new connections; finishing what is in flight");
        // It fails only if the task has ended.
        let _sent = stop_public.send(true);
        let drained = async {
            if tokio::time::timeout(drain_timeout, &mut public).await.is_err() {
                // This closes the remaining connections.
                public.abort();
                let _ended = public.await;
            }
        };
        tokio::join!(drained, reloader.stop(drain_timeout));
        // A separate thread: a runtime that is dropped waits for its blocking tasks, and a sink may hang for ever.
        let (closed, closing) = oneshot::channel();
        let closer = std::thread::Builder::new().name("closing-sinks".to_owned()).spawn(move || {
            store.close(drain_timeout);
            // It fails only if the timeout below has passed.
            let _late = closed.send(());
        });
        if let Err(error) = closer {
            tracing::warn!(%error, "the sinks could not be closed");
        }
        // A sink may need a little longer than the drain timeout to stop.
        if tokio::time::timeout(drain_timeout.saturating_add(CLOSE_GRACE), closing).await.is_err() {
            tracing::warn!("a sink did not finish in time; what it held is tried again after the next start");
        }
        let _sent = stop_admin.send(true);
        if let Some(admin) = admin {
            let _ended = admin.await;
        }
        tracing::info!("stopped");
    }
}
