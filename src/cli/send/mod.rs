//! `send`: posts signed events to a receiver as DT's cloud does, valid or with a fault, one or many.
//!
//! | file | task |
//! |---|---|
//! | `target.rs` | URL and headers of the receiver |
//! | `plan.rs` | bodies, tokens, faults, and the expected responses |
//! | `pace.rs` | the times of events: at once, or planned |
//! | `client.rs` | the HTTP connection of a worker |
//! | `drive.rs` | the workers |
//! | `tls.rs` | certificate authorities, and the handshake |
//! | `report.rs`, `progress.rs` | the report and the progress bar |

mod client;
mod drive;
mod pace;
mod plan;
mod progress;
mod report;
mod target;
mod tls;

use std::path::PathBuf;

use anyhow::Context;
use bytes::Bytes;

use self::drive::Load;
use self::plan::{Bodies, Fault, Plan};
use self::target::Target;
use super::ids::Run;
use super::samples::{Samples, event_types};
use super::secrets::SecretOptions;
use super::{Ended, Failure, complain, read_input, say, usage};
use dt_verify::Secret;

/// Send signed events to a receiver, as DT does
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  DT_SIGNATURE_SECRET=some-good-secret dt-receiver send
  dt-receiver send --secret-file secret.txt --event temperature --url http://127.0.0.1:8080/dt
  dt-receiver send --fault tampered
  dt-receiver send --count 100000 --concurrency 64 --json
  dt-receiver send --count 600 --rate 10
  dt-receiver send --url https://receiver.example/ --ca our-authority.pem

Exit codes: 0 if every response is the expected one (2xx for --fault none and
duplicate, 401 for the others); 1 if one is not, or is missing; 2 for wrong
usage. `sent` counts requests: those that were answered and those that failed.

With --rate, latencies count from the planned times, also if an event had to
wait because --concurrency others had no response yet.")]
pub struct Arguments {
    /// The receiver's URL, with http or https
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/")]
    url: String,
    /// Trust only the certificate authorities in this PEM file, instead of the public ones
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Send events of this type [default: each known type in turn]
    #[arg(long, value_name = "TYPE", conflicts_with = "body")]
    event: Option<String>,
    /// The id of the project of the events
    #[arg(long, value_name = "ID", default_value = plan::PROJECT, conflicts_with = "body")]
    project: String,
    /// Send the bytes of this file as every event (`-`: standard input)
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The number of events
    #[arg(long, value_name = "N", default_value = "1", value_parser = count, allow_negative_numbers = true)]
    count: u64,
    /// The number of events per second [default: as fast as they are answered]
    #[arg(long, value_name = "R", value_parser = rate, allow_negative_numbers = true)]
    rate: Option<f64>,
    /// The number of concurrent requests, each on its own connection
    #[arg(long, value_name = "C", default_value = "1", value_parser = concurrency, allow_negative_numbers = true)]
    concurrency: usize,
    /// The fault of the requests
    #[arg(long, value_enum, default_value = "none")]
    fault: Fault,
    /// Add this header, like the headers of a Data Connector; repeatable
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    secrets: SecretOptions,
}

/// The largest number of connections: a machine has about 28,000 ports for them.
const MAX_CONCURRENCY: usize = 20_000;

/// Why the value of an option is not the expected number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum NumberError {
    #[error("expected a whole number from 1")]
    Count,
    #[error("expected a number from 0.0001 to 1000000")]
    Rate,
    #[error("expected a whole number from 1 to {MAX_CONCURRENCY}")]
    Concurrency,
}

fn count(text: &str) -> Result<u64, NumberError> {
    text.parse().ok().filter(|count| *count > 0).ok_or(NumberError::Count)
}

fn rate(text: &str) -> Result<f64, NumberError> {
    text.parse().ok().filter(|rate| (0.000_1..=1_000_000.0).contains(rate)).ok_or(NumberError::Rate)
}

fn concurrency(text: &str) -> Result<usize, NumberError> {
    let concurrency = text.parse().ok().filter(|workers| (1..=MAX_CONCURRENCY).contains(workers));
    concurrency.ok_or(NumberError::Concurrency)
}

pub fn run(arguments: &Arguments) -> Ended {
    let target = Target::read(&arguments.url, arguments.ca.as_deref(), &arguments.headers)?;
    let plan = plan(arguments)?;
    // Each connection is a file descriptor. If the limit cannot be raised, the current one stays.
    let _raised = rlimit::increase_nofile_limit(u64::MAX);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let Arguments { count, rate, concurrency, .. } = *arguments;
    let ended = runtime.block_on(drive::run(Load { count, rate, concurrency }, target, plan));
    // A name that is still being resolved must not delay the exit.
    runtime.shutdown_background();
    let report = ended?;
    if arguments.json {
        say(report.json())?;
    } else {
        for line in report.lines(arguments.count == 1) {
            say(line)?;
        }
    }
    for complaint in report.complaints() {
        complain(&complaint);
    }
    if report.is_expected() { Ok(()) } else { Err(Failure::Refused) }
}

fn plan(arguments: &Arguments) -> Result<Plan, Failure> {
    let fault = arguments.fault;
    let run = Run::random()?;
    // Secrets that are given are read even if the fault needs none, so that a wrong name is reported.
    let own = if fault.needs_secret() || arguments.secrets.is_given() {
        Some(arguments.secrets.read_first()?)
    } else {
        None
    };
    let secret = match fault {
        Fault::WrongSecret => Some(Secret::new(run.other_secret()).context("a random secret")?),
        _ => own,
    };
    Ok(Plan::new(bodies(arguments, run)?, fault, secret, run))
}

fn bodies(arguments: &Arguments, run: Run) -> Result<Bodies, Failure> {
    if let Some(path) = &arguments.body {
        let body = read_input(path)?;
        if body.is_empty() && arguments.fault == Fault::Tampered {
            let path = path.display();
            return Err(usage(format!("--fault: found tampered, but {path} is empty; expected another fault")));
        }
        return Ok(Bodies::Exactly(Bytes::from(body)));
    }
    let project = arguments.project.clone();
    if project.is_empty()
        || !project.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    {
        return Err(usage(format!(
            "--project: found \"{}\"; expected letters, digits, \"-\" and \"_\"",
            project.escape_debug()
        )));
    }
    let types = event_types(arguments.event.as_deref())?;
    Ok(Bodies::Samples(Samples::new(types, project, run).emulated()))
}
