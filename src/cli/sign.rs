//! `sign`: signs a body as DT does, or writes a file of signed sample events.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use zeroize::Zeroizing;

use super::ids::Run;
use super::samples::{Samples, event_types};
use super::secrets::SecretOptions;
use super::time::{parse_instant, parse_length};
use super::{Ended, Failure, read_input, say, usage};
use dt_sink::clock::{Clock, SystemClock};
use dt_verify::event::EventType;
use dt_verify::{DT_ISSUER, Signer, TOKEN_LIFETIME};

/// The smallest number of events for which a progress bar is shown: fewer are written within a moment.
const MIN_PROGRESS: u64 = 20_000;

/// The project of sample events.
const PROJECT: &str = "b5k2u070istcjpse6mhg";

/// Sign a body as DT does
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  DT_SIGNATURE_SECRET=some-good-secret dt-receiver sign --body event.json
  token=$(dt-receiver sign --body event.json --secret-file secret.txt)
  curl http://127.0.0.1:8080/ --data-binary @event.json -H \"X-Dt-Signature: $token\"
  dt-receiver sign --body event.json --at 2026-01-31T12:00:00Z --ttl 0s
  dt-receiver sign --count 100000 --out events.tsv
  dt-receiver sign --body event.json --asymmetric-key key.pem --kid key-1 --organization ORG_ID

The signature covers exactly the bytes of the body: a newline that an editor adds is signed as well.")]
#[command(group = clap::ArgGroup::new("what").required(true).args(["body", "count"]))]
pub struct Arguments {
    /// Sign the bytes of this file, or of standard input for `-`
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Write this number of signed sample events, `token TAB body` per line, each with its own event id
    #[arg(long, value_name = "N", conflicts_with = "json")]
    count: Option<NonZeroU64>,
    /// With --count: write them to this file, which is overwritten, or to standard output for `-`
    #[arg(long, value_name = "FILE", requires = "count", conflicts_with = "body", default_value = "-")]
    out: PathBuf,
    /// With --count: write events of this type only [default: all known types in turn]
    #[arg(long, value_name = "TYPE", requires = "count", conflicts_with = "body")]
    event: Option<String>,
    /// The time of issue, in RFC 3339 or Unix seconds [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_instant, allow_negative_numbers = true)]
    at: Option<i64>,
    /// The lifetime of the token [default: 1h, as for DT's tokens]
    #[arg(long, value_name = "LENGTH", value_parser = parse_length)]
    ttl: Option<i64>,
    /// Print one JSON object with the token and the name of its header
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    secrets: SecretOptions,
    #[command(flatten)]
    asymmetric: AsymmetricOptions,
}

/// The options for a `DT-Asymmetric-Signature`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "DT-Asymmetric-Signature instead of X-Dt-Signature")]
struct AsymmetricOptions {
    /// Sign with this private key: EC on P-256, PKCS#8, DER or PEM
    #[arg(long, value_name = "FILE", requires_all = ["kid", "organization"])]
    asymmetric_key: Option<PathBuf>,
    /// The key's id in the key set
    #[arg(long, value_name = "ID", requires = "asymmetric_key")]
    kid: Option<String>,
    /// The organization id of the token (`sub`)
    #[arg(long, value_name = "ID", requires = "asymmetric_key")]
    organization: Option<String>,
    /// The issuer of the token (`iss`)
    #[arg(long, value_name = "URL", requires = "asymmetric_key", default_value = DT_ISSUER)]
    issuer: String,
}

pub fn run(arguments: &Arguments) -> Ended {
    let signer = signer(arguments)?;
    let clock_millis = SystemClock.unix_millis();
    let millis = arguments.at.map_or(clock_millis, |at| at.saturating_mul(1000));
    let issuer = TokenIssuer {
        signer,
        issued_at: arguments.at.unwrap_or(millis.div_euclid(1000)),
        lifetime: arguments.ttl.unwrap_or(TOKEN_LIFETIME),
        run: Run::random()?,
        tokens: 0,
    };
    match (&arguments.body, arguments.count) {
        (Some(body), _) => one(issuer, body, arguments.json),
        (None, Some(count)) => {
            let types = event_types(arguments.event.as_deref())?;
            many(issuer, count.get(), millis, types, &arguments.out)
        }
        (None, None) => Err(usage("expected --body or --count")),
    }
}

fn signer(arguments: &Arguments) -> Result<Signer, Failure> {
    let AsymmetricOptions { asymmetric_key, kid, organization, issuer } = &arguments.asymmetric;
    match (asymmetric_key, kid, organization) {
        (Some(path), Some(kid), Some(organization)) => {
            if arguments.secrets.is_given() {
                return Err(usage("--asymmetric-key cannot be used with --secret-env and --secret-file"));
            }
            let key = private_key(path)?;
            Signer::asymmetric(&key, kid.as_str(), issuer.as_str(), organization.as_str())
                .map_err(|error| usage(format!("--asymmetric-key {}: {error}", path.display())))
        }
        _ => Ok(Signer::secret(arguments.secrets.read_first()?)),
    }
}

/// Reads a PKCS#8 private key in DER or in PEM (RFC 7468).
fn private_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    const BEGIN: &str = "-----BEGIN ";
    let content = Zeroizing::new(read_input(path)?);
    let wrong = |text: &str| usage(format!("--asymmetric-key {}: {text}", path.display()));
    let Some((_, armour)) = std::str::from_utf8(&content).ok().and_then(|text| text.split_once(BEGIN)) else {
        return Ok(content);
    };
    let Some((base64, _)) =
        armour.strip_prefix("PRIVATE KEY-----").and_then(|rest| rest.split_once("-----END PRIVATE KEY-----"))
    else {
        return Err(wrong(
            "expected a PEM file that begins with BEGIN PRIVATE KEY; `openssl pkcs8 -topk8 -nocrypt` converts other keys",
        ));
    };
    let base64: Zeroizing<String> = Zeroizing::new(base64.split_ascii_whitespace().collect());
    STANDARD
        .decode(base64.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| wrong("the PEM file's base64 is damaged"))
}

/// Issues the tokens of a run.
struct TokenIssuer {
    signer: Signer,
    /// The time of issue, in Unix seconds.
    issued_at: i64,
    /// The lifetime of the tokens, in seconds.
    lifetime: i64,
    run: Run,
    /// The number of tokens that were issued.
    tokens: u64,
}

impl TokenIssuer {
    /// Returns a token for a body.
    fn token(&mut self, body: &[u8]) -> Result<String, Failure> {
        let id = self.run.token_id(self.tokens, self.issued_at);
        self.tokens = self.tokens.wrapping_add(1);
        let token = self.signer.sign_for(body, self.issued_at, self.lifetime, &id);
        token.map_err(|error| Failure::Internal(error.into()))
    }
}

/// Signs the bytes of a file.
fn one(mut issuer: TokenIssuer, body: &Path, as_json: bool) -> Ended {
    let token = issuer.token(&read_input(body)?)?;
    if as_json {
        say(json!({"header": issuer.signer.header_name(), "token": token}))?;
    } else {
        say(token)?;
    }
    Ok(())
}

/// Writes signed sample events.
fn many(mut issuer: TokenIssuer, count: u64, unix_millis: i64, types: Vec<EventType>, out: &Path) -> Ended {
    let samples = Samples::new(types, PROJECT.to_owned(), issuer.run);
    let mut output = Output::open(out)?;
    let bar = progress(count);
    for number in 0..count {
        let body = samples.body(number, unix_millis);
        let token = issuer.token(body.as_bytes())?;
        output.line(format_args!("{token}\t{body}"))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    output.finish()
}

/// Returns a progress bar on standard error. `indicatif` hides it if that is not a terminal.
fn progress(count: u64) -> ProgressBar {
    if count < MIN_PROGRESS {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} events, {eta} left");
    ProgressBar::new(count).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A file or standard output. Its errors contain the path.
struct Output<'a> {
    path: &'a Path,
    to: BufWriter<Box<dyn Write>>,
}

impl<'a> Output<'a> {
    fn open(path: &'a Path) -> Result<Self, Failure> {
        let to: Box<dyn Write> = if path.as_os_str() == "-" {
            Box::new(io::stdout())
        } else {
            Box::new(File::create(path).map_err(|error| usage(format!("--out {}: {error}", path.display())))?)
        };
        Ok(Self { path, to: BufWriter::new(to) })
    }

    fn line(&mut self, line: fmt::Arguments<'_>) -> Ended {
        writeln!(self.to, "{line}").map_err(|error| self.failure(error))
    }

    fn finish(mut self) -> Ended {
        self.to.flush().map_err(|error| self.failure(error))
    }

    fn failure(&self, error: io::Error) -> Failure {
        Failure::Internal(anyhow::Error::new(error).context(format!("writing to {}", self.path.display())))
    }
}
