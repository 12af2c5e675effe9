//! Makes the sinks that the configuration names.

use std::sync::Arc;

use super::StartError;
#[cfg(feature = "kafka")]
use super::direct;
#[cfg(feature = "kafka")]
use crate::config::Mode;
use crate::config::{Config, KafkaConfig, SinkConfig, SinkKind};
use crate::sink::{FileSink, OpenError, Sink, StdoutSink};
#[cfg(feature = "kafka")]
use crate::sink::{KafkaSink, Patience};
use crate::telemetry::Telemetry;
use dt_sink::record::Format;

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
    let SinkConfig { name, kind, format, .. } = sink;
    Ok(match kind {
        SinkKind::Stdout => Box::new(StdoutSink::new(*format).map_err(|error| StartError::Sink {
            name: Arc::clone(name),
            source: OpenError::Unusable(format!("standard output: {error}")),
        })?),
        SinkKind::File(file) => Box::new(FileSink::with(file.clone(), *format)),
        SinkKind::Kafka(kafka) => make_kafka(config, kafka, name, *format, telemetry)?,
    })
}

#[cfg(feature = "kafka")]
fn make_kafka(
    config: &Config,
    kafka: &KafkaConfig,
    name: &Arc<str>,
    format: Format,
    telemetry: &Arc<Telemetry>,
) -> Result<Box<dyn Sink>, StartError> {
    let patience = match config.mode {
        Mode::Direct => Patience::Until(direct::patience(config)),
        Mode::Spool => Patience::Endless,
    };
    let reporter = telemetry.sink_reporter(name, KafkaSink::METRICS);
    Ok(Box::new(KafkaSink::new(kafka.clone(), format, patience, reporter)))
}

#[cfg(not(feature = "kafka"))]
fn make_kafka(
    _: &Config,
    _: &KafkaConfig,
    name: &Arc<str>,
    _: Format,
    _: &Arc<Telemetry>,
) -> Result<Box<dyn Sink>, StartError> {
    let source = OpenError::Unusable("this build has no Kafka; build with the feature `kafka`".to_owned());
    Err(StartError::Sink { name: Arc::clone(name), source })
}
