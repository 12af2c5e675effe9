//! Which sinks a connector's records go to.

use std::collections::HashMap;
use std::sync::Arc;

use super::StartError;
use crate::config::{Config, is_name};

/// Where each connector's records go, by its place in the configuration.
#[derive(Debug)]
pub(super) struct Routes(pub(super) Vec<Route>);

/// Where a connector's records go.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) connector: Arc<str>,
    /// The places of its sinks.
    pub(super) sinks: Vec<usize>,
    /// Whether copies of an event are caught.
    pub(super) dedup: bool,
}

impl Routes {
    pub(super) fn new<'a>(
        config: &Config,
        sinks: impl Iterator<Item = &'a Arc<str>>,
    ) -> Result<Self, StartError> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (place, name) in sinks.enumerate() {
            if !is_name(name) {
                return Err(StartError::BadName(Arc::clone(name)));
            }
            if places.insert(name, place).is_some() {
                return Err(StartError::RepeatedSink(Arc::clone(name)));
            }
        }
        let mut routes = Vec::with_capacity(config.connectors.len());
        for connector in &config.connectors {
            let mut sinks = Vec::new();
            match &connector.sinks {
                None => sinks.extend(0..places.len()),
                Some(names) => {
                    for name in names {
                        let place = places.get(name.as_str()).ok_or_else(|| StartError::UnknownSink {
                            connector: Arc::clone(&connector.name),
                            sink: name.clone(),
                        })?;
                        sinks.push(*place);
                    }
                }
            }
            let dedup = connector.dedup && !config.dedup_window.is_zero();
            routes.push(Route { connector: Arc::clone(&connector.name), sinks, dedup });
        }
        Ok(Self(routes))
    }

    pub(super) fn get(&self, connector: usize) -> Option<&Route> {
        self.0.get(connector)
    }
}
