//! `verify`: verifies a signed body or a dump of a request, and explains with `--explain` why it is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::explain::{self, Attempt, Cause, TrustedKeys};
use super::request::{Request, RequestError};
use super::secrets::{DEFAULT_VARIABLE, SecretOptions};
use super::time::parse_instant;
use super::{Ended, Failure, complain, read_input, say, usage};
use dt_server::config::{Sources, SystemSources};
use dt_sink::clock::{Clock, SystemClock};
use dt_verify::event::{Envelope, rfc3339_seconds};
use dt_verify::{ASYMMETRIC_HEADER, DT_ISSUER, KeySet, Policy, Rejection, SECRET_HEADER, Secret, Verified};

/// Verify a signed body, and explain with --explain why it is refused
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  dt-receiver verify --signature TOKEN --body event.json --explain
  dt-receiver verify --request dump.http --secret-file new.txt --secret-file old.txt --json
  dt-receiver verify --request dump.http --at 2026-01-31T12:00:00Z
  dt-receiver verify --asymmetric TOKEN --body event.json --key-set jwks.json --organization ORG_ID

Exit codes: 0 verified, 1 refused, 2 wrong usage. The codes of rejections and causes are stable; the texts may change.")]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["signature", "asymmetric", "request"]))]
pub struct Arguments {
    /// The value of X-Dt-Signature
    #[arg(
        long,
        value_name = "TOKEN",
        requires = "body",
        conflicts_with = "request",
        allow_hyphen_values = true
    )]
    signature: Option<String>,
    /// The value of DT-Asymmetric-Signature
    #[arg(
        long,
        value_name = "TOKEN",
        requires = "body",
        conflicts_with = "request",
        allow_hyphen_values = true
    )]
    asymmetric: Option<String>,
    /// The body, byte for byte: a file, or `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "request")]
    body: Option<PathBuf>,
    /// A whole HTTP request instead, head and body, as a proxy or a debugger saves it; `-` for standard input
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// Verify at this time, in RFC 3339 or Unix seconds [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_instant, allow_negative_numbers = true)]
    at: Option<i64>,
    /// The signatures that are required: secret, asymmetric, either or both [default: those that the given keys can verify]
    #[arg(long, value_name = "POLICY")]
    policy: Option<Policy>,
    /// If it is refused, try the usual causes and print remedies
    #[arg(long)]
    explain: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    secrets: SecretOptions,
    #[command(flatten)]
    keys: KeyOptions,
}

/// The options for the keys of `DT-Asymmetric-Signature`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Keys for DT-Asymmetric-Signature")]
struct KeyOptions {
    /// DT's key set: the content of `jwks_uri` of its discovery document
    #[arg(long, value_name = "FILE", requires = "organization")]
    key_set: Option<PathBuf>,
    /// Your organization id, since DT's keys sign for all of its customers
    #[arg(long, value_name = "ID", requires = "key_set")]
    organization: Option<String>,
    /// The expected issuer of the token
    #[arg(long, value_name = "URL", requires = "key_set", default_value = DT_ISSUER)]
    issuer: String,
}

pub fn run(arguments: &Arguments) -> Ended {
    let (mut attempt, mut notes) = read_request(arguments)?;
    attempt.trusted = read_keys(&arguments.keys)?;
    attempt.secrets = read_secrets(arguments)?;
    attempt.spare_secrets = spare_secrets(&arguments.secrets);
    let policy = arguments.policy.unwrap_or(match (attempt.secrets.is_empty(), &attempt.trusted) {
        (false, None) => Policy::Secret,
        (true, _) => Policy::Asymmetric,
        (false, Some(_)) => Policy::Either,
    });
    let verifier = attempt.verifier(policy).map_err(|error| usage(format!("--policy: {error}")))?;
    let now = arguments.at.unwrap_or_else(|| SystemClock.unix_seconds());
    let answer = verifier.verify(&attempt.headers, &*attempt.body, now);
    let causes = match &answer {
        _ if !arguments.explain => None,
        Ok(_) => Some(Vec::new()),
        Err(_) => Some(explain::explain(&attempt, policy, now)),
    };
    if let Some(other) = answer.as_ref().ok().and_then(Verified::other_scheme) {
        notes.push(format!("the other signature is not valid: {}: {other}", other.code()));
    }
    if arguments.json {
        say(as_json(&answer, causes.as_deref(), &notes))?;
    } else {
        for note in &notes {
            complain(&format!("note: {note}"));
        }
        match &answer {
            Ok(verified) => say(in_words(verified))?,
            Err(rejection) => print_rejection(rejection, causes.as_deref())?,
        }
    }
    answer.map(drop).map_err(|_| Failure::Refused)
}

/// Reads the request, without keys. Returns it with notes about it for the user.
fn read_request(arguments: &Arguments) -> Result<(Attempt, Vec<String>), Failure> {
    if let Some(path) = &arguments.request {
        let wrong = |error: RequestError| usage(format!("--request {}: {error}", path.display()));
        let Request { headers, body, whole, notes } =
            Request::parse(&read_option("--request", path)?).map_err(wrong)?;
        return Ok((Attempt { headers, body, whole, ..Attempt::default() }, notes));
    }
    let body = match &arguments.body {
        Some(path) => read_option("--body", path)?,
        None => return Err(usage("expected --body")),
    };
    let tokens = [(SECRET_HEADER, &arguments.signature), (ASYMMETRIC_HEADER, &arguments.asymmetric)];
    let headers =
        tokens.into_iter().filter_map(|(name, token)| Some((name.to_owned(), token.clone()?.into_bytes())));
    Ok((Attempt { headers: headers.collect(), body, ..Attempt::default() }, Vec::new()))
}

fn read_option(option: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    read_input(path).map_err(|failure| match failure {
        Failure::Usage(text) => usage(format!("{option} {text}")),
        other => other,
    })
}

fn read_keys(options: &KeyOptions) -> Result<Option<TrustedKeys>, Failure> {
    let (Some(path), Some(organization)) = (&options.key_set, &options.organization) else { return Ok(None) };
    let wrong = |problem: String| usage(format!("--key-set {}: {problem}", path.display()));
    let json = SystemSources.file(path).map_err(|error| wrong(error.to_string()))?;
    let keys = KeySet::from_jwks(&json).map_err(|error| wrong(error.to_string()))?;
    let (organization, issuer) = (organization.clone(), options.issuer.clone());
    if organization.is_empty() {
        return Err(usage("--organization is empty"));
    }
    Ok(Some(TrustedKeys { keys, organization, issuer }))
}

/// Reads the secrets. They are required unless the keys of the other scheme are sufficient.
fn read_secrets(arguments: &Arguments) -> Result<Vec<(Arc<str>, Secret)>, Failure> {
    let Arguments { secrets, signature, asymmetric, policy, keys, .. } = arguments;
    let has_keys = keys.key_set.is_some();
    if asymmetric.is_some() && signature.is_none() && !has_keys {
        return Err(usage(format!(
            "--asymmetric needs --key-set FILE and --organization ID{}",
            meant_for(asymmetric.as_deref(), "HS256", "--signature")
        )));
    }
    let given = secrets.is_given() || std::env::var_os(DEFAULT_VARIABLE).is_some();
    let needed = matches!(policy, Some(Policy::Secret | Policy::Both))
        || !has_keys
        || signature.is_some() && *policy != Some(Policy::Asymmetric);
    if !given && !needed {
        return Ok(Vec::new());
    }
    secrets.read().map_err(|failure| match failure {
        Failure::Usage(text) if !given => {
            usage(format!("{text}{}", meant_for(signature.as_deref(), "ES256", "--asymmetric")))
        }
        other => other,
    })
}

/// Returns a hint to use the other option, if the token names the algorithm of the other scheme; otherwise an empty text.
fn meant_for(token: Option<&str>, alg: &str, option: &str) -> String {
    if token.is_some_and(|token| explain::algorithm(token).as_deref() == Some(alg)) {
        format!("; but this is an {alg} token, which goes with {option}")
    } else {
        String::new()
    }
}

/// Returns the secret in the environment if options select other secrets, so that `--explain` finds such a mix-up.
fn spare_secrets(options: &SecretOptions) -> Vec<(Arc<str>, Secret)> {
    let value = std::env::var_os(DEFAULT_VARIABLE).filter(|_| options.is_given());
    let secret = value.and_then(|value| Secret::new(value.into_encoded_bytes()).ok());
    secret.map(|secret| (Arc::from("default"), secret)).into_iter().collect()
}

/// Describes a verified request in one line.
fn in_words(verified: &Verified<&[u8]>) -> String {
    let issued = verified.issued_at().map_or_else(|| "at an unknown time".to_owned(), rfc3339_seconds);
    let event = match Envelope::parse(verified) {
        Ok(event) => {
            // Escaped, since the sender chooses these texts.
            format!("event {} type {}", event.event_id.escape_debug(), event.event_type.escape_debug())
        }
        Err(reason) => format!("but no event: {reason}"),
    };
    format!(
        "verified by {}, issued {issued}, expires {}, {event}",
        verified.by(),
        rfc3339_seconds(verified.expires_at())
    )
}

/// Prints a rejection and its causes.
fn print_rejection(rejection: &Rejection, causes: Option<&[Cause]>) -> Ended {
    say(format_args!("refused: {}: {rejection}", rejection.code()))?;
    match causes {
        Some(causes) => {
            for Cause { code, text } in causes {
                say(format_args!("cause: {code}: {text}"))?;
            }
        }
        None => complain("use --explain to try the usual causes"),
    }
    Ok(())
}

/// Returns the object of `--json`.
fn as_json(
    answer: &Result<Verified<&[u8]>, Rejection>,
    causes: Option<&[Cause]>,
    notes: &[String],
) -> serde_json::Value {
    let verified = answer.as_ref().ok();
    let rejection = answer.as_ref().err();
    let event = verified.map(Envelope::parse);
    let not_an_event =
        event.as_ref().and_then(|event| event.as_ref().err()).map(|reason| format!("no event: {reason}"));
    let event = event.and_then(Result::ok);
    let notes: Vec<&String> = notes.iter().chain(&not_an_event).collect();
    let mut object = json!({
        "verified": verified.is_some(),
        "code": rejection.map(Rejection::code),
        "detail": rejection.map(ToString::to_string),
        "by": verified.map(|verified| verified.by().to_string()),
        "issuedAt": verified.and_then(Verified::issued_at).map(rfc3339_seconds),
        "expiresAt": verified.map(|verified| rfc3339_seconds(verified.expires_at())),
        "tokenId": verified.and_then(Verified::token_id),
        "eventId": event.as_ref().map(|event| &event.event_id),
        "eventType": event.as_ref().map(|event| &event.event_type),
        "notes": notes,
    });
    if let (Some(causes), Some(members)) = (causes, object.as_object_mut()) {
        let causes = causes.iter().map(|Cause { code, text }| json!({"code": code, "text": text})).collect();
        members.insert("causes".to_owned(), causes);
    }
    object
}
