//! What all connections share: the connectors by path, the intake behind them, and the permits that bound the load.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use super::intake::Intake;
use crate::clock::Clock;
use crate::config::{ConnectorConfig, Limits};
use crate::telemetry::Telemetry;
use crate::verify::Verifier;

/// A connector as requests meet it.
#[derive(Debug)]
pub struct Connector {
    pub(super) place: usize,
    pub(super) name: Arc<str>,
    pub(super) verifier: Verifier,
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
    pub(super) requests: Semaphore,
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
            (path, Connector { place, name, verifier, events, projects, quarantine_refused })
        });
        Self {
            connectors: by_path.collect(),
            requests: Semaphore::new(limits.max_in_flight),
            body_bytes: Semaphore::new(limits.max_in_flight_bytes.min(Semaphore::MAX_PERMITS)),
            intake,
            telemetry,
            clock,
            limits,
            stopping: AtomicBool::new(false),
        }
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
        self.requests.available_permits() < self.limits.max_in_flight / 2
    }
}
