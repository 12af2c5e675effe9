//! `serve`: receives, verifies and forwards events.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::reload::{self, Reloader};
use super::secrets::SecretOptions;
use super::spool_access::bad_config;
use super::stop::Stop;
use super::time::parse_duration;
use super::{Ended, logging, notify, usage};
use crate::sink_types;
use dt_server::config::{
    Config, ConfigError, ConnectorConfig, DEFAULT_ADMIN, DEFAULT_DATA, DEFAULT_LISTEN, FileSnapshot, Listen,
    Problem, Recorder, SinkConfig, Sources, SystemSources,
};
use dt_server::http::Inherited;
use dt_server::service::Service;
use dt_server::sink::NotASink;
use dt_server::tls::TlsSettings;
use dt_verify::Verifier;

/// The number of file descriptors that are reserved for other uses than connections: the spool, the sinks, their brokers, the
/// other listener.
const OTHER_FILES: u64 = 256;

/// Receive events: verify each request, store its event and forward it to the sinks
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  DT_SIGNATURE_SECRET=some-good-secret dt-receiver serve
  dt-receiver serve --secret-file secret.txt --sink file:events.ndjson --sink stdout
  dt-receiver serve --secret-file secret.txt --sink kafka:127.0.0.1:9092/dt.events
  dt-receiver serve --config dt-receiver.toml
  dt-receiver serve --secret-file secret.txt --listen 0.0.0.0:443 --tls-cert fullchain.pem --tls-key privkey.pem

DT only pushes to HTTPS, with a certificate of a public CA: use --tls-cert, or a proxy in front (docs/tls.md).

The environment variable RUST_LOG sets what is logged: error, warn, info (default), debug, trace; such as
RUST_LOG=dt_server=debug.")]
pub struct Arguments {
    /// Read connectors, sinks and limits from this file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address that receives DT's requests
    #[arg(long, value_name = "ADDRESS", help = format!("The address that receives DT's requests: an address, `unix:PATH`, or `systemd` [default: {DEFAULT_LISTEN}]"))]
    listen: Option<Listen>,
    /// Accept only TLS connections, with this certificate and its chain, in PEM; reloaded when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The address of /healthz, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS", help = format!("The address of /healthz, /readyz and /metrics [default: {DEFAULT_ADMIN}]"))]
    admin: Option<Listen>,
    /// When a request is answered 200: `spool` = once its event is stored and synced (the default), `direct` = once every sink has acknowledged it
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// Forward events to a sink; repeatable
    #[arg(long = "sink", value_name = "SINK", help = format!("Forward events to `{}`; repeatable [default: stdout]", sink_types().usages().join("`, `")))]
    sinks: Vec<String>,
    /// The folder of all stored data
    #[arg(long, value_name = "DIR", help = format!("The folder of all stored data [default: {DEFAULT_DATA}]"))]
    data: Option<PathBuf>,
    /// How often the files of the configuration and of secrets are checked for changes; 0 to reload on SIGHUP only
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    watch: Duration,
    #[command(flatten)]
    secrets: SecretOptions,
}

/// Raises the limit of open files as far as the system permits, and reduces the largest number of connections to it, since each
/// connection is a file descriptor.
fn fit_connections(config: &mut Config) {
    // If the limit cannot be raised, the current one stays.
    let Ok(files) = rlimit::increase_nofile_limit(u64::MAX) else { return };
    let max = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).max(1);
    let configured = config.limits.max_connections;
    if configured > max {
        config.limits.max_connections = max;
        let text =
            format!("is {configured}, lowered to {max}, since only {files} files may be open (ulimit -n)");
        config.warnings.push(Problem::new("limits.max_connections", text));
    }
}

pub fn run(arguments: &Arguments) -> Ended {
    logging::start()?;
    let recorder = Recorder::new(SystemSources);
    let config = configure(arguments, &recorder);
    let config = config.map_err(|error| bad_config(arguments.config.as_deref(), &error))?;
    warn(&config);
    super::secrets::hide_memory();
    // Before the runtime starts threads.
    let inherited = Inherited::from_env();
    let runtime = super::runtime().context("starting the runtime")?;
    let ended = runtime.block_on(serve(config, arguments.clone(), recorder.into_snapshot(), inherited));
    // A sink that hangs must not delay the exit: its events are in the spool, or (mode `direct`) were not acknowledged.
    runtime.shutdown_background();
    ended
}

/// Logs the warnings of a configuration.
pub fn warn(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!(key = warning.key, line = warning.line, "{}", warning.text);
    }
}

/// Builds the configuration from the arguments, at the start and for every reload.
fn configure(arguments: &Arguments, sources: &dyn Sources) -> Result<Config, ConfigError> {
    let Arguments { config: file, listen, tls_cert, tls_key, admin, mode, sinks, data, watch: _, secrets } =
        arguments;
    let mut config = match file {
        Some(path) => {
            if secrets.is_given() {
                return Err(ConfigError::Refused(
                    "--secret-env and --secret-file cannot be used with --config; name the secrets in the file"
                        .to_owned(),
                ));
            }
            Config::from_file(path, sources, &sink_types())?
        }
        None => {
            let mut builder = Verifier::builder();
            for (label, secret) in secrets.read_from(sources).map_err(rejected)? {
                builder = builder.secret(label, secret);
            }
            let verifier = builder.build().map_err(rejected)?;
            let mut config = Config::empty();
            config.connectors.push(ConnectorConfig::new("default", "/", verifier));
            config
        }
    };
    if let Some(text) = mode {
        let unknown = |_| {
            ConfigError::Refused(format!(
                "--mode: found \"{}\"; expected spool or direct",
                text.escape_debug()
            ))
        };
        config.mode = text.parse().map_err(unknown)?;
    }
    config.listen = listen.clone().unwrap_or(config.listen);
    config.admin = admin.clone().or(config.admin);
    if let Some(data) = data {
        config.data.clone_from(data);
    }
    if let (Some(certificate), Some(key)) = (tls_cert, tls_key) {
        let settings = match config.tls.take() {
            Some(mut settings) => {
                settings.certificate.clone_from(certificate);
                settings.key.clone_from(key);
                settings
            }
            None => TlsSettings::new(certificate.clone(), key.clone()),
        };
        config = config.with_tls(settings, sources)?;
    }
    if !sinks.is_empty() {
        let not_a_sink = |error| rejected(format_args!("--sink: {error}"));
        config.sinks = parse_sinks(sinks).map_err(not_a_sink)?;
    }
    let mut config = config.complete()?;
    fit_connections(&mut config);
    Ok(config)
}

/// Converts an error in the arguments to an error of the configuration.
fn rejected(error: impl std::fmt::Display) -> ConfigError {
    ConfigError::Refused(error.to_string())
}

/// Reads every `--sink`. The second and later sinks of one type have a number in their names.
fn parse_sinks(texts: &[String]) -> Result<Vec<SinkConfig>, NotASink> {
    let types = sink_types();
    let mut sinks: Vec<SinkConfig> = Vec::new();
    for text in texts {
        let mut sink = SinkConfig::parse(text, &types)?;
        let is_same = |other: &&SinkConfig| other.settings.type_name() == sink.settings.type_name();
        let same = sinks.iter().filter(is_same).count();
        if same > 0 {
            sink.name = Arc::from(format!("{}-{}", sink.name, same.saturating_add(1)));
        }
        sinks.push(sink);
    }
    Ok(sinks)
}

async fn serve(config: Config, arguments: Arguments, files: FileSnapshot, inherited: Inherited) -> Ended {
    let stop = Stop::listen().context("listening for signals")?;
    let hangup = signal(SignalKind::hangup()).context("listening for signals")?;
    let service = Service::builder(config.clone()).inherited(inherited).start().await.map_err(usage)?;
    let connectors: Vec<_> = config.connectors.iter().map(|connector| &*connector.path).collect();
    let sinks: Vec<_> = config.sinks.iter().map(|sink| &*sink.name).collect();
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let sources: Vec<_> = config.sources.iter().map(|source| &*source.name).collect();
    let (listen, admin) = (service.listener().map(ToString::to_string), service.admin_listener());
    tracing::info!(
        listen,
        scheme,
        admin = admin.map(tracing::field::display),
        ?connectors,
        ?sources,
        ?sinks,
        version = env!("CARGO_PKG_VERSION"),
        "{}",
        if listen.is_some() {
            "listening"
        } else {
            "reading events; there is no connector, so no port is open for DT"
        }
    );
    let (handle, interval) = (service.reload_handle(), arguments.watch);
    let read = move |sources: &dyn Sources| configure(&arguments, sources);
    let status = match listen {
        Some(listen) => format!("receiving events on {listen} ({scheme})"),
        None => "reading events of DT's API".to_owned(),
    };
    notify::ready(&status);
    tokio::spawn(reload::keep_current(Reloader { handle, files, interval, hangup, status }, read));
    let alive = tokio::spawn(notify::keep_alive());
    let stopped = async {
        stop.wait().await;
        notify::stopping();
    };
    service.run_until(stopped).await;
    alive.abort();
    Ok(())
}
