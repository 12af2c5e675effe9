//! The sinks that come with the server: standard output, files, and Kafka. What a sink is, `dt-sink` says.

mod file;
#[cfg(feature = "kafka")]
mod kafka;
mod stdout;

pub use dt_sink::{
    Fate, Format, LetterBox, LogPermit, MAX_CHECKPOINT, Metric, MetricKind, OpenError, Outcome, Sink,
    SinkReporter,
};
pub use file::FileSink;
#[cfg(feature = "kafka")]
pub use kafka::{KafkaLetters, KafkaSink, Patience};
pub use stdout::StdoutSink;

/// The metrics that each type of sink declares, by the name of the type. A type that declares none is left out.
pub const TYPE_METRICS: &[(&str, &[Metric])] = &[
    #[cfg(feature = "kafka")]
    ("kafka", KafkaSink::METRICS),
];
