//! What an emulator is made of, and how it starts.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::cloud::{Cloud, Reach};
use super::engine::{HttpTransport, NoTls, Transport};
use super::faults::{FaultError, Faults};
use super::identity::{Accounts, Keys, ServiceAccount};
use super::life::{self, Population};
use super::running::Emulator;
use super::state::{Now, State, StateFile, StateFileError};
use super::time::{EmulatedTime, WallClock};
use super::{api, engine};

/// How many entries the ledger holds unless asked otherwise.
const LEDGER_ENTRIES: usize = 40_000;

/// The heartbeat unless asked otherwise: nominal for DT's sensors.
const INTERVAL: Duration = Duration::from_secs(15 * 60);

/// The organization of all projects, and its display name.
const ORGANIZATION: &str = "emulator";
const ORGANIZATION_NAME: &str = "Emulator";

/// Why the emulator does not start, or cannot keep its state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// The address cannot be listened on.
    #[error("{address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The file of the state cannot be read or written, or is not one.
    #[error("state: {0}")]
    State(String),
    /// Other machines are to reach it, and nobody has said under which URL: the issuer of `DT-Asymmetric-Signature` and the
    /// token endpoint are told by it.
    #[error("{0}: a URL for others is needed (`public_url`, `--public-url`), such as http://192.0.2.7:8081")]
    NoPublicUrl(SocketAddr),
    /// The URL for others is none.
    #[error("found \"{}\"; allowed is a URL such as http://192.0.2.7:8081", .0.escape_debug())]
    BadPublicUrl(String),
    /// A fault cannot be set.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// The system gave no random numbers, or the cryptographic back-end refused a key.
    #[error("a signing key could not be made")]
    NoKey,
    /// The cryptographic back-end does not offer what TLS needs.
    #[error("TLS cannot be set up")]
    NoTls,
}

impl EmulatorError {
    /// Stable name.
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

/// Collects what an [`Emulator`] is made of.
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
    ledger_entries: usize,
    wall: WallClock,
    transport: Option<Arc<dyn Transport>>,
}

impl fmt::Debug for EmulatorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmulatorBuilder").field("listen", &self.listen).finish_non_exhaustive()
    }
}

impl Default for EmulatorBuilder {
    /// A free port of the loopback address, no devices, no faults, the machine's time, nothing kept.
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
            ledger_entries: LEDGER_ENTRIES,
            wall: WallClock::system(),
            transport: None,
        }
    }
}

impl EmulatorBuilder {
    /// Where to listen; without it, a free port of the loopback address.
    #[must_use]
    pub const fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// The URL under which others reach it, such as `http://192.0.2.7:8081`; needed when it listens on all addresses
    /// (`0.0.0.0`). Without it, `http://` and the address.
    #[must_use]
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.public_url = Some(url.into());
        self
    }

    /// Devices that live in `project`: they send events by themselves, each at the heartbeat `interval`, in emulated time.
    #[must_use]
    pub fn devices(mut self, project: impl Into<String>, population: Population, interval: Duration) -> Self {
        self.project = project.into();
        self.population = population;
        self.interval = interval;
        self
    }

    /// How many times as fast as the machine's clock time passes, from 1 to [`MAX_TIME_SCALE`](super::MAX_TIME_SCALE).
    #[must_use]
    pub const fn time_scale(mut self, scale: u32) -> Self {
        self.time_scale = scale;
        self
    }

    /// What values, chances and ids are made from; without it, different ones each time. With the same seed they repeat: ids
    /// but for the time in them, and the chances of attempts in the order in which the machine makes these.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The faults from the start.
    #[must_use]
    pub const fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Accepts this service account, and no others than those that are added.
    #[must_use]
    pub fn service_account(mut self, account: ServiceAccount) -> Self {
        self.accounts.push(account);
        self
    }

    /// The organization's id: `sub` of `DT-Asymmetric-Signature`. Without it, `emulator`.
    #[must_use]
    pub fn organization(mut self, id: impl Into<String>) -> Self {
        self.organization = id.into();
        self
    }

    /// The organization's display name, which projects show. Without it, `Emulator`.
    #[must_use]
    pub fn organization_name(mut self, name: impl Into<String>) -> Self {
        self.organization_name = name.into();
        self
    }

    /// Keeps the state in a file, and goes on with what is in it.
    #[must_use]
    pub fn state_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.state = Some(path.into());
        self
    }

    /// How many entries the ledger holds; without it, 40,000. The oldest go first.
    #[must_use]
    pub const fn ledger_entries(mut self, count: usize) -> Self {
        self.ledger_entries = count;
        self
    }

    /// Sets the machine's clock, in Unix milliseconds: it sets the emulated one at the start, and times tokens.
    #[must_use]
    pub fn clock(mut self, unix_millis: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.wall = WallClock(Arc::new(unix_millis));
        self
    }

    /// Sends deliveries in another way than over the network.
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Reads the state, binds the port and starts. Ends when the emulator is shut down or dropped.
    ///
    /// # Errors
    ///
    /// [`EmulatorError`], when the port is taken, the file is no state, or a fault is none.
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
        let mut state = State::new(self.seed.map_or_else(random_seed, Ok)?, self.ledger_entries);
        let file = self.state.map(StateFile::new);
        let (keys, then) = match &file {
            Some(file) => {
                file.check_folder()?;
                file.read(&mut state)?
            }
            None => (None, None),
        };
        // `http` and an address unless told otherwise, so that verifiers on this machine find the key set.
        let (root, public_host) = match public {
            Some(PublicUrl { root, host }) => (root, Some(host)),
            None => (format!("http://{address}"), None),
        };
        let issuer = format!("{root}/data-connector");
        let keys = Keys::new(issuer, self.organization, keys.as_ref()).map_err(|_| EmulatorError::NoKey)?;
        let begin = self.wall.unix_millis().max(then.unwrap_or(i64::MIN));
        let time = EmulatedTime::new(begin, self.time_scale);
        let now = Now(time.now_micros());
        life::settle(&mut state, &self.project, &self.population, now);
        let mut faults = self.faults;
        let burst = std::mem::take(&mut faults.burst);
        state.set_faults(faults, now);
        if burst > 0 {
            let _any = life::burst(&mut state, burst, now, &mut Vec::new());
        }
        let transport = match self.transport {
            Some(transport) => transport,
            None => Arc::new(HttpTransport::new().map_err(|NoTls| EmulatorError::NoTls)?),
        };
        let accounts = Accounts::new(self.accounts);
        let reach = Reach { on_loopback: address.ip().is_loopback(), public_host };
        let cloud = Cloud::new(time, self.wall, state, accounts, keys, transport, reach);
        let cloud = Arc::new(cloud.with_organization_name(self.organization_name));
        let (stop, stopped) = watch::channel(false);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(engine::run(Arc::clone(&cloud), stopped.clone()));
        tasks.spawn(life::run(Arc::clone(&cloud), self.interval, stopped.clone()));
        tasks.spawn(api::serve(listener, Arc::clone(&cloud), stopped.clone()));
        Ok(Emulator::new((address, root), cloud, file, stop, stopped, tasks))
    }
}

/// A URL that others use, without a slash at its end, and the host in it.
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
