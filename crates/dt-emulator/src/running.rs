//! A running emulator: its addresses, its REST API without a network, its ledger, and its shutdown.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::EmulatorBuilder;
use super::api::{self, Answer, ApiError, Call};
use super::builder::EmulatorError;
use super::cloud::Cloud;
use super::engine::LedgerEntry;
use super::faults::{FaultError, Faults};
use super::state::{HistoryEvent, Now, StateFile, document};
use dt_verify::event::rfc3339_micros;

/// The interval at which a changed state is saved.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// An error response of DT's REST API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {text}")]
#[non_exhaustive]
pub struct CallError {
    /// The HTTP status.
    pub status: u16,
    /// The member `error` of the response.
    pub text: String,
}

impl From<ApiError> for CallError {
    fn from(error: ApiError) -> Self {
        Self { status: error.status.as_u16(), text: error.text }
    }
}

/// A running emulator of DT's cloud. Dropping it stops it; [`shutdown`](Self::shutdown) also saves its state.
pub struct Emulator {
    address: SocketAddr,
    root: String,
    cloud: Arc<Cloud>,
    file: Option<Arc<StateFile>>,
    tasks: Tasks,
}

/// The tasks of an emulator. They end when they are stopped or dropped.
pub(super) struct Tasks {
    stop: watch::Sender<bool>,
    running: JoinSet<()>,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self { stop: watch::Sender::new(false), running: JoinSet::new() }
    }

    /// Spawns a task, which has to end once the value of its receiver is `true`.
    pub(super) fn spawn<F>(&mut self, task: impl FnOnce(watch::Receiver<bool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.running.spawn(task(self.stop.subscribe()));
    }

    /// Stops all tasks and waits for their end.
    async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.running.join_next().await.is_some() {}
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Emulator({})", self.address)
    }
}

impl Emulator {
    pub(super) fn new(
        (address, root): (SocketAddr, String),
        cloud: Arc<Cloud>,
        file: Option<StateFile>,
        mut tasks: Tasks,
    ) -> Self {
        let file = file.map(Arc::new);
        if let Some(file) = &file {
            tasks.spawn(|stop| save_regularly(Arc::clone(&cloud), Arc::clone(file), stop));
        }
        Self { address, root, cloud, file, tasks }
    }

    /// Returns the default configuration.
    #[must_use]
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder::default()
    }

    /// Returns the address that the emulator listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the root URL of the emulator, such as `http://127.0.0.1:8081`, or its [public URL](EmulatorBuilder::public_url) if
    /// one is configured.
    #[must_use]
    pub fn url(&self) -> String {
        self.root.clone()
    }

    /// Returns the base URL of the REST and emulator APIs, with `/v2` as DT's Python client expects it.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("{}/v2", self.url())
    }

    /// Returns the URL of the token endpoint (RFC 7523).
    #[must_use]
    pub fn token_endpoint(&self) -> String {
        format!("{}/oauth2/token", self.url())
    }

    /// Returns `iss` of `DT-Asymmetric-Signature`. Its discovery document is at `/.well-known/openid-configuration` below it.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("{}/data-connector", self.url())
    }

    /// Returns the JWK set (RFC 7517) that verifies `DT-Asymmetric-Signature`, as JSON text.
    #[must_use]
    pub fn jwks(&self) -> String {
        self.cloud.keys.lock().jwks().to_string()
    }

    /// Creates a key, which signs from now on, and returns its `kid`.
    ///
    /// # Errors
    ///
    /// Returns [`EmulatorError::NoKey`] if the system has no random numbers.
    pub fn rotate_key(&self) -> Result<String, EmulatorError> {
        self.cloud.keys.lock().rotate().map_err(|_| EmulatorError::NoKey)
    }

    /// Calls the REST API without network and credentials, with a method, a path such as `/v2/projects/p/devices`, and a body
    /// (`null` for an empty one).
    ///
    /// # Errors
    ///
    /// Returns [`CallError`] if the REST API answers with an error. A call that opens a stream is answered 400.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, CallError> {
        let bad = |text: &str| ApiError::bad_request(text);
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| bad("not an HTTP method"))?;
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let (path, query) = (path.to_owned(), query.to_owned());
        let call =
            Call { method, path, query, headers: HeaderMap::new(), authority: None, body, trusted: true };
        match api::answer(&self.cloud, &call)? {
            Answer::Json(value, _) => Ok(value),
            Answer::Stream(_) => Err(bad("a stream needs a connection").into()),
        }
    }

    /// Sets all faults.
    ///
    /// # Errors
    ///
    /// Returns [`FaultError`] if a share is not from 0 to 1, or the burst is too large.
    pub fn set_faults(&self, mut faults: Faults) -> Result<(), FaultError> {
        faults.check()?;
        self.cloud.publishing(|state, now, published| {
            let burst = std::mem::take(&mut faults.burst);
            state.set_faults(faults, now);
            if burst > 0 {
                let _any = super::heartbeat::burst(state, burst, now, published);
            }
        });
        Ok(())
    }

    /// Returns the delivery status of the newest events for every connector, oldest first. The number of entries is limited
    /// ([`EmulatorBuilder::ledger_entries`]).
    #[must_use]
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        self.cloud.with_state(|state, _| state.ledger.entries().collect())
    }

    /// Returns the events of the history in the order in which they were published, also those that are not indexed yet (fault
    /// `index-delay`) or are older than 31 days. The number of events is limited ([`EmulatorBuilder::history_events`]).
    #[must_use]
    pub fn history(&self) -> Vec<HistoryEvent> {
        self.cloud.with_state(|state, _| state.history.all().map(|event| event.show()).collect())
    }

    /// Returns the number of events in the queues of all connectors.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.cloud.with_state(|state, _| {
            let connectors = state.projects.values().flat_map(|project| project.connectors.values());
            connectors.map(|connector| connector.queue.len()).fold(0, usize::saturating_add)
        })
    }

    /// Returns the time of the emulated clock, in Unix milliseconds.
    #[must_use]
    pub fn now_millis(&self) -> i64 {
        self.cloud.time().now_millis()
    }

    /// Returns the time of the emulated clock, in RFC 3339.
    #[must_use]
    pub fn now(&self) -> String {
        rfc3339_micros(self.cloud.time().now_micros())
    }

    /// Stops the emulator, and saves its state if it has a file. Deliveries in progress are cancelled; their events stay in the
    /// queue.
    ///
    /// # Errors
    ///
    /// Returns [`EmulatorError::State`] if the state cannot be written.
    pub async fn shutdown(self) -> Result<(), EmulatorError> {
        self.tasks.stop().await;
        match self.file {
            Some(file) => save(&self.cloud, &file).await,
            None => Ok(()),
        }
    }
}

/// Saves the state at an interval, if it has changed, until `stop` is `true`.
async fn save_regularly(cloud: Arc<Cloud>, file: Arc<StateFile>, mut stop: watch::Receiver<bool>) {
    let mut written = 0;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(SAVE_EVERY) => {}
        }
        let changes = cloud.with_state(|state, _| state.changes);
        if changes != written {
            match save(&cloud, &file).await {
                Ok(()) => written = changes,
                Err(error) => tracing::warn!(%error, "cannot save the state"),
            }
        }
    }
}

/// Saves the state.
async fn save(cloud: &Cloud, file: &Arc<StateFile>) -> Result<(), EmulatorError> {
    let keys = cloud.keys.lock().saved();
    let text = cloud.with_state(|state, now: Now| document(state, keys, now.millis()));
    let text = text.map_err(|error| EmulatorError::State(error.to_string()))?;
    let file = Arc::clone(file);
    let written = tokio::task::spawn_blocking(move || file.write(&text)).await;
    written.map_err(|error| EmulatorError::State(error.to_string()))?.map_err(Into::into)
}
