//! Access to the spool for the subcommands `spool` and `dead`: they read it with or without a running server, and change it
//! through the running server, or with the lock of the spool.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;

use super::secrets::{DEFAULT_VARIABLE, SecretOptions};
use super::{Failure, complain, usage};
use crate::sink_types;
use dt_log::dead::{DeadLetters, DeadOptions, Expect, Filter, ReadOnly};
use dt_log::{Log, LogOptions, Reader, is_without_log, path_of_dead_letters};
use dt_server::cloud::backfill::{ControlSocket, Fill};
use dt_server::config::{Config, ConfigError, ConnectorConfig, DEFAULT_DATA, Mode, Sources, SystemSources};
use dt_server::spool_admin::{ControlError, FillRequest, Repair, RepairReport, RepairRequest, ask};
use dt_sink::clock::SystemClock;
use dt_verify::Verifier;

/// The options that name the spool.
#[derive(Debug, Clone, Args)]
pub struct SpoolOptions {
    /// The configuration with the data folder (and with the secrets, to replay requests without a server)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder
    #[arg(long, value_name = "DIR", help = format!("The data folder [default: that of --config, else {DEFAULT_DATA}]"))]
    data: Option<PathBuf>,
}

/// A spool: its folder, and the configuration if one was given.
pub struct Spool {
    pub folder: PathBuf,
    /// The configuration, with placeholders for its secrets; `None` if none was given.
    pub config: Option<Config>,
    /// The path of the configuration file; `None` if none was given.
    config_file: Option<PathBuf>,
}

/// A source without secrets and keys, for reading what a service has stored: the shell of an operator has neither the environment
/// of the service nor its credentials.
#[derive(Debug, Clone, Copy, Default)]
struct WithoutSecrets<S>(S);

impl<S: Sources> Sources for WithoutSecrets<S> {
    fn env(&self, name: &str) -> Option<std::ffi::OsString> {
        self.0.env(name)
    }

    fn file(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.0.file(path)
    }

    fn looks_at_certificates(&self) -> bool {
        false
    }

    fn reads_secrets(&self) -> bool {
        false
    }
}

/// Reads a configuration file for its addresses and paths, without the secrets that it refers to.
pub fn read_config(path: &Path) -> Result<Config, Failure> {
    read_config_from(path, &WithoutSecrets(SystemSources))
}

/// Reads a configuration file with all secrets that it refers to.
pub fn read_config_with_secrets(path: &Path) -> Result<Config, Failure> {
    complete(path, read_config_from(path, &SystemSources)?)
}

fn read_config_from(path: &Path, sources: &dyn Sources) -> Result<Config, Failure> {
    Config::from_file(path, sources, &sink_types()).map_err(|error| bad_config(Some(path), &error))
}

fn complete(path: &Path, config: Config) -> Result<Config, Failure> {
    config.complete().map_err(|error| bad_config(Some(path), &error))
}

/// Returns the failure for a folder that this user cannot read. It names the user that can.
fn forbidden(folder: &Path, error: &std::io::Error) -> Failure {
    let visible = folder.ancestors().find_map(|folder| std::fs::metadata(folder).ok());
    let owner = visible.map_or_else(String::new, |about| format!("user {}; ", about.uid()));
    let user = rustix::process::geteuid().as_raw();
    let folder = folder.display();
    usage(format!(
        "{folder}: {error}; run the command as the owner of the folder ({owner}this is user {user})"
    ))
}

/// Returns the failure for an invalid configuration, from a file or, without one, from the command line.
pub fn bad_config(path: Option<&Path>, error: &ConfigError) -> Failure {
    let Some(path) = path.map(Path::display) else { return usage(error) };
    match error {
        ConfigError::Unreadable { .. } | ConfigError::Refused(_) => usage(error),
        ConfigError::Problems(problems) => {
            let lines: Vec<_> = problems.iter().map(|problem| format!("{path}: {problem}")).collect();
            usage(lines.join("\ndt-receiver: "))
        }
        ConfigError::Syntax(text) => usage(format!("{path}: {text}")),
    }
}

impl SpoolOptions {
    /// Returns the options for the spool of a configuration.
    pub const fn of_config(path: PathBuf) -> Self {
        Self { config: Some(path), data: None }
    }

    /// Finds the spool. Returns a failure if there is none.
    pub fn find(&self) -> Result<Spool, Failure> {
        let mut config = match &self.config {
            Some(path) => complete(path, read_config(path)?)?,
            None => Config::empty(),
        };
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        let folder = config.spool_folder();
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let exists = |name| match std::fs::metadata(folder.join(name)) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
            Err(error) => Err(forbidden(&folder, &error)),
        };
        if !exists("spool.lock")? && !exists("spool.db")? {
            let remedy = "name the data folder with --data DIR, or its configuration with --config FILE";
            return Err(usage(format!("{}: there is no spool; {remedy}", folder.display())));
        }
        let config = self.config.is_some().then_some(config);
        Ok(Spool { folder, config, config_file: self.config.clone() })
    }
}

impl Spool {
    /// Opens the log for reading, with or without a running server. Creates and changes nothing.
    pub fn reader(&self) -> Result<Reader, Failure> {
        self.check_owner()?;
        if is_without_log(&self.folder).map_err(usage)? {
            return Err(self.no_log());
        }
        Reader::open(&self.folder).map_err(usage)
    }

    /// Opens the dead letters for reading.
    pub fn dead_letters(&self) -> Result<ReadOnly, Failure> {
        self.check_owner()?;
        ReadOnly::open(path_of_dead_letters(&self.folder)).map_err(usage)
    }

    /// Returns whether the spool belongs to mode `direct`, according to the configuration or the content of the folder.
    fn is_direct(&self) -> Result<bool, Failure> {
        let is_configured = self.config.as_ref().is_some_and(|config| config.mode == Mode::Direct);
        Ok(is_configured || is_without_log(&self.folder).map_err(usage)?)
    }

    fn no_log(&self) -> Failure {
        usage(format!(
            "{}: mode `direct` has no log, only dead letters: `dt-receiver dead list`, `show` and `drop` work. To deliver \
             them again, serve with `mode = \"spool\"` and the same data folder, then use `dead replay`",
            self.folder.display()
        ))
    }

    /// Drops dead letters of mode `direct`. No lock of the spool is needed, since a running server shares the lock of SQLite.
    fn drop_dead(&self, filter: &Filter) -> Result<RepairReport, Failure> {
        /// The number of dead letters that are dropped in one step.
        const STEP: usize = 256;
        // Opened to read first, so that a missing file is not created.
        drop(self.dead_letters()?);
        let (path, options) = (path_of_dead_letters(&self.folder), DeadOptions::new(Expect::Anything));
        let dead_letters = DeadLetters::open(path, options, Arc::new(SystemClock)).map_err(usage)?;
        let mut report = RepairReport::default();
        loop {
            let part = dead_letters.list(filter, 0, STEP, false).map_err(usage)?;
            if part.is_empty() {
                return Ok(report);
            }
            let ids = part.iter().map(|stored| stored.id).collect();
            let dropped = dead_letters.remove_blocking(ids).map_err(usage)?;
            report.dropped = report.dropped.saturating_add(dropped);
        }
    }

    /// Returns a failure if the folder belongs to another user, since the server could not use files that this user creates.
    pub fn check_owner(&self) -> Result<(), Failure> {
        let owner = std::fs::metadata(&self.folder).map(|found| found.uid()).map_err(anyhow::Error::from)?;
        let user = rustix::process::geteuid().as_raw();
        if owner == user {
            return Ok(());
        }
        let folder = self.folder.display();
        Err(usage(format!(
            "{folder}: it belongs to user {owner}, and this is user {user}; run the command as that user"
        )))
    }

    /// Carries out a request in steps: through the running server or, without one, with the lock of the spool.
    pub fn repair(
        &self,
        mut request: RepairRequest,
        secrets: Option<&SecretOptions>,
    ) -> Result<RepairReport, Failure> {
        if self.is_direct()? {
            return match &request {
                RepairRequest::DropDead { filter, .. } => self.drop_dead(filter),
                _ => Err(self.no_log()),
            };
        }
        let progress = progress();
        let mut offline: Option<Repair> = None;
        let mut report = RepairReport::default();
        loop {
            let step = match &offline {
                Some(repair) => repair.handle(&request).map_err(usage)?,
                None => match ask(&self.folder, &request) {
                    Ok(step) => step,
                    Err(ControlError::NoServer) => {
                        offline = Some(self.lock(&request, secrets)?);
                        continue;
                    }
                    Err(error) => return Err(usage(error)),
                },
            };
            report.add(step);
            progress.set_message(format!("{} dead letters", report.dead_letters()));
            match (&mut request, report.next) {
                (
                    RepairRequest::ReplayDead { after, .. } | RepairRequest::DropDead { after, .. },
                    Some(next),
                ) => *after = next,
                _ => break,
            }
        }
        progress.finish_and_clear();
        Ok(report)
    }

    /// Returns where fetched events are stored: the running server or, without one, the log with the lock of the spool. The second
    /// value says whether a server runs.
    pub fn filler(&self) -> Result<(Arc<dyn Fill>, bool), Failure> {
        if self.is_direct()? {
            return Err(usage(format!(
                "{}: mode `direct` has no log and keeps no ids of events, so that back-filled events would be delivered twice; \
                 serve with `mode = \"spool\"`",
                self.folder.display()
            )));
        }
        self.check_owner()?;
        // A request without events says whether a server runs.
        match ask(&self.folder, &RepairRequest::Fill(FillRequest::default())) {
            Ok(_) => Ok((Arc::new(ControlSocket(self.folder.clone())), true)),
            Err(ControlError::NoServer) => {
                let request = RepairRequest::Fill(FillRequest::default());
                Ok((Arc::new(self.lock(&request, None)?), false))
            }
            Err(error) => Err(usage(error)),
        }
    }

    /// Locks the spool and opens the log. This fails if a server is running.
    fn lock(&self, request: &RepairRequest, secrets: Option<&SecretOptions>) -> Result<Repair, Failure> {
        let mut config = match (&self.config_file, request) {
            // To verify requests again, the secrets themselves are needed.
            (Some(path), RepairRequest::ReplayDead { .. }) => read_config_with_secrets(path)?,
            _ => self.config.clone().unwrap_or_else(Config::empty),
        };
        let given =
            secrets.filter(|secrets| secrets.is_given() || std::env::var_os(DEFAULT_VARIABLE).is_some());
        if self.config.is_none()
            && let Some(secrets) = given
        {
            let mut builder = Verifier::builder();
            for (label, secret) in secrets.read()? {
                builder = builder.secret(label, secret);
            }
            config.connectors.push(ConnectorConfig::new("default", "/", builder.build().map_err(usage)?));
        }
        self.check_owner()?;
        // It removes nothing: retention is the server's task.
        let log = Log::open(&self.folder, LogOptions::for_repair(), Arc::new(SystemClock)).map_err(usage)?;
        let sinks: BTreeSet<_> = config.sinks.iter().map(|sink| Arc::clone(&sink.name)).collect();
        Ok(Repair::new(Arc::new(log), &config, sinks))
    }
}

/// Shows a spinner on a terminal.
pub fn progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Formats rows as a table. Control characters in cells become spaces, since the text may come from requests.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let clean =
        |text: &String| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(clean).collect()).collect();
    let width = |column: usize, heading: &str| {
        let widths = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        widths.max().unwrap_or(0).max(heading.len())
    };
    let widths: Vec<usize> = headings.iter().enumerate().map(|(at, heading)| width(at, heading)).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut headings.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// Prints a report. The exit code is 1 if a dead letter failed again or was skipped.
pub fn print_report(report: &RepairReport, done: &str, json: bool) -> super::Ended {
    if json {
        super::say(serde_json::to_string(report).map_err(anyhow::Error::from)?)?;
    } else {
        super::say(done)?;
        for note in &report.notes {
            complain(note);
        }
    }
    if report.failed == 0 && report.skipped == 0 { Ok(()) } else { Err(Failure::Refused) }
}
