//! A connector's part of the configuration: `[[connector]]`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::reader::Section;
use super::source::{Sources, read_secret};
use crate::event::EventType;
use crate::keys::check_issuer;
use crate::verify::{DT_ISSUER, KeySet, Policy, Verifier, VerifierBuilder};

/// Where a secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In the environment variable of this name.
    Env(String),
    /// In this file.
    File(PathBuf),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// One connector: a path, the keys of the Data Connectors that push to it, and what to do with their events.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectorConfig {
    /// Its name, in logs, metrics and envelopes.
    pub name: Arc<str>,
    /// The path of its Endpoint URL.
    pub path: String,
    /// Its keys and policy.
    pub verifier: Verifier,
    /// The issuer whose keys are fetched for it; `None` where it has all that it needs.
    pub key_issuer: Option<String>,
    /// The event types that are passed on; empty for all.
    pub events: BTreeSet<String>,
    /// The projects whose events are allowed; empty for any.
    pub projects: BTreeSet<String>,
    /// The names of its sinks; `None` for all there are.
    pub sinks: Option<Vec<String>>,
    /// Whether copies of an event are caught.
    pub dedup: bool,
    /// Whether copies of requests that were refused are kept, to be accepted once a wrong secret here was corrected.
    pub quarantine_refused: bool,
}

impl ConnectorConfig {
    /// A connector that takes all events of any project.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, path: impl Into<String>, verifier: Verifier) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            verifier,
            key_issuer: None,
            events: BTreeSet::new(),
            projects: BTreeSet::new(),
            sinks: None,
            dedup: true,
            quarantine_refused: false,
        }
    }

    /// Reads one; `quarantine_refused` counts unless the connector says otherwise.
    pub(super) fn read(
        mut section: Section<'_>,
        quarantine_refused: bool,
        sources: &dyn Sources,
    ) -> Option<Self> {
        let name = required_name(&mut section);
        let path = read_path(&mut section);
        let events = section.strings("events").unwrap_or_default();
        for event_type in &events {
            if matches!(EventType::from(event_type.as_str()), EventType::Other(_)) {
                section.warn(
                    "events",
                    format!("\"{}\" is no event type known today", event_type.escape_debug()),
                );
            }
        }
        let projects = section.strings("projects").unwrap_or_default();
        let sinks = section.strings("sinks");
        if sinks.as_ref().is_some_and(Vec::is_empty) {
            section.complain("sinks", "the list is empty; leave the key out for all sinks".to_owned());
        }
        let mut dedup_window = std::time::Duration::MAX;
        let zero = std::time::Duration::ZERO;
        section.duration_into("dedup_window", zero..=zero, &mut dedup_window);
        let quarantine_refused = section.flag("quarantine_refused").unwrap_or(quarantine_refused);
        let read = read_verifier(&mut section, sources);
        section.finish();
        let (verifier, key_issuer) = read?;
        Some(Self {
            name: name?,
            path: path?,
            verifier,
            key_issuer,
            events: events.into_iter().collect(),
            projects: projects.into_iter().collect(),
            sinks,
            dedup: dedup_window != zero,
            quarantine_refused,
        })
    }
}

/// Names go into file names, metrics and logs: letters, digits, `-` and `_`.
pub(super) fn required_name(section: &mut Section<'_>) -> Option<Arc<str>> {
    let Some(name) = section.string("name") else {
        section.complain("name", "is missing; give it a name".to_owned());
        return None;
    };
    if is_name(&name) {
        Some(Arc::from(name))
    } else {
        section.problem("name", &name, "1 to 64 letters, digits, - and _");
        None
    }
}

/// Whether a text can name a connector, a sink or a secret.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn read_path(section: &mut Section<'_>) -> Option<String> {
    let path = section.string("path").unwrap_or_else(|| "/".to_owned());
    let legal = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
    if legal {
        return Some(path);
    }
    section.problem("path", &path, "the path of a URL such as \"/dt\", without query");
    None
}

/// The verifier, and the issuer that its keys are fetched from.
fn read_verifier(section: &mut Section<'_>, sources: &dyn Sources) -> Option<(Verifier, Option<String>)> {
    let (mut complete, mut key_issuer) = (true, None);
    let mut builder = Verifier::builder();
    let policy = section.string("policy");
    if let Some(name) = policy {
        match name.parse::<Policy>() {
            Ok(policy) => builder = builder.policy(policy),
            Err(_) => {
                section.problem("policy", &name, "secret, asymmetric, either, both");
                complete = false;
            }
        }
    }
    let secrets = section.sections("secrets");
    let only = secrets.len() == 1;
    for secret in secrets {
        match read_labelled_secret(secret, only, sources) {
            Some((label, secret)) => builder = builder.secret(label, secret),
            None => complete = false,
        }
    }
    if let Some(asymmetric) = section.section("asymmetric") {
        match read_asymmetric(asymmetric, builder, sources) {
            Some((with_keys, issuer)) => (builder, key_issuer) = (with_keys, issuer),
            None => return None,
        }
    }
    if let Some(headers) = section.section("headers") {
        for (name, mut header) in headers.named_sections("a table such as { env = \"NAME\" }") {
            let value = read_source(&mut header, sources);
            match (name.parse::<http::HeaderName>(), value) {
                (Ok(_), Some(value)) => builder = builder.require_header(name, value),
                (Ok(_), None) => complete = false,
                // No request could ever carry it, so none would be accepted.
                (Err(_), _) => {
                    section.problem("headers", &name, "names of HTTP headers such as X-Api-Key");
                    complete = false;
                }
            }
            header.finish();
        }
    }
    if !complete {
        return None;
    }
    match builder.build() {
        Ok(verifier) => Some((verifier, key_issuer)),
        Err(error) => {
            let cure = "give `secrets = [{ env = \"NAME\" }]` or [connector.asymmetric]";
            section.complain("secrets", format!("{error}; {cure}"));
            None
        }
    }
}

fn read_labelled_secret(
    mut section: Section<'_>,
    only: bool,
    sources: &dyn Sources,
) -> Option<(String, crate::verify::Secret)> {
    let label = section.string("label").or_else(|| only.then(|| "default".to_owned()));
    let label = match label {
        Some(label) if is_name(&label) => Some(label),
        Some(label) => {
            section.problem("label", &label, "1 to 64 letters, digits, - and _");
            None
        }
        None => {
            section.complain("label", "is missing; with several secrets each needs one".to_owned());
            None
        }
    };
    let secret = read_source(&mut section, sources);
    section.finish();
    Some((label?, secret?))
}

/// Reads `env = "NAME"` or `file = "PATH"`, and the secret it leads to.
pub(super) fn read_source(section: &mut Section<'_>, sources: &dyn Sources) -> Option<crate::verify::Secret> {
    let (env, file) = (section.string("env"), section.string("file"));
    let (key, source) = match (env, file) {
        (Some(name), None) => ("env", SecretSource::Env(name)),
        (None, Some(path)) => ("file", SecretSource::File(PathBuf::from(path))),
        (Some(_), Some(_)) => {
            section.complain("env", "both `env` and `file` are given; delete one".to_owned());
            return None;
        }
        (None, None) => {
            section.complain("env", "is missing; give `env = \"NAME\"` or `file = \"PATH\"`".to_owned());
            return None;
        }
    };
    match read_secret(&source, sources) {
        Ok((secret, odd)) => {
            if let Some(odd) = odd {
                section.warn(key, odd);
            }
            Some(secret)
        }
        Err(error) => {
            section.complain(key, error.to_string());
            None
        }
    }
}

fn read_asymmetric(
    mut section: Section<'_>,
    builder: VerifierBuilder,
    sources: &dyn Sources,
) -> Option<(VerifierBuilder, Option<String>)> {
    let path = section.string("key_set");
    let organization = section.string("organization");
    let issuer = section.string("issuer").unwrap_or_else(|| DT_ISSUER.to_owned());
    let keys = match &path {
        None => match check_issuer(&issuer) {
            Ok(()) => Some(KeySet::none()),
            Err(error) => {
                section.complain("issuer", error.to_string());
                None
            }
        },
        Some(path) => match sources.file(path.as_ref()).map(|json| KeySet::from_jwks(&json)) {
            Ok(Ok(keys)) => Some(keys),
            Ok(Err(error)) => {
                section.complain("key_set", format!("{path}: {error}"));
                None
            }
            Err(error) => {
                section.complain("key_set", format!("{path}: {error}"));
                None
            }
        },
    };
    if organization.is_none() {
        let text = "is missing; DT's keys sign for all of its customers, so name your organization's id";
        section.complain("organization", text.to_owned());
    }
    section.finish();
    let fetched_from = path.is_none().then(|| issuer.clone());
    Some((builder.key_set_of_issuer(keys?, organization?, issuer), fetched_from))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io;
    use std::path::Path;

    use super::Sources;
    use crate::config::Config;

    struct OneSecret;

    impl Sources for OneSecret {
        fn env(&self, name: &str) -> Option<OsString> {
            (name == "SECRET").then(|| "some-good-secret".into())
        }

        fn file(&self, _: &Path) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    #[test]
    fn a_required_header_must_have_a_name_that_a_header_can_have() {
        let with_header = |name: &str| {
            let text = format!(
                r#"connector = [{{ name = "a", secrets = [{{ env = "SECRET" }}], headers = {{ "{name}" = {{ env = "SECRET" }} }} }}]"#
            );
            Config::from_toml(&text, &OneSecret).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(with_header("X-Api-Key"), Ok(()));
        for name in ["", "X Api", "X-Api-Key:", "Nøkkel"] {
            let error = with_header(name).unwrap_err();
            assert!(error.starts_with("connector.0.headers: found"), "{error}");
        }
    }
}
