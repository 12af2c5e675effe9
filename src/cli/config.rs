//! `config`: what a configuration may hold, and what is measured, from the tables that the tests compare with the code.

use super::{Ended, say};
use dt_server::config::{reference_markdown, sample_file};
use dt_server::sink::TYPE_METRICS;
use dt_server::telemetry::metrics_markdown;

/// Print what a configuration may hold
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print every key: type, range, default and meaning, as Markdown
    Reference,
    /// Print a file to start from: every key, commented out, with its default
    Sample,
    /// Print every metric: type, labels, unit and meaning, as Markdown
    Metrics,
}

pub(super) fn run(arguments: &Arguments) -> Ended {
    let text = match arguments.command {
        Command::Reference => reference_markdown(),
        Command::Sample => sample_file(),
        Command::Metrics => metrics_markdown(TYPE_METRICS),
    };
    say(text.trim_end())?;
    Ok(())
}
