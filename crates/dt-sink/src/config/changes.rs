//! What is different between two configurations: for the audit, and to know what needs a restart. Values of secrets are
//! never among it, only that one was added, removed or changed.

use std::fmt;

use super::lines::below;
use super::table::Reload;
use dt_verify::Difference;

/// The longest value that is shown, in characters.
const MAX_SHOWN: usize = 80;

/// One difference between two configurations: a key that was added, removed or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigChange {
    /// The key's path with names for places, such as `connector.plant-1.secrets.2026` or `limits.deadline`.
    pub key: String,
    /// Whether the key was added, removed, or got another value.
    pub how: Difference,
    /// The values before and after, where they may be shown.
    pub values: Option<(String, String)>,
    /// Whether a running receiver takes it.
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

/// Collects what is different, below a path.
#[derive(Debug, Default)]
pub struct Changes {
    path: String,
    found: Vec<ConfigChange>,
}

impl Changes {
    /// Returns what was found.
    #[must_use]
    pub fn found(self) -> Vec<ConfigChange> {
        self.found
    }

    /// Collects below a key of this path.
    pub fn below(&mut self, key: &str, collect: impl FnOnce(&mut Self)) {
        let inner = below(&self.path, key);
        let outer = std::mem::replace(&mut self.path, inner);
        collect(self);
        self.path = outer;
    }

    /// Adds a value that changed, with what may be shown of it before and after.
    pub fn value(&mut self, key: &str, shown: (String, String), reload: Reload) {
        let values = Some((short(shown.0), short(shown.1)));
        self.found.push(ConfigChange {
            key: below(&self.path, key),
            how: Difference::Changed,
            values,
            reload,
        });
    }

    /// Adds something whose values are not shown.
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
