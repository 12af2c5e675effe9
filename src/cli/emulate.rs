//! `emulate`: emulates DT's cloud on this machine, to test a connector without sensors, tunnel or account.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::secrets::DEFAULT_VARIABLE;
use super::stop::Stop;
use super::time::parse_interval;
use super::{Ended, Failure, account, logging, say, usage};
use dt_emulator::{Emulator, EmulatorError, Faults, MAX_TIME_SCALE, Population, url_warning};
use dt_server::config::SystemSources;

/// Emulate DT's cloud on this machine: REST API, devices, deliveries, faults
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  dt-receiver emulate --devices temperature:20,humidity:5 --interval 10s
  DT_SIGNATURE_SECRET=some-good-secret dt-receiver emulate --devices touch:3 \\
    --connector http://127.0.0.1:8080/
  dt-receiver emulate --state cloud.json --time-scale 3600 --fault duplicate=0.1,reorder=0.1
  DT_KEY_SECRET=made-up dt-receiver emulate --service-account my-key:env=DT_KEY_SECRET:me@example.com

  curl -u any:secret http://127.0.0.1:8081/v2/projects/emulated/dataconnectors \\
    -d '{\"type\": \"HTTP_PUSH\", \"httpConfig\": {\"url\": \"http://127.0.0.1:8080/\"}}'
  curl -X PATCH http://127.0.0.1:8081/emulator/faults -d '{\"outage\": true}'

For tests only: any credentials are accepted unless --service-account is given. The internet must not reach it.")]
pub struct Arguments {
    /// The address of REST API, token endpoint, discovery and key set
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// The URL that clients use, such as http://192.0.2.7:8081; required to listen on 0.0.0.0 or [::]
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Save projects, devices, connectors, queues, history and keys in this file
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Devices that send events by themselves, such as temperature:20,humidity:5
    #[arg(long, value_name = "TYPE:COUNT,…", default_value = "", hide_default_value = true)]
    devices: Population,
    /// The project of --devices and --connector
    #[arg(long, value_name = "ID", default_value = "emulated")]
    project: String,
    /// The heartbeat of --devices, in emulated time
    #[arg(long, value_name = "LENGTH", default_value = "15m", value_parser = parse_interval)]
    interval: Duration,
    /// How many times faster than the machine's clock the emulated clock runs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TIME_SCALE)))]
    time_scale: u32,
    /// Create a data connector to this URL; its Signature Secret is DT_SIGNATURE_SECRET, if that is set; repeatable
    #[arg(long = "connector", value_name = "URL")]
    connectors: Vec<String>,
    /// Accept only the given service accounts, for the API and for /emulator; the secret of the key is in the environment variable NAME, or in a file (file=PATH instead of env=NAME); repeatable
    // Not parsed by `clap`, whose errors repeat the value: it may be a secret.
    #[arg(long = "service-account", value_name = "KEY:env=NAME:EMAIL[:ROLE]")]
    accounts: Vec<String>,
    /// The organization's id: `sub` of DT-Asymmetric-Signature
    #[arg(long, value_name = "ID", default_value = "emulator")]
    organization: String,
    /// The organization's display name
    #[arg(long, value_name = "NAME", default_value = "Emulator", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    organization_name: String,
    /// Inject faults: duplicate=SHARE, reorder=SHARE, delay=MILLIS, drop=SHARE, tamper=SHARE, wrong-secret=SHARE, stale-tokens, outage, identity-outage, api-outage, rate-limit=SHARE, retry-after-date, index-delay=MILLIS, history-oldest-first, burst=COUNT; repeatable
    #[arg(long = "fault", value_name = "FAULT,…")]
    faults: Vec<String>,
    /// Repeat the values, chances and ids (except their time) of an earlier run with this seed
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

pub fn run(arguments: &Arguments) -> Ended {
    logging::start()?;
    let _raised = rlimit::increase_nofile_limit(u64::MAX);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let ended = runtime.block_on(emulate(arguments.clone()));
    runtime.shutdown_background();
    ended
}

async fn emulate(arguments: Arguments) -> Ended {
    let stop = Stop::listen().context("listening for signals")?;
    let mut faults = Faults::default();
    for text in &arguments.faults {
        faults.apply(text).map_err(|error| usage(format!("--fault: {error}")))?;
    }
    if !is_loopback(arguments.listen) && arguments.accounts.is_empty() {
        super::complain(
            "warning: the emulator accepts any credentials; every client of this address controls it",
        );
    }
    let burst = std::mem::take(&mut faults.burst);
    let mut builder = Emulator::builder()
        .listen(arguments.listen)
        .devices(arguments.project.as_str(), arguments.devices, arguments.interval)
        .time_scale(arguments.time_scale)
        .organization(arguments.organization)
        .organization_name(arguments.organization_name)
        .faults(faults.clone());
    for text in &arguments.accounts {
        let account = account::read(text, &SystemSources);
        let account = account.map_err(|error| usage(format!("--service-account: {error}")))?;
        builder = builder.service_account(account);
    }
    if let Some(url) = arguments.public_url {
        builder = builder.public_url(url);
    }
    if let Some(path) = arguments.state {
        builder = builder.state_file(path);
    }
    if let Some(seed) = arguments.seed {
        builder = builder.seed(seed);
    }
    let emulator = builder.start().await.map_err(failure)?;
    connect(&emulator, &arguments.project, &arguments.connectors)?;
    if burst > 0 {
        // After the connectors are created, so that they receive it.
        faults.burst = burst;
        emulator.set_faults(faults).map_err(usage)?;
    }
    tracing::info!(listen = %emulator.address(), "listening");
    let (root, rest) = (emulator.url(), emulator.api_url());
    let banner = format!(
        "REST API         {rest}\ntoken endpoint   {}\nkey set          {}/jwks.json\nfaults, ledger   {root}/emulator\ndevices          {rest}/projects/{}/devices",
        emulator.token_endpoint(),
        emulator.issuer(),
        arguments.project
    );
    // A closed standard output does not end a server.
    let _printed = say(banner);
    stop.wait().await;
    emulator.shutdown().await.map_err(failure)
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().is_loopback()
}

/// Converts an error of the emulator. If the user can fix it by other options, the exit code is 2.
fn failure(error: EmulatorError) -> Failure {
    match error {
        EmulatorError::NoKey | EmulatorError::NoTls => Failure::Internal(error.into()),
        other => usage(other),
    }
}

/// Creates the connectors for `--connector` that the state file does not have yet.
fn connect(emulator: &Emulator, project: &str, urls: &[String]) -> Ended {
    let path = format!("/v2/projects/{project}/dataconnectors");
    let rejected = |error| usage(format!("--connector: {error}"));
    let existing = emulator.call("GET", &path, &json!(null)).map_err(rejected)?;
    let secret = std::env::var(DEFAULT_VARIABLE).unwrap_or_default();
    for url in urls {
        let mut connectors =
            existing.get("dataConnectors").and_then(|list| list.as_array()).into_iter().flatten();
        if connectors.any(|one| one.pointer("/httpConfig/url").is_some_and(|existing| existing == url)) {
            continue;
        }
        if let Some(warning) = url_warning(url) {
            super::complain(&format!("warning: --connector {url}: {warning}"));
        }
        let config = json!({"url": url, "signatureSecret": secret});
        let body = json!({"type": "HTTP_PUSH", "displayName": "from the command line", "httpConfig": config});
        emulator.call("POST", &path, &body).map_err(rejected)?;
    }
    Ok(())
}
