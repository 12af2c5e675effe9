//! Builds and starts an emulator.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::cloud::{Cloud, CloudParts, Reach};
use super::engine::{DEFAULT_ENTRIES, HttpTransport, Ledger, RetryPauses, TlsSetupError, Transport};
use super::faults::{FaultError, Faults};
use super::identity::{Accounts, Keys, ServiceAccount};
use super::population::Population;
use super::running::{Emulator, Tasks};
use super::state::{DEFAULT_EVENTS, History, Now, State, StateFile, StateFileError};
use super::time::{EmulatedTime, WallClock};
use super::{api, engine, heartbeat};

/// The largest capacity of the event history and of the ledger.
pub const MAX_CAPACITY: usize = 1_000_000;

/// The default heartbeat: the nominal one of DT's sensors.
const INTERVAL: Duration = Duration::from_secs(15 * 60);

/// The default organization of all projects, and its display name.
const ORGANIZATION: &str = "emulator";
const ORGANIZATION_NAME: &str = "Emulator";

/// Why the emulator cannot start, or cannot save its state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// The emulator cannot listen on the address.
    #[error("{address}: {source}")]
    Listen {
        /// The address that the emulator cannot listen on.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The state file cannot be read or written, or does not hold a state.
    #[error("state: {0}")]
    State(String),
    /// The emulator listens on several addresses, so the public URL must be configured: the issuer of `DT-Asymmetric-Signature`
    /// and the token endpoint are below it.
    #[error("{0}: expected a public URL (`public_url`, `--public-url`) such as http://192.0.2.7:8081")]
    NoPublicUrl(SocketAddr),
    /// The public URL is not a URL with the scheme `http` or `https`, a host, and no query.
    #[error("found \"{}\"; expected a URL such as http://192.0.2.7:8081", .0.escape_debug())]
    BadPublicUrl(String),
    /// A fault cannot be set.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// The system has no random numbers, or the cryptographic back-end rejects a key.
    #[error("cannot create a signing key")]
    NoKey,
    /// The cryptographic back-end does not support the algorithms that TLS needs.
    #[error("cannot set up TLS")]
    NoTls,
}

impl EmulatorError {
    /// Returns a stable name of the error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "listen",
            Self::State(_) => "state",
            Self::NoPublicUrl(_) => "public_url_missing",
            Self::BadPublicUrl(_) => "public_url",
            Self::Fault(error) => error.code(),
            Self::NoKey => "no_key",
            Self::NoTls => "no_tls",
        }
    }
}

impl From<StateFileError> for EmulatorError {
    fn from(error: StateFileError) -> Self {
        Self::State(error.to_string())
    }
}

/// Configures and starts an [`Emulator`].
pub struct EmulatorBuilder {
    listen: SocketAddr,
    public_url: Option<String>,
    project: String,
    population: Population,
    interval: Duration,
    time_scale: u32,
    seed: Option<u64>,
    faults: Faults,
    accounts: Vec<ServiceAccount>,
    organization: String,
    organization_name: String,
    state: Option<PathBuf>,
    history_events: usize,
    ledger_entries: usize,
    retry_pauses: RetryPauses,
    wall: WallClock,
    transport: Option<Arc<dyn Transport>>,
}

impl fmt::Debug for EmulatorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatorBuilder").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl Default for EmulatorBuilder {
    /// Returns a configuration with a free port of the loopback address, the system clock, and no devices, no faults and no state
    /// file.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            public_url: None,
            project: "emulated".to_owned(),
            population: Population::default(),
            interval: INTERVAL,
            time_scale: 1,
            seed: None,
            faults: Faults::default(),
            accounts: Vec::new(),
            organization: ORGANIZATION.to_owned(),
            organization_name: ORGANIZATION_NAME.to_owned(),
            state: None,
            history_events: DEFAULT_EVENTS,
            ledger_entries: DEFAULT_ENTRIES,
            retry_pauses: RetryPauses::default(),
            wall: WallClock::system(),
            transport: None,
        }
    }
}

impl EmulatorBuilder {
    /// Sets the address to listen on. The default is a free port of the loopback address.
    #[must_use]
    pub const fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Sets the URL that clients use, such as `http://192.0.2.7:8081`. It is required if the emulator listens on all addresses
    /// (`0.0.0.0`). The default is `http://` followed by the address.
    #[must_use]
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.public_url = Some(url.into());
        self
    }

    /// Adds devices to `project` that send events by themselves, each at the heartbeat `interval`, in emulated time.
    #[must_use]
    pub fn devices(mut self, project: impl Into<String>, population: Population, interval: Duration) -> Self {
        self.project = project.into();
        self.population = population;
        self.interval = interval;
        self
    }

    /// Sets the factor by which the emulated clock is faster than the system clock, from 1 to
    /// [`MAX_TIME_SCALE`](super::MAX_TIME_SCALE).
    #[must_use]
    pub const fn time_scale(mut self, scale: u32) -> Self {
        self.time_scale = scale;
        self
    }

    /// Sets the seed of random values, chances and ids. The default is a random seed. With the same seed they repeat, except for
    /// the time in ids, and for the order of attempts, which depends on the machine.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets the faults at the start.
    #[must_use]
    pub const fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Adds a service account. If there is at least one, the credentials of others are rejected.
    #[must_use]
    pub fn service_account(mut self, account: ServiceAccount) -> Self {
        self.accounts.push(account);
        self
    }

    /// Sets the organization's id: `sub` of `DT-Asymmetric-Signature`. The default is `emulator`.
    #[must_use]
    pub fn organization(mut self, id: impl Into<String>) -> Self {
        self.organization = id.into();
        self
    }

    /// Sets the organization's display name, which projects show. The default is `Emulator`.
    #[must_use]
    pub fn organization_name(mut self, name: impl Into<String>) -> Self {
        self.organization_name = name.into();
        self
    }

    /// Sets the state file: the emulator starts with the state in the file, and saves its state to it.
    #[must_use]
    pub fn state_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.state = Some(path.into());
        self
    }

    /// Sets the largest number of events in the event history, by default 40,000, at most [`MAX_CAPACITY`]. Beyond it, or beyond
    /// 1,600 bytes per event, the oldest are removed.
    #[must_use]
    pub const fn history_events(mut self, count: usize) -> Self {
        self.history_events = count;
        self
    }

    /// Sets the pauses between the attempts to deliver an event, in emulated time: the first one, which doubles after each
    /// attempt, and the longest one. The defaults are 1 s and 5 min. Longer ones need less CPU time where many events wait for
    /// days in seconds.
    #[must_use]
    pub fn retry_pauses(mut self, first: Duration, longest: Duration) -> Self {
        // At least 1 ms, so that a receiver that fails does not take all CPU time.
        let millis = |pause: Duration| i64::try_from(pause.as_millis()).unwrap_or(i64::MAX).max(1);
        self.retry_pauses = RetryPauses { first: millis(first), longest: millis(longest) };
        self
    }

    /// Sets the largest number of entries in the ledger, by default 40,000, at most [`MAX_CAPACITY`]. Beyond it, the oldest are
    /// removed.
    #[must_use]
    pub const fn ledger_entries(mut self, count: usize) -> Self {
        self.ledger_entries = count;
        self
    }

    /// Replaces the system clock by a function that returns Unix milliseconds. It determines the emulated time at the start, and
    /// the times of tokens.
    #[must_use]
    pub fn clock(mut self, unix_millis: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.wall = WallClock(Arc::new(unix_millis));
        self
    }

    /// Sends deliveries with this transport instead of over the network.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Reads the state, binds the port and starts the emulator, which runs until it is shut down or dropped.
    ///
    /// # Errors
    ///
    /// Returns [`EmulatorError`] if the port is taken, the state file is not valid, or a fault is not valid.
    pub async fn start(self) -> Result<Emulator, EmulatorError> {
        self.faults.check()?;
        let address = self.listen;
        let public = self.public_url.map(PublicUrl::read).transpose()?;
        if public.is_none() && address.ip().is_unspecified() {
            return Err(EmulatorError::NoPublicUrl(address));
        }
        let listener =
            TcpListener::bind(address).await.map_err(|source| EmulatorError::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| EmulatorError::Listen { address, source })?;
        let mut state = State::new(self.seed.map_or_else(random_seed, Ok)?);
        state.history = History::new(self.history_events.min(MAX_CAPACITY));
        state.ledger = Ledger::new(self.ledger_entries.min(MAX_CAPACITY));
        state.retry_pauses = self.retry_pauses;
        let file = self.state.map(StateFile::new);
        let (keys, saved_millis) = match &file {
            Some(file) => {
                file.check_folder()?;
                file.read(&mut state)?
            }
            None => (None, None),
        };
        // By default `http` and an address, so that verifiers on this machine find the key set.
        let (root, public_host) = match public {
            Some(PublicUrl { root, host }) => (root, Some(host)),
            None => (format!("http://{address}"), None),
        };
        let issuer = format!("{root}/data-connector");
        let keys = Keys::new(issuer, self.organization, keys.as_ref()).map_err(|_| EmulatorError::NoKey)?;
        let start = self.wall.unix_millis().max(saved_millis.unwrap_or(i64::MIN));
        let time = EmulatedTime::new(start, self.time_scale);
        let now = Now(time.now_micros());
        self.population.create_missing(&mut state, &self.project, now);
        let mut faults = self.faults;
        let burst = std::mem::take(&mut faults.burst);
        state.set_faults(faults, now);
        if burst > 0 {
            let _any = heartbeat::burst(&mut state, burst, now, &mut Vec::new());
        }
        let transport = match self.transport {
            Some(transport) => transport,
            None => Arc::new(HttpTransport::new().map_err(|TlsSetupError| EmulatorError::NoTls)?),
        };
        let cloud = Arc::new(Cloud::new(CloudParts {
            time,
            wall: self.wall,
            state,
            accounts: Accounts::new(self.accounts),
            keys,
            transport,
            reach: Reach { on_loopback: address.ip().is_loopback(), public_host },
            organization_name: self.organization_name,
        }));
        let mut tasks = Tasks::new();
        tasks.spawn(|stop| engine::run(Arc::clone(&cloud), stop));
        tasks.spawn(|stop| heartbeat::run(Arc::clone(&cloud), self.interval, stop));
        tasks.spawn(|stop| api::serve(listener, Arc::clone(&cloud), stop));
        Ok(Emulator::new((address, root), cloud, file, tasks))
    }
}

/// The URL that clients use, without a slash at its end, and its host.
struct PublicUrl {
    root: String,
    host: String,
}

impl PublicUrl {
    fn read(url: String) -> Result<Self, EmulatorError> {
        let uri = url.parse::<http::Uri>().ok();
        let usable = uri.filter(|uri| {
            let plain = uri.query().is_none() && !url.contains(['#', '@']);
            plain && matches!(uri.scheme_str(), Some("http" | "https"))
        });
        match usable.as_ref().and_then(|uri| uri.host()).filter(|host| !host.is_empty()) {
            Some(host) => Ok(Self { root: url.trim_end_matches('/').to_owned(), host: host.to_owned() }),
            None => Err(EmulatorError::BadPublicUrl(url)),
        }
    }
}

fn random_seed() -> Result<u64, EmulatorError> {
    getrandom::u64().map_err(|_| EmulatorError::NoKey)
}
