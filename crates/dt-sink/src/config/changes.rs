//! The differences between two configurations: for the audit, and to know which changes need a restart. A secret is only reported
//! as added, removed or changed, without its value.

use std::fmt;

use super::lines::below;
use super::table::Reload;
use dt_verify::Difference;

/// The largest number of characters of a value in a difference.
const MAX_SHOWN: usize = 80;

/// One difference between two configurations: a key that was added, removed or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigChange {
    /// The path of the key, such as `connector.plant-1.secrets.2026` or `limits.deadline`. Entries of a list are identified by
    /// their names.
    pub key: String,
    /// Whether the key was added, removed, or got another value.
    pub how: Difference,
    /// The values before and after the change, shortened; `None` if they must not be shown.
    pub values: Option<(String, String)>,
    /// Whether a running receiver takes the new value by a reload.
    pub reload: Reload,
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.values {
            Some((before, after)) => write!(f, "{}: {before} -> {after}", self.key),
            None => write!(f, "{} {}", self.key, self.how.name()),
        }
    }
}

/// Collects the differences between two configurations, with a path that is prefixed to their keys.
#[derive(Debug, Default)]
pub struct Changes {
    path: String,
    found: Vec<ConfigChange>,
}

impl Changes {
    /// Returns the collected differences.
    #[must_use]
    pub fn found(self) -> Vec<ConfigChange> {
        self.found
    }

    /// Calls `collect` with `key` appended to the path.
    pub fn below(&mut self, key: &str, collect: impl FnOnce(&mut Self)) {
        let inner = below(&self.path, key);
        let outer = std::mem::replace(&mut self.path, inner);
        collect(self);
        self.path = outer;
    }

    /// Adds a key whose value changed. `shown` are the values before and after, in a form fit for a log.
    pub fn value(&mut self, key: &str, shown: (String, String), reload: Reload) {
        let values = Some((short(shown.0), short(shown.1)));
        self.found.push(ConfigChange {
            key: below(&self.path, key),
            how: Difference::Changed,
            values,
            reload,
        });
    }

    /// Adds a difference without values.
    pub fn note(&mut self, key: &str, how: Difference, reload: Reload) {
        self.found.push(ConfigChange { key: below(&self.path, key), how, values: None, reload });
    }
}

fn short(text: String) -> String {
    if text.chars().nth(MAX_SHOWN).is_none() {
        return text;
    }
    text.chars().take(MAX_SHOWN).chain("...".chars()).collect()
}
