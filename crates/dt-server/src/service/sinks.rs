//! Makes the sinks that the configuration names.

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use crate::config::{Config, Mode, SinkConfig};
use crate::sink::{Sink, SinkContext};
use crate::telemetry::Telemetry;

/// How long before the deadline of a request a record's fate has to be known.
const MARGIN: Duration = Duration::from_millis(1500);
/// The least time that a sink is given.
const LEAST: Duration = Duration::from_millis(500);

/// A sink and its name.
pub(super) type NamedSink = (Arc<str>, Box<dyn Sink>);

/// The sinks of the configuration, then those of the embedder's own.
pub(super) fn make_sinks(
    config: &Config,
    own: Vec<NamedSink>,
    telemetry: &Arc<Telemetry>,
) -> Result<Vec<NamedSink>, StartError> {
    let make = |sink: &SinkConfig| Ok((Arc::clone(&sink.name), make_sink(config, sink, telemetry)?));
    let mut sinks: Vec<NamedSink> = config.sinks.iter().map(make).collect::<Result<_, StartError>>()?;
    sinks.extend(own);
    Ok(sinks)
}

/// One sink of the configuration; it is not opened yet.
pub(super) fn make_sink(
    config: &Config,
    sink: &SinkConfig,
    telemetry: &Arc<Telemetry>,
) -> Result<Box<dyn Sink>, StartError> {
    let reporter = telemetry.sink_reporter(&sink.name, sink.settings.metrics());
    let mut context = SinkContext::new(sink.format, reporter);
    context.give_up_after = give_up_after(config);
    sink.settings.sink(context).map_err(|source| StartError::Sink { name: Arc::clone(&sink.name), source })
}

/// How long a sink may try a record. In mode `direct` its answer has to come before the request's deadline.
pub(super) fn give_up_after(config: &Config) -> Option<Duration> {
    match config.mode {
        Mode::Direct => Some(config.limits.deadline.saturating_sub(MARGIN).max(LEAST)),
        Mode::Spool => None,
    }
}
