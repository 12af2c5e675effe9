//! Reads the configuration from TOML, or builds it from the command line, and checks it as a whole.
//!
//! Unknown keys and invalid values are errors with the key, the value and the expected values; all errors are reported
//! together. The file never contains secrets: it names environment variables or files that contain them.
//!
//! Each key has one entry, in the struct of its table: `Config` here for the top of the file, `Limits` and `SpoolLimits` in
//! `limits.rs`, and so on. Reader, reference, sample file and the comparison at a reload derive from it: see [`config_keys!`].

mod api;
mod changes;
mod checks;
mod connector;
mod filter;
mod limits;
mod listen;
mod monitor;
mod public_url;
mod reference;
mod sink;
mod source;
mod watch;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use api::ApiSettings;
pub use connector::{ConnectorConfig, SentSecrets};
pub use filter::{Label, RecordFilter, SinkFilter};
pub use limits::{Limits, SpoolLimits};
pub(crate) use limits::{MAX_LEAVING, MAX_TURNED_AWAY};
pub use listen::{ClientHeader, Listen, NotAListener, Proxies, TrustedProxies, UnknownClientHeader};
pub use monitor::MonitorSettings;
pub use public_url::{NotAPublicUrl, PublicUrl, is_same_url, without_user};
pub use reference::{reference, reference_markdown, sample_file};
pub use sink::SinkConfig;
pub use source::{SourceConfig, SourceType, UnknownSourceType};
pub use watch::{FileSnapshot, Recorder, Watch};

pub use dt_sink::config::{
    BadTlsFile, ClientTls, ConfigChange, Key, KeyDefault, PemFile, Problem, Reload, SecretError,
    SecretSource, Sources, SystemSources, Table, is_name, read_duration, read_secret,
};

use crate::sink::SinkTypes;
use crate::tls::TlsSettings;
use dt_sink::config::{
    Lines, Problems, Section, config_keys, custom, duration, flag, flat, number, optional_table, parsed,
    path, table, text, unchecked, word,
};

/// The default address that receives DT's requests.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
/// The default address of `/healthz`, `/readyz` and `/metrics`.
pub const DEFAULT_ADMIN: &str = "127.0.0.1:9464";
/// The default data folder.
pub const DEFAULT_DATA: &str = "./dt-receiver-data";

const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(3600 * 24 * 365);

config_keys! {
    /// The configuration of a service.
    #[derive(Debug, Clone)]
    #[non_exhaustive]
    pub struct Config {
        /// The address that receives DT's requests: an address, a Unix socket that is created, or a socket that
        /// systemd opened. Without a `[[connector]]` it is not used, and no port is open for DT.
        listen: Listen = parsed(
            "address, `\"unix:PATH\"`, `\"systemd\"`, `\"systemd:NAME\"`",
            listen::LISTEN_EXPECTED,
        )
        .shown_as(Listen::to_string)
        .or(on_this_machine(8080))
        .restart(),
        /// The address of `/healthz`, `/readyz` and `/metrics`. It never shares a port with `listen`, and should not
        /// be reachable from outside.
        admin: Option<Listen> = custom("as `listen`, or `\"off\"`", listen::read_admin)
            .shown_as(|admin| admin.as_ref().map_or_else(|| "off".to_owned(), Listen::to_string))
            .or(Some(on_this_machine(9464)))
            .default_shown(&format!("\"{DEFAULT_ADMIN}\""))
            .restart(),
        /// The file mode of Unix sockets that are created.
        socket_mode: u32 =
            custom("octal digits", listen::read_mode).or(0o660).default_shown("\"0660\"").restart(),
        /// The proxies in front of the receiver, and how they name the client.
        proxies: Proxies = flat(Proxies::check),
        /// The certificate of `listen`; without it, plain HTTP. Details: [tls.md](tls.md). Changed files are
        /// activated while the receiver runs; adding or removing the table needs a restart.
        tls: Option<TlsSettings> = optional_table(listen::check_tls),
        /// When a request is answered 200: `spool` once the event is stored and synced, `direct` once every sink of
        /// its connector has acknowledged it.
        mode: Mode = word(&["spool", "direct"]).or(Mode::Spool).restart(),
        /// The folder of all stored data: spool, key sets, dead letters. It is created if it does not exist.
        data: PathBuf = path("path of a folder").or(PathBuf::from(DEFAULT_DATA)).restart(),
        /// The topic for dead letters in mode `direct`, at the brokers of the first sink of type `kafka`.
        dead_letters: Option<String> = text("`\"kafka:TOPIC\"`")
            .or_none("`spool/dead.db` in `data`")
            .sample("\"kafka:dt.dead\"")
            .restart_in_direct(),
        /// How long a stop waits for requests and deliveries in flight.
        drain_timeout: Duration = duration(Duration::ZERO..=HOUR).or(Duration::from_secs(10)),
        /// How long an event id is remembered; copies of the event are answered `duplicate`. With `monitor.backfill`, at least
        /// 32 days.
        dedup_window: Duration = duration(Duration::ZERO..=YEAR).or(HOUR.saturating_mul(72)).restart_in_direct(),
        /// The largest number of event ids that are remembered; beyond it, the oldest are forgotten.
        dedup_max: Option<usize> = number(1..=20_000_000)
            .or_none("20000000; 100000 in mode `direct`")
            .sample("20000000")
            .restart_in_direct(),
        /// Keeps copies of refused requests (at most 64 MiB; the oldest are dropped), so that `dead replay
        /// --reverify` can accept them after a wrong secret was fixed. Not together with `dead_letters`. A connector
        /// can override it.
        quarantine_refused: bool = flag().or(false).not_compared(),
        /// The limits of the spool, in mode `spool`. While it is full, requests are answered 503, so that DT keeps
        /// the events; nothing is dropped.
        spool: SpoolLimits = table(unchecked),
        /// The limits of the HTTP server. Priorities and memory: [limits.md](limits.md). `header_timeout` and
        /// `deadline` together are at most 9.5 s, since DT gives up after 10 s.
        limits: Limits = table(Limits::check),
        /// The service account with which the receiver calls DT's REST API. A receiver without `[monitor]` and `[[source]]`
        /// calls nothing. The account needs the role `project.user` in each project, and `project.developer` for
        /// `monitor.reenable`.
        api: Option<ApiSettings> = optional_table(ApiSettings::check),
        /// Watches the Data Connectors that deliver to this receiver, and fetches what was missed. Off without this table; needs
        /// `[api]`. Details: [monitor.md](monitor.md).
        monitor: Option<MonitorSettings> = optional_table(MonitorSettings::check),
    }
    with {
        /// The connectors, each with a path of its own.
        pub connectors: Vec<ConnectorConfig>,
        /// The sources: projects whose events are read from DT's API.
        pub sources: Vec<SourceConfig>,
        /// The sinks.
        pub sinks: Vec<SinkConfig>,
        /// Values that are allowed but probably wrong.
        pub warnings: Vec<Problem>,
        /// The line of each key in the file.
        lines: Lines,
    }
}

fn on_this_machine(port: u16) -> Listen {
    Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// The result of [`Config::check_file`].
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Findings {
    /// The errors. If there are any, the configuration cannot be used.
    pub errors: Vec<Problem>,
    /// The warnings: values that are allowed but probably wrong.
    pub warnings: Vec<Problem>,
    /// The sinks of the configuration; empty if there are errors.
    pub sinks: Vec<SinkConfig>,
}

/// The condition under which a request is answered 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// The event is stored and synced in the spool.
    Spool,
    /// Every sink of the connector has acknowledged the event.
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

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Spool => "spool",
            Self::Direct => "direct",
        })
    }
}

/// The error for a text that is not the name of a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown mode; expected spool or direct")]
pub struct UnknownMode;

/// Why a configuration cannot be read or used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The path of the configuration file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The text is not TOML.
    #[error("not TOML: {0}")]
    Syntax(String),
    /// An option of the command line, or another input besides the file, is invalid.
    #[error("{0}")]
    Refused(String),
    /// Keys or values are invalid. Contains every problem that was found.
    #[error("{}", list(.0))]
    Problems(Vec<Problem>),
}

/// Returns the error for a text that is not TOML. It names the number of the line, but does not show the line, which may contain
/// a secret by mistake.
fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count().saturating_add(1);
    ConfigError::Syntax(format!("line {line}: {}", error.message()))
}

/// Reads a text file of at most 1 MiB.
fn read_text(path: &Path, sources: &dyn Sources) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let bytes = sources.file(path).map_err(unreadable)?;
    String::from_utf8(bytes)
        .map_err(|error| unreadable(std::io::Error::new(std::io::ErrorKind::InvalidData, error.utf8_error())))
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Returns a configuration with the defaults of all keys, without connectors and sinks.
    #[must_use]
    pub fn empty() -> Self {
        Self::with_defaults(Vec::new(), Vec::new(), Vec::new(), Vec::new(), Lines::default())
    }

    /// Reads and checks a TOML file of at most 1 MiB, and reads the secrets that it refers to. `types` are the known types of
    /// sinks.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], with every problem that was found.
    pub fn from_file(path: &Path, sources: &dyn Sources, types: &SinkTypes) -> Result<Self, ConfigError> {
        Self::from_toml(&read_text(path, sources)?, sources, types)
    }

    /// Reads a file and runs every check of `serve`'s start, to report all problems together.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the file cannot be read or is not TOML.
    pub fn check_file(
        path: &Path,
        sources: &dyn Sources,
        types: &SinkTypes,
    ) -> Result<Findings, ConfigError> {
        let (config, problems) = Self::parse(&read_text(path, sources)?, sources, types)?;
        let config = config.or_stdout();
        config.check(&problems);
        config.check_sink_names(&problems);
        config.check_sink_folders(&problems);
        config.check_oddities(&problems);
        let (mut errors, mut warnings) = problems.into_parts();
        // Problems without a line come last.
        errors.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        warnings.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        let sinks = if errors.is_empty() { config.sinks } else { Vec::new() };
        Ok(Findings { errors, warnings, sinks })
    }

    /// Reads and checks the text of a file, like [`from_file`](Self::from_file).
    ///
    /// # Errors
    ///
    /// [`ConfigError`], with every problem that was found.
    ///
    /// # Examples
    ///
    /// ```
    /// use dt_server::config::{Config, SystemSources};
    /// use dt_server::sink::standard_types;
    ///
    /// let error = Config::from_toml("lisen = '127.0.0.1:80'", &SystemSources, &standard_types()).unwrap_err();
    /// assert!(error.to_string().starts_with("line 1: lisen: unknown key; did you mean \"listen\"?"));
    /// ```
    pub fn from_toml(text: &str, sources: &dyn Sources, types: &SinkTypes) -> Result<Self, ConfigError> {
        let (mut config, problems) = Self::parse(text, sources, types)?;
        config.check(&problems);
        let (errors, warnings) = problems.into_parts();
        config.warnings = warnings;
        if errors.is_empty() { Ok(config) } else { Err(ConfigError::Problems(errors)) }
    }

    /// Reads each key and collects the problems.
    fn parse(text: &str, sources: &dyn Sources, types: &SinkTypes) -> Result<(Self, Problems), ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| syntax(text, &error))?;
        let lines = Lines::of(text);
        let problems = Problems::at(lines.clone());
        let mut root = Section::root(table, &problems, sources);
        let read = Self::read_keys(&mut root, Vec::new(), Vec::new(), Vec::new(), Vec::new(), lines);
        // No key at the top of the file is required.
        let mut config = read.unwrap_or_else(Self::empty);
        if let Some(text) = config.dead_letters.take_if(|text| !types.is_dead_letter_place(text)) {
            let places: Vec<String> =
                types.dead_letter_places().iter().map(|place| format!("\"{place}\"")).collect();
            let allowed = format!("{}; without it, they go to `dead.db`", places.join(" or "));
            root.problem("dead_letters", &text, &allowed);
        }
        let sinks = root.sections("sink").into_iter();
        config.sinks = sinks.filter_map(|section| SinkConfig::read(section, types)).collect();
        let connectors = root.sections("connector").into_iter();
        let read = |section| ConnectorConfig::read(section, config.quarantine_refused);
        config.connectors = connectors.filter_map(read).collect();
        config.sources = root.sections("source").into_iter().filter_map(SourceConfig::read).collect();
        root.finish();
        Ok((config, problems))
    }

    /// Completes a configuration for a program without sinks of its own: adds the sink `stdout` if there is no other one, and
    /// checks that connectors name only configured sinks. Repeats the checks across keys, since values may have changed after
    /// reading, and adds their warnings.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Problems`], with every problem that was found.
    pub fn complete(self) -> Result<Self, ConfigError> {
        let mut config = self.or_stdout();
        let problems = Problems::at(config.lines.clone());
        config.check(&problems);
        config.check_sink_names(&problems);
        config.check_oddities(&problems);
        let (errors, warnings) = problems.into_parts();
        config.warnings.extend(warnings);
        if errors.is_empty() { Ok(config) } else { Err(ConfigError::Problems(errors)) }
    }

    /// Adds the sink `stdout` if there is no sink.
    fn or_stdout(mut self) -> Self {
        if self.sinks.is_empty() {
            self.sinks.push(SinkConfig::stdout());
        }
        self
    }

    /// Sets the certificate of the listener, after a check of its files.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Problems`], with every problem that was found.
    pub fn with_tls(mut self, settings: TlsSettings, sources: &dyn Sources) -> Result<Self, ConfigError> {
        let problem = |(key, text)| Problem::new(format!("tls.{key}"), text);
        let (errors, warnings) = listen::check_files(&settings, sources);
        if !errors.is_empty() {
            return Err(ConfigError::Problems(errors.into_iter().map(problem).collect()));
        }
        self.warnings.extend(warnings.into_iter().map(problem));
        self.tls = Some(settings);
        Ok(self)
    }

    /// Turns off copies of refused requests if dead letters are not stored in `dead.db`, since elsewhere their size would be
    /// unlimited.
    pub(crate) fn drop_unbounded_copies(&mut self) {
        if self.dead_letter_place().is_some() {
            self.connectors.iter_mut().for_each(|connector| connector.quarantine_refused = false);
        }
    }

    /// Returns an upper limit of the memory that the program uses, whatever clients do, in bytes: [`Limits::max_memory`] and the
    /// buffers of TLS.
    #[must_use]
    pub fn max_memory(&self) -> u64 {
        /// The memory of the buffers and keys of a TLS connection, in bytes.
        const TLS: u64 = 40 << 10;
        let tls =
            if self.tls.is_some() { self.limits.connections_in_memory().saturating_mul(TLS) } else { 0 };
        self.limits.max_memory().saturating_add(tls)
    }

    /// Returns the folder in which fetched key sets are stored.
    #[must_use]
    pub fn key_folder(&self) -> PathBuf {
        self.data.join("keys")
    }

    /// Returns the folder of the spool.
    #[must_use]
    pub fn spool_folder(&self) -> PathBuf {
        self.data.join("spool")
    }

    /// Returns the largest number of ids in the de-duplication window of a sink in memory (mode `direct`).
    #[must_use]
    pub fn dedup_ids(&self) -> usize {
        self.dedup_max.unwrap_or(100_000)
    }

    /// Returns the destination of dead letters; `None` if they are stored in `dead.db`.
    #[must_use]
    pub fn dead_letter_place(&self) -> Option<DeadLetterPlace<'_>> {
        let text = self.dead_letters.as_deref().filter(|_| self.mode == Mode::Direct)?;
        let (sink_type, place) = text.split_once(':').unwrap_or((text, ""));
        Some(DeadLetterPlace { sink_type, place })
    }

    /// Returns the sink whose settings are used to write dead letters: the first sink of the destination's type. `None` if dead
    /// letters are stored in `dead.db`, or if there is no such sink.
    #[must_use]
    pub fn dead_letter_sink(&self) -> Option<&SinkConfig> {
        let sink_type = self.dead_letter_place()?.sink_type;
        self.sinks.iter().find(|sink| sink.settings.type_name() == sink_type)
    }

    /// Returns the filter of the sink with this name. A sink that an embedder added receives every event.
    #[must_use]
    pub fn sink_filter(&self, name: &str) -> RecordFilter {
        let sink = self.sinks.iter().find(|sink| &*sink.name == name);
        sink.map(|sink| RecordFilter { only: sink.only.clone(), skips_backfilled: !sink.backfill })
            .unwrap_or_default()
    }
}

/// A destination of dead letters other than `dead.db`, such as `kafka:TOPIC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterPlace<'a> {
    /// The type of the sink that stores the dead letters.
    pub sink_type: &'a str,
    /// The destination in the syntax of that type, such as a topic.
    pub place: &'a str,
}

impl DeadLetterPlace<'_> {
    /// Returns the error text for a configuration without a sink of the destination's type.
    pub(crate) fn needs_a_sink(self) -> String {
        let Self { sink_type, place } = self;
        format!("\"{sink_type}:{place}\" needs a sink of type \"{sink_type}\", whose brokers it uses")
    }
}
