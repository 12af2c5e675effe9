//! The sinks that come with the server: standard output and files. The crate `dt-sink` defines the trait.
//!
//! A new type of sink is a folder with its [`Sink`] and its [`SinkSettings`], one line in the table below, and one row in the
//! shared contract test (`tests/sinks/contract.rs`). An embedder registers its own type, or adds a sink by hand:
//! [`Service::builder().sink(name, impl Sink)`](crate::service::ServiceBuilder::sink).

/// Declares the module of each type of sink, and lists the types.
macro_rules! types {
    ($($module:ident::$settings:ident,)+) => {
        $(mod $module;)+

        /// Returns the types of sinks that come with the server.
        #[must_use]
        pub fn standard_types() -> SinkTypes {
            SinkTypes::default()$(.with::<$module::$settings>())+
        }
    };
}

types! {
    stdout::StdoutConfig,
    file::FileConfig,
}

pub use dt_sink::{
    BadPlace, DeadLetterSink, Fate, Format, LogPermit, MAX_CHECKPOINT, Metric, MetricKind, MissingType,
    NoSinkType, NotASink, OpenError, Outcome, Settings, Sink, SinkContext, SinkError, SinkReporter,
    SinkSettings, SinkType, SinkTypes, config,
};
pub use file::{Compression, FileConfig, FileSink, UnknownCompression};
pub use stdout::{StdoutConfig, StdoutSink};
