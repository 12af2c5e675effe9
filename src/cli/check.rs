//! `check`: runs the checks that `serve` runs at its start, and reports every problem at once.

use std::path::PathBuf;

use serde_json::json;

use super::spool_access::bad_config;
use super::{Ended, Failure, complain, say, usage};
use crate::sink_types;
use dt_server::config::{Config, ConfigError, Findings, Problem, SystemSources};

/// Check a configuration, and report every problem at once
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  dt-receiver check --config dt-receiver.toml\n  dt-receiver check --config dt-receiver.toml --json"
)]
pub struct Arguments {
    /// The configuration to check
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Ended {
    let path = arguments.config.display();
    let Findings { errors, warnings, .. } =
        match Config::check_file(&arguments.config, &SystemSources, &sink_types()) {
            Ok(findings) => findings,
            Err(ConfigError::Syntax(text)) if arguments.json => {
                let mut findings = Findings::default();
                findings.errors.push(Problem::new("", text));
                findings
            }
            Err(error) => return Err(bad_config(Some(&arguments.config), &error)),
        };
    if arguments.json {
        let list = |problems: &[Problem]| -> Vec<_> {
            problems
                .iter()
                .map(|problem| json!({"key": problem.key, "line": problem.line, "text": problem.text}))
                .collect()
        };
        say(json!({"ok": errors.is_empty(), "errors": list(&errors), "warnings": list(&warnings)}))?;
        return if errors.is_empty() { Ok(()) } else { Err(Failure::Usage(format!("{path}: not usable"))) };
    }
    for warning in &warnings {
        complain(&format!("{path}: warning: {warning}"));
    }
    if errors.is_empty() {
        say(format_args!("{path}: ok"))?;
        return Ok(());
    }
    let lines: Vec<String> = errors.iter().map(|problem| format!("{path}: {problem}")).collect();
    Err(usage(lines.join("\ndt-receiver: ")))
}
