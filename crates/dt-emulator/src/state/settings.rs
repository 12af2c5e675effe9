//! The settings of a Data Connector, as the bodies of DT's REST API have them.
//!
//! `null` empties `events` and `labels`: DT's Terraform provider sends it for an empty list, and its acceptance test expects
//! an empty list in the response. DT's documentation of `PATCH` does not say more. Here any other member that is `null`
//! counts as absent, a new `headers` replaces the old one, and a `signatureSecret` of `""` removes the secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::connector::HTTP_PUSH;
use dt_verify::event::EventType;
use dt_verify::{ASYMMETRIC_HEADER, SECRET_HEADER};

/// The largest length of a text, in bytes.
const MAX_TEXT: usize = 4096;

/// The largest number of members of a list or an object.
const MAX_MEMBERS: usize = 100;

/// Header names that HTTP or the delivery needs.
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

/// The member `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectorStatus {
    #[serde(rename = "ACTIVE")]
    Active,
    #[serde(rename = "USER_DISABLED")]
    UserDisabled,
    #[serde(rename = "SYSTEM_DISABLED")]
    SystemDisabled,
}

/// The settings of a connector. The type does not implement `Debug`, since it contains a secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Settings {
    pub display_name: String,
    pub status: ConnectorStatus,
    /// The event types that the connector forwards; empty for all.
    pub events: Vec<String>,
    /// The keys of the labels that each delivery includes.
    pub labels: Vec<String>,
    pub url: String,
    /// The secret for `X-Dt-Signature`; empty if deliveries do not have this header.
    pub signature_secret: String,
    pub headers: BTreeMap<String, String>,
}

/// Why the settings in a request's body are invalid. No message contains the URL, which may have a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("type is missing; expected \"HTTP_PUSH\"")]
    TypeMissing,
    #[error("type: found {0}; only \"HTTP_PUSH\" is emulated")]
    OtherType(Value),
    #[error("status: found {0}; expected \"ACTIVE\" or \"USER_DISABLED\"")]
    BadStatus(Value),
    #[error("events: \"{}\" is not an event type", .0.escape_debug())]
    UnknownEventType(String),
    #[error("{0} is not an object")]
    NotAnObject(&'static str),
    #[error("{0} is not an array")]
    NotAnArray(&'static str),
    #[error("{0}: expected at most {MAX_MEMBERS}")]
    TooMany(&'static str),
    #[error("{0} is not a string")]
    NotAString(String),
    #[error("{0} is longer than {MAX_TEXT} bytes")]
    TooLong(String),
    #[error("httpConfig.url is missing")]
    UrlMissing,
    #[error("httpConfig.url is not a URL")]
    NotAUrl,
    #[error("httpConfig.url does not begin with https:// or http://")]
    BadScheme,
    #[error("httpConfig.url has no host")]
    NoHost,
    #[error("httpConfig.url has a user name or password; expected a URL without them")]
    Credentials,
    #[error("httpConfig.url has a port that is not from 1 to 65535")]
    BadPort,
    #[error("httpConfig.headers: \"{}\" is not a header name", .0.escape_debug())]
    BadHeaderName(String),
    #[error("httpConfig.headers: the value of \"{}\" is not printable ASCII", .0.escape_debug())]
    BadHeaderValue(String),
    #[error("httpConfig.headers: \"{}\" is reserved", .0.escape_debug())]
    ReservedHeader(String),
}

impl Settings {
    /// Returns the default settings of a new connector.
    pub const fn new() -> Self {
        Self {
            display_name: String::new(),
            status: ConnectorStatus::Active,
            events: Vec::new(),
            labels: Vec::new(),
            url: String::new(),
            signature_secret: String::new(),
            headers: BTreeMap::new(),
        }
    }

    /// Reads the body of a request that creates a connector.
    pub fn create(body: &Map<String, Value>) -> Result<Self, SettingsError> {
        match member(body, "type") {
            None => return Err(SettingsError::TypeMissing),
            Some(kind) => check_type(kind)?,
        }
        let settings = Self::new().patched(body)?;
        if settings.url.is_empty() { Err(SettingsError::UrlMissing) } else { Ok(settings) }
    }

    /// Returns these settings with the changes of a request's body.
    pub fn patched(&self, body: &Map<String, Value>) -> Result<Self, SettingsError> {
        let mut settings = self.clone();
        if let Some(kind) = member(body, "type") {
            check_type(kind)?;
        }
        if let Some(name) = member(body, "displayName") {
            settings.display_name = text("displayName", name)?;
        }
        if let Some(status) = member(body, "status") {
            settings.status = match status.as_str() {
                Some("ACTIVE") => ConnectorStatus::Active,
                Some("USER_DISABLED") => ConnectorStatus::UserDisabled,
                // A client that sends a whole connector back does not change its status.
                Some("SYSTEM_DISABLED") if settings.status == ConnectorStatus::SystemDisabled => {
                    ConnectorStatus::SystemDisabled
                }
                _ => return Err(SettingsError::BadStatus(status.clone())),
            };
        }
        if let Some(events) = body.get("events") {
            settings.events = texts("events", events)?;
            let is_unknown = |name: &&String| !EventType::from(name.as_str()).is_known();
            if let Some(unknown) = settings.events.iter().find(is_unknown) {
                return Err(SettingsError::UnknownEventType(unknown.clone()));
            }
        }
        if let Some(labels) = body.get("labels") {
            settings.labels = texts("labels", labels)?;
        }
        if let Some(config) = member(body, "httpConfig") {
            let config = config.as_object().ok_or(SettingsError::NotAnObject("httpConfig"))?;
            settings.patch_http(config)?;
        }
        Ok(settings)
    }

    fn patch_http(&mut self, config: &Map<String, Value>) -> Result<(), SettingsError> {
        if let Some(url) = member(config, "url") {
            self.url = text("httpConfig.url", url)?;
            check_url(&self.url)?;
        }
        if let Some(secret) = member(config, "signatureSecret") {
            self.signature_secret = text("httpConfig.signatureSecret", secret)?;
        }
        if let Some(headers) = member(config, "headers") {
            let headers = headers.as_object().ok_or(SettingsError::NotAnObject("httpConfig.headers"))?;
            if headers.len() > MAX_MEMBERS {
                return Err(SettingsError::TooMany("httpConfig.headers"));
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

    /// Returns a warning about the URL; `None` if there is none.
    pub fn warning(&self) -> Option<&'static str> {
        url_warning(&self.url)
    }
}

/// Returns why the real DT rejects a URL that the emulator accepts; `None` if DT accepts it.
#[must_use]
pub fn url_warning(url: &str) -> Option<&'static str> {
    let uri: http::Uri = url.parse().ok()?;
    let host = uri.host().unwrap_or_default();
    if uri.scheme_str() != Some("https") {
        Some("the real DT rejects URLs that are not https")
    } else if host == "localhost" || host.starts_with("127.") || host == "[::1]" {
        Some("the real DT cannot reach a loopback address")
    } else {
        None
    }
}

/// Returns a member of an object; `None` if it is absent or `null`.
fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

fn check_type(kind: &Value) -> Result<(), SettingsError> {
    if kind == HTTP_PUSH { Ok(()) } else { Err(SettingsError::OtherType(kind.clone())) }
}

fn text(name: &str, value: &Value) -> Result<String, SettingsError> {
    let text = value.as_str().ok_or_else(|| SettingsError::NotAString(name.to_owned()))?;
    if text.len() > MAX_TEXT {
        return Err(SettingsError::TooLong(name.to_owned()));
    }
    Ok(text.to_owned())
}

/// Reads a list of texts; `null` is an empty list.
fn texts(name: &'static str, value: &Value) -> Result<Vec<String>, SettingsError> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let values = value.as_array().ok_or(SettingsError::NotAnArray(name))?;
    if values.len() > MAX_MEMBERS {
        return Err(SettingsError::TooMany(name));
    }
    values.iter().map(|value| text(&format!("a member of {name}"), value)).collect()
}

/// Checks that requests can be sent to a URL.
fn check_url(url: &str) -> Result<(), SettingsError> {
    let uri: http::Uri = url.parse().map_err(|_| SettingsError::NotAUrl)?;
    let authority = uri.authority().ok_or(SettingsError::NoHost)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(SettingsError::BadScheme);
    }
    if authority.host().is_empty() {
        return Err(SettingsError::NoHost);
    }
    if authority.as_str().contains('@') {
        return Err(SettingsError::Credentials);
    }
    // The crate `http` ignores an invalid port, and the request would go to the default port.
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return Err(SettingsError::BadPort);
    }
    Ok(())
}

fn check_header(name: &str, value: &str) -> Result<(), SettingsError> {
    let owned = || name.to_owned();
    http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| SettingsError::BadHeaderName(owned()))?;
    http::HeaderValue::from_str(value).map_err(|_| SettingsError::BadHeaderValue(owned()))?;
    let is = |reserved: &&str| name.eq_ignore_ascii_case(reserved);
    if RESERVED_HEADERS.iter().any(&is) || is(&SECRET_HEADER) || is(&ASYMMETRIC_HEADER) {
        return Err(SettingsError::ReservedHeader(owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
    fn urls_that_dt_rejects_have_a_warning() {
        assert_eq!(settings().warning(), None);
        for url in ["http://example.com", "https://localhost:1/", "https://127.0.0.1/", "https://[::1]:1/"] {
            assert!(Settings { url: url.to_owned(), ..settings() }.warning().is_some(), "{url}");
        }
    }
}
