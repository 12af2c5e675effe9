//! What all connections share: the connectors by path, the intake behind them, and the permits that bound the load.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use super::intake::Intake;
use super::refusals::Refusals;
use crate::clock::Clock;
use crate::config::{ConnectorConfig, Limits};
use crate::keys::LiveVerifier;
use crate::record::RequestIds;
use crate::telemetry::Telemetry;
use crate::verify::Policy;

/// A connector as requests meet it.
#[derive(Debug)]
pub struct Connector {
    pub(super) place: usize,
    pub(super) name: Arc<str>,
    pub(super) verifier: Arc<LiveVerifier>,
    pub(super) events: BTreeSet<String>,
    pub(super) projects: BTreeSet<String>,
    pub(super) quarantine_refused: bool,
}

/// The Endpoint URL: everything that a request needs on its way.
pub struct Endpoint {
    connectors: HashMap<String, Connector>,
    pub(super) intake: Arc<dyn Intake>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) limits: Limits,
    pub(super) ids: RequestIds,
    pub(super) refusals: Refusals,
    /// Requests with a signature that holds, or that may hold once a key is fetched.
    pub(super) requests: Semaphore,
    /// Requests that are refused, while something is still waited for. They take no place of the others.
    pub(super) strangers: Semaphore,
    pub(super) body_bytes: Semaphore,
    stopping: AtomicBool,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("connectors", &self.connectors).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Brings connectors and intake together. The intake knows a connector by its place in `connectors`.
    #[must_use]
    pub fn new(
        connectors: &[ConnectorConfig],
        limits: Limits,
        intake: Arc<dyn Intake>,
        telemetry: Arc<Telemetry>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let by_path = connectors.iter().enumerate().map(|(place, config)| {
            telemetry.know_connector(&config.name);
            let ConnectorConfig { name, path, verifier, events, projects, quarantine_refused, .. } =
                config.clone();
            let verifier = Arc::new(LiveVerifier::fixed(verifier));
            (path, Connector { place, name, verifier, events, projects, quarantine_refused })
        });
        Self {
            connectors: by_path.collect(),
            ids: RequestIds::random(),
            refusals: Refusals::new(&limits),
            requests: Semaphore::new(limits.max_in_flight),
            strangers: Semaphore::new(limits.max_in_flight.div_ceil(2)),
            body_bytes: Semaphore::new(limits.max_in_flight_bytes.min(Semaphore::MAX_PERMITS)),
            intake,
            telemetry,
            clock,
            limits,
            stopping: AtomicBool::new(false),
        }
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

    /// What is wrong with the keys, and whether a connector can verify nothing for it.
    pub(super) fn key_troubles(&self) -> (Vec<String>, bool) {
        let (mut troubles, mut is_blind) = (Vec::new(), false);
        for connector in self.connectors.values() {
            let Some(keys) = connector.verifier.keys() else { continue };
            is_blind |= keys.set().is_none() && connector.verifier.get().policy() != Policy::Either;
            troubles.extend(keys.trouble());
        }
        troubles.sort_unstable();
        troubles.dedup();
        (troubles, is_blind)
    }

    pub(super) fn connector(&self, path: &str) -> Option<&Connector> {
        self.connectors.get(path)
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

    /// Whether strangers are turned away before their bodies are read, so that DT's own requests find room.
    pub(super) fn is_busy(&self) -> bool {
        self.requests.available_permits() <= self.limits.max_in_flight / 2
    }
}
