//! The command line. Each subcommand is a file that uses only the public API of the crates, as an embedder does.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | rejected, not verified, not delivered, not able to deliver |
//! | 2 | wrong usage or configuration |
//! | 70 | internal error |

mod account;
mod api;
mod explain;
mod ids;
mod logging;
mod notify;
mod reload;
mod request;
mod samples;
mod secrets;
mod spool_access;
mod stop;
mod time;

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Why a subcommand failed.
#[derive(Debug)]
enum Failure {
    /// A negative result: rejected, not verified, not delivered, or not able to deliver. Exit code 1. The subcommand has printed
    /// the reason.
    Refused,
    /// Wrong usage or configuration. Exit code 2.
    Usage(String),
    /// Any other error. Exit code 70.
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

/// Returns a failure with a message for the user.
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

/// Defines the subcommands, in the order of the help. A row names a module of this folder: the doc comment of its `Arguments`
/// is the help, and its `run` does the work.
macro_rules! subcommands {
    ($($name:ident: $module:ident,)*) => {
        $(mod $module;)*

        #[derive(Debug, Subcommand)]
        enum Command {
            $($name($module::Arguments),)*
        }

        impl Command {
            fn run(&self) -> Ended {
                match self {
                    $(Self::$name(arguments) => $module::run(arguments),)*
                }
            }
        }
    };
}

subcommands! {
    Serve: serve,
    Verify: verify,
    Sign: sign,
    Send: send,
    Spool: spool,
    Dead: dead,
    Connectors: connectors,
    Backfill: backfill,
    Emulate: emulate,
    Demo: demo,
    Check: check,
    Config: config,
    Health: health,
    Completions: completions,
    Man: man,
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
            // `clap` prints help and version to standard output. A closed output is not an error here.
            let _printed = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match parsed.command.run() {
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

/// Returns whether an error says that the reader of standard output has closed it, as `| head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Prints a message to standard error.
fn complain(text: &str) {
    // A closed standard error is ignored: there is no other output for messages.
    let _written = writeln!(std::io::stderr(), "dt-receiver: {text}");
}

/// Builds a runtime of at least two threads, so that one can answer requests while the other waits for the disk.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(2, |threads| threads.get().max(2));
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

/// Writes a line to standard output.
fn say(line: impl fmt::Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

/// Reads a whole file, or standard input for `-`.
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
