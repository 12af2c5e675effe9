//! Reads the configuration of a connector: `[[connector]]`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::keys::check_issuer;
use dt_sink::config::{
    Changes, Key, Reload, Section, Table, closest, config_keys, custom, flag, is_name, name, read_source,
    secret_keys, stand_in, text, texts, word,
};
use dt_verify::event::EventType;
use dt_verify::{DT_ISSUER, KeySet, Policy, Secret, Verifier, VerifierBuilder};

config_keys! {
    /// One connector: a path, the keys of the Data Connectors that push to it, and what to do with their events.
    #[derive(Debug, Clone)]
    #[non_exhaustive]
    pub struct ConnectorConfig {
        needed {
            /// The name in logs, metrics and envelopes. Each connector has another one.
            name: Arc<str> = name().needed("is missing; give it a name").sample("\"plant-1\"").not_compared(),
        }
        /// The path of the Endpoint URL. Each connector has another one.
        path: String = custom("path of a URL, without query", read_path)
            .or("/".to_owned())
            .default_shown("\"/\""),
        /// The event types that are forwarded; others are answered 200 `ignored`.
        events: BTreeSet<String> = custom("list of event types", read_events)
            .or(BTreeSet::new())
            .default_words("all")
            .sample("[\"temperature\", \"humidity\"]"),
        /// The projects whose events are allowed; others are answered 403.
        projects: BTreeSet<String> = texts("list of project ids", "any project")
            .or(BTreeSet::new())
            .default_words("any")
            .sample("[\"c14u9p094l47cdv1o3pg\"]"),
        /// The sinks that receive its events.
        sinks: Option<Vec<String>> =
            texts("list of names of sinks", "all sinks").or_none("all").sample("[\"stdout\"]"),
        /// `0` turns de-duplication off for this connector, such as for events that DT's `:sync` sends again on
        /// purpose.
        dedup: bool = custom("`0`", read_dedup)
            .or(true)
            .key("dedup_window")
            .default_words("that of the top")
            .sample("0"),
        /// Overrides the key of that name at the top of the file.
        quarantine_refused: bool = flag().or(false).default_words("that of the top").sample("false"),
    }
    with {
        /// The verifier, made of its secrets, keys and policy.
        pub verifier: Verifier,
        /// The issuer whose keys are fetched; `None` if no keys have to be fetched.
        pub key_issuer: Option<String>,
        /// What a Data Connector of DT sends so that the verifier accepts its deliveries; empty unless it was read from a file.
        pub sent: SentSecrets,
    }
}

/// The secrets that the Data Connectors of DT use for a connector. The verifier does not return them.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SentSecrets {
    /// The signature secrets, in the order of the file. None if the policy is `asymmetric`.
    pub signature: Vec<Secret>,
    /// The headers that each request must carry, with their values.
    pub headers: Vec<(String, Secret)>,
}

config_keys! {
    /// The keys of `[[connector]]` that configure its verifier, without the tables below it.
    struct VerifierKeys {
        /// The signatures that a request needs.
        policy: Option<Policy> = word(&["secret", "asymmetric", "either", "both"])
            .or_none("`\"secret\"` if there are secrets, else `\"asymmetric\"`")
            .sample("\"secret\""),
    }
}

config_keys! {
    /// The keys of `[connector.asymmetric]`.
    struct AsymmetricKeys {
        needed {
            /// Your organization's id.
            organization: String = text("id").needed(NO_ORGANIZATION).sample("\"c0md3mm0c7pet3vico8g\""),
        }
        /// A file with DT's keys (JWKS), for a receiver without access to the internet.
        key_set: Option<String> =
            text("path").or_none("fetched from the issuer and kept").sample("\"dt-jwks.json\""),
        /// The issuer of the tokens.
        issuer: String = text("URL").or(DT_ISSUER.to_owned()),
    }
}

/// The error message if the organization is missing.
const NO_ORGANIZATION: &str =
    "is missing; DT's keys sign for all of its customers, so name your organization's id";

impl ConnectorConfig {
    /// Returns a connector that forwards every event type of any project.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, path: impl Into<String>, verifier: Verifier) -> Self {
        Self { path: path.into(), ..Self::with_defaults(name.into(), verifier, None, SentSecrets::default()) }
    }

    /// Reads a connector. `quarantine_refused` is the value that applies if the connector does not set the key. An invalid value
    /// adds an error and is replaced by a placeholder, so that the other keys are checked; a configuration with errors is never
    /// used.
    pub(super) fn read(mut section: Section<'_>, quarantine_refused: bool) -> Option<Self> {
        let overrides = section.has("quarantine_refused");
        let (verifier, key_issuer, sent) = read_verifier(&mut section)?;
        let mut connector = Self::read_keys(&mut section, verifier, key_issuer, sent)?;
        section.finish();
        if !overrides {
            connector.quarantine_refused = quarantine_refused;
        }
        Some(connector)
    }

    /// Adds the differences of `next` to `changes`, below the connector's name. A changed secret is reported without its value.
    pub(super) fn changes_to(&self, next: &Self, changes: &mut Changes) {
        self.compare_keys(next, changes);
        for (part, how) in self.verifier.differences(&next.verifier) {
            changes.note(&part, how, Reload::Yes);
        }
        let (before, after) = (&self.key_issuer, &next.key_issuer);
        if before != after {
            let shown = (format!("{before:?}"), format!("{after:?}"));
            changes.value("asymmetric.fetched_from", shown, Reload::Yes);
        }
    }

    /// Returns the tables of a connector, for the reference.
    pub(super) fn described() -> Vec<Table> {
        let mut keys = Self::rows();
        // After name and path.
        keys.splice(2.min(keys.len())..2.min(keys.len()), VerifierKeys::rows());
        let mut secret = vec![
            Key::new(
                "label",
                "name",
                "The name of the secret in logs and in `verifiedBy`; required if there are several secrets.",
            )
            .or(crate::config::KeyDefault::Words("`\"default\"`"))
            .sample("\"2026\""),
        ];
        secret.extend(secret_keys("DT_SIGNATURE_SECRET", "/etc/dt-receiver/secret"));
        vec![
            Table::new("[[connector]]", ABOUT, keys),
            Table::new("[[connector.secrets]]", ABOUT_SECRETS, secret),
            Table::new("[connector.asymmetric]", ABOUT_ASYMMETRIC, AsymmetricKeys::rows()),
            Table::new(
                "[connector.headers.x-my-header]",
                ABOUT_HEADERS,
                secret_keys("DT_MY_HEADER", "/etc/dt-receiver/header"),
            ),
        ]
    }
}

const ABOUT: &str = "One for each Endpoint URL. Several Data Connectors of DT may push to one: give all of their secrets. \
    Each connector needs `secrets`, `[connector.asymmetric]`, or both. DT's tokens are not bound to a URL. So two \
    connectors accept each other's events if they share a secret; or if they share an organization, unless both have \
    `projects`, and no project is in both. `check` warns of that.";
const ABOUT_SECRETS: &str = "A Signature Secret. While it is being changed at DT, give both the old one and the new one; when the \
    old one may go: [receiving.md](receiving.md#rotate-a-secret).";
const ABOUT_ASYMMETRIC: &str = "Verifies `DT-Asymmetric-Signature`. One key of DT signs for all of its customers, so your \
    organization has to be named.";
const ABOUT_HEADERS: &str = "A header that each request must carry, under the name that you gave it at DT, with a value from \
    a variable or a file. It is compared in constant time. User and password of an endpoint URL \
    (`https://user:password@host/`) arrive as the header `authorization`: `Basic ` and the base64 of `user:password`.";

fn read_path(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let path = section.string(key)?;
    let legal = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
    if !legal {
        section.problem(key, &path, "the path of a URL such as \"/dt\", without query");
    }
    Some(path)
}

pub fn read_events(section: &mut Section<'_>, key: &'static str) -> Option<BTreeSet<String>> {
    let events = section.strings_not_empty(key, "all events")?;
    for event_type in &events {
        if !EventType::from(event_type.as_str()).is_known() {
            let mut text = format!("\"{}\" is no event type known today", event_type.escape_debug());
            if let Some(known) = closest(event_type, EventType::KNOWN.iter().map(EventType::as_str)) {
                text.push_str(&format!("; did you mean \"{known}\"?"));
            }
            section.warn(key, text);
        }
    }
    Some(events.into_iter().collect())
}

/// Reads the key `dedup`. Its only valid value is 0, which turns de-duplication off.
fn read_dedup(section: &mut Section<'_>, key: &'static str) -> Option<bool> {
    section.duration(key, &(Duration::ZERO..=Duration::ZERO)).map(|_| false)
}

/// Reads the verifier. The second value is the issuer whose keys are fetched for it, if any have to be; the third are its secrets.
fn read_verifier(section: &mut Section<'_>) -> Option<(Verifier, Option<String>, SentSecrets)> {
    let mut key_issuer = None;
    let mut sent = SentSecrets::default();
    let mut builder = Verifier::builder();
    if let Some(policy) = VerifierKeys::read_keys(section)?.policy {
        builder = builder.policy(policy);
    }
    let secrets = section.sections("secrets");
    let only = secrets.len() == 1;
    for secret in secrets {
        let (label, secret) = read_labelled_secret(secret, only)?;
        sent.signature.push(secret.clone());
        builder = builder.secret(label, secret);
    }
    if let Some(asymmetric) = section.section("asymmetric") {
        (builder, key_issuer) = read_asymmetric(asymmetric, builder);
    }
    if let Some(headers) = section.section("headers") {
        for (name, mut header) in headers.named_sections("a table such as { env = \"NAME\" }") {
            let value = read_source(&mut header)?;
            // A request cannot contain a header with another name, so every request would be refused.
            if name.parse::<http::HeaderName>().is_err() {
                section.problem("headers", &name, "names of HTTP headers such as X-Api-Key");
            }
            sent.headers.push((name.clone(), value.clone()));
            builder = builder.require_header(name, value);
            header.finish();
        }
    }
    match builder.build() {
        Ok(verifier) => {
            if verifier.policy() == Policy::Asymmetric {
                sent.signature.clear();
            }
            Some((verifier, key_issuer, sent))
        }
        Err(error) => {
            // If a secret or key set could not be read, that error was already added.
            if !section.has_errors_at("secrets") && !section.has_errors_at("asymmetric") {
                let remedy = "give `secrets = [{ env = \"NAME\" }]` or [connector.asymmetric]";
                section.complain("secrets", format!("{error}; {remedy}"));
            }
            let stand_in = Verifier::builder().secret("default", stand_in(section)?);
            Some((stand_in.build().ok()?, None, sent))
        }
    }
}

fn read_labelled_secret(mut section: Section<'_>, only: bool) -> Option<(String, Secret)> {
    let is_given = section.has("label");
    let label = section.private_string("label").or_else(|| (only && !is_given).then(|| "default".to_owned()));
    let secret = read_source(&mut section);
    let is_secret = |label: &str| secret.as_ref().is_some_and(|secret| secret.expose() == label.as_bytes());
    let usable = match label {
        // In both cases the label may be a secret by mistake, so it is not shown.
        Some(label) if is_secret(&label) => {
            section.complain("label", "is the secret itself; labels are shown in logs");
            None
        }
        Some(label) if !is_name(&label) => {
            section.complain("label", "expected 1 to 64 letters, digits, - and _");
            None
        }
        Some(label) => Some(label),
        None => {
            if !is_given {
                section.complain("label", "is missing; with several secrets each needs one");
            }
            None
        }
    };
    let label = usable.unwrap_or_else(|| section.segment().to_owned());
    section.finish();
    Some((label, secret?))
}

fn read_asymmetric(mut section: Section<'_>, builder: VerifierBuilder) -> (VerifierBuilder, Option<String>) {
    // Its path is the placeholder of a missing organization.
    let stand_in = AsymmetricKeys::with_defaults(section.path().to_owned());
    let AsymmetricKeys { organization, key_set: path, issuer } =
        AsymmetricKeys::read_keys(&mut section).unwrap_or(stand_in);
    let (mut keys, sources) = (KeySet::none(), section.sources());
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
    section.finish();
    let fetched_from = path.is_none().then(|| issuer.clone());
    (builder.key_set_of_issuer(keys, organization, issuer), fetched_from)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io;
    use std::path::Path;

    use crate::config::{Config, Sources};
    use crate::sink::standard_types;

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
    fn a_required_header_needs_a_valid_name() {
        let with_header = |name: &str| {
            let text = format!(
                r#"connector = [{{ name = "a", secrets = [{{ env = "SECRET" }}], headers = {{ "{name}" = {{ env = "SECRET" }} }} }}]"#
            );
            Config::from_toml(&text, &OneSecret, &standard_types())
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        assert_eq!(with_header("X-Api-Key"), Ok(()));
        for name in ["", "X Api", "X-Api-Key:", "Nøkkel"] {
            let error = with_header(name).unwrap_err();
            assert!(error.starts_with("line 1: connector.a.headers: found"), "{error}");
        }
    }
}
