//! What all connections share: the connectors by path, the intake behind them, and the permits that limit the load. The
//! first two can be exchanged while requests are on their way.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tokio::sync::Semaphore;

use super::clock_doubt::ClockDoubt;
use super::intake::Intake;
use super::rejection_budget::RejectionBudget;
use super::reply::Reply;
use crate::config::{ConnectorConfig, Limits, Proxies};
use crate::keys::LiveVerifier;
use crate::telemetry::{ConnectorSeries, Telemetry};
use crate::tls::TlsIdentity;
use dt_sink::clock::Clock;
use dt_sink::record::RequestIds;
use dt_verify::Policy;

/// A connector as requests meet it.
pub struct Connector {
    pub(super) intake: Arc<dyn Intake>,
    pub(super) place: usize,
    pub(super) name: Arc<str>,
    pub(super) verifier: Arc<LiveVerifier>,
    pub(super) events: BTreeSet<String>,
    pub(super) projects: BTreeSet<String>,
    pub(super) quarantine_refused: bool,
    /// From when the routing is in force.
    pub(super) series: Option<ConnectorSeries>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a configuration decides for requests: the connectors by path, and what stores their events. A request reads it
/// once and ends with what it began with, however often it is exchanged meanwhile.
pub struct Routing {
    connectors: HashMap<String, Connector>,
    pub(super) intake: Arc<dyn Intake>,
    pub(super) limits: Limits,
    pub(super) proxies: Proxies,
}

impl fmt::Debug for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routing").field("connectors", &self.connectors).finish_non_exhaustive()
    }
}

impl Routing {
    /// Brings connectors and intake together. The intake knows a connector by its place in `connectors`.
    #[must_use]
    pub fn new(connectors: &[ConnectorConfig], limits: Limits, intake: Arc<dyn Intake>) -> Self {
        let by_path = connectors.iter().enumerate().map(|(place, config)| {
            let ConnectorConfig { name, path, verifier, events, projects, quarantine_refused, .. } =
                config.clone();
            let verifier = Arc::new(LiveVerifier::fixed(verifier));
            let intake = Arc::clone(&intake);
            let series = None;
            (path, Connector { intake, place, name, verifier, events, projects, quarantine_refused, series })
        });
        Self { connectors: by_path.collect(), intake, limits, proxies: Proxies::default() }
    }

    /// Believes these proxies on whose behalf they come.
    #[must_use]
    pub fn behind(mut self, proxies: Proxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// Lets verifiers change their keys: one for each connector, by its place.
    #[must_use]
    pub fn verified_by(mut self, verifiers: &[Arc<LiveVerifier>]) -> Self {
        for connector in self.connectors.values_mut() {
            if let Some(verifier) = verifiers.get(connector.place) {
                connector.verifier = Arc::clone(verifier);
            }
        }
        self
    }

    fn registered_with(mut self, telemetry: &Telemetry) -> Arc<Self> {
        let outcomes = Reply::outcomes();
        telemetry.register_no_connector(&outcomes);
        for connector in self.connectors.values_mut() {
            connector.series = Some(telemetry.register_connector(&connector.name, &outcomes));
        }
        Arc::new(self)
    }

    pub(super) fn connector(&self, path: &str) -> Option<&Connector> {
        self.connectors.get(path)
    }
}

/// The Endpoint URL: everything that a request needs on its way.
pub struct Endpoint {
    routing: RwLock<Arc<Routing>>,
    /// Why a changed configuration is not in force, if one is not.
    config_problem: RwLock<Option<String>>,
    pub(super) clock_doubt: ClockDoubt,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) clock: Arc<dyn Clock>,
    /// Those of the start: the semaphores were made of them. All others are in the routing.
    pub(super) limits: Limits,
    pub(super) tls: Option<Arc<TlsIdentity>>,
    pub(super) ids: RequestIds,
    pub(super) rejections: RejectionBudget,
    /// Requests with a signature that holds, or that may hold once a key is fetched.
    pub(super) requests: Semaphore,
    /// Requests that are refused, while their bodies are waited for. They take no permit of the others.
    pub(super) unauthenticated: Semaphore,
    pub(super) body_bytes: Semaphore,
    /// The bytes of refused requests and of those with old tokens, which take none of the others either.
    pub(super) unauthenticated_bytes: Semaphore,
    stopping: AtomicBool,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("routing", &self.routing()).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint that begins with this routing.
    #[must_use]
    pub fn new(routing: Routing, telemetry: Arc<Telemetry>, clock: Arc<dyn Clock>) -> Self {
        let limits = routing.limits.clone();
        Self {
            ids: RequestIds::random(),
            rejections: RejectionBudget::new(&limits),
            requests: Semaphore::new(limits.max_in_flight.min(Semaphore::MAX_PERMITS)),
            unauthenticated: Semaphore::new(limits.max_in_flight.div_ceil(2).min(Semaphore::MAX_PERMITS)),
            body_bytes: Semaphore::new(limits.max_in_flight_bytes.min(Semaphore::MAX_PERMITS)),
            unauthenticated_bytes: Semaphore::new(limits.unauthenticated_bytes().min(Semaphore::MAX_PERMITS)),
            routing: RwLock::new(routing.registered_with(&telemetry)),
            config_problem: RwLock::new(None),
            clock_doubt: ClockDoubt::default(),
            telemetry,
            clock,
            limits,
            tls: None,
            stopping: AtomicBool::new(false),
        }
    }

    /// Takes connections over TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Arc<TlsIdentity>>) -> Self {
        self.tls = tls;
        self
    }

    /// The routing in force.
    pub(super) fn routing(&self) -> Arc<Routing> {
        Arc::clone(&self.routing.read())
    }

    /// Puts another routing in force, for all requests that come from now on.
    pub fn route_by(&self, routing: Routing) {
        let routing = routing.registered_with(&self.telemetry);
        let before = std::mem::replace(&mut *self.routing.write(), routing);
        // Outside of the lock: what it holds may take a moment to go.
        drop(before);
    }

    /// Says why a changed configuration is not in force; `None` when there is none such.
    pub fn set_config_problem(&self, problem: Option<String>) {
        *self.config_problem.write() = problem;
    }

    pub(super) fn config_problem(&self) -> Option<String> {
        self.config_problem.read().clone()
    }

    /// What is wrong with the keys, and whether a connector can verify nothing for it.
    pub(super) fn key_problems(&self) -> (Vec<String>, bool) {
        let (mut problems, mut is_blind) = (Vec::new(), false);
        for connector in self.routing().connectors.values() {
            let Some(keys) = connector.verifier.keys() else { continue };
            is_blind |= keys.set().is_none() && connector.verifier.get().policy() != Policy::Either;
            problems.extend(keys.problem());
        }
        problems.sort_unstable();
        problems.dedup();
        (problems, is_blind)
    }

    /// Updates the gauges of the key sets.
    pub(super) fn measure_keys(&self) {
        let routing = self.routing();
        let keys = routing.connectors.values().filter_map(|connector| connector.verifier.keys());
        self.telemetry.key_sets(keys.map(|keys| (keys.issuer(), keys.fetched_at())));
    }

    /// From now on, new requests are answered `shutting_down`.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.limits.max_in_flight.saturating_sub(self.requests.available_permits())
    }

    /// Whether refused requests are answered before their bodies are read, so that authentic ones find room.
    pub(super) fn is_busy(&self) -> bool {
        self.requests.available_permits() <= self.limits.max_in_flight / 2
    }
}
