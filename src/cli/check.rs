//! `check`: runs the checks that `serve` runs at its start, and reports every problem at once. With `--connect`, it also checks
//! each sink at its destination.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde_json::json;

use super::spool_access::bad_config;
use super::{Ended, Failure, complain, say, usage};
use crate::sink_types;
use dt_server::config::{Config, ConfigError, Findings, Problem, SinkConfig, SystemSources};
use dt_server::sink::{LogPermit, Metric, SinkContext, SinkError, SinkReporter};

/// The time limit for the destination of a sink.
const LIMIT: Duration = Duration::from_secs(10);
/// The additional time for the client library of a sink, such as for resolving a host name.
const GRACE: Duration = Duration::from_secs(2);

/// Check a configuration, and report every problem at once
///
/// Exit codes: 0 if there is no error, 1 if --connect finds a sink that cannot deliver, 2 if the
/// configuration is wrong.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  dt-receiver check --config dt-receiver.toml\n  dt-receiver check --config dt-receiver.toml --connect\n  \
                  dt-receiver check --config dt-receiver.toml --json"
)]
pub struct Arguments {
    /// The configuration to check
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Also connect to the destination of each sink, with its TLS and its password; nothing is
    /// written, published or created. Takes at most 12 s
    #[arg(long)]
    connect: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Ended {
    let path = arguments.config.display();
    let Findings { errors, warnings, sinks, .. } =
        match Config::check_file(&arguments.config, &SystemSources, &sink_types()) {
            Ok(findings) => findings,
            Err(ConfigError::Syntax(text)) if arguments.json => {
                let mut findings = Findings::default();
                findings.errors.push(Problem::new("", text));
                findings
            }
            Err(error) => return Err(bad_config(Some(&arguments.config), &error)),
        };
    let probed = if arguments.connect { probe_all(sinks) } else { Vec::new() };
    let has_failed = probed.iter().any(|probed| matches!(probed.result, Some(Err(_))));
    if arguments.json {
        let list = |problems: &[Problem]| -> Vec<_> {
            problems
                .iter()
                .map(|problem| json!({"key": problem.key, "line": problem.line, "text": problem.text}))
                .collect()
        };
        let is_ok = errors.is_empty() && !has_failed;
        let mut report = json!({"ok": is_ok, "errors": list(&errors), "warnings": list(&warnings)});
        if let (true, Some(report)) = (arguments.connect, report.as_object_mut()) {
            report.insert("sinks".to_owned(), probed.iter().map(Probed::json).collect());
        }
        say(report)?;
        return match (errors.is_empty(), has_failed) {
            (true, false) => Ok(()),
            (true, true) => Err(Failure::Refused),
            (false, _) => Err(Failure::Usage(format!("{path}: not usable"))),
        };
    }
    for warning in &warnings {
        complain(&format!("{path}: warning: {warning}"));
    }
    if !errors.is_empty() {
        let lines: Vec<String> = errors.iter().map(|problem| format!("{path}: {problem}")).collect();
        return Err(usage(lines.join("\ndt-receiver: ")));
    }
    say(format_args!("{path}: ok"))?;
    for Probed { name, type_name, result } in &probed {
        let sink = format!("{path}: sink {name} ({type_name})");
        match result {
            Some(Ok(found)) => say(format_args!("{sink}: ok: {found}"))?,
            None => say(format_args!("{sink}: not checked: this type cannot be"))?,
            Some(Err(error)) => complain(&format!("{sink}: {error}")),
        }
    }
    if has_failed { Err(Failure::Refused) } else { Ok(()) }
}

/// The result of checking a sink at its destination.
struct Probed {
    name: Arc<str>,
    type_name: &'static str,
    /// The result of the check; `None` if sinks of this type cannot be checked.
    result: Option<Result<String, SinkError>>,
}

impl Probed {
    fn json(&self) -> serde_json::Value {
        let (result, text) = match &self.result {
            Some(Ok(found)) => ("ok", found.clone()),
            Some(Err(error)) => ("failed", error.to_string()),
            None => ("not checked", String::new()),
        };
        json!({"name": &*self.name, "type": self.type_name, "result": result, "text": text})
    }
}

/// Checks all sinks at their destinations at the same time. A sink that exceeds the time limit is abandoned until the process
/// ends.
fn probe_all(sinks: Vec<SinkConfig>) -> Vec<Probed> {
    let started = Instant::now();
    let running: Vec<_> = sinks
        .into_iter()
        .map(|SinkConfig { name, format, settings, .. }| {
            let mut context = SinkContext::new(format, Arc::new(Unreported(Arc::clone(&name))));
            context.give_up_after = Some(LIMIT);
            let type_name = settings.type_name();
            let (sender, receiver) = mpsc::channel();
            // A result that comes too late has no receiver.
            std::thread::spawn(move || drop(sender.send(settings.probe(context))));
            (name, type_name, receiver)
        })
        .collect();
    let result_of = |receiver: mpsc::Receiver<_>| {
        let left = LIMIT.saturating_add(GRACE).saturating_sub(started.elapsed());
        receiver.recv_timeout(left).unwrap_or_else(|error| {
            Some(Err(SinkError::from(match error {
                mpsc::RecvTimeoutError::Timeout => format!("no answer within {} s", LIMIT.as_secs()),
                mpsc::RecvTimeoutError::Disconnected => "the check panicked".to_owned(),
            })))
        })
    };
    let probed = running.into_iter();
    probed
        .map(|(name, type_name, receiver)| Probed { name, type_name, result: result_of(receiver) })
        .collect()
}

/// A reporter that discards the metrics and log lines of a sink.
#[derive(Debug)]
struct Unreported(Arc<str>);

impl SinkReporter for Unreported {
    fn sink(&self) -> &str {
        &self.0
    }

    fn set(&self, _: &Metric, _: f64) {}

    fn add(&self, _: &Metric, _: u64) {}

    fn log_permit(&self) -> Option<LogPermit> {
        None
    }
}
