//! What a connector or a source accepts, for events that are fetched from DT's API.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::{Config, ConnectorConfig, SourceConfig};

/// A connector or a source: which events belong to it, and which sinks get them.
#[derive(Debug, Clone)]
pub struct Accepting {
    pub name: Arc<str>,
    /// The projects whose events belong to it; empty for any project.
    pub projects: BTreeSet<String>,
    /// The event types that are forwarded; empty for all.
    pub events: BTreeSet<String>,
    /// The names of its sinks; `None` for all.
    pub sinks: Option<Vec<String>>,
    /// Whether its events are de-duplicated, if de-duplication is on.
    pub dedup: bool,
}

impl Accepting {
    /// Returns the connectors and sources of a configuration, by name.
    pub fn all(config: &Config) -> BTreeMap<Arc<str>, Self> {
        let connectors = config.connectors.iter().map(Self::from);
        let all = connectors.chain(config.sources.iter().map(Self::from));
        all.map(|accepting| (Arc::clone(&accepting.name), accepting)).collect()
    }
}

impl From<&ConnectorConfig> for Accepting {
    fn from(connector: &ConnectorConfig) -> Self {
        let ConnectorConfig { name, projects, events, sinks, dedup, .. } = connector.clone();
        Self { name, projects, events, sinks, dedup }
    }
}

impl From<&SourceConfig> for Accepting {
    fn from(source: &SourceConfig) -> Self {
        let SourceConfig { name, project, events, sinks, .. } = source.clone();
        Self { name, projects: BTreeSet::from([project]), events, sinks, dedup: true }
    }
}
