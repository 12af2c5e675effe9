//! `diff`, `apply` and `create --from-config`: compare the Data Connectors of a project with a configuration, and change them.
//!
//! A Data Connector that is not in the configuration is not changed, and none is ever disabled or deleted.

use std::io::{IsTerminal, Write, stderr, stdin};
use std::path::Path;

use serde_json::{Value, json};

use super::expected::{self, Difference, Expected};
use super::settings::Changes;
use super::{MAX_LISTED, Project, show};
use crate::cli::{Ended, Failure, complain, say, usage};
use dt_api::{Connector, Error};

/// The change that a connector of the configuration needs at DT.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    None,
    Create,
    Change,
}

/// A connector of the configuration, its Data Connector at DT, and the change that it needs.
struct Step {
    expected: Expected,
    action: Action,
    /// The id of the Data Connector; `None` if it is not created yet.
    id: Option<String>,
    changes: Changes,
    differences: Vec<Difference>,
    /// The settings that still differ after the change; `None` before the change.
    left: Option<Vec<&'static str>>,
}

impl Step {
    fn of(expected: Expected, found: Option<&Connector>) -> Self {
        let (changes, differences, action) = match found {
            None => (expected.of_new(), Vec::new(), Action::Create),
            Some(connector) => {
                let (changes, differences) = expected.compare(connector);
                let action = if differences.is_empty() { Action::None } else { Action::Change };
                (changes, differences, action)
            }
        };
        let id = found.map(|connector| connector.id().to_owned());
        Self { expected, action, id, changes, differences, left: None }
    }

    fn is_needed(&self) -> bool {
        self.action != Action::None
    }

    /// Returns the step as lines of text, before it is carried out.
    fn lines(&self) -> String {
        let (name, url) = (&self.expected.name, self.expected.url());
        match &self.id {
            None => format!("{name}: does not exist; expected {url}"),
            Some(id) if self.differences.is_empty() => format!("{name} ({}): no difference", show::clean(id)),
            Some(id) => {
                let mut lines = vec![format!("{name} ({}): is different", show::clean(id))];
                lines.extend(self.differences.iter().map(|difference| {
                    let Difference { setting, found, expected } = difference;
                    format!("  {setting:<17} {} -> {}", show::clean(found), show::clean(expected))
                }));
                lines.join("\n")
            }
        }
    }

    fn json(&self) -> Value {
        let action = match self.action {
            Action::None => "none",
            Action::Create => "create",
            Action::Change => "change",
        };
        let differences = self.differences.iter().map(|difference| {
            let Difference { setting, found, expected } = difference;
            json!({"setting": setting, "found": found, "expected": expected})
        });
        json!({
            "connector": &*self.expected.name,
            "id": self.id,
            "target": self.expected.url(),
            "action": action,
            "differences": differences.collect::<Vec<_>>(),
            "done": self.left.is_some(),
            "stillDifferent": self.left.as_deref().unwrap_or_default(),
        })
    }
}

fn report(steps: &[Step]) -> Value {
    json!({"connectors": steps.iter().map(Step::json).collect::<Vec<_>>()})
}

impl Project<'_> {
    /// Compares the Data Connectors with the configuration, and prints the differences. If there are any, the exit code is 1.
    pub async fn diff(&self, config: &Path, public_url: &str) -> Ended {
        let steps = self.steps(config, public_url).await?;
        self.show_steps(&steps)?;
        if steps.iter().any(Step::is_needed) { Err(Failure::Refused) } else { Ok(()) }
    }

    /// Compares the Data Connectors with the configuration, and changes those that differ.
    pub async fn apply(&self, config: &Path, public_url: &str, yes: bool) -> Ended {
        let mut steps = self.steps(config, public_url).await?;
        if !self.json {
            self.show_steps(&steps)?;
        }
        if steps.iter().any(Step::is_needed) && !yes {
            self.confirm(&steps)?;
        }
        self.carry_out(&mut steps).await
    }

    /// Creates the Data Connectors that do not exist, without changing others.
    pub async fn create_configured(&self, config: &Path, public_url: &str) -> Ended {
        let (mut new, old): (Vec<_>, Vec<_>) =
            self.steps(config, public_url).await?.into_iter().partition(|step| step.id.is_none());
        for step in old {
            complain(&format!("{}: exists already; compare it with `connectors diff`", step.expected.name));
        }
        self.carry_out(&mut new).await
    }

    /// Reads the configuration and the Data Connectors, and returns a step for each connector of the configuration.
    async fn steps(&self, config: &Path, public_url: &str) -> Result<Vec<Step>, Failure> {
        let all = expected::read(config, public_url, self.id)?;
        let pages = self.client.connectors(self.id);
        let connectors = match pages {
            Ok(pages) => pages.up_to(MAX_LISTED).await,
            Err(error) => Err(error),
        };
        let connectors = connectors.map_err(|error| self.failed(&error))?;
        let mut steps: Vec<Step> = Vec::new();
        for expected in all {
            let found = expected.find(&connectors).map_err(|text| self.ambiguous(&text))?;
            let step = Step::of(expected, found);
            let other = steps.iter().find(|other| step.id.is_some() && other.id == step.id);
            if let (Some(other), Some(id)) = (other, &step.id) {
                let (a, b) = (&other.expected.name, &step.expected.name);
                let id = id.escape_debug();
                return Err(self.ambiguous(&format!(
                    "{a} and {b}: the Data Connector {id} has the name of one and the URL of the other; give it another name or URL"
                )));
            }
            steps.push(step);
        }
        Ok(steps)
    }

    fn ambiguous(&self, text: &str) -> Failure {
        if self.json {
            // A closed standard output is no other failure.
            let _printed = say(json!({"error": {"code": "ambiguous", "message": text}}));
        }
        complain(text);
        Failure::Refused
    }

    fn show_steps(&self, steps: &[Step]) -> Ended {
        if self.json {
            say(report(steps))?;
        } else {
            steps.iter().try_for_each(|step| say(step.lines()))?;
        }
        Ok(())
    }

    /// Asks the user for confirmation on a terminal. Without a terminal, or with `--json`, returns a failure, so that nothing is
    /// changed.
    fn confirm(&self, steps: &[Step]) -> Ended {
        if self.json || !stdin().is_terminal() || !stderr().is_terminal() {
            if self.json {
                self.show_steps(steps)?;
            }
            return Err(usage("nothing is changed; confirm the changes with --yes"));
        }
        write!(stderr(), "Apply these changes to the project {}? [y/N] ", self.id)?;
        let mut answer = String::new();
        stdin().read_line(&mut answer)?;
        if ["y", "yes"].iter().any(|yes| answer.trim().eq_ignore_ascii_case(yes)) {
            return Ok(());
        }
        complain("nothing is changed");
        Err(Failure::Refused)
    }

    /// Carries out the steps one after another, and reads each changed Data Connector back. Stops at the first step that fails.
    async fn carry_out(&self, steps: &mut [Step]) -> Ended {
        for at in 0..steps.len() {
            let Some(step) = steps.get_mut(at).filter(|step| step.is_needed()) else { continue };
            if let Err(error) = self.make(step).await {
                let name = step.expected.name.to_string();
                complain(&format!("stopped at the connector {name}"));
                return Err(self.failed_after(&error, report(steps)));
            }
        }
        if self.json {
            say(report(steps))?;
        }
        let mut is_done = true;
        for step in steps.iter() {
            let left = step.left.as_deref().unwrap_or_default();
            if !left.is_empty() {
                super::still_different(&format!("{}: ", step.expected.name), left);
                is_done = false;
            }
        }
        if is_done { Ok(()) } else { Err(Failure::Refused) }
    }

    /// Creates or changes a Data Connector, reads it back, and compares it with the configuration again.
    async fn make(&self, step: &mut Step) -> Result<(), Error> {
        let (id, what) = match &step.id {
            None => (self.created(&step.changes).await?.id().to_owned(), "created"),
            Some(id) => {
                self.client.update_connector(self.id, id, &step.changes.settings()).await?;
                (id.clone(), "changed")
            }
        };
        let connector = self.client.connector(self.id, &id).await?;
        let (_, left) = step.expected.compare(&connector);
        let mut left: Vec<_> = left.iter().map(|difference| difference.setting).collect();
        left.dedup();
        step.left = Some(left);
        if !self.json {
            // A closed standard output stops no change.
            let _printed = say(format_args!("{} ({}): {what}", step.expected.name, show::clean(&id)));
        }
        step.id = Some(id);
        Ok(())
    }
}
