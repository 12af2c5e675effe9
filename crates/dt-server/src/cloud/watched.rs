//! The part of the configuration that the monitor uses.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::store::ALL_TYPES;
use crate::config::{Config, ConnectorConfig, MonitorSettings, is_same_url, without_user};
use dt_api::{Connector, EndpointUrl, Target};
use dt_verify::event::EventType;

/// The time between two attempts without a monitor.
const INTERVAL: Duration = Duration::from_secs(300);

/// What is watched: the settings, the projects, and the connectors of the configuration.
#[derive(Debug)]
pub struct Watched {
    /// The settings of the monitor; `None` if only sources need DT's API.
    pub monitor: Option<MonitorSettings>,
    pub projects: BTreeSet<String>,
    /// The projects of the sources.
    pub sources: BTreeSet<String>,
    pub connectors: Vec<WatchedConnector>,
}

/// A connector of the configuration.
#[derive(Debug)]
pub struct WatchedConnector {
    pub name: Arc<str>,
    url: EndpointUrl,
    /// The event types that are forwarded; empty for all.
    events: BTreeSet<String>,
    projects: BTreeSet<String>,
}

impl Watched {
    /// Returns what a configuration watches; `None` without a monitor and sources.
    pub fn of(config: &Config) -> Option<Self> {
        let monitor = config.monitor.clone();
        if monitor.is_none() && config.sources.is_empty() {
            return None;
        }
        let connector = |settings: &MonitorSettings, connector: &ConnectorConfig| WatchedConnector {
            name: Arc::clone(&connector.name),
            url: settings.public_url.at(&connector.path),
            events: connector.events.clone(),
            projects: connector.projects.clone(),
        };
        let of_monitor = |settings| config.connectors.iter().map(move |own| connector(settings, own));
        let connectors = monitor.iter().flat_map(of_monitor).collect();
        let sources = config.sources.iter().map(|source| source.project.clone()).collect();
        Some(Self { projects: config.monitored_projects(), sources, connectors, monitor })
    }

    /// Returns whether the monitor fetches missed events.
    pub fn monitor_fills(&self) -> bool {
        self.monitor.as_ref().is_some_and(|monitor| monitor.backfill)
    }

    /// Returns whether missed events of a project are fetched.
    pub fn fills(&self, project: &str) -> bool {
        self.sources.contains(project) || self.monitor_fills() && self.projects.contains(project)
    }

    /// Returns the time between two checks, and between two attempts to fetch a window.
    pub fn interval(&self) -> Duration {
        self.monitor.as_ref().map_or(INTERVAL, |monitor| monitor.interval)
    }

    /// Returns the connectors that accept events of a project.
    pub fn of_project<'a>(&'a self, project: &str) -> impl Iterator<Item = &'a WatchedConnector> {
        let accepts = move |projects: &BTreeSet<String>| projects.is_empty() || projects.contains(project);
        let names: Vec<bool> = self.connectors.iter().map(|connector| accepts(&connector.projects)).collect();
        self.connectors.iter().zip(names).filter_map(|(connector, accepts)| accepts.then_some(connector))
    }
}

impl WatchedConnector {
    /// Returns whether a Data Connector delivers to this connector, by its URL.
    pub fn is_target_of(&self, real: &Connector) -> bool {
        match &real.target {
            Target::HttpPush(config) => {
                config.url.as_ref().is_some_and(|url| is_same_url(&without_user(url), &self.url))
            }
            _ => false,
        }
    }

    /// Returns whether events of this type are forwarded.
    pub fn wants(&self, event_type: &EventType) -> bool {
        self.events.is_empty() || self.events.contains(event_type.as_str())
    }

    /// Returns the types that are forwarded, of those that a Data Connector delivers; of all types if `delivered` is empty. The
    /// only name is [`ALL_TYPES`] if all are.
    pub fn types_of(&self, delivered: &[String]) -> BTreeSet<String> {
        match (delivered.is_empty(), self.events.is_empty()) {
            (true, true) => BTreeSet::from([ALL_TYPES.to_owned()]),
            (true, false) => self.events.clone(),
            (false, _) => {
                let is_wanted = |name: &&String| self.events.is_empty() || self.events.contains(*name);
                delivered.iter().filter(is_wanted).cloned().collect()
            }
        }
    }

    /// Returns the Endpoint URL that its Data Connectors need.
    pub fn url(&self) -> String {
        self.url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PublicUrl;

    #[test]
    fn only_types_that_are_delivered_and_forwarded_are_expected() {
        let url: PublicUrl = "https://r.example".parse().expect("a URL");
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let types = |events: &[&str], delivered: &[&str]| {
            let (events, projects) = (set(events), BTreeSet::new());
            let connector = WatchedConnector { name: "a".into(), url: url.at("/"), events, projects };
            connector.types_of(&delivered.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(types(&[], &[]), set(&[ALL_TYPES]));
        assert_eq!(types(&["touch"], &[]), set(&["touch"]));
        assert_eq!(types(&[], &["touch", "ccon"]), set(&["touch", "ccon"]));
        assert_eq!(types(&["touch"], &["ccon"]), set(&[]));
        assert_eq!(types(&["touch"], &["ccon", "touch"]), set(&["touch"]));
    }
}
