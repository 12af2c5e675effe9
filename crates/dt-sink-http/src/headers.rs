//! The headers that the operator chooses: plain ones in the configuration, secret ones in the environment or in files.

use std::collections::BTreeMap;

use http::header::{HeaderName, HeaderValue};

use dt_sink::config::{Section, Table, TableEntry, read_source, secret_keys};
use dt_verify::Secret;

/// The headers that the sink or the protocol sets, each with the remedy for the operator.
const RESERVED: [(&str, &str); 13] = [
    ("connection", "connections are handled by the sink"),
    ("content-length", "it is set for each request"),
    ("expect", "requests are sent whole"),
    ("host", "it is the host of `url`"),
    ("te", "connections are handled by the sink"),
    ("trailer", "requests have no trailers"),
    ("transfer-encoding", "it is set for each request"),
    ("upgrade", "connections are handled by the sink"),
    ("keep-alive", "connections are handled by the sink"),
    ("proxy-connection", "connections are handled by the sink"),
    ("idempotency-key", "it is set for each request"),
    ("x-dt-signature", "set `sign` or `forward_signature`"),
    ("dt-asymmetric-signature", "set `forward_signature`"),
];

/// Words in the names of headers whose values are secrets.
const SECRET_NAMES: [&str; 8] =
    ["authorization", "api-key", "apikey", "cookie", "credential", "password", "secret", "token"];

/// Headers with plain values, by name.
pub type PlainHeaders = BTreeMap<String, String>;

/// Headers with secret values, by name.
pub type SecretHeaders = BTreeMap<String, Secret>;

/// Returns the entry of the table `headers`.
pub const fn plain() -> TableEntry<PlainHeaders> {
    TableEntry {
        read: read_plain,
        tables: |field, meaning| {
            vec![Table::new(format!("[{field}]"), meaning, Vec::new()).given("X-Tenant = \"plant-1\"")]
        },
    }
}

/// Returns the entry of the table `secret_headers`.
pub const fn secret() -> TableEntry<SecretHeaders> {
    TableEntry {
        read: read_secret_headers,
        tables: |field, meaning| {
            let keys = secret_keys("HTTP_API_KEY", "/etc/dt-receiver/http-api-key");
            vec![Table::new(format!("[{field}.X-Api-Key]"), meaning, keys)]
        },
    }
}

/// Returns why a header cannot be set; `None` if it can.
fn why_not(name: &str) -> Option<String> {
    let Ok(parsed) = name.parse::<HeaderName>() else {
        return Some("is no name of an HTTP header; expected one such as X-Tenant".to_owned());
    };
    if parsed.as_str().starts_with("ce-") {
        return Some("cannot be set: the format `cloudevents` sets it".to_owned());
    }
    let reserved = RESERVED.iter().find(|(reserved, _)| *reserved == parsed.as_str());
    reserved.map(|(_, why)| format!("cannot be set: {why}"))
}

fn read_plain(section: Section<'_>) -> Option<PlainHeaders> {
    let (pairs, section) = section.into_pairs();
    let mut headers = PlainHeaders::new();
    for (name, value) in pairs {
        let lower = name.to_ascii_lowercase();
        if let Some(why) = why_not(&name) {
            section.complain(&quoted(&name), why);
        } else if SECRET_NAMES.iter().any(|part| lower.contains(part)) {
            let remedy = format!("give it as [sink.secret_headers.{name}] with `env` or `file`");
            section
                .complain(&quoted(&name), format!("is a secret, which never stands in the file; {remedy}"));
        } else if !value.is_ascii() || HeaderValue::from_str(&value).is_err() {
            section.complain(&quoted(&name), "has a value that no header can have; expected visible ASCII");
        } else if headers.insert(lower, value).is_some() {
            section.complain(&quoted(&name), "is there twice; names are compared without case");
        }
    }
    Some(headers)
}

fn read_secret_headers(section: Section<'_>) -> Option<SecretHeaders> {
    let mut headers = SecretHeaders::new();
    let mut is_complete = true;
    for (name, mut source) in section.named_sections("{ env = \"NAME\" } or { file = \"PATH\" }") {
        let key = source_key(&source);
        if let Some(why) = why_not(&name) {
            source.complain(key, format!("the header {why}"));
        }
        match read_source(&mut source) {
            Some(secret) => {
                check_secret(&source, key, &secret);
                if headers.insert(name.to_ascii_lowercase(), secret).is_some() {
                    source.complain(key, "the header is there twice; names are compared without case");
                }
            }
            None => is_complete = false,
        }
        source.finish();
    }
    is_complete.then_some(headers)
}

/// Returns the key that says where a secret is stored. Call this before the secret is read.
pub fn source_key(section: &Section<'_>) -> &'static str {
    if section.has("file") { "file" } else { "env" }
}

/// Reports a secret that cannot be part of a header, about the key that says where it is stored. The message does not contain the
/// secret.
pub fn check_secret(section: &Section<'_>, key: &str, secret: &Secret) {
    if HeaderValue::from_bytes(secret.expose()).is_err() {
        section.complain(key, "holds a secret with control characters, which no header can have");
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.escape_debug())
}
