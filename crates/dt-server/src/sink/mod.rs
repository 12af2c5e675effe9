//! The sinks that come with the server: standard output, files, and Kafka. What a sink is, `dt-sink` says.
//!
//! A new type of sink is a folder with its [`Sink`] and its [`SinkSettings`], one line in [`standard_types`], and one row in
//! the shared contract test (`tests/sinks/contract.rs`). A sink of an embedder may be a type too; or it is added by hand:
//! [`Service::builder().sink(name, impl Sink)`](crate::service::ServiceBuilder::sink).

mod file;
#[cfg(feature = "kafka")]
mod kafka;
mod stdout;

pub use dt_sink::{
    BadPlace, Fate, Format, LetterBox, LogPermit, MAX_CHECKPOINT, Metric, MetricKind, MissingType,
    NoSinkType, NotASink, OpenError, Outcome, Settings, Sink, SinkContext, SinkReporter, SinkSettings,
    SinkType, SinkTypes, config,
};
pub use file::{Compression, FileConfig, FileSink, UnknownCompression};
#[cfg(feature = "kafka")]
pub use kafka::{
    CreateTopic, KafkaConfig, KafkaLetters, KafkaSasl, KafkaSink, KafkaTls, Patience, RecordKey, UnknownKey,
};
pub use stdout::{StdoutConfig, StdoutSink};

/// Returns the types of sinks that come with the server.
#[must_use]
pub fn standard_types() -> SinkTypes {
    SinkTypes::default()
        // One line for each.
        .with::<StdoutConfig>()
        .with::<FileConfig>()
}
