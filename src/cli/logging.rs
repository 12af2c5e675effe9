//! The log: to standard error, as text on a terminal and as JSON otherwise. `RUST_LOG` sets its level.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::{Failure, usage};

/// The section of the help about the log.
pub const HELP: &str = "Environment:
  RUST_LOG  What is logged to standard error, such as RUST_LOG=warn or RUST_LOG=dt_server=debug";

/// Starts the log of this process.
pub fn start() -> Result<(), Failure> {
    start_at(LevelFilter::INFO)
}

/// Starts the log of a subcommand that prints its progress: it is off unless `RUST_LOG` is set.
pub fn start_silent() -> Result<(), Failure> {
    start_at(LevelFilter::OFF)
}

fn start_at(level: LevelFilter) -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .from_env()
        .map_err(|error| usage(format!("RUST_LOG: {error}; an example is RUST_LOG=dt_server=debug")))?;
    let log = tracing_subscriber::fmt().with_writer(stderr).with_env_filter(filter);
    // A log that an embedder has started before stays.
    let _started =
        if stderr().is_terminal() { log.try_init() } else { log.json().flatten_event(true).try_init() };
    Ok(())
}
