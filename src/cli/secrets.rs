//! The options for signature secrets. A secret is in an environment variable or a file, never in an argument, which every
//! process of the machine could read.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{Failure, usage};
use dt_server::config::{SecretError, SecretSource, Sources, SystemSources, read_secret};
use dt_verify::Secret;

/// The environment variable that is read by default.
pub const DEFAULT_VARIABLE: &str = "DT_SIGNATURE_SECRET";

/// The options for secrets of all subcommands.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Secrets (default: the environment variable DT_SIGNATURE_SECRET)")]
pub struct SecretOptions {
    /// Take a signature secret from this environment variable; repeatable
    #[arg(long = "secret-env", value_name = "NAME")]
    env: Vec<String>,
    /// Take a signature secret from this file, without its last line end; repeatable
    #[arg(long = "secret-file", value_name = "FILE")]
    file: Vec<PathBuf>,
}

/// Why the secrets cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error(
        "no signature secret is given: set the environment variable {DEFAULT_VARIABLE} to the Signature Secret of your \
         Data Connector, or use --secret-env NAME or --secret-file FILE"
    )]
    Missing,
    #[error("two secrets would have the label \"{0}\"; rename one")]
    LabelRepeated(String),
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl SecretOptions {
    /// Returns whether any option was given.
    pub fn is_given(&self) -> bool {
        !self.env.is_empty() || !self.file.is_empty()
    }

    /// Reads the secrets, each with a label: `default`, the name of the variable, or the name of the file.
    pub fn read(&self) -> Result<Vec<(Arc<str>, Secret)>, Failure> {
        self.read_from(&SystemSources).map_err(usage)
    }

    /// Reads the secrets from these sources, each with its label.
    pub fn read_from(&self, from: &dyn Sources) -> Result<Vec<(Arc<str>, Secret)>, SecretsError> {
        let mut sources: Vec<(String, SecretSource)> = Vec::new();
        for name in &self.env {
            sources.push((name.clone(), SecretSource::Env(name.clone())));
        }
        for path in &self.file {
            let label = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            sources.push((label, SecretSource::File(path.clone())));
        }
        if sources.is_empty() {
            if from.env(DEFAULT_VARIABLE).is_none() {
                return Err(SecretsError::Missing);
            }
            sources.push(("default".to_owned(), SecretSource::Env(DEFAULT_VARIABLE.to_owned())));
        }
        let mut secrets: Vec<(Arc<str>, Secret)> = Vec::new();
        for (label, source) in sources {
            let (secret, warning) = read_secret(&source, from)?;
            if let Some(warning) = warning {
                super::complain(&format!("warning: {warning}"));
            }
            if secrets.iter().any(|(other, _)| **other == *label) {
                return Err(SecretsError::LabelRepeated(label));
            }
            secrets.push((Arc::from(label), secret));
        }
        Ok(secrets)
    }

    /// Reads the first secret, with which requests are signed.
    pub fn read_first(&self) -> Result<Secret, Failure> {
        let first = self.read()?.into_iter().next();
        first.map(|(_, secret)| secret).ok_or_else(|| usage("no signature secret is given"))
    }
}

/// Protects the secrets in memory: no other process of this user can read the memory, and the system writes no core dump.
pub fn hide_memory() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        tracing::warn!(%error, "other processes of this user can read the memory of this one");
    }
}
