//! Where the command line takes signature secrets from: an environment variable or a file, never an argument's text,
//! which every process of the machine could read.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{Failure, usage};
use dt_server::config::{SecretSource, Sources, SystemSources, read_secret};
use dt_verify::Secret;

/// The variable that is read when nothing else is given.
pub(super) const DEFAULT_VARIABLE: &str = "DT_SIGNATURE_SECRET";

/// The options for secrets, the same in every subcommand.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Secrets (default: the environment variable DT_SIGNATURE_SECRET)")]
pub(super) struct SecretOptions {
    /// Take a signature secret from this environment variable; repeatable
    #[arg(long = "secret-env", value_name = "NAME")]
    env: Vec<String>,
    /// Take a signature secret from this file, without its last line end; repeatable
    #[arg(long = "secret-file", value_name = "FILE")]
    file: Vec<PathBuf>,
}

impl SecretOptions {
    /// Whether any option was given.
    pub(super) fn is_given(&self) -> bool {
        !self.env.is_empty() || !self.file.is_empty()
    }

    /// Reads the secrets, each with a label: `default`, the variable's name, or the file's name.
    pub(super) fn read(&self) -> Result<Vec<(Arc<str>, Secret)>, Failure> {
        self.read_from(&SystemSources).map_err(usage)
    }

    /// The same from other sources; an error is in words.
    pub(super) fn read_from(&self, from: &dyn Sources) -> Result<Vec<(Arc<str>, Secret)>, String> {
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
                return Err(format!(
                    "no signature secret is given: set the environment variable {DEFAULT_VARIABLE} to the Signature \
                     Secret of your Data Connector, or use --secret-env NAME or --secret-file FILE"
                ));
            }
            sources.push(("default".to_owned(), SecretSource::Env(DEFAULT_VARIABLE.to_owned())));
        }
        let mut secrets: Vec<(Arc<str>, Secret)> = Vec::new();
        for (label, source) in sources {
            let (secret, odd) = read_secret(&source, from).map_err(|error| error.to_string())?;
            if let Some(odd) = odd {
                super::complain(&format!("warning: {odd}"));
            }
            if secrets.iter().any(|(known, _)| **known == *label) {
                return Err(format!("two secrets would have the label \"{label}\"; rename one"));
            }
            secrets.push((Arc::from(label), secret));
        }
        Ok(secrets)
    }

    /// Reads the first secret, for those who sign.
    pub(super) fn read_first(&self) -> Result<Secret, Failure> {
        let first = self.read()?.into_iter().next();
        first.map(|(_, secret)| secret).ok_or_else(|| usage("no signature secret is given"))
    }
}

/// Lets no other process of this user look into this one, and no core dump be written: secrets are in memory.
pub(super) fn hide_memory() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        tracing::warn!(%error, "other processes of this user may read the memory of this one");
    }
}
