//! The sinks that come with the server: standard output, files, and Kafka. What a sink is, `dt-sink` says.

mod file;
#[cfg(feature = "kafka")]
mod kafka;
mod stdout;

pub use dt_sink::{Fate, Format, LetterBox, MAX_CHECKPOINT, OpenError, Outcome, Sink};
pub use file::FileSink;
#[cfg(feature = "kafka")]
pub use kafka::{KafkaLetters, KafkaSink, Patience};
pub use stdout::StdoutSink;
