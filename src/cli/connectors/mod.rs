//! `connectors`: lists, reads and changes the Data Connectors of a project, by DT's REST API.

mod apply;
mod expected;
mod settings;
mod show;

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::api::{self, ApiOptions};
use super::{Ended, Failure, complain, logging, runtime, say, usage};
use dt_api::{Client, Connector, ConnectorSettings, ConnectorStatus, Error, Target};
use expected::ConfigOptions;
use settings::{Changes, SettingsOptions};

/// The largest number of connectors that are listed. A project has at most 10.
const MAX_LISTED: usize = 1000;

/// List, read and change the Data Connectors of a DT project
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Examples:
  export DT_SERVICE_ACCOUNT_KEY_ID=… DT_SERVICE_ACCOUNT_SECRET=… DT_SERVICE_ACCOUNT_EMAIL=…
  dt-receiver connectors list --project c0md3mm0c7pet3vico8g
  DT_SIGNATURE_SECRET=some-good-secret dt-receiver connectors create --project c0md3mm0c7pet3vico8g \\
    --url https://receiver.example.com/ --name receiver --secret-env DT_SIGNATURE_SECRET
  dt-receiver connectors update --project c0md3mm0c7pet3vico8g c16eegpdidie7lltpefg --event touch --event temperature
  dt-receiver connectors enable --project c0md3mm0c7pet3vico8g c16eegpdidie7lltpefg
  dt-receiver connectors metrics --project c0md3mm0c7pet3vico8g c16eegpdidie7lltpefg --json
  dt-receiver connectors diff --project c0md3mm0c7pet3vico8g --config dt-receiver.toml \\
    --public-url https://receiver.example.com
  dt-receiver connectors apply --project c0md3mm0c7pet3vico8g --config dt-receiver.toml \\
    --public-url https://receiver.example.com --yes

Signature secrets and values of headers are never printed, nor is a user, a password or a query in a URL.

{}", api::HELP))]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// The options of all subcommands.
#[derive(Debug, clap::Args)]
struct Common {
    /// The id of the project
    #[arg(long, value_name = "ID")]
    project: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiOptions,
}

/// The options of subcommands for one connector.
#[derive(Debug, clap::Args)]
struct One {
    /// The id of the connector
    #[arg(value_name = "CONNECTOR")]
    id: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the connectors of a project
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show a connector
    Get {
        #[command(flatten)]
        one: One,
    },
    /// Create a connector that delivers to an HTTPS endpoint, or those of a configuration that do not exist
    Create {
        /// Create the connectors of this configuration that do not exist; the others stay as they are
        #[arg(long, value_name = "FILE", requires = "public_url", conflicts_with_all = ["SettingsOptions", "disabled"])]
        from_config: Option<PathBuf>,
        /// The URL at which DT reaches the receiver, with --from-config; the `path` of each connector is appended
        #[arg(long, value_name = "URL", requires = "from_config")]
        public_url: Option<String>,
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        settings: SettingsOptions,
        /// Create it disabled
        #[arg(long)]
        disabled: bool,
    },
    /// Compare the connectors of a configuration with those at DT. Exit code 1 if there is a difference
    Diff {
        #[command(flatten)]
        config: ConfigOptions,
        #[command(flatten)]
        common: Common,
    },
    /// Show the differences as `diff` does, and create and change connectors at DT accordingly; none is disabled or deleted
    Apply {
        #[command(flatten)]
        config: ConfigOptions,
        /// Do not ask; needed without a terminal, and with --json
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Change a connector; what is not given stays as it is
    Update {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        settings: SettingsOptions,
    },
    /// Enable a connector
    Enable {
        #[command(flatten)]
        one: One,
    },
    /// Disable a connector: DT drops its queue, and never delivers what happens until it is enabled again
    Disable {
        #[command(flatten)]
        one: One,
        /// Confirm it
        #[arg(long)]
        yes: bool,
    },
    /// Make a connector deliver the newest event of each type of each device again
    Sync {
        #[command(flatten)]
        one: One,
    },
    /// Show what a connector has delivered in the last 24 hours
    Metrics {
        #[command(flatten)]
        one: One,
    },
    /// Delete a connector with its queue
    Delete {
        #[command(flatten)]
        one: One,
        /// Confirm it
        #[arg(long)]
        yes: bool,
    },
}

impl Command {
    const fn common(&self) -> &Common {
        match self {
            Self::List { common }
            | Self::Create { common, .. }
            | Self::Diff { common, .. }
            | Self::Apply { common, .. } => common,
            Self::Get { one }
            | Self::Update { one, .. }
            | Self::Enable { one }
            | Self::Disable { one, .. }
            | Self::Sync { one }
            | Self::Metrics { one }
            | Self::Delete { one, .. } => &one.common,
        }
    }
}

/// A project, and the client by which it is accessed.
struct Project<'a> {
    client: Client,
    id: &'a str,
    json: bool,
}

pub fn run(arguments: &Arguments) -> Ended {
    logging::start_silent()?;
    let Common { project, json, api } = arguments.command.common();
    let project = Project { client: api.client()?, id: project, json: *json };
    runtime()?.block_on(project.run(&arguments.command))
}

impl Project<'_> {
    async fn run(&self, command: &Command) -> Ended {
        match command {
            Command::List { .. } => {
                let pages = self.client.connectors(self.id);
                let connectors = match pages {
                    Ok(pages) => pages.up_to(MAX_LISTED).await,
                    Err(error) => Err(error),
                };
                let connectors = connectors.map_err(|error| self.failed(&error))?;
                Ok(say(show::list(&connectors, self.json))?)
            }
            Command::Get { one } => self.show(self.client.connector(self.id, &one.id).await),
            Command::Create { from_config: Some(config), public_url: Some(url), .. } => {
                self.create_configured(config, url).await
            }
            Command::Diff { config, .. } => self.diff(&config.config, &config.public_url).await,
            Command::Apply { config, yes, .. } => self.apply(&config.config, &config.public_url, *yes).await,
            Command::Create { settings, disabled, .. } => {
                let mut changes = settings.changes()?;
                changes.status = disabled.then_some(ConnectorStatus::UserDisabled);
                self.create(&changes).await
            }
            Command::Update { one, settings } => {
                let changes = settings.changes()?;
                if changes.is_empty() {
                    return Err(usage("nothing to change is given; see --help for the settings"));
                }
                self.update(&one.id, &changes).await
            }
            Command::Enable { one } => self.set_status(&one.id, ConnectorStatus::Active).await,
            Command::Disable { one, yes } => {
                confirmed(*yes, "DT drops its queue, and never delivers what happens until it is enabled again")?;
                self.set_status(&one.id, ConnectorStatus::UserDisabled).await
            }
            Command::Sync { one } => {
                self.done(self.client.sync_connector(self.id, &one.id).await, "synchronized", &one.id)
            }
            Command::Metrics { one } => {
                let metrics = self.client.connector_metrics(self.id, &one.id).await;
                Ok(say(show::metrics(&metrics.map_err(|error| self.failed(&error))?, self.json))?)
            }
            Command::Delete { one, yes } => {
                confirmed(*yes, "it is deleted with its queue")?;
                self.done(self.client.delete_connector(self.id, &one.id).await, "deleted", &one.id)
            }
        }
    }

    async fn create(&self, changes: &Changes) -> Ended {
        if changes.target.as_ref().and_then(Target::address).is_none() {
            return Err(usage("--url is missing: expected the URL that DT delivers to, such as https://receiver.example.com/"));
        }
        self.show_changed(self.created(changes).await, changes)
    }

    /// Creates a connector. If the response is lost, checks whether the connector was created, before the request is repeated
    /// once.
    async fn created(&self, changes: &Changes) -> Result<Connector, Error> {
        let Some(target) = &changes.target else {
            return Err(Error::Argument { name: "target", expected: "a target for a new connector" });
        };
        let settings = changes.settings();
        let before = self.ids().await?;
        let create = || self.client.create_connector(self.id, target, &settings);
        match create().await {
            Err(error) if error.may_have_been_done() && error.is_temporary() => {
                complain(&format!("{error}; looking whether it was created"));
                match self.created_since(&before, changes).await? {
                    Some(connector) => Ok(connector),
                    None => create().await,
                }
            }
            created => created,
        }
    }

    /// Returns the ids of all connectors of the project.
    async fn ids(&self) -> Result<Vec<String>, Error> {
        let connectors = self.client.connectors(self.id)?.up_to(MAX_LISTED).await?;
        Ok(connectors.iter().map(|connector| connector.id().to_owned()).collect())
    }

    /// Returns a connector that was created since the ids `before` were read; if there are several, one with these settings is
    /// preferred, since DT may have stored other settings than were sent. `None` if there is none.
    async fn created_since(&self, before: &[String], changes: &Changes) -> Result<Option<Connector>, Error> {
        let connectors = self.client.connectors(self.id)?.up_to(MAX_LISTED).await?;
        let is_new = |connector: &Connector| !before.iter().any(|id| id == connector.id());
        let mut new: Vec<Connector> = connectors.into_iter().filter(is_new).collect();
        let same = new.iter().position(|connector| changes.missing_in(connector).is_empty());
        Ok(if new.is_empty() { None } else { Some(new.swap_remove(same.unwrap_or(0))) })
    }

    async fn set_status(&self, id: &str, status: ConnectorStatus) -> Ended {
        self.update(id, &Changes { status: Some(status), ..Changes::default() }).await
    }

    /// Changes a connector, and reads it back, since DT does not document how some settings are merged.
    async fn update(&self, id: &str, changes: &Changes) -> Ended {
        let settings: ConnectorSettings = changes.settings();
        let updated = match self.client.update_connector(self.id, id, &settings).await {
            Ok(_) => self.client.connector(self.id, id).await.inspect_err(|_| {
                complain("DT has accepted the change, but the connector cannot be read back");
            }),
            Err(error) => Err(error),
        };
        self.show_changed(updated, changes)
    }

    /// Prints a connector after a change. A setting that differs from the requested one is a failure.
    fn show_changed(&self, connector: Result<Connector, Error>, changes: &Changes) -> Ended {
        let missing = connector.as_ref().map(|connector| changes.missing_in(connector)).unwrap_or_default();
        self.show(connector)?;
        if missing.is_empty() {
            return Ok(());
        }
        still_different("", &missing);
        Err(Failure::Refused)
    }

    fn show(&self, connector: Result<Connector, Error>) -> Ended {
        Ok(say(show::one(&connector.map_err(|error| self.failed(&error))?, self.json))?)
    }

    fn done(&self, done: Result<(), Error>, what: &str, id: &str) -> Ended {
        done.map_err(|error| self.failed(&error))?;
        Ok(if self.json { say(json!({"id": id, "done": what})) } else { say(format!("{id}: {what}")) }?)
    }

    /// Prints why a call failed, and returns the failure with its exit code.
    fn failed(&self, error: &Error) -> Failure {
        self.failed_after(error, json!({}))
    }

    /// Prints why a call failed; with `--json`, as a member of a report about the steps before it.
    fn failed_after(&self, error: &Error, mut report: Value) -> Failure {
        if let Error::Argument { .. } = error {
            return usage(error);
        }
        if self.json {
            if let Some(members) = report.as_object_mut() {
                let error = json!({"code": error.code(), "message": error.to_string()});
                members.insert("error".to_owned(), error);
            }
            // A closed standard output is no other failure.
            let _printed = say(report);
        }
        complain(&error.to_string());
        if error.may_have_been_done() {
            complain("DT may have carried it out all the same: look with `connectors list` before you try again");
        }
        Failure::Refused
    }
}

/// Prints the names of the settings that differ from the requested ones.
fn still_different(prefix: &str, settings: &[&str]) {
    complain(&format!(
        "{prefix}DT accepted the request, but these settings are different from it: {}; change them in DT Studio",
        settings.join(", ")
    ));
}

/// Returns a failure for a change that loses events, unless it is confirmed.
fn confirmed(yes: bool, what: &str) -> Ended {
    if yes { Ok(()) } else { Err(usage(format!("{what}; confirm it with --yes"))) }
}
