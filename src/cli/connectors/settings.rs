//! The settings of a connector as options, and whether a connector has them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;

use crate::cli::{Failure, complain, usage};
use dt_api::{Connector, ConnectorSettings, ConnectorStatus, HttpConfig, SecretText, Target};
use dt_server::config::{SecretSource, SystemSources, read_secret};
use dt_verify::event::EventType;

/// The settings of a connector.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings")]
pub struct SettingsOptions {
    /// The URL that DT delivers to, with https
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The name that DT Studio shows
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Deliver events of this type only; repeatable
    #[arg(long = "event", value_name = "TYPE")]
    events: Vec<String>,
    /// Deliver events of all types
    #[arg(long, conflicts_with = "events")]
    all_events: bool,
    /// Include the label with this key in deliveries; repeatable
    #[arg(long = "label", value_name = "KEY")]
    labels: Vec<String>,
    /// Include no labels
    #[arg(long, conflicts_with = "labels")]
    no_labels: bool,
    /// Take the signature secret from this environment variable
    #[arg(long, value_name = "NAME")]
    secret_env: Option<String>,
    /// Take the signature secret from this file, without its last line end
    #[arg(long, value_name = "FILE", conflicts_with = "secret_env")]
    secret_file: Option<PathBuf>,
    /// Remove the signature secret: deliveries have DT-Asymmetric-Signature only
    #[arg(long, conflicts_with_all = ["secret_env", "secret_file"])]
    no_secret: bool,
    /// Send this header with each delivery, with the value in the environment variable NAME, or in a file (file=PATH instead of env=NAME); repeatable
    // Not parsed by `clap`, whose errors repeat the value: it may be a secret.
    #[arg(long = "header", value_name = "HEADER:env=NAME")]
    headers: Vec<String>,
    /// Send no headers of your own
    #[arg(long, conflicts_with = "headers")]
    no_headers: bool,
}

/// The settings that a request changes.
#[derive(Debug, Default)]
pub struct Changes {
    pub display_name: Option<String>,
    pub status: Option<ConnectorStatus>,
    pub events: Option<Vec<EventType>>,
    pub labels: Option<Vec<String>>,
    pub target: Option<Target>,
}

impl SettingsOptions {
    /// Reads the settings from the options, and the secrets that these refer to.
    pub fn changes(&self) -> Result<Changes, Failure> {
        let unknown = self.events.iter().find(|name| !EventType::from(name.as_str()).is_known());
        if let Some(unknown) = unknown {
            let known: Vec<&str> = EventType::KNOWN.iter().map(EventType::as_str).collect();
            let (unknown, known) = (unknown.escape_debug(), known.join(", "));
            return Err(usage(format!("--event: \"{unknown}\" is not an event type; expected {known}")));
        }
        let mut config = HttpConfig { signature_secret: self.secret()?, ..HttpConfig::default() };
        config.url = self.url.clone().map(dt_api::EndpointUrl::new);
        if self.no_headers || !self.headers.is_empty() {
            config.headers = Some(self.headers.iter().map(|text| header(text)).collect::<Result<_, _>>()?);
        }
        let events = self.events.iter().map(|name| EventType::from(name.as_str())).collect::<Vec<_>>();
        Ok(Changes {
            display_name: self.name.clone(),
            status: None,
            events: (self.all_events || !events.is_empty()).then_some(events),
            labels: (self.no_labels || !self.labels.is_empty()).then(|| self.labels.clone()),
            target: (config != HttpConfig::default()).then_some(Target::HttpPush(config)),
        })
    }

    fn secret(&self) -> Result<Option<SecretText>, Failure> {
        let source = match (&self.secret_env, &self.secret_file) {
            (Some(name), _) => SecretSource::Env(name.clone()),
            (None, Some(path)) => SecretSource::File(path.clone()),
            (None, None) => return Ok(self.no_secret.then(|| SecretText::new(""))),
        };
        secret_of(&source).map(Some)
    }
}

/// Parses a header option: `HEADER:env=NAME` or `HEADER:file=PATH`. No message contains the text, which may be a secret.
fn header(text: &str) -> Result<(String, SecretText), Failure> {
    let malformed = || {
        usage(
            "--header: expected HEADER:env=NAME or HEADER:file=PATH, with the header's value in the environment variable NAME \
             or in the file PATH; a value on the command line is rejected, since every process of this machine can read it there",
        )
    };
    let (name, source) = text.split_once(':').ok_or_else(malformed)?;
    if name.parse::<http::HeaderName>().is_err() {
        return Err(malformed());
    }
    let source = match source.split_once('=') {
        Some(("env", variable)) if !variable.is_empty() => SecretSource::Env(variable.to_owned()),
        Some(("file", path)) if !path.is_empty() => SecretSource::File(PathBuf::from(path)),
        _ => return Err(malformed()),
    };
    Ok((name.to_owned(), secret_of(&source)?))
}

fn secret_of(source: &SecretSource) -> Result<SecretText, Failure> {
    let (secret, warning) = read_secret(source, &SystemSources).map_err(usage)?;
    if let Some(warning) = warning {
        complain(&format!("warning: {warning}"));
    }
    let text = std::str::from_utf8(secret.expose()).map_err(|_| usage(format!("{source} is not UTF-8")))?;
    Ok(SecretText::new(text))
}

impl Changes {
    /// Returns whether no setting is changed.
    pub const fn is_empty(&self) -> bool {
        self.display_name.is_none()
            && self.status.is_none()
            && self.events.is_none()
            && self.labels.is_none()
            && self.target.is_none()
    }

    /// Returns the settings for a request.
    pub fn settings(&self) -> ConnectorSettings {
        let mut settings = ConnectorSettings::new();
        if let Some(name) = &self.display_name {
            settings = settings.display_name(name);
        }
        if let Some(status) = &self.status {
            settings = settings.status(status.clone());
        }
        if let Some(events) = &self.events {
            settings = settings.events(events);
        }
        if let Some(labels) = &self.labels {
            settings = settings.labels(labels.iter().map(String::as_str));
        }
        if let Some(target) = &self.target {
            settings = settings.target(target);
        }
        settings
    }

    /// Returns the names of the settings that differ in a connector.
    pub fn missing_in(&self, connector: &Connector) -> Vec<&'static str> {
        fn differs<T: PartialEq>(wanted: Option<&T>, found: &T) -> bool {
            wanted.is_some_and(|wanted| wanted != found)
        }
        // DT may return them in another order.
        fn set<T: Ord + Clone>(list: &[T]) -> BTreeSet<T> {
            list.iter().cloned().collect()
        }
        let mut missing = Vec::new();
        let mut note = |is_missing: bool, name: &'static str| missing.extend(is_missing.then_some(name));
        note(differs(self.display_name.as_ref(), &connector.display_name), "name");
        note(differs(self.status.as_ref(), &connector.status), "status");
        note(differs(self.events.as_deref().map(set).as_ref(), &set(&connector.events)), "events");
        note(differs(self.labels.as_deref().map(set).as_ref(), &set(&connector.labels)), "labels");
        match (&self.target, &connector.target) {
            (None, _) => {}
            (Some(Target::HttpPush(wanted)), Target::HttpPush(found)) => {
                let none = SecretText::new("");
                let secret = found.signature_secret.as_ref().unwrap_or(&none);
                note(wanted.url.is_some() && wanted.url != found.url, "url");
                note(differs(wanted.signature_secret.as_ref(), secret), "signature secret");
                let headers = |headers: &BTreeMap<String, SecretText>| {
                    let lower = headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone()));
                    lower.collect::<BTreeMap<_, _>>()
                };
                let found = found.headers.as_ref().map(headers).unwrap_or_default();
                note(differs(wanted.headers.as_ref().map(headers).as_ref(), &found), "headers");
            }
            (Some(_), _) => note(true, "type"),
        }
        missing
    }
}
