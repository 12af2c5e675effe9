//! A Data Connector: its configuration as DT's REST API has it, its queue and its metrics.
//!
//! `null` empties `events` and `labels`: DT's Terraform provider sends it for an empty list, and its acceptance test wants
//! an empty list back. Where DT's documentation is silent on `PATCH`: any other member that is `null` counts as absent; a
//! new `headers` replaces the old one; a `signatureSecret` of `""` removes the secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::engine::{Metrics, Queue};
use dt_verify::event::EventType;
use dt_verify::{ASYMMETRIC_HEADER, SECRET_HEADER};

/// The only type of connector there is here.
const HTTP_PUSH: &str = "HTTP_PUSH";

/// How long texts may be, how many there may be of them.
const MAX_TEXT: usize = 4096;
const MAX_MEMBERS: usize = 100;

/// Headers that HTTP itself or the delivery needs.
const RESERVED_HEADERS: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-type",
];

/// `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Status {
    #[serde(rename = "ACTIVE")]
    Active,
    #[serde(rename = "USER_DISABLED")]
    UserDisabled,
    #[serde(rename = "SYSTEM_DISABLED")]
    SystemDisabled,
}

/// What is configured. Not `Debug`: it has a secret.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) display_name: String,
    pub(crate) status: Status,
    /// Event types; empty for all.
    pub(crate) events: Vec<String>,
    /// The keys of the labels to include.
    pub(crate) labels: Vec<String>,
    pub(crate) url: String,
    /// Empty for none.
    pub(crate) signature_secret: String,
    pub(crate) headers: BTreeMap<String, String>,
}

/// A connector of a project. Not `Debug`: it has a secret.
#[derive(Serialize, Deserialize)]
pub(crate) struct Connector {
    pub(crate) id: String,
    pub(crate) settings: Settings,
    pub(crate) queue: Queue,
    /// Tells it from others of its name since the start; those of a file have 0.
    #[serde(skip)]
    pub(crate) incarnation: u64,
    #[serde(skip)]
    pub(crate) metrics: Metrics,
    /// When the first attempt failed since one succeeded, in Unix milliseconds of the emulated clock. Not kept: while the
    /// emulator is down nothing can succeed.
    #[serde(skip)]
    pub(crate) failing_since: Option<i64>,
    /// When it was disabled by the system, likewise.
    pub(crate) disabled_at: Option<i64>,
}

impl Connector {
    pub(crate) fn new(id: String, settings: Settings, incarnation: u64) -> Self {
        Self {
            id,
            settings,
            incarnation,
            queue: Queue::default(),
            metrics: Metrics::default(),
            failing_since: None,
            disabled_at: None,
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.settings.status == Status::Active
    }

    /// Whether it forwards events of this type.
    pub(crate) fn wants(&self, event_type: &str) -> bool {
        let events = &self.settings.events;
        events.is_empty() || events.iter().any(|wanted| wanted == event_type)
    }

    /// What DT's REST API shows, the secret in clear text as there.
    pub(crate) fn to_json(&self, project: &str) -> Value {
        let Settings { display_name, status, events, labels, url, signature_secret, headers } =
            &self.settings;
        json!({
            "name": format!("projects/{project}/dataconnectors/{}", self.id),
            "displayName": display_name,
            "type": HTTP_PUSH,
            "status": status,
            "events": events,
            "labels": labels,
            "httpConfig": {"url": url, "signatureSecret": signature_secret, "headers": headers},
        })
    }
}

impl Settings {
    /// What a new connector has unless it says otherwise.
    pub(crate) const fn new() -> Self {
        Self {
            display_name: String::new(),
            status: Status::Active,
            events: Vec::new(),
            labels: Vec::new(),
            url: String::new(),
            signature_secret: String::new(),
            headers: BTreeMap::new(),
        }
    }

    /// Reads a body that makes a connector. `Err` says what is wrong with it.
    pub(crate) fn create(body: &Map<String, Value>) -> Result<Self, String> {
        match member(body, "type") {
            None => return Err("type is missing; allowed is \"HTTP_PUSH\"".to_owned()),
            Some(kind) => check_type(kind)?,
        }
        let settings = Self::new().patched(body)?;
        if settings.url.is_empty() { Err("httpConfig.url is missing".to_owned()) } else { Ok(settings) }
    }

    /// These settings with what a body changes. `Err` says what is wrong with it.
    pub(crate) fn patched(&self, body: &Map<String, Value>) -> Result<Self, String> {
        let mut settings = self.clone();
        if let Some(kind) = member(body, "type") {
            check_type(kind)?;
        }
        if let Some(name) = member(body, "displayName") {
            settings.display_name = text("displayName", name)?;
        }
        if let Some(status) = member(body, "status") {
            settings.status = match status.as_str() {
                Some("ACTIVE") => Status::Active,
                Some("USER_DISABLED") => Status::UserDisabled,
                // Whoever sends a whole connector back does not ask for a change.
                Some("SYSTEM_DISABLED") if settings.status == Status::SystemDisabled => {
                    Status::SystemDisabled
                }
                _ => {
                    return Err(format!("status: found {status}; allowed are \"ACTIVE\", \"USER_DISABLED\""));
                }
            };
        }
        if let Some(events) = body.get("events") {
            settings.events = texts("events", events)?;
            let is_unknown = |name: &&String| !EventType::from(name.as_str()).is_known();
            if let Some(unknown) = settings.events.iter().find(is_unknown) {
                return Err(format!("events: \"{}\" is no event type", unknown.escape_debug()));
            }
        }
        if let Some(labels) = body.get("labels") {
            settings.labels = texts("labels", labels)?;
        }
        if let Some(config) = member(body, "httpConfig") {
            settings.patch_http(config.as_object().ok_or("httpConfig is not an object")?)?;
        }
        Ok(settings)
    }

    fn patch_http(&mut self, config: &Map<String, Value>) -> Result<(), String> {
        if let Some(url) = member(config, "url") {
            self.url = text("httpConfig.url", url)?;
            check_url(&self.url)?;
        }
        if let Some(secret) = member(config, "signatureSecret") {
            self.signature_secret = text("httpConfig.signatureSecret", secret)?;
        }
        if let Some(headers) = member(config, "headers") {
            let headers = headers.as_object().ok_or("httpConfig.headers is not an object")?;
            if headers.len() > MAX_MEMBERS {
                return Err(format!("httpConfig.headers: at most {MAX_MEMBERS} are allowed"));
            }
            self.headers.clear();
            for (name, value) in headers {
                let value = text("a value of httpConfig.headers", value)?;
                check_header(name, &value)?;
                self.headers.insert(name.clone(), value);
            }
        }
        Ok(())
    }

    /// What is to be said about the URL, if anything.
    pub(crate) fn warning(&self) -> Option<&'static str> {
        url_warning(&self.url)
    }
}

/// Returns what the real DT refuses about a URL that is allowed here.
#[must_use]
pub fn url_warning(url: &str) -> Option<&'static str> {
    let uri: http::Uri = url.parse().ok()?;
    let host = uri.host().unwrap_or_default();
    if uri.scheme_str() != Some("https") {
        Some("the real DT refuses URLs that are not https")
    } else if host == "localhost" || host.starts_with("127.") || host == "[::1]" {
        Some("the real DT cannot reach a loopback address")
    } else {
        None
    }
}

/// A member that is there and not `null`.
fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

fn check_type(kind: &Value) -> Result<(), String> {
    if kind == HTTP_PUSH {
        Ok(())
    } else {
        Err(format!("type: found {kind}; only \"HTTP_PUSH\" is emulated"))
    }
}

fn text(name: &str, value: &Value) -> Result<String, String> {
    let text = value.as_str().ok_or_else(|| format!("{name} is not a string"))?;
    if text.len() > MAX_TEXT {
        return Err(format!("{name} is longer than {MAX_TEXT} bytes"));
    }
    Ok(text.to_owned())
}

/// Reads a list of texts; `null` is an empty one.
fn texts(name: &str, value: &Value) -> Result<Vec<String>, String> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let values = value.as_array().ok_or_else(|| format!("{name} is not an array"))?;
    if values.len() > MAX_MEMBERS {
        return Err(format!("{name}: at most {MAX_MEMBERS} are allowed"));
    }
    values.iter().map(|value| text(&format!("a member of {name}"), value)).collect()
}

/// A URL that requests can be sent to. The messages do not repeat it, since it may have a password.
fn check_url(url: &str) -> Result<(), String> {
    let uri: http::Uri = url.parse().map_err(|_| "httpConfig.url is no URL".to_owned())?;
    let authority = uri.authority().ok_or("httpConfig.url has no host")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("httpConfig.url does not begin with https:// or http://".to_owned());
    }
    if authority.host().is_empty() {
        return Err("httpConfig.url has no host".to_owned());
    }
    if authority.as_str().contains('@') {
        return Err("httpConfig.url has a user name or password, which is not allowed".to_owned());
    }
    // `http` takes a port that is none for no port, and the request would go to the usual one.
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return Err("httpConfig.url has a port that is not from 1 to 65535".to_owned());
    }
    Ok(())
}

fn check_header(name: &str, value: &str) -> Result<(), String> {
    let shown = name.escape_debug();
    http::HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("httpConfig.headers: \"{shown}\" is no header name"))?;
    http::HeaderValue::from_str(value)
        .map_err(|_| format!("httpConfig.headers: the value of \"{shown}\" is not printable ASCII"))?;
    let is = |reserved: &&str| name.eq_ignore_ascii_case(reserved);
    if RESERVED_HEADERS.iter().any(&is) || is(&SECRET_HEADER) || is(&ASYMMETRIC_HEADER) {
        return Err(format!("httpConfig.headers: \"{shown}\" is reserved"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn settings() -> Settings {
        let body = json!({"type": "HTTP_PUSH", "httpConfig": {"url": "https://example.com/dt", "signatureSecret": "s", "headers": {"a": "1"}}});
        Settings::create(&object(&body)).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_configuration_is_merged_field_by_field() {
        let patched =
            settings().patched(&object(&json!({"httpConfig": {"headers": {"b": "2"}}, "labels": null}))).ok();
        let patched = patched.unwrap();
        assert_eq!((&*patched.url, &*patched.signature_secret), ("https://example.com/dt", "s"));
        assert_eq!(patched.headers, BTreeMap::from([("b".to_owned(), "2".to_owned())]));
        let patched = patched.patched(&object(&json!({"httpConfig": {"signatureSecret": ""}}))).ok().unwrap();
        assert_eq!((&*patched.signature_secret, patched.headers.len()), ("", 1));
    }

    #[test]
    fn wrong_bodies_are_refused() {
        for body in [
            json!({"status": "SYSTEM_DISABLED"}),
            json!({"status": 1}),
            json!({"type": "AWS_SQS"}),
            json!({"events": "touch"}),
            json!({"events": ["smell"]}),
            json!({"labels": [1]}),
            json!({"httpConfig": []}),
            json!({"httpConfig": {"url": "ftp://example.com"}}),
            json!({"httpConfig": {"url": "/path"}}),
            json!({"httpConfig": {"url": "http://127.0.0.1:99999/"}}),
            json!({"httpConfig": {"url": "http://[::1]:0/"}}),
            json!({"httpConfig": {"url": "http://example.com:/"}}),
            json!({"httpConfig": {"url": "https://user:pass@example.com"}}),
            json!({"httpConfig": {"headers": {"X-Dt-Signature": "x"}}}),
            json!({"httpConfig": {"headers": {"Host": "x"}}}),
            json!({"httpConfig": {"headers": {"a b": "x"}}}),
            json!({"httpConfig": {"headers": {"a": "x\r\ny: z"}}}),
        ] {
            assert!(settings().patched(&object(&body)).is_err(), "{body}");
        }
        assert!(Settings::create(&object(&json!({"type": "HTTP_PUSH"}))).is_err());
        assert!(Settings::create(&object(&json!({"httpConfig": {"url": "https://example.com"}}))).is_err());
    }

    #[test]
    fn what_dt_would_refuse_is_warned_of() {
        assert_eq!(settings().warning(), None);
        for url in ["http://example.com", "https://localhost:1/", "https://127.0.0.1/", "https://[::1]:1/"] {
            assert!(Settings { url: url.to_owned(), ..settings() }.warning().is_some(), "{url}");
        }
    }
}
