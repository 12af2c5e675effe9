//! The state that all connections share: the connectors by path, the intake, and the permits that limit the load. A reload
//! replaces the connectors and the intake while requests are being answered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tokio::sync::Semaphore;

use super::clock_doubt::ClockDoubt;
use super::intake::{Intake, Readiness};
use super::rejection_budget::RejectionBudget;
use super::reply::Reply;
use crate::config::{ConnectorConfig, Limits, Proxies};
use crate::keys::LiveVerifier;
use crate::telemetry::{ConnectorSeries, Telemetry};
use crate::tls::TlsIdentity;
use dt_sink::clock::Clock;
use dt_sink::record::RequestIds;
use dt_verify::Policy;

/// A connector, with the parts that requests on its path use.
pub struct Connector {
    pub(super) intake: Arc<dyn Intake>,
    /// The index of the connector in the configuration, by which the intake identifies it.
    pub(super) index: usize,
    pub(super) name: Arc<str>,
    pub(super) verifier: Arc<LiveVerifier>,
    pub(super) events: BTreeSet<String>,
    pub(super) projects: BTreeSet<String>,
    pub(super) quarantine_refused: bool,
    /// The connector's metrics; `None` until the routing becomes active.
    pub(super) series: Option<ConnectorSeries>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The part of a configuration that requests use: the connectors by path, the intake, limits and proxies. Each request uses
/// one routing from its beginning to its end, even if a reload replaces it meanwhile.
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
    /// Creates a routing. The intake identifies a connector by its index in `connectors`.
    #[must_use]
    pub fn new(connectors: &[ConnectorConfig], limits: Limits, intake: Arc<dyn Intake>) -> Self {
        let by_path = connectors.iter().enumerate().map(|(index, config)| {
            let ConnectorConfig { name, path, verifier, events, projects, quarantine_refused, .. } =
                config.clone();
            let verifier = Arc::new(LiveVerifier::fixed(verifier));
            let intake = Arc::clone(&intake);
            let series = None;
            (path, Connector { intake, index, name, verifier, events, projects, quarantine_refused, series })
        });
        Self { connectors: by_path.collect(), intake, limits, proxies: Proxies::default() }
    }

    /// Sets the proxies whose client-address header is trusted.
    #[must_use]
    pub fn behind(mut self, proxies: Proxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// Replaces the verifiers of the connectors by verifiers whose keys may change. `verifiers` are in the order of the
    /// configuration.
    #[must_use]
    pub fn verified_by(mut self, verifiers: &[Arc<LiveVerifier>]) -> Self {
        for connector in self.connectors.values_mut() {
            if let Some(verifier) = verifiers.get(connector.index) {
                connector.verifier = Arc::clone(verifier);
            }
        }
        self
    }

    /// Registers the metrics of the connectors.
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

/// The Endpoint URL: the state that is needed to answer a request.
pub struct Endpoint {
    routing: RwLock<Arc<Routing>>,
    /// Why the last changed configuration is not active; `None` if it is active.
    config_problem: RwLock<Option<String>>,
    /// What the monitor found at DT, one line for each problem.
    cloud_problems: RwLock<BTreeMap<&'static str, Vec<String>>>,
    pub(super) clock_doubt: ClockDoubt,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) clock: Arc<dyn Clock>,
    /// The limits at the start, which determine the size of the semaphores. The limits that a reload can change are in the
    /// routing.
    pub(super) limits: Limits,
    pub(super) tls: Option<Arc<TlsIdentity>>,
    pub(super) ids: RequestIds,
    pub(super) rejections: RejectionBudget,
    /// The permits for requests with a valid signature, or with one that needs a key that is being fetched.
    pub(super) requests: Semaphore,
    /// The permits for rejected requests while their bodies are read. They are separate, so that rejected requests cannot use up
    /// the permits of valid ones.
    pub(super) unauthenticated: Semaphore,
    /// The permits for the bytes of the bodies of valid requests.
    pub(super) body_bytes: Semaphore,
    /// The permits for the bytes of the bodies of rejected requests, and of requests with an expired token.
    pub(super) unauthenticated_bytes: Semaphore,
    stopping: AtomicBool,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("routing", &self.routing()).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Creates an endpoint with this routing.
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
            cloud_problems: RwLock::default(),
            clock_doubt: ClockDoubt::default(),
            telemetry,
            clock,
            limits,
            tls: None,
            stopping: AtomicBool::new(false),
        }
    }

    /// Sets the certificate for TLS. With `None`, connections are not encrypted.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Arc<TlsIdentity>>) -> Self {
        self.tls = tls;
        self
    }

    /// Returns the active routing.
    pub(super) fn routing(&self) -> Arc<Routing> {
        Arc::clone(&self.routing.read())
    }

    /// Activates another routing, for all requests that start from now on.
    pub fn route_by(&self, routing: Routing) {
        let routing = routing.registered_with(&self.telemetry);
        let before = std::mem::replace(&mut *self.routing.write(), routing);
        // After the lock is released: dropping a routing may take time.
        drop(before);
    }

    /// Sets why the last changed configuration is not active; `None` if it is active.
    pub fn set_config_problem(&self, problem: Option<String>) {
        *self.config_problem.write() = problem;
    }

    fn config_problem(&self) -> Option<String> {
        self.config_problem.read().clone()
    }

    /// Sets the problems with DT's API that one part of the receiver found, such as `monitor`: one line for each. `/readyz` reports
    /// them after the name of the part; they do not make it unready.
    pub fn set_cloud_problems(&self, part: &'static str, problems: Vec<String>) {
        self.cloud_problems.write().insert(part, problems);
    }

    /// Returns the readiness of the whole service, with all known problems.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        if self.is_stopping() {
            return Readiness { ready: false, problems: vec!["shutting down".to_owned()] };
        }
        let Readiness { ready, mut problems } = self.routing().intake.readiness();
        let (keys, are_missing) = self.key_problems();
        if are_missing && keys.is_empty() {
            problems.push("the key set is not fetched yet".to_owned());
        }
        problems.extend(keys);
        problems.extend(self.tls.as_ref().and_then(|tls| tls.problem(self.clock.unix_seconds())));
        problems.extend(self.clock_doubt.problem());
        problems.extend(self.config_problem());
        for (part, found) in &*self.cloud_problems.read() {
            problems.extend(found.iter().map(|problem| format!("{part}: {problem}")));
        }
        Readiness { ready: ready && !are_missing, problems }
    }

    /// Returns the problems of the key sets, and whether a connector can verify no request since it has no keys.
    fn key_problems(&self) -> (Vec<String>, bool) {
        let (mut problems, mut are_missing) = (Vec::new(), false);
        for connector in self.routing().connectors.values() {
            let Some(keys) = connector.verifier.keys() else { continue };
            are_missing |= keys.set().is_none() && connector.verifier.get().policy() != Policy::Either;
            problems.extend(keys.problem());
        }
        problems.sort_unstable();
        problems.dedup();
        (problems, are_missing)
    }

    /// Updates the gauges of the key sets.
    pub(super) fn measure_keys(&self) {
        let routing = self.routing();
        let keys = routing.connectors.values().filter_map(|connector| connector.verifier.keys());
        self.telemetry.key_sets(keys.map(|keys| (keys.issuer(), keys.fetched_at())));
    }

    /// Answers new requests with `shutting_down` from now on.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Returns the number of valid requests that are being answered.
    pub(super) fn in_flight(&self) -> usize {
        self.limits.max_in_flight.saturating_sub(self.requests.available_permits())
    }

    /// Returns whether at least half of the permits are in use. If so, requests are rejected before their bodies are read, so
    /// that permits remain for valid ones.
    pub(super) fn is_busy(&self) -> bool {
        self.requests.available_permits() <= self.limits.max_in_flight / 2
    }
}
