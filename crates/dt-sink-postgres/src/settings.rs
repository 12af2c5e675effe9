//! The settings of the sink `postgres`: the server, its certificate authorities, and what is written.

use std::path::{Path, PathBuf};

use rustls::ClientConfig;

use dt_sink::config::{
    BadTlsFile, Changes, ClientTls, Entry, Key, KeyDefault, PemFile, Reload, SecretSource, Section, Sources,
    SystemSources, config_keys, custom, flag, needed_secret, path, read_secret,
};
use dt_sink::tls::client_config;
use dt_sink::{BadPlace, Format, Metric, OpenError, Sink, SinkContext, SinkError, SinkSettings};
use dt_verify::{Difference, Secret};

use crate::statement::Statement;
use crate::url::Url;
use crate::{PostgresSink, metrics};

config_keys! {
    /// The settings of a sink of type `postgres`.
    #[derive(Debug, Clone, PartialEq)]
    #[non_exhaustive]
    pub struct PostgresConfig {
        needed {
            /// The server, as `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. The connection has
            /// TLS, except on this machine or with `?sslmode=disable`; chain and host name are always checked.
            url: Secret = UrlEntry,
        }
        /// The certificate authorities of the server's certificate (PEM).
        ca: Option<PathBuf> = path("path").or_none("those of Mozilla").sample("\"/etc/dt-receiver/postgres-ca.pem\""),
        /// Whether the sink creates its tables and upgrades them.
        create: bool = flag().or(true),
        /// A statement that is executed for each event, in place of the sink's own tables. It may use `:event_id`,
        /// `:connector`, `:project`, `:device`, `:type`, `:timestamp`, `:received_at`, `:labels`, `:data` and `:body`.
        insert: Option<String> = custom("INSERT statement", read_insert)
            .or_none("the sink's own tables")
            .sample("\"INSERT INTO events (id, body) VALUES (:event_id, :body) ON CONFLICT DO NOTHING\""),
    }
}

/// The entry of the key `url`, which says where the URL is stored.
struct UrlEntry;

impl Entry<Secret> for UrlEntry {
    fn read(self, field: &'static str, section: &mut Section<'_>) -> Option<Secret> {
        needed_secret(section, field)
    }

    fn compare(self, field: &'static str, values: (&Secret, &Secret), changes: &mut Changes) {
        if values.0 != values.1 {
            changes.note(field, Difference::Changed, Reload::Yes);
        }
    }

    fn rows(self, field: &'static str, meaning: &str) -> Vec<Key> {
        let key = Key::new(field, "`{ env = \"NAME\" }` or `{ file = \"PATH\" }`", meaning);
        vec![key.or(KeyDefault::Needed).sample("{ env = \"POSTGRES_URL\" }")]
    }
}

fn read_insert(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let text = section.string(key)?;
    if let Err(error) = Statement::parse(&text) {
        section.complain(key, error.to_string());
    }
    Some(text)
}

impl PostgresConfig {
    /// Creates settings for a sink that writes to its own tables on the server with this URL.
    #[must_use]
    pub fn new(url: Secret) -> Self {
        Self::with_defaults(url)
    }
}

impl SinkSettings for PostgresConfig {
    const NAME: &'static str = "postgres";
    const PLACE: Option<&'static str> = Some("VARIABLE");
    const ABOUT: &'static str = "Tables of PostgreSQL. Details: [postgres.md](postgres.md).";
    const METRICS: &'static [Metric] = metrics::ALL;
    const FORMATS: &'static [Format] = &[];

    /// Reads the name of the environment variable that contains the URL. The URL itself contains a password, and all users of the
    /// machine could see it in an argument.
    fn from_place(place: &str) -> Result<Self, BadPlace> {
        if place.contains("//") {
            return Err(BadPlace::private(
                "the URL contains a password; put it into an environment variable, and name that here",
            ));
        }
        let source = SecretSource::Env(place.to_owned());
        let (url, _) = read_secret(&source, &SystemSources).map_err(BadPlace::private)?;
        Url::parse(&url).map_err(|error| BadPlace::private(format_args!("{source}: {error}")))?;
        Ok(Self::new(url))
    }

    fn check(&self, section: &Section<'_>) {
        // Without secrets there is a stand-in, which is no URL.
        if section.sources().reads_secrets() && !section.has_errors_at("url") {
            match Url::parse(&self.url) {
                Ok(url) => check_url(&url, section),
                Err(error) => section.complain("url", error.to_string()),
            }
        }
        if self.ca.is_some()
            && section.sources().looks_at_certificates()
            && let Err(error) = tls(self.ca.as_deref(), section.sources())
        {
            section.complain("ca", error);
        }
    }

    fn sink(&self, context: SinkContext) -> Result<Box<dyn Sink>, OpenError> {
        Ok(Box::new(PostgresSink::new(self, &context)?))
    }

    fn probe(&self, context: SinkContext) -> Option<Result<String, SinkError>> {
        let sink = PostgresSink::new(self, &context).map_err(|error| SinkError::from(error.to_string()));
        Some(sink.and_then(|mut sink| sink.probe()))
    }
}

fn check_url(url: &Url, section: &Section<'_>) {
    if url.is_plain_on_network() {
        section.warn(
            "url",
            "the password and the events cross the network in plain text; delete sslmode=disable",
        );
    }
    if url.is_read_only() {
        section.complain("url", "target_session_attrs=read-only selects a server that takes no events");
    }
}

/// Creates the configuration of TLS, which trusts the authorities in the file `ca`, or those of Mozilla if it is `None`.
///
/// # Errors
///
/// A message that says why the file cannot be used.
pub fn tls(ca: Option<&Path>, sources: &dyn Sources) -> Result<ClientConfig, String> {
    let file = ca.map(|path| PemFile::read(path, sources)).transpose()?;
    let named = |error: BadTlsFile| match ca {
        Some(path) => format!("{}: {}", path.display(), error.error),
        None => error.error,
    };
    client_config(&ClientTls::new(file)).map_err(named)
}
