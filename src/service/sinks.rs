//! Makes the sinks that the configuration names.

use std::sync::Arc;

use super::StartError;
#[cfg(feature = "kafka")]
use super::direct;
#[cfg(feature = "kafka")]
use crate::config::Mode;
use crate::config::{Config, KafkaConfig, SinkConfig, SinkKind};
use crate::record::Format;
use crate::sink::{FileSink, OpenError, Sink, StdoutSink};
#[cfg(feature = "kafka")]
use crate::sink::{KafkaSink, Patience};
use crate::telemetry::Telemetry;

/// A sink and its name.
pub(super) type NamedSink = (Arc<str>, Box<dyn Sink>);

/// The sinks of the configuration, then those of the embedder's own.
pub(super) fn make_sinks(
    config: &Config,
    own: Vec<NamedSink>,
    telemetry: &Arc<Telemetry>,
) -> Result<Vec<NamedSink>, StartError> {
    let mut sinks = Vec::new();
    for SinkConfig { name, kind, format, .. } in &config.sinks {
        let sink: Box<dyn Sink> = match kind {
            SinkKind::Stdout => Box::new(StdoutSink::new(*format).map_err(|error| StartError::Sink {
                name: Arc::clone(name),
                source: OpenError::Unusable(format!("standard output: {error}")),
            })?),
            SinkKind::File(file) => Box::new(FileSink::with(file.clone(), *format)),
            SinkKind::Kafka(kafka) => make_kafka(config, kafka, name, *format, telemetry)?,
        };
        sinks.push((Arc::clone(name), sink));
    }
    sinks.extend(own);
    Ok(sinks)
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
    Ok(Box::new(KafkaSink::new(Arc::clone(name), kafka.clone(), format, patience, Arc::clone(telemetry))))
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
