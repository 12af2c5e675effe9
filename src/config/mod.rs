//! The configuration: read from TOML or made from the command line, then checked as a whole.
//!
//! Unknown keys and bad values are errors that name the key, what was found and what is allowed; all of them are
//! reported at once. Secrets never stand in the file: it names environment variables or files that hold them.

mod changes;
mod connector;
mod kafka;
mod listen;
mod reader;
mod reference;
mod sink;
mod source;
mod watch;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use changes::ConfigChange;
use ipnet::IpNet;

pub(crate) use connector::is_name;
pub use connector::{ConnectorConfig, SecretSource};
pub use kafka::{CreateTopic, KafkaConfig, KafkaSasl, KafkaTls, RecordKey, UnknownKey};
pub use listen::{ClientHeader, Listen, NotAListener, Proxies, UnknownClientHeader};
pub use reader::Problem;
use reader::{Problems, Section};
pub use reference::{Key, KeyDefault, Table, reference, reference_markdown, sample_file};
pub use sink::{Compression, FileConfig, SinkConfig, SinkKind, UnknownCompression};
pub use source::{SecretError, Sources, SystemSources, read_secret};
pub use watch::{Look, Recorder, Watch};

use crate::record::TopicTemplate;
use crate::tls::TlsSettings;

/// The address on which DT's requests arrive, unless set.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
/// The address of `/healthz`, `/readyz` and `/metrics`, unless set.
pub const DEFAULT_ADMIN: &str = "127.0.0.1:9464";
/// The data folder, unless set.
pub const DEFAULT_DATA: &str = "./dt-receiver-data";
/// How many connections beyond the limit are told so; the rest are closed without a word.
pub(crate) const MAX_TURNED_AWAY: usize = 64;
/// How many connections may be leaving at once to make room for others.
pub(crate) const MAX_LEAVING: usize = 64;
/// DT gives up on a request after 10 s; header limit and deadline together have to stay below that.
const MAX_ANSWER_TIME: Duration = Duration::from_millis(9500);

/// Everything the service needs to know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where DT's requests arrive.
    pub listen: Listen,
    /// Where `/healthz`, `/readyz` and `/metrics` are; `None` for nowhere.
    pub admin: Option<Listen>,
    /// The mode of Unix sockets that are made.
    pub socket_mode: u32,
    /// The certificate with which DT's requests are taken; `None` for plain HTTP.
    pub tls: Option<TlsSettings>,
    /// Who may say on behalf of whom a request comes.
    pub proxies: Proxies,
    /// When a request counts as stored.
    pub mode: Mode,
    /// The folder for everything that is stored.
    pub data: PathBuf,
    /// Where dead letters go in mode `direct`; `None` for the folder `dead-letters` in the data folder.
    pub dead_letters: Option<DeadLetterPlace>,
    /// How long a stop waits for what is in flight.
    pub drain_timeout: Duration,
    /// How long a sink's window remembers an id.
    pub dedup_window: Duration,
    /// How many ids are remembered at most; `None` for 20 million in the spool, 100 000 in memory (mode `direct`).
    pub dedup_max: Option<usize>,
    /// The bounds of the spool.
    pub spool: SpoolLimits,
    /// The bounds of the HTTP server.
    pub limits: Limits,
    /// The connectors, each with a path of its own.
    pub connectors: Vec<ConnectorConfig>,
    /// The sinks.
    pub sinks: Vec<SinkConfig>,
    /// What is allowed but looks wrong.
    pub warnings: Vec<Problem>,
}

/// Where dead letters go in mode `direct`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadLetterPlace {
    /// A folder, one file each.
    Folder(PathBuf),
    /// A topic of Kafka, at the brokers of the first sink of this type.
    Kafka(String),
}

/// When a request is answered with 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Once it is in the spool, durably.
    Spool,
    /// Once every sink of its connector has acknowledged it.
    Direct,
}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, UnknownMode> {
        match name {
            "spool" => Ok(Self::Spool),
            "direct" => Ok(Self::Direct),
            _ => Err(UnknownMode),
        }
    }
}

/// Not the name of a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown mode; allowed are spool, direct")]
pub struct UnknownMode;

/// The bounds of the spool.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SpoolLimits {
    /// How many bytes it may take.
    pub max_size: u64,
    /// How many bytes have to be left on the disk.
    pub min_free: u64,
    /// How long records stay after every sink has them.
    pub retain: Duration,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self { max_size: 4 << 30, min_free: 256 << 20, retain: Duration::ZERO }
    }
}

/// The bounds of the HTTP server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// The largest body, in bytes.
    pub max_body: usize,
    /// The largest head of a request, in bytes.
    pub max_head: usize,
    /// How long a head may take to arrive, from its first byte.
    pub header_timeout: Duration,
    /// How long a TLS handshake, and the PROXY header before it, may take.
    pub handshake_timeout: Duration,
    /// How long a request may take to be answered, from its complete head.
    pub deadline: Duration,
    /// How long a connection may stay open without a request.
    pub keep_alive_idle: Duration,
    /// How many connections may be open.
    pub max_connections: usize,
    /// How many requests may be worked on at once.
    pub max_in_flight: usize,
    /// How many bytes of bodies may be held at once.
    pub max_in_flight_bytes: usize,
    /// How many connections one peer may have open on which no signature has held yet: the oldest makes room for a new one.
    /// A peer is an IPv4 address, or the /64 of an IPv6 address.
    pub max_connections_per_peer: usize,
    /// How many refused requests a second are worth waiting for their bodies, of all peers.
    pub max_refused: u32,
    /// The same, of one peer.
    pub max_refused_per_peer: u32,
    /// How many bytes of bodies may be held of one peer before a signature has held; only `quarantine_refused` holds any.
    pub max_unverified_bytes_per_peer: usize,
    /// Who may connect; empty for anybody.
    pub allow_cidrs: Vec<IpNet>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body: 64 * 1024,
            max_head: 16 * 1024,
            header_timeout: Duration::from_millis(1500),
            handshake_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(8),
            keep_alive_idle: Duration::from_secs(75),
            max_connections: 8192,
            max_in_flight: 4096,
            max_in_flight_bytes: 64 * 1024 * 1024,
            max_connections_per_peer: 4096,
            max_refused: 1000,
            max_refused_per_peer: 100,
            max_unverified_bytes_per_peer: 1024 * 1024,
            allow_cidrs: Vec::new(),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The text is not TOML.
    #[error("not TOML: {0}")]
    Syntax(String),
    /// Whoever reads it, and adds to it, cannot: in words of their own.
    #[error("{0}")]
    Refused(String),
    /// Keys or values are wrong: all problems that were found.
    #[error("{}", list(.0))]
    Problems(Vec<Problem>),
}

/// Says where the text stops being TOML, without showing the line: a secret may stand there by mistake.
fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count().saturating_add(1);
    ConfigError::Syntax(format!("line {line}: {}", error.message()))
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// A configuration with defaults, no connector and no sink.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            listen: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 8080))),
            admin: Some(Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 9464)))),
            socket_mode: 0o660,
            tls: None,
            proxies: Proxies::default(),
            mode: Mode::Spool,
            data: PathBuf::from(DEFAULT_DATA),
            dead_letters: None,
            drain_timeout: Duration::from_secs(10),
            dedup_window: Duration::from_secs(72 * 3600),
            dedup_max: None,
            spool: SpoolLimits::default(),
            limits: Limits::default(),
            connectors: Vec::new(),
            sinks: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Reads a file of TOML, at most 1 MiB, and checks it; secrets are read where the file says.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], with every problem that was found.
    pub fn from_file(path: &Path, sources: &dyn Sources) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let bytes = sources.file(path).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            unreadable(std::io::Error::new(std::io::ErrorKind::InvalidData, error.utf8_error()))
        })?;
        Self::from_toml(&text, sources)
    }

    /// The same with the text itself.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], with every problem that was found.
    ///
    /// # Examples
    ///
    /// ```
    /// use dt_receiver::config::{Config, SystemSources};
    ///
    /// let error = Config::from_toml("lisen = '127.0.0.1:80'", &SystemSources).unwrap_err();
    /// assert!(error.to_string().starts_with("lisen: unknown key"));
    /// ```
    pub fn from_toml(text: &str, sources: &dyn Sources) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| syntax(text, &error))?;
        let problems = Problems::default();
        let mut config = Self::empty();
        config.read(Section::root(table, &problems), sources);
        config.check(&problems);
        let (errors, warnings) = problems.into_parts();
        config.warnings = warnings;
        if errors.is_empty() { Ok(config) } else { Err(ConfigError::Problems(errors)) }
    }

    fn read(&mut self, mut root: Section<'_>, sources: &dyn Sources) {
        root.parse_into("listen", listen::LISTEN_ALLOWED, &mut self.listen);
        match root.string("admin").as_deref() {
            None => {}
            Some("off") => self.admin = None,
            Some(text) => match text.parse() {
                Ok(address) => self.admin = Some(address),
                Err(_) => root.problem("admin", text, "an address such as \"127.0.0.1:9464\", or \"off\""),
            },
        }
        listen::read_mode(&mut root, &mut self.socket_mode);
        self.proxies = Proxies::read(&mut root);
        if let Some(tls) = root.section("tls") {
            self.tls = listen::read_tls(tls, sources);
        }
        match root.string("mode").as_deref() {
            None => {}
            Some(text) => match text.parse() {
                Ok(mode) => self.mode = mode,
                Err(_) => root.problem("mode", text, "spool, direct"),
            },
        }
        if let Some(data) = root.string("data") {
            self.data = PathBuf::from(data);
        }
        if let Some(text) = root.string("dead_letters") {
            match text.strip_prefix("folder:") {
                Some(folder) if !folder.is_empty() => {
                    self.dead_letters = Some(DeadLetterPlace::Folder(PathBuf::from(folder)));
                }
                _ => {
                    let topic =
                        text.strip_prefix("kafka:").and_then(|topic| topic.parse::<TopicTemplate>().ok());
                    match topic.and_then(|topic| topic.fixed()) {
                        Some(topic) => self.dead_letters = Some(DeadLetterPlace::Kafka(topic)),
                        None => root.problem("dead_letters", &text, "\"folder:PATH\" or \"kafka:TOPIC\""),
                    }
                }
            }
        }
        root.duration_into(
            "drain_timeout",
            Duration::ZERO..=Duration::from_secs(3600),
            &mut self.drain_timeout,
        );
        root.duration_into(
            "dedup_window",
            Duration::ZERO..=Duration::from_secs(3600 * 24 * 365),
            &mut self.dedup_window,
        );
        let mut dedup_max = 0;
        root.count_into("dedup_max", 1..=20_000_000, &mut dedup_max);
        self.dedup_max = (dedup_max > 0).then_some(dedup_max);
        if let Some(spool) = root.section("spool") {
            self.spool.read(spool);
        }
        if let Some(limits) = root.section("limits") {
            self.limits.read(limits);
        }
        self.sinks = root
            .sections("sink")
            .into_iter()
            .filter_map(|section| SinkConfig::read(section, sources))
            .collect();
        let connectors = root.sections("connector");
        let quarantine_refused = root.flag("quarantine_refused").unwrap_or(false);
        let read = |section| ConnectorConfig::read(section, quarantine_refused, sources);
        self.connectors = connectors.into_iter().filter_map(read).collect();
        root.finish();
    }

    /// Looks across the sections.
    fn check(&self, problems: &Problems) {
        let Limits { header_timeout, deadline, .. } = self.limits;
        if header_timeout.saturating_add(deadline) > MAX_ANSWER_TIME {
            let text =
                "`header_timeout` and `deadline` together must not be over 9.5s, since DT gives up at 10s";
            problems.error("limits.deadline", text.to_owned());
        }
        if self.connectors.is_empty() && problems.is_empty() {
            let text = "at least one is needed; add a [[connector]] with `secrets = [{ env = \"NAME\" }]`";
            problems.error("connector", text.to_owned());
        }
        if self.mode == Mode::Direct && self.connectors.iter().any(|c| c.quarantine_refused) {
            let text = "is true; copies of refused requests are kept in mode = \"spool\" only".to_owned();
            problems.error("quarantine_refused", text);
        }
        if self.mode == Mode::Direct
            && matches!(self.dead_letters, Some(DeadLetterPlace::Kafka(_)))
            && self.kafka().is_none()
        {
            let text = "\"kafka:TOPIC\" needs a sink of type \"kafka\", whose brokers it uses".to_owned();
            problems.error("dead_letters", text);
        }
        each_once(problems, "connector", "name", self.connectors.iter().map(|c| &*c.name));
        each_once(problems, "connector", "path", self.connectors.iter().map(|c| &*c.path));
        each_once(problems, "sink", "name", self.sinks.iter().map(|s| &*s.name));
        let files = self.sinks.iter().filter_map(|sink| match &sink.kind {
            SinkKind::File(file) => Some(file.path.to_string()),
            SinkKind::Stdout | SinkKind::Kafka(_) => None,
        });
        let files: Vec<String> = files.collect();
        each_once(problems, "sink", "path", files.iter().map(|path| &**path));
        let is_any_port = self.listen.address().is_some_and(|address| address.port() == 0);
        if Some(&self.listen) == self.admin.as_ref() && !is_any_port {
            problems.error("admin", format!("is {} like `listen`; the two never share a port", self.listen));
        }
    }

    /// A connector may also name sinks that an embedder adds, so this is checked once all are known.
    fn check_sink_names(&self, problems: &Problems) {
        let known: BTreeSet<&str> = self.sinks.iter().map(|sink| &*sink.name).collect();
        for connector in &self.connectors {
            for name in connector.sinks.iter().flatten().filter(|name| !known.contains(&***name)) {
                let allowed = known.iter().copied().collect::<Vec<_>>().join(", ");
                let text = format!("no sink is named \"{name}\"; there are: {allowed}");
                problems.error(&format!("connector.{}.sinks", connector.name), text);
            }
        }
    }

    /// Completes a configuration for a program that adds no sinks of its own: without any, there is `stdout`; and
    /// connectors may name only those that there are. Checks again what was changed after reading.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Problems`], with every problem that was found.
    pub fn complete(mut self) -> Result<Self, ConfigError> {
        if self.sinks.is_empty() {
            self.sinks.push(SinkConfig::stdout());
        }
        let problems = Problems::default();
        self.check(&problems);
        self.check_sink_names(&problems);
        let (errors, warnings) = problems.into_parts();
        self.warnings.extend(warnings);
        if errors.is_empty() { Ok(self) } else { Err(ConfigError::Problems(errors)) }
    }

    /// The same with a certificate for the listener, whose files are looked at.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Problems`], with every problem that was found.
    pub fn with_tls(mut self, settings: TlsSettings, sources: &dyn Sources) -> Result<Self, ConfigError> {
        let problem = |(key, text)| Problem { key: format!("tls.{key}"), text };
        let (errors, warnings) = listen::look_at(&settings, sources);
        if !errors.is_empty() {
            return Err(ConfigError::Problems(errors.into_iter().map(problem).collect()));
        }
        self.warnings.extend(warnings.into_iter().map(problem));
        self.tls = Some(settings);
        Ok(self)
    }

    /// Leaves out what the mode has no room for: in mode `direct`, a folder of refused requests would have no bound.
    pub(crate) fn settle(&mut self) {
        if self.mode == Mode::Direct {
            self.connectors.iter_mut().for_each(|connector| connector.quarantine_refused = false);
        }
    }

    /// The most memory that clients can make it take, in bytes: [`Limits::max_memory`], and what TLS adds.
    #[must_use]
    pub fn max_memory(&self) -> u64 {
        /// The buffers of a TLS connection and its keys.
        const TLS: u64 = 40 << 10;
        let tls =
            if self.tls.is_some() { self.limits.connections_in_memory().saturating_mul(TLS) } else { 0 };
        self.limits.max_memory().saturating_add(tls)
    }

    /// The folder of the key sets that were fetched.
    #[must_use]
    pub fn key_folder(&self) -> PathBuf {
        self.data.join("keys")
    }

    /// The folder of the spool.
    #[must_use]
    pub fn spool_folder(&self) -> PathBuf {
        self.data.join("spool")
    }

    /// How many ids a sink's window in memory holds.
    #[must_use]
    pub fn dedup_ids(&self) -> usize {
        self.dedup_max.unwrap_or(100_000)
    }

    /// Where dead letters go in mode `direct`.
    #[must_use]
    pub fn dead_letter_place(&self) -> DeadLetterPlace {
        let default = || DeadLetterPlace::Folder(self.data.join("dead-letters"));
        self.dead_letters.clone().unwrap_or_else(default)
    }

    /// The first sink of type `kafka`.
    #[must_use]
    pub fn kafka(&self) -> Option<&KafkaConfig> {
        self.sinks.iter().find_map(|sink| match &sink.kind {
            SinkKind::Kafka(kafka) => Some(&**kafka),
            _ => None,
        })
    }
}

fn each_once<'a>(problems: &Problems, section: &str, key: &str, values: impl Iterator<Item = &'a str>) {
    let mut seen = BTreeSet::new();
    for value in values {
        if !seen.insert(value) {
            problems.error(&format!("{section}.{key}"), format!("\"{value}\" is used by two of them"));
        }
    }
}

impl SpoolLimits {
    fn read(&mut self, mut section: Section<'_>) {
        let mut size = |key, least: usize, target: &mut u64| {
            let mut bytes = usize::try_from(*target).unwrap_or(usize::MAX);
            section.size_into(key, least..=1 << 44, &mut bytes);
            *target = u64::try_from(bytes).unwrap_or(u64::MAX);
        };
        size("max_size", 1 << 20, &mut self.max_size);
        size("min_free", 0, &mut self.min_free);
        section.duration_into(
            "retain",
            Duration::ZERO..=Duration::from_secs(3600 * 24 * 365),
            &mut self.retain,
        );
        section.finish();
    }
}

/// A list of networks, such as `"192.0.2.0/24"`; an address alone is one as well.
fn networks(section: &mut Section<'_>, key: &'static str) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for text in section.strings(key).unwrap_or_default() {
        match text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network),
            Err(_) => section.problem(key, &text, "networks such as \"192.0.2.0/24\" or \"2001:db8::/32\""),
        }
    }
    networks
}

impl Limits {
    /// Whether an address is one of [`allow_cidrs`](Self::allow_cidrs). One that is not known is: it is no network's.
    #[must_use]
    pub fn allows(&self, address: Option<IpAddr>) -> bool {
        // An IPv4 address that came through an IPv6 socket is an IPv4 address.
        let address = address.map(|address| address.to_canonical());
        self.allow_cidrs.is_empty()
            || address.is_none_or(|address| self.allow_cidrs.iter().any(|network| network.contains(&address)))
    }

    /// How much an HTTP/2 client may send that nobody has read yet, for each connection and each of its streams.
    pub(crate) fn window(&self) -> u32 {
        /// It cannot be smaller: a connection begins with it (RFC 9113, section 6.9.2).
        const MIN: u32 = 65_535;
        /// More does not make bodies of megabytes faster on usual lines.
        const MAX: u32 = 1024 * 1024;
        u32::try_from(self.max_body).unwrap_or(u32::MAX).clamp(MIN, MAX)
    }

    /// How many connections there can be at once, with those that have no place.
    fn connections_in_memory(&self) -> u64 {
        let without_place = MAX_LEAVING.saturating_add(MAX_TURNED_AWAY);
        u64::try_from(self.max_connections.saturating_add(without_place)).unwrap_or(u64::MAX)
    }

    /// The most memory, in bytes, that the program takes with these limits, whatever clients do; how it is made up is in
    /// `docs/limits.md`. Sinks that hold records of their own, such as `kafka`, come on top.
    ///
    /// # Examples
    ///
    /// ```
    /// let limits = dt_receiver::config::Limits::default();
    /// assert_eq!(limits.max_memory() / (1 << 20), 1116);
    /// ```
    #[must_use]
    pub fn max_memory(&self) -> u64 {
        /// The program, the caches of the spool, batches on their way to the sinks.
        const BASE: u64 = 64 << 20;
        /// A connection's task, its socket's state and its HTTP machine.
        const CONNECTION: u64 = 16 << 10;
        /// A request's task and its answer.
        const REQUEST: u64 = 8 << 10;
        let size = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
        let head = size(self.max_head);
        let connection = u64::from(self.window()).saturating_add(head).saturating_add(CONNECTION);
        // Half as many again may be refused ones.
        let requests = size(self.max_in_flight).saturating_add(size(self.max_in_flight.div_ceil(2)));
        // A body that comes in pieces is in its pieces, then in one; the last piece is held twice.
        let bodies = size(self.max_in_flight_bytes).saturating_mul(2);
        BASE.saturating_add(self.connections_in_memory().saturating_mul(connection))
            .saturating_add(requests.saturating_mul(head.saturating_add(REQUEST)))
            .saturating_add(bodies)
    }

    fn read(&mut self, mut section: Section<'_>) {
        let seconds = Duration::from_secs;
        section.size_into("max_body", 1024..=64 * 1024 * 1024, &mut self.max_body);
        section.size_into("max_head", 8192..=1024 * 1024, &mut self.max_head);
        section.duration_into(
            "header_timeout",
            Duration::from_millis(10)..=seconds(9),
            &mut self.header_timeout,
        );
        section.duration_into(
            "handshake_timeout",
            Duration::from_millis(10)..=seconds(60),
            &mut self.handshake_timeout,
        );
        section.duration_into("deadline", Duration::from_millis(10)..=seconds(9), &mut self.deadline);
        section.duration_into("keep_alive_idle", seconds(1)..=seconds(3600), &mut self.keep_alive_idle);
        section.count_into("max_connections", 1..=1_000_000, &mut self.max_connections);
        section.count_into("max_in_flight", 1..=1_000_000, &mut self.max_in_flight);
        section.size_into(
            "max_in_flight_bytes",
            64 * 1024..=64 * 1024 * 1024 * 1024,
            &mut self.max_in_flight_bytes,
        );
        section.count_into("max_connections_per_peer", 1..=1_000_000, &mut self.max_connections_per_peer);
        for (key, target) in
            [("max_refused", &mut self.max_refused), ("max_refused_per_peer", &mut self.max_refused_per_peer)]
        {
            let mut count = usize::try_from(*target).unwrap_or(usize::MAX);
            section.count_into(key, 1..=1_000_000, &mut count);
            *target = u32::try_from(count).unwrap_or(u32::MAX);
        }
        section.size_into(
            "max_unverified_bytes_per_peer",
            0..=64 * 1024 * 1024 * 1024,
            &mut self.max_unverified_bytes_per_peer,
        );
        self.allow_cidrs = networks(&mut section, "allow_cidrs");
        section.finish();
        if self.max_in_flight_bytes < self.max_body {
            self.max_in_flight_bytes = self.max_body;
        }
    }
}
