//! The configuration: read from TOML or made from the command line, then checked as a whole.
//!
//! Unknown keys and bad values are errors that name the key, what was found and what is allowed; all of them are
//! reported at once. Secrets never stand in the file: it names environment variables or files that hold them.

mod changes;
mod connector;
mod duration;
mod kafka;
mod limits;
mod lines;
mod listen;
mod reader;
mod reference;
mod sink;
mod source;
mod suggest;
mod watch;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use changes::ConfigChange;
pub(crate) use connector::is_name;
pub use connector::{ConnectorConfig, SecretSource};
pub use duration::read_duration;
pub use kafka::{CreateTopic, KafkaConfig, KafkaSasl, KafkaTls, RecordKey, UnknownKey};
pub use limits::{Limits, SpoolLimits};
pub(crate) use limits::{MAX_LEAVING, MAX_TURNED_AWAY};
use lines::{Lines, segments};
pub use listen::{ClientHeader, Listen, NotAListener, Proxies, UnknownClientHeader};
pub use reader::Problem;
use reader::{Problems, Section};
pub use reference::{Key, KeyDefault, Table, reference, reference_markdown, sample_file};
pub use sink::{Compression, FileConfig, SinkConfig, SinkKind, UnknownCompression};
pub use source::WithoutSecrets;
pub use source::{SecretError, Sources, SystemSources, read_secret};
use suggest::did_you_mean;
pub use watch::{Look, Recorder, Watch};

use crate::tls::TlsSettings;
use dt_sink::record::TopicTemplate;

/// The address on which DT's requests arrive, unless set.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
/// The address of `/healthz`, `/readyz` and `/metrics`, unless set.
pub const DEFAULT_ADMIN: &str = "127.0.0.1:9464";
/// The data folder, unless set.
pub const DEFAULT_DATA: &str = "./dt-receiver-data";
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
    /// The topic of Kafka to which dead letters go in mode `direct`, at the brokers of the first sink of this type; `None`
    /// for `dead.db` in the spool's folder.
    pub dead_letters: Option<String>,
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
    /// Where each key stands in the file.
    lines: Lines,
}

/// What [`Config::check_file`] found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Findings {
    /// What has to be corrected before the configuration can be used.
    pub errors: Vec<Problem>,
    /// What is allowed but looks wrong.
    pub warnings: Vec<Problem>,
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

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
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

/// Reads the text of a file, at most 1 MiB.
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
            lines: Lines::default(),
        }
    }

    /// Reads a file of TOML, at most 1 MiB, and checks it; secrets are read where the file says.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], with every problem that was found.
    pub fn from_file(path: &Path, sources: &dyn Sources) -> Result<Self, ConfigError> {
        Self::from_toml(&read_text(path, sources)?, sources)
    }

    /// Reads a file and runs all checks on it that `serve` runs at its start, to find every problem at once.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when the file cannot be read or is not TOML.
    pub fn check_file(path: &Path, sources: &dyn Sources) -> Result<Findings, ConfigError> {
        let (config, problems) = Self::parse(&read_text(path, sources)?, sources)?;
        let config = config.or_stdout();
        config.check(&problems);
        config.check_sink_names(&problems);
        config.check_sink_folders(&problems);
        config.check_oddities(&problems);
        let (mut errors, mut warnings) = problems.into_parts();
        // Those without a line come last.
        errors.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        warnings.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        Ok(Findings { errors, warnings })
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
    /// use dt_server::config::{Config, SystemSources};
    ///
    /// let error = Config::from_toml("lisen = '127.0.0.1:80'", &SystemSources).unwrap_err();
    /// assert!(error.to_string().starts_with("line 1: lisen: unknown key; did you mean \"listen\"?"));
    /// ```
    pub fn from_toml(text: &str, sources: &dyn Sources) -> Result<Self, ConfigError> {
        let (mut config, problems) = Self::parse(text, sources)?;
        config.check(&problems);
        let (errors, warnings) = problems.into_parts();
        config.warnings = warnings;
        if errors.is_empty() { Ok(config) } else { Err(ConfigError::Problems(errors)) }
    }

    /// Reads each key, and notes what is wrong with it.
    fn parse(text: &str, sources: &dyn Sources) -> Result<(Self, Problems), ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| syntax(text, &error))?;
        let lines = Lines::of(text);
        let problems = Problems::at(lines.clone());
        let mut config = Self { lines, ..Self::empty() };
        config.read(Section::root(table, &problems), sources);
        Ok((config, problems))
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
        root.choice_into("mode", &["spool", "direct"], &mut self.mode);
        if let Some(data) = root.string("data") {
            self.data = PathBuf::from(data);
        }
        if let Some(text) = root.string("dead_letters") {
            let topic = text.strip_prefix("kafka:").and_then(|topic| topic.parse::<TopicTemplate>().ok());
            self.dead_letters = topic.and_then(|topic| topic.fixed());
            if self.dead_letters.is_none() {
                root.problem("dead_letters", &text, "\"kafka:TOPIC\"; without it, they go to `dead.db`");
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
        self.sinks =
            root.sections("sink").into_iter().map(|section| SinkConfig::read(section, sources)).collect();
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
        if self.connectors.is_empty() && !problems.has_errors_at("connector") {
            let text = "at least one is needed; add a [[connector]] with `secrets = [{ env = \"NAME\" }]`";
            problems.error("connector", text.to_owned());
        }
        let has_topic = self.dead_letter_topic().is_some();
        if has_topic && self.connectors.iter().any(|c| c.quarantine_refused) {
            let text =
                "is true; copies of refused requests are kept in `dead.db` only, not in a topic of Kafka";
            problems.error("quarantine_refused", text.to_owned());
        }
        // A sink that could not be read may be the one.
        if has_topic && self.kafka().is_none() && !problems.has_errors_at("sink") {
            let text = "\"kafka:TOPIC\" needs a sink of type \"kafka\", whose brokers it uses".to_owned();
            problems.error("dead_letters", text);
        }
        let names: Vec<_> = self.connectors.iter().map(|connector| Some(&*connector.name)).collect();
        let paths: Vec<_> = self.connectors.iter().map(|connector| Some(&*connector.path)).collect();
        each_once(problems, "connector", "name", &names, &names);
        each_once(problems, "connector", "path", &names, &paths);
        let names: Vec<_> = self.sinks.iter().map(|sink| Some(&*sink.name)).collect();
        let paths: Vec<Option<String>> = self
            .sinks
            .iter()
            .map(|sink| match &sink.kind {
                SinkKind::File(file) => Some(file.path.to_string()),
                SinkKind::Stdout | SinkKind::Kafka(_) => None,
            })
            .collect();
        let paths: Vec<Option<&str>> = paths.iter().map(Option::as_deref).collect();
        each_once(problems, "sink", "name", &names, &names);
        each_once(problems, "sink", "path", &names, &paths);
        self.check_sink_places(problems);
        let is_any_port = self.listen.address().is_some_and(|address| address.port() == 0);
        if Some(&self.listen) == self.admin.as_ref() && !is_any_port {
            problems.error("admin", format!("is {} like `listen`; the two never share a port", self.listen));
        }
    }

    /// Looks for what is allowed but most likely not meant.
    fn check_oddities(&self, problems: &Problems) {
        for network in self.proxies.networks.iter().filter(|network| network.prefix_len() == 0) {
            let text = format!(
                "{network} makes everybody a proxy: any client can choose its address, so `allow_cidrs` and the limits per \
                 peer do not hold; name your own proxies only"
            );
            problems.warning("trusted_proxies", text);
        }
        let is_unix = matches!(self.listen, Listen::Unix(_));
        if !self.limits.allow_cidrs.is_empty() && is_unix && !self.proxies.unix {
            let text = "no request can be accepted: one that comes by a Unix socket has no address, and is in no network; add \
                        \"unix\" to `trusted_proxies` if a proxy there names its clients";
            problems.warning("limits.allow_cidrs", text.to_owned());
        }
        self.check_shared_keys(problems);
    }

    /// A token does not name the URL that it was sent to. With shared keys, who can read what one connector gets can send
    /// it to the other one.
    fn check_shared_keys(&self, problems: &Problems) {
        let names: Vec<_> = self.connectors.iter().map(|connector| Some(&*connector.name)).collect();
        for (at, (connector, segment)) in self.connectors.iter().zip(segments(&names)).enumerate() {
            for other in self.connectors.iter().take(at) {
                if connector.verifier.shares_a_secret_with(&other.verifier) {
                    let text = format!(
                        "a secret is also one of connector \"{}\", so that an event for one is authentic for the other: tokens \
                         are not bound to a URL; give each its own secret at DT",
                        other.name
                    );
                    problems.warning(&format!("connector.{segment}.secrets"), text);
                }
                let (these, those) = (&connector.projects, &other.projects);
                let are_disjoint = !these.is_empty() && !those.is_empty() && these.is_disjoint(those);
                if connector.verifier.shares_an_organization_with(&other.verifier) && !are_disjoint {
                    let text = format!(
                        "is also that of connector \"{}\", so that an event for one is authentic for the other: tokens are \
                         not bound to a URL; give both `projects` that have none in common",
                        other.name
                    );
                    problems.warning(&format!("connector.{segment}.asymmetric.organization"), text);
                }
            }
        }
    }

    /// What a sink wrote into the spool's folder, the spool would take for its own, or the sink would damage it.
    fn check_sink_places(&self, problems: &Problems) {
        let spool = resolved(&self.spool_folder());
        for sink in &self.sinks {
            let SinkKind::File(file) = &sink.kind else { continue };
            let template = file.path.clone().absolute();
            let place = match template.is_fixed() {
                true => template.root().join(template.relative_text()),
                false => template.root().to_owned(),
            };
            if resolved(&place).starts_with(&spool) {
                let text = format!(
                    "found \"{}\", which is in the spool's folder {}; allowed is a path outside of it",
                    file.path.to_string().escape_debug(),
                    spool.display()
                );
                problems.error(&format!("sink.{}.path", sink.name), text);
            }
        }
    }

    /// A sink's folder has to be there: `serve` makes only the data folder, and those that a template's placeholders name.
    /// Where a sink has a fixed path, `serve` does not start without it; otherwise events wait until it is made.
    fn check_sink_folders(&self, problems: &Problems) {
        let data = std::path::absolute(&self.data).unwrap_or_else(|_| self.data.clone());
        for sink in &self.sinks {
            let SinkKind::File(file) = &sink.kind else { continue };
            let template = file.path.clone().absolute();
            let root = template.root();
            let (folder, key) = (root.display(), format!("sink.{}.path", sink.name));
            let text = match std::fs::metadata(root) {
                Ok(about) if about.is_dir() => continue,
                Ok(_) => format!("{folder} is not a folder"),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && data.starts_with(root) => {
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    format!("the folder {folder} does not exist; make it: mkdir -p {folder}")
                }
                Err(error) => format!("the folder {folder} cannot be used: {error}"),
            };
            if template.is_fixed() { problems.error(&key, text) } else { problems.warning(&key, text) }
        }
    }

    /// A connector may also name sinks that an embedder adds, so this is checked once all are known.
    fn check_sink_names(&self, problems: &Problems) {
        let known: BTreeSet<&str> = self.sinks.iter().map(|sink| &*sink.name).collect();
        for connector in &self.connectors {
            for name in connector.sinks.iter().flatten().filter(|name| !known.contains(&***name)) {
                let allowed = known.iter().copied().collect::<Vec<_>>().join(", ");
                let (hint, name) = (did_you_mean(name, known.iter().copied()), name.escape_debug());
                let text = format!("no sink is named \"{name}\"; {hint}there are: {allowed}");
                problems.error(&format!("connector.{}.sinks", connector.name), text);
            }
        }
    }

    /// Completes a configuration for a program that adds no sinks of its own: without any, there is `stdout`; and
    /// connectors may name only those that there are. Checks again what was changed after reading, and adds to the warnings
    /// what looks wrong as a whole.
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

    /// Adds the sink that is used when none is given.
    fn or_stdout(mut self) -> Self {
        if self.sinks.is_empty() {
            self.sinks.push(SinkConfig::stdout());
        }
        self
    }

    /// The same with a certificate for the listener, whose files are looked at.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Problems`], with every problem that was found.
    pub fn with_tls(mut self, settings: TlsSettings, sources: &dyn Sources) -> Result<Self, ConfigError> {
        let problem = |(key, text)| Problem::new(format!("tls.{key}"), text);
        let (errors, warnings) = listen::look_at(&settings, sources);
        if !errors.is_empty() {
            return Err(ConfigError::Problems(errors.into_iter().map(problem).collect()));
        }
        self.warnings.extend(warnings.into_iter().map(problem));
        self.tls = Some(settings);
        Ok(self)
    }

    /// Leaves out what dead letters have no room for: in a topic of Kafka, copies of refused requests would have no bound.
    pub(crate) fn settle(&mut self) {
        if self.dead_letter_topic().is_some() {
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

    /// The topic of Kafka to which dead letters go; `None` where they go to `dead.db`.
    #[must_use]
    pub fn dead_letter_topic(&self) -> Option<&str> {
        self.dead_letters.as_deref().filter(|_| self.mode == Mode::Direct)
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

/// The absolute path without `..` and, as far as it exists, without symbolic links.
fn resolved(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for component in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        match component {
            Component::ParentDir => drop(resolved.pop()),
            other => resolved.push(other),
        }
        if let Ok(real) = resolved.canonicalize() {
            resolved = real;
        }
    }
    resolved
}

/// Notes each value that an earlier entry of the list has as well. `names` are the names of the entries.
fn each_once(problems: &Problems, section: &str, key: &str, names: &[Option<&str>], values: &[Option<&str>]) {
    let mut seen = BTreeSet::new();
    for (value, segment) in values.iter().zip(segments(names)) {
        if let Some(value) = value
            && !seen.insert(*value)
        {
            let text = format!("\"{}\" is used by two of them", value.escape_debug());
            problems.error(&format!("{section}.{segment}.{key}"), text);
        }
    }
}
