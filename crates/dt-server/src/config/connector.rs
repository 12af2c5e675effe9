//! A connector's part of the configuration: `[[connector]]`.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::reader::Section;
use super::source::{Sources, read_secret};
use super::suggest::closest;
use crate::keys::check_issuer;
use dt_verify::event::EventType;
use dt_verify::{DT_ISSUER, KeySet, Policy, Secret, Verifier, VerifierBuilder};

/// Where a secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In the environment variable of this name.
    Env(String),
    /// In this file.
    File(PathBuf),
}

/// Why a name is not shown.
const NOT_SHOWN: &str = "(not shown: it may be the secret itself)";

/// Whether a text looks like the name of an environment variable, and not like a secret that stands there by mistake:
/// upper-case words joined by `_`, none longer than 16 characters, and none of more than 8 that mixes letters and digits.
fn is_variable(text: &str) -> bool {
    let is_word = |word: &str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        let is_plain = digits == 0 || digits == word.len() || word.len() <= 8;
        word.len() <= 16 && is_plain && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    };
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && text.split('_').all(is_word)
}

/// Whether a text looks like the path of a file, and not like a secret that stands there by mistake: it begins with `/`,
/// `./` or `../`, or is a file's name with an extension.
fn is_path(path: &Path) -> bool {
    let Some(text) = path.to_str() else { return false };
    let is_printable = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    let is_rooted = ["/", "./", "../"].iter().any(|start| text.starts_with(start));
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let is_extension =
        |text: &str| (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase());
    is_printable && (is_rooted || is_extension(extension))
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) if is_variable(name) => write!(f, "the environment variable {name}"),
            Self::Env(_) => write!(f, "the environment variable of that name {NOT_SHOWN}"),
            Self::File(path) if is_path(path) => write!(f, "{}", path.display()),
            Self::File(_) => write!(f, "the file of that name {NOT_SHOWN}"),
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

    /// Reads one; `quarantine_refused` counts unless the connector says otherwise. Something that cannot be read is an
    /// error, and has a stand-in here, so that all the rest is checked; a configuration with errors is never used.
    pub(super) fn read(
        mut section: Section<'_>,
        quarantine_refused: bool,
        sources: &dyn Sources,
    ) -> Option<Self> {
        let name = required_name(&mut section);
        let path = read_path(&mut section);
        let events = section.strings_not_empty("events", "all events").unwrap_or_default();
        for event_type in &events {
            if !EventType::from(event_type.as_str()).is_known() {
                let mut text = format!("\"{}\" is no event type known today", event_type.escape_debug());
                if let Some(known) = closest(event_type, EventType::KNOWN.iter().map(EventType::as_str)) {
                    text.push_str(&format!("; did you mean \"{known}\"?"));
                }
                section.warn("events", text);
            }
        }
        let projects = section.strings_not_empty("projects", "any project").unwrap_or_default();
        let sinks = section.strings_not_empty("sinks", "all sinks");
        let mut dedup_window = std::time::Duration::MAX;
        let zero = std::time::Duration::ZERO;
        section.duration_into("dedup_window", zero..=zero, &mut dedup_window);
        let quarantine_refused = section.flag("quarantine_refused").unwrap_or(quarantine_refused);
        let (verifier, key_issuer) = read_verifier(&mut section, sources)?;
        section.finish();
        Some(Self {
            name,
            path,
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

/// Reads a name. Names go into file names, metrics and logs: letters, digits, `-` and `_`.
pub(super) fn required_name(section: &mut Section<'_>) -> Arc<str> {
    let Some(name) = section.string("name") else {
        if !section.has_errors_at("name") {
            section.complain("name", "is missing; give it a name".to_owned());
        }
        return Arc::from(section.segment());
    };
    if !is_name(&name) {
        section.problem("name", &name, "1 to 64 letters, digits, - and _");
    }
    Arc::from(name)
}

/// Whether a text can name a connector, a sink or a secret.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn read_path(section: &mut Section<'_>) -> String {
    let path = section.string("path").unwrap_or_else(|| "/".to_owned());
    let legal = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
    if !legal {
        section.problem("path", &path, "the path of a URL such as \"/dt\", without query");
    }
    path
}

/// The verifier, and the issuer that its keys are fetched from.
fn read_verifier(section: &mut Section<'_>, sources: &dyn Sources) -> Option<(Verifier, Option<String>)> {
    let mut key_issuer = None;
    let mut builder = Verifier::builder();
    if let Some(name) = section.string("policy") {
        match name.parse::<Policy>() {
            Ok(policy) => builder = builder.policy(policy),
            Err(_) => section.no_choice("policy", &name, &Policy::ALL.map(Policy::name)),
        }
    }
    let secrets = section.sections("secrets");
    let only = secrets.len() == 1;
    for secret in secrets {
        let (label, secret) = read_labelled_secret(secret, only, sources)?;
        builder = builder.secret(label, secret);
    }
    if let Some(asymmetric) = section.section("asymmetric") {
        (builder, key_issuer) = read_asymmetric(asymmetric, builder, sources);
    }
    if let Some(headers) = section.section("headers") {
        for (name, mut header) in headers.named_sections("a table such as { env = \"NAME\" }") {
            let value = read_source(&mut header, sources)?;
            // No request could ever carry another name, so none would be accepted.
            if name.parse::<http::HeaderName>().is_err() {
                section.problem("headers", &name, "names of HTTP headers such as X-Api-Key");
            }
            builder = builder.require_header(name, value);
            header.finish();
        }
    }
    match builder.build() {
        Ok(verifier) => Some((verifier, key_issuer)),
        Err(error) => {
            // Keys that cannot be read are not missing.
            if !section.has_errors_at("secrets") && !section.has_errors_at("asymmetric") {
                let remedy = "give `secrets = [{ env = \"NAME\" }]` or [connector.asymmetric]";
                section.complain("secrets", format!("{error}; {remedy}"));
            }
            let stand_in = Verifier::builder().secret("default", stand_in(section)?);
            Some((stand_in.build().ok()?, None))
        }
    }
}

fn read_labelled_secret(
    mut section: Section<'_>,
    only: bool,
    sources: &dyn Sources,
) -> Option<(String, Secret)> {
    let is_given = section.has("label");
    let label = section.private_string("label").or_else(|| (only && !is_given).then(|| "default".to_owned()));
    let secret = read_source(&mut section, sources);
    let is_secret = |label: &str| secret.as_ref().is_some_and(|secret| secret.expose() == label.as_bytes());
    let usable = match label {
        // In both cases, the secret may stand there by mistake: it is not shown.
        Some(label) if is_secret(&label) => {
            section.complain("label", "is the secret itself; labels are shown in logs".to_owned());
            None
        }
        Some(label) if !is_name(&label) => {
            section.complain("label", "allowed is 1 to 64 letters, digits, - and _".to_owned());
            None
        }
        Some(label) => Some(label),
        None => {
            if !is_given {
                section.complain("label", "is missing; with several secrets each needs one".to_owned());
            }
            None
        }
    };
    let label = usable.unwrap_or_else(|| section.segment().to_owned());
    section.finish();
    Some((label, secret?))
}

/// A secret in place of one that could not be read. It is another one at each place, and is never used.
fn stand_in(section: &Section<'_>) -> Option<Secret> {
    Secret::new(format!("not read: {}", section.path())).ok()
}

/// Reads `env = "NAME"` or `file = "PATH"`, and the secret it leads to. What cannot be read is an error, and has a
/// stand-in.
pub(super) fn read_source(section: &mut Section<'_>, sources: &dyn Sources) -> Option<Secret> {
    let is_given = section.has("env") || section.has("file");
    let (env, file) = (section.private_string("env"), section.private_string("file"));
    let (key, source) = match (env, file) {
        (Some(name), None) => ("env", SecretSource::Env(name)),
        (None, Some(path)) => ("file", SecretSource::File(PathBuf::from(path))),
        (Some(_), Some(_)) => {
            section.complain("env", "both `env` and `file` are given; delete one".to_owned());
            return stand_in(section);
        }
        (None, None) => {
            if !is_given {
                section.complain("env", "is missing; give `env = \"NAME\"` or `file = \"PATH\"`".to_owned());
            }
            return stand_in(section);
        }
    };
    if !sources.reads_secrets() {
        return stand_in(section);
    }
    match read_secret(&source, sources) {
        Ok((secret, odd)) => {
            if let Some(odd) = odd {
                section.warn(key, odd);
            }
            Some(secret)
        }
        Err(error) => {
            section.complain(key, error.to_string());
            stand_in(section)
        }
    }
}

fn read_asymmetric(
    mut section: Section<'_>,
    builder: VerifierBuilder,
    sources: &dyn Sources,
) -> (VerifierBuilder, Option<String>) {
    let path = section.string("key_set");
    let organization = section.string("organization");
    let issuer = section.string("issuer").unwrap_or_else(|| DT_ISSUER.to_owned());
    let mut keys = KeySet::none();
    match &path {
        None => {
            if let Err(error) = check_issuer(&issuer) {
                section.complain("issuer", error.to_string());
            }
        }
        Some(_) if !sources.reads_secrets() => {}
        Some(path) => match sources.file(path.as_ref()).map(|json| KeySet::from_jwks(&json)) {
            Ok(Ok(read)) => keys = read,
            Ok(Err(error)) => section.complain("key_set", format!("{path}: {error}")),
            Err(error) => section.complain("key_set", format!("{path}: {error}")),
        },
    }
    if organization.is_none() && !section.has_errors_at("organization") {
        let text = "is missing; DT's keys sign for all of its customers, so name your organization's id";
        section.complain("organization", text.to_owned());
    }
    let organization = organization.unwrap_or_else(|| section.path().to_owned());
    section.finish();
    let fetched_from = path.is_none().then(|| issuer.clone());
    (builder.key_set_of_issuer(keys, organization, issuer), fetched_from)
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
            assert!(error.starts_with("line 1: connector.a.headers: found"), "{error}");
        }
    }
}
