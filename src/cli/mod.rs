//! The command line. One file a subcommand, each through the library's public API only: the command line is its first
//! embedder.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | refused, not verified, not delivered |
//! | 2 | wrong usage or configuration |
//! | 70 | internal error |

mod account;
mod check;
mod completions;
mod config;
mod dead;
mod demo;
mod emulate;
mod explain;
mod health;
mod ids;
mod logging;
mod man;
mod notify;
mod place;
mod reload;
mod request;
mod secrets;
mod send;
mod serve;
mod sign;
mod spool;
mod stop;
mod time;
mod verify;

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// How a subcommand ended.
#[derive(Debug)]
enum Failure {
    /// Refused, not verified, not delivered: exit code 1. What is to be said was said.
    Refused,
    /// Wrong usage or configuration: exit code 2.
    Usage(String),
    /// Anything else: exit code 70.
    Internal(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Internal(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Internal(error.into())
    }
}

/// Says what is wrong with the call.
fn usage(text: impl fmt::Display) -> Failure {
    Failure::Usage(text.to_string())
}

type Ended = Result<(), Failure>;

#[derive(Debug, Parser)]
#[command(name = "dt-receiver", version, about, max_term_width = 100, after_help = logging::HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive events: verify each request and pass it on to the sinks
    Serve(serve::Arguments),
    /// Say whether a signed body is authentic, and with --explain why not
    Verify(verify::Arguments),
    /// Make the token that DT would send with a body
    Sign(sign::Arguments),
    /// Send signed events to a receiver, as DT would
    Send(send::Arguments),
    /// Look at the spool, export it, let a sink see records again; safe beside a running server
    Spool(spool::Arguments),
    /// Look at dead letters, try them again, drop them; safe beside a running server
    Dead(dead::Arguments),
    /// Play DT's cloud on this machine: REST API, devices, deliveries, faults
    Emulate(emulate::Arguments),
    /// See events arrive: emulator and receiver in one process
    Demo(demo::Arguments),
    /// Check a configuration, and report every problem at once
    Check(check::Arguments),
    /// Print what a configuration may hold
    Config(config::Arguments),
    /// Ask a running receiver whether it is ready
    Health(health::Arguments),
    /// Print a completion script for a shell
    Completions(completions::Arguments),
    /// Write the manual pages
    #[command(hide = true)]
    Man(man::Arguments),
}

/// Runs the program with its own arguments.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version are asked for and go to standard output; nothing can be done if nobody reads them.
            let _printed = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let ended = match parsed.command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Sign(arguments) => sign::run(&arguments),
        Command::Send(arguments) => send::run(&arguments),
        Command::Spool(arguments) => spool::run(&arguments),
        Command::Dead(arguments) => dead::run(&arguments),
        Command::Emulate(arguments) => emulate::run(arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::Health(arguments) => health::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Refused) => ExitCode::from(1),
        Err(Failure::Usage(text)) => {
            complain(&text);
            ExitCode::from(2)
        }
        Err(Failure::Internal(error)) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(Failure::Internal(error)) => {
            complain(&format!("{error:#}"));
            ExitCode::from(70)
        }
    }
}

/// Whoever read our output has seen enough, as with `| head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn complain(text: &str) {
    // There is no one left to tell when standard error is closed.
    let _told = writeln!(std::io::stderr(), "dt-receiver: {text}");
}

/// A runtime of at least two threads: one may wait for the disk while the other answers.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(2, |threads| threads.get().max(2));
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

/// Writes a line to standard output.
fn say(line: impl fmt::Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// Reads all of a file, or of standard input for `-`.
fn read_input(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    let mut content = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut content)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut content))
    };
    match read {
        Ok(_) => Ok(content),
        Err(error) => Err(usage(format!("{}: {error}", path.display()))),
    }
}
