//! `check`: runs the same checks as `serve` does at its start, and reports every problem at once.

use std::path::PathBuf;

use serde_json::json;

use super::{Ended, Failure, complain, say, usage};
use crate::config::{Config, ConfigError, Problem, SystemSources};

/// The options of `check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  dt-receiver check --config dt-receiver.toml\n  dt-receiver check --config dt-receiver.toml --json"
)]
pub(super) struct Arguments {
    /// The configuration to check
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Ended {
    let path = arguments.config.display();
    let (errors, warnings) = match Config::from_file(&arguments.config, &SystemSources)
        .and_then(Config::complete)
    {
        Ok(config) => (Vec::new(), config.warnings),
        Err(ConfigError::Problems(problems)) => (problems, Vec::new()),
        Err(ConfigError::Syntax(text)) => (vec![Problem { key: String::new(), text }], Vec::new()),
        Err(error @ (ConfigError::Unreadable { .. } | ConfigError::Refused(_))) => return Err(usage(error)),
    };
    if arguments.json {
        let list = |problems: &[Problem]| -> Vec<_> {
            problems.iter().map(|problem| json!({"key": problem.key, "text": problem.text})).collect()
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
