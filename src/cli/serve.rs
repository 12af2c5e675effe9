//! `serve`: the Endpoint URL target.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use super::place::read_config;
use super::secrets::SecretOptions;
use super::stop::Stop;
use super::{Ended, Failure, logging, usage};
use crate::config::{Config, ConnectorConfig, DEFAULT_ADMIN, DEFAULT_DATA, DEFAULT_LISTEN, SinkConfig};
use crate::service::Service;
use crate::verify::Verifier;

/// How many files other than connections are open at most: the spool, the sinks, their brokers, the other listener.
const OTHER_FILES: u64 = 256;

/// The options of `serve`. Those that are given win over the file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  DT_SIGNATURE_SECRET=some-good-secret dt-receiver serve
  dt-receiver serve --secret-file secret.txt --sink file:events.ndjson --sink stdout
  dt-receiver serve --secret-file secret.txt --sink kafka:127.0.0.1:9092/dt.events
  dt-receiver serve --config dt-receiver.toml

DT only pushes to HTTPS: put a proxy with a certificate of a public CA in front.")]
pub(super) struct Arguments {
    /// Read connectors, sinks and limits from this file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where DT's requests arrive
    #[arg(long, value_name = "ADDRESS", help = format!("Where DT's requests arrive [default: {DEFAULT_LISTEN}]"))]
    listen: Option<SocketAddr>,
    /// Where /healthz, /readyz and /metrics are
    #[arg(long, value_name = "ADDRESS", help = format!("Where /healthz, /readyz and /metrics are [default: {DEFAULT_ADMIN}]"))]
    admin: Option<SocketAddr>,
    /// When a request is answered with 200: `spool` = once it is stored durably (the default), `direct` = once every sink has it
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    /// Pass events on to `stdout`, `file:PATH` or `kafka:HOST:PORT[,HOST:PORT]/TOPIC`; repeatable [default: stdout]
    #[arg(long = "sink", value_name = "SINK")]
    sinks: Vec<String>,
    /// The folder for everything that is stored
    #[arg(long, value_name = "DIR", help = format!("The folder for everything that is stored [default: {DEFAULT_DATA}]"))]
    data: Option<PathBuf>,
    #[command(flatten)]
    secrets: SecretOptions,
}

pub(super) fn run(arguments: Arguments) -> Ended {
    logging::start()?;
    let mut config = configure(arguments)?;
    for warning in &config.warnings {
        tracing::warn!(key = warning.key, "{}", warning.text);
    }
    // Each connection is a file descriptor; where the limit cannot be raised, the one there is holds.
    if let Ok(files) = rlimit::increase_nofile_limit(u64::MAX) {
        let most = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).max(1);
        if config.limits.max_connections > most {
            tracing::warn!(
                key = "limits.max_connections",
                "is {}, and lowered to {most}, since only {files} files may be open (ulimit -n)",
                config.limits.max_connections
            );
            config.limits.max_connections = most;
        }
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let ended = runtime.block_on(serve(config));
    // A sink that hangs must not hold up the exit: what it holds is in the spool, or (mode `direct`) was never acknowledged.
    runtime.shutdown_background();
    ended
}

fn configure(arguments: Arguments) -> Result<Config, Failure> {
    let Arguments { config: file, listen, admin, mode, sinks, data, secrets } = arguments;
    let mut config = match &file {
        Some(path) => {
            if secrets.is_given() {
                return Err(usage(
                    "--secret-env and --secret-file do not go with --config; name the secrets in the file",
                ));
            }
            read_config(path)?
        }
        None => {
            let mut builder = Verifier::builder();
            for (label, secret) in secrets.read()? {
                builder = builder.secret(label, secret);
            }
            let verifier = builder.build().map_err(usage)?;
            let mut config = Config::empty();
            config.connectors.push(ConnectorConfig::new("default", "/", verifier));
            config
        }
    };
    if let Some(text) = &mode {
        let unknown =
            |_| usage(format!("--mode: found \"{}\"; allowed are spool, direct", text.escape_debug()));
        config.mode = text.parse().map_err(unknown)?;
    }
    config.listen = listen.unwrap_or(config.listen);
    config.admin = admin.or(config.admin);
    config.data = data.unwrap_or(config.data);
    if !sinks.is_empty() {
        config.sinks = parse_sinks(&sinks)?;
    }
    config.complete().map_err(usage)
}

fn parse_sinks(texts: &[String]) -> Result<Vec<SinkConfig>, Failure> {
    let mut sinks: Vec<SinkConfig> = Vec::new();
    for text in texts {
        let mut sink: SinkConfig = text.parse().map_err(|error| usage(format!("--sink: {error}")))?;
        let of_kind = |sink: &&SinkConfig, name: &str| sink.name.split('-').next() == Some(name);
        let same = sinks.iter().filter(|known| of_kind(known, &sink.name)).count();
        if same > 0 {
            sink.name = Arc::from(format!("{}-{}", sink.name, same.saturating_add(1)));
        }
        sinks.push(sink);
    }
    Ok(sinks)
}

async fn serve(config: Config) -> Ended {
    let stop = Stop::listen().context("listening for signals")?;
    let service = Service::builder(config.clone()).start().await.map_err(usage)?;
    let connectors: Vec<_> = config.connectors.iter().map(|connector| &*connector.path).collect();
    let sinks: Vec<_> = config.sinks.iter().map(|sink| &*sink.name).collect();
    let (listen, admin) = (service.address(), service.admin_address());
    tracing::info!(
        listen = listen.map(tracing::field::display),
        admin = admin.map(tracing::field::display),
        ?connectors,
        ?sinks,
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
    service.run_until(stop.wait()).await;
    Ok(())
}
