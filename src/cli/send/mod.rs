//! `send`: stands in for DT's cloud and posts signed events to a receiver, good ones or bad ones, one or very many.
//!
//! | file | what it knows |
//! |---|---|
//! | `target.rs` | where to: URL and headers |
//! | `plan.rs` | what: bodies, tokens, faults, and which answers they ask for |
//! | `pace.rs` | when: at once, or at planned times |
//! | `client.rs` | how: one HTTP connection a worker |
//! | `drive.rs` | the workers that bring these together |
//! | `tls.rs` | whom to trust |
//! | `report.rs`, `progress.rs` | what came of it |

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

/// Send signed events to a receiver, as DT would
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  DT_SIGNATURE_SECRET=some-good-secret dt-receiver send
  dt-receiver send --secret-file secret.txt --event temperature --url http://127.0.0.1:8080/dt
  dt-receiver send --fault tampered
  dt-receiver send --count 100000 --concurrency 64 --json
  dt-receiver send --count 600 --rate 10
  dt-receiver send --url https://receiver.example/ --ca our-authority.pem

Exit codes: 0 when every answer was the right one: 2xx for --fault none and
duplicate, 401 for the others; 1 when one was not, or did not come; 2 for wrong
usage. `sent` counts requests: those that were answered and those that failed.

With --rate, latencies count from the planned times, also where an event had to
wait because --concurrency others were still without an answer.")]
pub(super) struct Arguments {
    /// The receiver's URL, with http or https
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/")]
    url: String,
    /// Trust only the certificate authorities in this PEM file, instead of the public ones
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Send events of this type [default: each known type in turn]
    #[arg(long, value_name = "TYPE", conflicts_with = "body")]
    event: Option<String>,
    /// The id of the project that the events come from
    #[arg(long, value_name = "ID", default_value = plan::PROJECT, conflicts_with = "body")]
    project: String,
    /// Send the bytes of this file (`-`: standard input), each time the same
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// How many events to send
    #[arg(long, value_name = "N", default_value = "1", value_parser = count, allow_negative_numbers = true)]
    count: u64,
    /// How many events to send a second [default: as fast as they are answered]
    #[arg(long, value_name = "R", value_parser = rate, allow_negative_numbers = true)]
    rate: Option<f64>,
    /// How many requests may wait for their answers at once, each on a connection of its own
    #[arg(long, value_name = "C", default_value = "1", value_parser = concurrency, allow_negative_numbers = true)]
    concurrency: usize,
    /// What is wrong with the requests
    #[arg(long, value_enum, default_value = "none")]
    fault: Fault,
    /// Send this header too, as the connector's own headers; repeatable
    #[arg(long = "header", value_name = "NAME=VALUE")]
    headers: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    secrets: SecretOptions,
}

/// The most connections there may be: a machine has some 28 000 ports for them.
const MAX_CONCURRENCY: usize = 20_000;

fn count(text: &str) -> Result<u64, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| "allowed is a whole number from 1".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.000_1..=1_000_000.0).contains(rate));
    rate.ok_or_else(|| "allowed is a number from 0.0001 to 1000000".to_owned())
}

fn concurrency(text: &str) -> Result<usize, String> {
    let concurrency = text.parse().ok().filter(|workers| (1..=MAX_CONCURRENCY).contains(workers));
    concurrency.ok_or_else(|| format!("allowed is a whole number from 1 to {MAX_CONCURRENCY}"))
}

pub(super) fn run(arguments: &Arguments) -> Ended {
    let target = Target::read(&arguments.url, arguments.ca.as_deref(), &arguments.headers)?;
    let plan = plan(arguments)?;
    // Each connection is a file descriptor; where the limit cannot be raised, the one there is holds.
    let _raised = rlimit::increase_nofile_limit(u64::MAX);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let Arguments { count, rate, concurrency, .. } = *arguments;
    let ended = runtime.block_on(drive::run(Load { count, rate, concurrency }, target, plan));
    // A name that is still being looked up must not hold up the exit.
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
    // Secrets that are given but not needed are read all the same: a wrong name is a mistake in any case.
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
            return Err(usage(format!("--fault: found tampered, but {path} is empty; allowed is any other")));
        }
        return Ok(Bodies::Exactly(Bytes::from(body)));
    }
    let project = arguments.project.clone();
    if project.is_empty()
        || !project.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    {
        return Err(usage(format!(
            "--project: found \"{}\"; allowed are letters, digits, \"-\" and \"_\"",
            project.escape_debug()
        )));
    }
    let types = event_types(arguments.event.as_deref())?;
    Ok(Bodies::Samples(Samples::new(types, project, run).emulated()))
}
