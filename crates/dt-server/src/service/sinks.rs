//! Creates the sinks of a configuration.

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use crate::config::{Config, Mode, SinkConfig};
use crate::sink::{Sink, SinkContext};
use crate::telemetry::Telemetry;

/// How long before a request's deadline the result of its record has to be known.
const MARGIN: Duration = Duration::from_millis(1500);
/// The shortest time limit of a sink for the attempts of a record.
const LEAST: Duration = Duration::from_millis(500);

/// A sink and its name.
pub type NamedSink = (Arc<str>, Box<dyn Sink>);

/// Creates the sinks of the configuration, without opening them; the sinks of the embedder, `own`, follow.
pub fn make_sinks(
    config: &Config,
    own: Vec<NamedSink>,
    telemetry: &Arc<Telemetry>,
) -> Result<Vec<NamedSink>, StartError> {
    let make = |sink: &SinkConfig| Ok((Arc::clone(&sink.name), make_sink(config, sink, telemetry)?));
    let mut sinks: Vec<NamedSink> = config.sinks.iter().map(make).collect::<Result<_, StartError>>()?;
    sinks.extend(own);
    Ok(sinks)
}

/// Creates one sink of the configuration, without opening it.
pub fn make_sink(
    config: &Config,
    sink: &SinkConfig,
    telemetry: &Arc<Telemetry>,
) -> Result<Box<dyn Sink>, StartError> {
    let reporter = telemetry.sink_reporter(&sink.name, sink.settings.metrics());
    let mut context = SinkContext::new(sink.format, reporter);
    context.give_up_after = give_up_after(config);
    sink.settings.sink(context).map_err(|source| StartError::Sink { name: Arc::clone(&sink.name), source })
}

/// Returns the time limit for the attempts of a record; `None` if there is no limit. In mode `direct`, the result is needed
/// before the request's deadline.
pub fn give_up_after(config: &Config) -> Option<Duration> {
    match config.mode {
        Mode::Direct => Some(config.limits.deadline.saturating_sub(MARGIN).max(LEAST)),
        Mode::Spool => None,
    }
}
