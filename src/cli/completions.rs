//! `completions`: prints a script with which a shell completes subcommands and options.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Ended;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  dt-receiver completions bash > ~/.local/share/bash-completion/completions/dt-receiver"
)]
pub struct Arguments {
    /// The shell
    shell: Shell,
}

pub fn run(arguments: &Arguments) -> Ended {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "dt-receiver", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script)?;
    Ok(())
}
