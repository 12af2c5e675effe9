//! A running emulator: where it is, what it knows, and how it ends.

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
use super::state::{Now, StateFile, document};
use dt_verify::event::rfc3339_micros;

/// How often the state is written when it changes.
const KEEP_EVERY: Duration = Duration::from_secs(5);

/// An error of DT's REST API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {text}")]
#[non_exhaustive]
pub struct CallError {
    /// The HTTP status.
    pub status: u16,
    /// The member `error` of the answer.
    pub text: String,
}

impl From<ApiError> for CallError {
    fn from(error: ApiError) -> Self {
        Self { status: error.status.as_u16(), text: error.text }
    }
}

/// A local DT cloud that is running. It ends when it is dropped; [`shutdown`](Self::shutdown) ends it in order.
pub struct Emulator {
    address: SocketAddr,
    root: String,
    cloud: Arc<Cloud>,
    file: Option<Arc<StateFile>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
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
        stop: watch::Sender<bool>,
        stopped: watch::Receiver<bool>,
        mut tasks: JoinSet<()>,
    ) -> Self {
        let file = file.map(Arc::new);
        if let Some(file) = &file {
            tasks.spawn(keep_regularly(Arc::clone(&cloud), Arc::clone(file), stopped));
        }
        Self { address, root, cloud, file, stop, tasks }
    }

    /// Collects what an emulator is made of.
    #[must_use]
    pub fn builder() -> EmulatorBuilder {
        EmulatorBuilder::default()
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its root, such as `http://127.0.0.1:8081`; the [public URL](EmulatorBuilder::public_url), if it has one.
    #[must_use]
    pub fn url(&self) -> String {
        self.root.clone()
    }

    /// The base URL of the REST and emulator APIs, with `/v2` as DT's Python client wants it.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("{}/v2", self.url())
    }

    /// The token endpoint (RFC 7523).
    #[must_use]
    pub fn token_endpoint(&self) -> String {
        format!("{}/oauth2/token", self.url())
    }

    /// `iss` of `DT-Asymmetric-Signature`; its discovery document is at `/.well-known/openid-configuration` below it.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("{}/data-connector", self.url())
    }

    /// The JWK set (RFC 7517) that `DT-Asymmetric-Signature` is verified with, as JSON text.
    #[must_use]
    pub fn jwks(&self) -> String {
        self.cloud.keys.lock().jwks().to_string()
    }

    /// Makes a new key, which signs from now on, and gives its `kid`.
    ///
    /// # Errors
    ///
    /// [`EmulatorError::NoKey`] when the system has no random numbers.
    pub fn rotate_key(&self) -> Result<String, EmulatorError> {
        self.cloud.keys.lock().rotate().map_err(|_| EmulatorError::NoKey)
    }

    /// Calls the REST API without network and credentials: a method, a path such as `/v2/projects/p/devices`, and the
    /// body (`null` for none).
    ///
    /// # Errors
    ///
    /// [`CallError`], as the REST API answers. A stream is 400 here.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value, CallError> {
        let bad = |text: &str| ApiError::bad_request(text);
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| bad("no HTTP method"))?;
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
    /// [`FaultError`] when a share is not from 0 to 1, or the burst is too large.
    pub fn set_faults(&self, mut faults: Faults) -> Result<(), FaultError> {
        faults.check()?;
        self.cloud.publishing(|state, now, published| {
            let burst = std::mem::take(&mut faults.burst);
            state.set_faults(faults, now);
            if burst > 0 {
                let _any = super::life::burst(state, burst, now, published);
            }
        });
        Ok(())
    }

    /// What became of every event for every connector, oldest first; a bounded number.
    #[must_use]
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        self.cloud.with_state(|state, _| state.ledger.entries().collect())
    }

    /// How many events wait in the queues of all connectors.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.cloud.with_state(|state, _| {
            let connectors = state.projects.values().flat_map(|project| project.connectors.values());
            connectors.map(|connector| connector.queue.len()).fold(0, usize::saturating_add)
        })
    }

    /// What the emulated clock shows, in Unix milliseconds.
    #[must_use]
    pub fn now_millis(&self) -> i64 {
        self.cloud.time().now_millis()
    }

    /// What the emulated clock shows, as RFC 3339.
    #[must_use]
    pub fn now(&self) -> String {
        rfc3339_micros(self.cloud.time().now_micros())
    }

    /// Stops everything, and keeps the state if it has a file. Deliveries that are under way are given up; they are in
    /// the queue.
    ///
    /// # Errors
    ///
    /// [`EmulatorError::State`] when the state cannot be written.
    pub async fn shutdown(mut self) -> Result<(), EmulatorError> {
        let _told = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
        match self.file.take() {
            Some(file) => keep(&self.cloud, &file).await,
            None => Ok(()),
        }
    }
}

/// Writes the state whenever it has changed.
async fn keep_regularly(cloud: Arc<Cloud>, file: Arc<StateFile>, mut stop: watch::Receiver<bool>) {
    let mut written = 0;
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(KEEP_EVERY) => {}
        }
        let changes = cloud.with_state(|state, _| state.changes);
        if changes != written {
            match keep(&cloud, &file).await {
                Ok(()) => written = changes,
                Err(error) => tracing::warn!(%error, "the state was not written"),
            }
        }
    }
}

async fn keep(cloud: &Cloud, file: &Arc<StateFile>) -> Result<(), EmulatorError> {
    let keys = cloud.keys.lock().saved();
    let text = cloud.with_state(|state, now: Now| document(state, keys, now.millis()));
    let text = text.map_err(|error| EmulatorError::State(error.to_string()))?;
    let file = Arc::clone(file);
    let written = tokio::task::spawn_blocking(move || file.write(&text)).await;
    written.map_err(|error| EmulatorError::State(error.to_string()))?.map_err(Into::into)
}
