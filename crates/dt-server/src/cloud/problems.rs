//! The problems that the monitor found: each is logged once until it changes, and shown in `/readyz` while it lasts.

use std::collections::BTreeMap;

use crate::http::Endpoint;
use crate::telemetry::{CloudProblemEnded, CloudProblemFound, Telemetry};

/// The largest number of problems, and of characters of each.
const MAX_PROBLEMS: usize = 50;
const MAX_TEXT: usize = 500;

/// A problem: its stable code, and its text with a remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    code: &'static str,
    text: String,
    /// Whether it has a log line of its own kind, and is only shown.
    is_silent: bool,
}

/// The problems of the current check, and those of the last one.
#[derive(Debug, Default)]
pub struct Problems {
    reported: BTreeMap<String, Problem>,
    found: BTreeMap<String, Problem>,
}

impl Problems {
    /// Adds a problem of the current check. `about` identifies its subject, such as a project.
    pub fn add(&mut self, about: impl Into<String>, code: &'static str, text: impl AsRef<str>) {
        self.insert(about.into(), code, text.as_ref(), false);
    }

    /// Adds a problem that has a log line of its own, and is only shown here.
    pub fn show(&mut self, about: impl Into<String>, code: &'static str, text: impl AsRef<str>) {
        self.insert(about.into(), code, text.as_ref(), true);
    }

    fn insert(&mut self, about: String, code: &'static str, text: &str, is_silent: bool) {
        if self.found.len() < MAX_PROBLEMS {
            // One line, also if an answer of another server is part of it.
            let text = text.replace(['\r', '\n'], " ").chars().take(MAX_TEXT).collect();
            self.found.insert(about, Problem { code, text, is_silent });
        }
    }

    /// Ends the current check: logs the problems that are new, have another code, or are gone, and shows all in `/readyz`.
    pub fn report(&mut self, endpoint: &Endpoint, telemetry: &Telemetry) {
        let found = std::mem::take(&mut self.found);
        endpoint.set_cloud_problems("monitor", found.values().map(|problem| problem.text.clone()).collect());
        for (about, Problem { code, text, is_silent }) in &found {
            // The text may contain the number of attempts or a time.
            let is_known = self.reported.get(about).is_some_and(|known| known.code == *code);
            if !is_known && !is_silent {
                telemetry.emit(&CloudProblemFound { problem: text, code });
            }
        }
        for (about, Problem { code, text, is_silent }) in &self.reported {
            if !found.contains_key(about) && !is_silent {
                telemetry.emit(&CloudProblemEnded { problem: text, code });
            }
        }
        self.reported = found;
    }
}
