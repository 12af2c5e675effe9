//! The Data Connectors that a configuration expects in a project, and the differences of real ones from them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use super::settings::Changes;
use super::show;
use crate::cli::spool_access::bad_config;
use crate::cli::{Failure, complain, usage};
use crate::sink_types;
use dt_api::{Connector, ConnectorStatus, EndpointUrl, HttpConfig, SecretText, Target};
use dt_server::config::{Config, ConnectorConfig, PublicUrl, SystemSources, is_same_url};
use dt_verify::Secret;
use dt_verify::event::EventType;

/// The options of the subcommands that read a configuration.
#[derive(Debug, Args)]
pub struct ConfigOptions {
    /// The configuration of the receiver; the secrets that it names are read as well
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The URL at which DT reaches the receiver; the `path` of each connector is appended
    #[arg(long, value_name = "URL")]
    pub public_url: String,
}

/// The Data Connector that one connector of the configuration expects at DT.
pub struct Expected {
    /// The name of the connector in the configuration.
    pub name: Arc<str>,
    url: EndpointUrl,
    /// The expected URL with a user and a password, which DT sends as the header `authorization` that the configuration requires;
    /// `None` if it requires no such header.
    url_with_user: Option<EndpointUrl>,
    /// The expected event types; empty for all.
    events: Vec<EventType>,
    /// The keys of the labels by which sinks select events.
    labels: BTreeSet<String>,
    /// The secrets that the receiver accepts. A Data Connector uses one of them; a new one gets the first.
    secrets: Vec<SecretText>,
    headers: Vec<(String, SecretText)>,
}

/// A setting of a Data Connector that differs from the expected one. It contains no secret.
pub struct Difference {
    pub setting: &'static str,
    pub found: String,
    pub expected: String,
}

/// Reads a configuration, and returns the Data Connectors that it expects in a project.
pub fn read(path: &Path, public_url: &str, project: &str) -> Result<Vec<Expected>, Failure> {
    let base: PublicUrl = public_url.parse().map_err(|error| usage(format!("--public-url: {error}")))?;
    let config = Config::from_file(path, &SystemSources, &sink_types()).and_then(Config::complete);
    let config = config.map_err(|error| bad_config(Some(path), &error))?;
    let path = path.display();
    for warning in &config.warnings {
        complain(&format!("{path}: warning: {warning}"));
    }
    let accepts =
        |connector: &&ConnectorConfig| connector.projects.is_empty() || connector.projects.contains(project);
    let expected = config.connectors.iter().filter(accepts);
    let expected: Vec<_> =
        expected.map(|connector| Expected::of(connector, &base, &config)).collect::<Result<_, _>>()?;
    if expected.is_empty() {
        return Err(usage(format!(
            "{path}: no [[connector]] accepts events of the project {}",
            project.escape_debug()
        )));
    }
    Ok(expected)
}

/// Returns a URL with the user and the password of the header `authorization`; `None` if there is no such header with basic auth.
fn with_user(url: &str, headers: &[(String, SecretText)]) -> Option<EndpointUrl> {
    let (_, value) = headers.iter().find(|(name, _)| is_authorization(name))?;
    let user = STANDARD.decode(value.expose().strip_prefix("Basic ")?).ok()?;
    let (scheme, rest) = url.split_once("://")?;
    Some(EndpointUrl::new(format!("{scheme}://{}@{rest}", std::str::from_utf8(&user).ok()?)))
}

fn is_authorization(name: &str) -> bool {
    name.eq_ignore_ascii_case("authorization")
}

fn text_of(secret: &Secret, connector: &str, what: &str) -> Result<SecretText, Failure> {
    let text = std::str::from_utf8(secret.expose());
    text.map(SecretText::new).map_err(|_| usage(format!("connector {connector}: {what} is not UTF-8")))
}

impl Expected {
    fn of(connector: &ConnectorConfig, base: &PublicUrl, config: &Config) -> Result<Self, Failure> {
        let name = &connector.name;
        let secrets = connector.sent.signature.iter();
        let headers = connector.sent.headers.iter().map(|(header, value)| {
            Ok((header.clone(), text_of(value, name, &format!("the value of the header {header}"))?))
        });
        let sinks = config.sinks.iter().filter(|sink| {
            connector.sinks.as_ref().is_none_or(|sinks| sinks.iter().any(|name| **name == *sink.name))
        });
        let headers = headers.collect::<Result<Vec<_>, Failure>>()?;
        let url = base.at(&connector.path);
        Ok(Self {
            name: Arc::clone(name),
            url_with_user: with_user(url.expose(), &headers),
            url,
            events: connector.events.iter().map(|event| EventType::from(event.as_str())).collect(),
            labels: sinks.flat_map(|sink| sink.only.labels.keys().cloned()).collect(),
            secrets: secrets
                .map(|secret| text_of(secret, name, "a signature secret"))
                .collect::<Result<_, _>>()?,
            headers,
        })
    }

    /// Returns the expected URL, without secrets.
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// Returns the settings for creating the Data Connector.
    pub fn of_new(&self) -> Changes {
        let headers: BTreeMap<_, _> = self.headers.iter().cloned().collect();
        Changes {
            display_name: Some(self.name.to_string()),
            status: Some(ConnectorStatus::Active),
            events: Some(self.events.clone()),
            labels: Some(self.labels.iter().cloned().collect()),
            target: Some(Target::HttpPush(HttpConfig {
                url: Some(self.url.clone()),
                signature_secret: self.secrets.first().cloned(),
                headers: (!headers.is_empty()).then_some(headers),
            })),
        }
    }

    /// Returns the Data Connector with the connector's name, or else the one with its URL; `None` if there is none.
    ///
    /// # Errors
    ///
    /// A message that names the candidates, if several Data Connectors have the name or the URL.
    pub fn find<'a>(&self, connectors: &'a [Connector]) -> Result<Option<&'a Connector>, String> {
        let url_of = |connector: &&'a Connector| match &connector.target {
            Target::HttpPush(config) => config.url.as_ref(),
            _ => None,
        };
        let is_named = |connector: &&Connector| connector.display_name == *self.name;
        let is_at_url = |connector: &&'a Connector| {
            url_of(connector).is_some_and(|url| is_same_url(url, &self.url) || self.has_user(url))
        };
        let found: Vec<_> = connectors.iter().filter(|connector| url_of(connector).is_some()).collect();
        let (named, others): (Vec<_>, Vec<_>) = found.into_iter().partition(is_named);
        let at_url: Vec<_> = others.into_iter().filter(is_at_url).collect();
        match (&*named, &*at_url) {
            ([], []) => Ok(None),
            ([one], []) | ([], [one]) => Ok(Some(one)),
            ([one], _) if is_at_url(one) => Ok(Some(one)),
            _ => {
                let candidates: Vec<String> =
                    named.iter().chain(&at_url).map(|connector| shown(connector)).collect();
                Err(format!(
                    "{}: several Data Connectors could be this one, by name or URL: {}; give one of them the name {0}, and other \
                     names and URLs to the others",
                    self.name,
                    candidates.join(", ")
                ))
            }
        }
    }

    /// Compares a Data Connector with the expected one. Returns the changes that it needs, and the differences in words.
    pub fn compare(&self, connector: &Connector) -> (Changes, Vec<Difference>) {
        let (mut changes, mut config) = (Changes::default(), HttpConfig::default());
        let mut differences = Vec::new();
        let mut note = |setting, found: String, expected: String| {
            differences.push(Difference { setting, found, expected });
        };
        let unset = HttpConfig::default();
        let at_dt = match &connector.target {
            Target::HttpPush(config) => config,
            // `find` returns no other type.
            _ => &unset,
        };

        if connector.status != ConnectorStatus::Active {
            note("status", connector.status.to_string(), ConnectorStatus::Active.to_string());
            changes.status = Some(ConnectorStatus::Active);
        }
        let has_user = at_dt.url.as_ref().is_some_and(|url| self.has_user(url));
        if !has_user && !at_dt.url.as_ref().is_some_and(|url| is_same_url(url, &self.url)) {
            let url = at_dt.url.as_ref().map(ToString::to_string).unwrap_or_default();
            note("url", url, self.url());
            config.url = Some(self.url.clone());
        }
        if names_of(&connector.events) != names_of(&self.events) {
            note("events", show::events(&connector.events), show::events(&self.events));
            changes.events = Some(self.events.clone());
        }
        // Further labels stay: the receiver stores and forwards them.
        let missing = self.labels.iter().filter(|label| !connector.labels.contains(label));
        let labels: Vec<String> = connector.labels.iter().chain(missing).cloned().collect();
        if labels != connector.labels {
            note("labels", show::or_none(&connector.labels), show::or_none(&labels));
            changes.labels = Some(labels);
        }
        // Without a secret of the configuration, the receiver ignores one at DT.
        if let Some(first) = self.secrets.first() {
            let found = at_dt.signature_secret.as_ref().filter(|secret| !secret.is_empty());
            if !found.is_some_and(|found| self.secrets.contains(found)) {
                let found = found.map_or("not set", |_| "one that the receiver rejects");
                note("signature secret", found.to_owned(), "that of the configuration".to_owned());
                config.signature_secret = Some(first.clone());
            }
        }
        let expected = self.headers.iter().filter(|(name, _)| !(has_user && is_authorization(name)));
        config.headers = headers_for(expected, &at_dt.headers.clone().unwrap_or_default(), note);

        changes.target = (config != HttpConfig::default()).then_some(Target::HttpPush(config));
        (changes, differences)
    }

    /// Returns whether a URL has the user and the password that the configuration requires.
    fn has_user(&self, url: &EndpointUrl) -> bool {
        self.url_with_user.as_ref().is_some_and(|with_user| is_same_url(url, with_user))
    }
}

/// Returns the headers for a change, if one is needed. They include headers that are not expected, each in the spelling that DT
/// has, so that the result is the same whether DT merges or replaces them.
fn headers_for<'a>(
    expected: impl Iterator<Item = &'a (String, SecretText)>,
    found: &BTreeMap<String, SecretText>,
    mut note: impl FnMut(&'static str, String, String),
) -> Option<BTreeMap<String, SecretText>> {
    let mut all = found.clone();
    for (name, value) in expected {
        let spellings: Vec<&String> = found.keys().filter(|other| other.eq_ignore_ascii_case(name)).collect();
        if spellings.is_empty() {
            note("headers", format!("{name} not set"), format!("{name} as in the configuration"));
            all.insert(name.clone(), value.clone());
        }
        for spelling in spellings {
            if all.get(spelling) != Some(value) {
                note(
                    "headers",
                    format!("{spelling} with another value"),
                    format!("{name} as in the configuration"),
                );
                all.insert(spelling.clone(), value.clone());
            }
        }
    }
    (all != *found).then_some(all)
}

/// Returns a description of a Data Connector for a message.
fn shown(connector: &Connector) -> String {
    let url = connector.target.address().unwrap_or_default();
    format!("{} (\"{}\", {url})", connector.id().escape_debug(), connector.display_name.escape_debug())
}

fn names_of(events: &[EventType]) -> BTreeSet<&str> {
    events.iter().map(EventType::as_str).collect()
}
