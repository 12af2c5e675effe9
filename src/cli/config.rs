//! `config`: prints the reference of configuration keys, a sample file, and the reference of metrics.

use super::{Ended, say};
use crate::sink_types;
use dt_server::config::{reference_markdown, sample_file};
use dt_server::telemetry::metrics_markdown;

/// Print the reference of the configuration
#[derive(Debug, clap::Args)]
pub struct Arguments {
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

pub fn run(arguments: &Arguments) -> Ended {
    let text = match arguments.command {
        Command::Reference => reference_markdown(&sink_types()),
        Command::Sample => sample_file(&sink_types()),
        Command::Metrics => metrics_markdown(&sink_types().metrics()),
    };
    say(text.trim_end())?;
    Ok(())
}
