//! The routes from connectors to sinks.

use std::collections::HashMap;
use std::sync::Arc;

use super::StartError;
use crate::config::{Config, RecordFilter, is_name};
use crate::spool_admin::NEWEST_SINK;
use dt_sink::record::Record;

/// The routes of all connectors, in the order of the configuration, those of the sources after them, and the filters of the sinks.
#[derive(Debug)]
pub struct Routes {
    pub connectors: Vec<Route>,
    /// The filters of all sinks, in the order of the list of all sinks.
    filters: Vec<RecordFilter>,
}

/// The route of one connector: the sinks that receive its events.
#[derive(Debug)]
pub struct Route {
    pub connector: Arc<str>,
    /// The indexes of the connector's sinks in the list of all sinks.
    pub sinks: Vec<usize>,
    /// Whether the connector's events are de-duplicated.
    pub dedup: bool,
}

impl Routes {
    /// Resolves the names of sinks in the configuration to indexes. `sinks` are the names of all sinks.
    ///
    /// # Errors
    ///
    /// [`StartError`] if a sink's name is invalid, repeated or unknown.
    pub fn new<'a>(config: &Config, sinks: impl Iterator<Item = &'a Arc<str>>) -> Result<Self, StartError> {
        let (mut places, mut filters): (HashMap<&str, usize>, Vec<_>) = (HashMap::new(), Vec::new());
        for (place, name) in sinks.enumerate() {
            if !is_name(name) && **name != *NEWEST_SINK {
                return Err(StartError::BadName(Arc::clone(name)));
            }
            if places.insert(name, place).is_some() {
                return Err(StartError::RepeatedSink(Arc::clone(name)));
            }
            filters.push(config.sink_filter(name));
        }
        let of_connectors = config.connectors.iter().map(|own| (&own.name, &own.sinks, own.dedup));
        let of_sources = config.sources.iter().map(|own| (&own.name, &own.sinks, true));
        let mut routes = Vec::with_capacity(config.connectors.len().saturating_add(config.sources.len()));
        for (connector, its_sinks, has_dedup) in of_connectors.chain(of_sources) {
            let mut sinks = Vec::new();
            match its_sinks {
                None => sinks.extend(0..places.len()),
                Some(names) => {
                    for name in names {
                        let place = places.get(name.as_str()).ok_or_else(|| StartError::UnknownSink {
                            connector: Arc::clone(connector),
                            sink: name.clone(),
                        })?;
                        sinks.push(*place);
                    }
                    // The internal sink gets the events of all connectors.
                    sinks.extend(places.get(NEWEST_SINK));
                }
            }
            let dedup = has_dedup && !config.dedup_window.is_zero();
            routes.push(Route { connector: Arc::clone(connector), sinks, dedup });
        }
        Ok(Self { connectors: routes, filters })
    }

    /// Returns the route of the connector with this index in the configuration; `None` if there is none.
    pub fn get(&self, connector: usize) -> Option<&Route> {
        self.connectors.get(connector)
    }

    /// Returns the indexes of the sinks on a route whose filters match a record.
    pub fn sinks_for(&self, route: &Route, record: &Record) -> Vec<usize> {
        let is_wanted = |place: &usize| self.filters.get(*place).is_none_or(|filter| filter.wants(record));
        route.sinks.iter().copied().filter(is_wanted).collect()
    }
}
