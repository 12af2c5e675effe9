//! Wiring only: opens the sinks, starts their workers, then listens; stops in reverse, each step with a deadline.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConnectorConfig, Mode, SinkConfig, SinkKind, is_name};
use crate::deliver::{DeadLetterError, DeadLetters, Direct, Lane, LaneOptions, Stored, Undelivered};
use crate::http::{Accepted, AdminServer, Endpoint, Intake, IntakeFuture, Server, Unavailable};
use crate::record::{DeadLetter, Record};
use crate::sink::{FileSink, OpenError, Sink, StdoutSink};
use crate::telemetry::Telemetry;

/// How many records may wait for a sink, beyond those that requests in flight wait for.
const QUEUE_SPARE: usize = 4096;
/// How many records a sink is given at once.
const MAX_BATCH: usize = 256;

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("{key} = \"{address}\": {source}")]
    Listen {
        /// The key in the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A sink can never work as configured.
    #[error("sink {name}: {source}")]
    Sink {
        /// The sink's name.
        name: Arc<str>,
        /// What it says.
        source: OpenError,
    },
    /// The folder of dead letters cannot be used.
    #[error("dead letters: {0}; make the folder writable, or name another with `dead_letters` or `data`")]
    DeadLetters(#[from] DeadLetterError),
    /// A connector names a sink that there is not.
    #[error("connector {connector}: there is no sink \"{sink}\"")]
    UnknownSink {
        /// The connector's name.
        connector: Arc<str>,
        /// The name it gives.
        sink: String,
    },
    /// There is no connector.
    #[error("there is no connector")]
    NoConnector,
    /// There is no sink: nothing could be stored.
    #[error("there is no sink; add a [[sink]], or one of your own")]
    NoSink,
    /// A connector names an empty list of sinks: its events would be acknowledged and lost.
    #[error("connector {0}: its list of sinks is empty, so its events would be lost")]
    ConnectorWithoutSink(Arc<str>),
    /// A connector's or a sink's name is not fit for labels and file names.
    #[error("\"{}\" is no name; allowed are 1 to 64 letters, digits, - and _", .0.escape_debug())]
    BadName(Arc<str>),
    /// Two sinks have one name.
    #[error("two sinks are named \"{0}\"")]
    RepeatedSink(Arc<str>),
    /// Two connectors have one name or one path.
    #[error("two connectors have the {key} \"{value}\"")]
    RepeatedConnector {
        /// `name` or `path`.
        key: &'static str,
        /// What both have.
        value: String,
    },
}

/// Collects what a [`Service`] is made of.
///
/// # Examples
///
/// ```no_run
/// use std::path::Path;
///
/// use dt_receiver::config::{Config, SystemSources};
/// use dt_receiver::service::Service;
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::from_file(Path::new("dt-receiver.toml"), &SystemSources)?;
/// let service = Service::builder(config).start().await?;
/// service.run_until(async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await;
/// # Ok(())
/// # }
/// ```
pub struct ServiceBuilder {
    config: Config,
    clock: Arc<dyn Clock>,
    sinks: Vec<NamedSink>,
}

impl std::fmt::Debug for ServiceBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ServiceBuilder {
    /// Adds a sink of your own, beside those of the configuration.
    #[must_use]
    pub fn sink(mut self, name: impl Into<Arc<str>>, sink: impl Sink + 'static) -> Self {
        self.sinks.push((name.into(), Box::new(sink)));
        self
    }

    /// Sets the clock; without it, the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Opens everything and binds the listeners. Nothing is accepted before [`Service::run_until`].
    ///
    /// # Errors
    ///
    /// [`StartError`], when something can never work as configured. A sink that is only down is no reason.
    pub async fn start(self) -> Result<Service, StartError> {
        let Self { config, clock, sinks: own } = self;
        let Mode::Direct = config.mode;
        check_connectors(&config.connectors)?;
        let telemetry = Arc::new(Telemetry::new(Arc::clone(&clock)));
        let dead_letters = Arc::new(DeadLetters::open(config.dead_letter_folder(), Arc::clone(&telemetry))?);
        let options = LaneOptions {
            max_queue: config.limits.max_in_flight.saturating_add(QUEUE_SPARE),
            max_batch: MAX_BATCH,
            window_ids: config.dedup_max,
            window_age: config.dedup_window,
        };
        let mut lanes = Vec::new();
        let mut places: HashMap<Arc<str>, usize> = HashMap::new();
        for (name, sink) in make_sinks(&config.sinks, own)? {
            if !is_name(&name) {
                return Err(StartError::BadName(name));
            }
            if places.insert(Arc::clone(&name), lanes.len()).is_some() {
                return Err(StartError::RepeatedSink(name));
            }
            telemetry.know_sink(&name);
            let parts = (Arc::clone(&clock), Arc::clone(&telemetry), Arc::clone(&dead_letters));
            let lane = Lane::start(Arc::clone(&name), sink, options, parts.0, parts.1, parts.2)
                .map_err(|source| StartError::Sink { name, source })?;
            lanes.push(lane);
        }
        if lanes.is_empty() {
            return Err(StartError::NoSink);
        }
        let remember_any = !config.dedup_window.is_zero();
        let mut routes = Vec::with_capacity(config.connectors.len());
        for connector in &config.connectors {
            let sinks = match &connector.sinks {
                None => (0..lanes.len()).collect(),
                Some(names) => {
                    let place = |name: &String| {
                        places.get(name.as_str()).copied().ok_or_else(|| StartError::UnknownSink {
                            connector: Arc::clone(&connector.name),
                            sink: name.clone(),
                        })
                    };
                    names.iter().map(place).collect::<Result<Vec<_>, _>>()?
                }
            };
            routes.push(Route { sinks, remember: connector.dedup && remember_any });
        }
        let intake = Arc::new(DirectIntake {
            direct: Direct::new(lanes),
            routes,
            dead_letters,
            telemetry: Arc::clone(&telemetry),
        });
        let behind: Arc<dyn Intake> = Arc::clone(&intake) as Arc<dyn Intake>;
        let endpoint =
            Arc::new(Endpoint::new(&config.connectors, config.limits.clone(), behind, telemetry, clock));
        let listener = bind("listen", config.listen).await?;
        let admin = match config.admin {
            Some(address) => Some(bind("admin", address).await?),
            None => None,
        };
        Ok(Service { listener, admin, endpoint, intake, drain_timeout: config.drain_timeout })
    }
}

/// What a configuration that was read from TOML cannot have wrong, but one made in code can.
fn check_connectors(connectors: &[ConnectorConfig]) -> Result<(), StartError> {
    if connectors.is_empty() {
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

/// A sink and its name.
type NamedSink = (Arc<str>, Box<dyn Sink>);

fn make_sinks(configured: &[SinkConfig], own: Vec<NamedSink>) -> Result<Vec<NamedSink>, StartError> {
    let mut sinks = Vec::new();
    for SinkConfig { name, kind, format } in configured {
        let sink: Box<dyn Sink> = match kind {
            SinkKind::Stdout => Box::new(StdoutSink::new(*format).map_err(|error| StartError::Sink {
                name: Arc::clone(name),
                source: OpenError::Unusable(format!("standard output: {error}")),
            })?),
            SinkKind::File { path } => Box::new(FileSink::new(absolute(path), *format)),
        };
        sinks.push((Arc::clone(name), sink));
    }
    sinks.extend(own);
    Ok(sinks)
}

/// Makes the path independent of the working directory, and the errors that show it clear.
fn absolute(path: &PathBuf) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.clone())
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { key, address, source })
}

/// Where a connector's records go.
#[derive(Debug)]
struct Route {
    sinks: Vec<usize>,
    remember: bool,
}

/// The intake of mode `direct`.
#[derive(Debug)]
struct DirectIntake {
    direct: Direct,
    routes: Vec<Route>,
    dead_letters: Arc<DeadLetters>,
    telemetry: Arc<Telemetry>,
}

impl Intake for DirectIntake {
    fn accept(&self, connector: usize, record: Arc<Record>) -> IntakeFuture<'_, Accepted> {
        Box::pin(async move {
            let Some(route) = self.routes.get(connector) else { return Err(Unavailable::Storage) };
            match self.direct.submit(&record, &route.sinks, route.remember).await {
                Ok(Stored::Now) => Ok(Accepted::New),
                Ok(Stored::Before) => Ok(Accepted::Duplicate),
                Err(Undelivered::Overloaded) => Err(Unavailable::Overloaded),
                Err(Undelivered::SinkUnavailable { .. }) => Err(Unavailable::Sink),
                Err(Undelivered::StorageUnavailable { .. }) => Err(Unavailable::Storage),
            }
        })
    }

    fn bury(&self, letter: DeadLetter) -> IntakeFuture<'_, ()> {
        let dead_letters = Arc::clone(&self.dead_letters);
        let work = tokio::task::spawn_blocking(move || dead_letters.bury(&letter));
        Box::pin(async move {
            match work.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(Unavailable::Storage),
            }
        })
    }

    fn trouble(&self) -> Option<String> {
        let sinks = self.direct.lanes().iter();
        let sinks =
            sinks.filter_map(|lane| lane.trouble().map(|trouble| format!("sink {}: {trouble}", lane.name())));
        let letters = self.dead_letters.trouble().map(|trouble| format!("dead letters: {trouble}"));
        let troubles: Vec<String> = sinks.chain(letters).collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    fn measure(&self) {
        for lane in self.direct.lanes() {
            self.telemetry.window_len(lane.name(), lane.window_len());
        }
    }
}

/// A receiver that is ready to listen.
#[derive(Debug)]
pub struct Service {
    listener: TcpListener,
    admin: Option<TcpListener>,
    endpoint: Arc<Endpoint>,
    intake: Arc<DirectIntake>,
    drain_timeout: Duration,
}

impl Service {
    /// Starts a service.
    #[must_use]
    pub fn builder(config: Config) -> ServiceBuilder {
        ServiceBuilder { config, clock: Arc::new(SystemClock), sinks: Vec::new() }
    }

    /// The address on which DT's requests arrive; tells the port where the configuration says 0.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// The address of `/healthz`, `/readyz` and `/metrics`.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until `stop` resolves. Then: accepts no more, finishes what is in flight, lets the sinks finish and
    /// close; all of it within the drain timeout, twice at most.
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        let Self { listener, admin, endpoint, intake, drain_timeout } = self;
        let (stop_public, public_stopped) = watch::channel(false);
        let (stop_admin, admin_stopped) = watch::channel(false);
        let admin = admin.map(|listener| {
            tokio::spawn(AdminServer::new(listener, Arc::clone(&endpoint)).run(admin_stopped))
        });
        let public = tokio::spawn(Server::new(listener, endpoint).run(public_stopped, drain_timeout));
        stop.await;
        tracing::info!("stopping: no new connections; finishing what is in flight");
        // The receivers live in the tasks; both are told, or gone.
        let _told = stop_public.send(true);
        let _ended = public.await;
        // A thread of its own: a runtime that is dropped waits for its blocking tasks, and a sink may hang for ever.
        let (closed, closing) = oneshot::channel();
        let closer = std::thread::Builder::new().name("closing-sinks".to_owned()).spawn(move || {
            for lane in intake.direct.lanes() {
                lane.close();
            }
            for lane in intake.direct.lanes() {
                lane.join();
            }
            // Nobody waits any more if it took too long.
            let _late = closed.send(());
        });
        if let Err(error) = closer {
            tracing::warn!(%error, "the sinks could not be closed");
        }
        if tokio::time::timeout(drain_timeout, closing).await.is_err() {
            tracing::warn!("a sink did not finish in time; what it held was not acknowledged");
        }
        let _told = stop_admin.send(true);
        if let Some(admin) = admin {
            let _ended = admin.await;
        }
        tracing::info!("stopped");
    }
}
