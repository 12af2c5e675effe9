//! `man`: writes the manual pages, one for each subcommand. Hidden, since only packagers need it.

use std::path::PathBuf;

use clap::CommandFactory;

use super::{Ended, usage};

/// Write the manual pages
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Arguments {
    /// The folder to write them to; it must exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn run(arguments: &Arguments) -> Ended {
    clap_mangen::generate_to(super::Arguments::command(), &arguments.out)
        .map_err(|error| usage(format!("{}: {error}", arguments.out.display())))
}
