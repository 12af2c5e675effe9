//! `config`: what a configuration may hold, from the table that the tests compare with what is read.

use super::{Ended, say};
use dt_server::config::{reference_markdown, sample_file};

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
}

pub(super) fn run(arguments: &Arguments) -> Ended {
    let text = match arguments.command {
        Command::Reference => reference_markdown(),
        Command::Sample => sample_file(),
    };
    say(text.trim_end())?;
    Ok(())
}
