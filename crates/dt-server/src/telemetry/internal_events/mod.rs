//! The internal events of the service. Each has its log line and its metrics. One file for each area.

mod certificates;
mod clock;
mod cloud;
mod config;
mod connections;
mod dead_letters;
mod keys;
mod requests;
mod sinks;

pub use certificates::{CertificateActivated, CertificateRefused};
pub use clock::{ClockSkewCleared, ClockSkewSuspected};
pub use cloud::{
    ClockJumped, CloudProblemEnded, CloudProblemFound, ConnectorDisabled, ConnectorEnabled, StreamBroken,
    StreamEventRefused, StreamNotStored, StreamOpened, WindowClosed, WindowOpened,
};
pub(super) use config::register_config_outcomes;
pub use config::{ConfigChanged, ConfigRefused, ConfigReloaded};
pub use connections::{
    AcceptFailed, ConnectionEvicted, ConnectionRefused, ConnectionRefusedReason, HandshakeFailed,
    ProxyHeaderRefused,
};
pub use dead_letters::{DeadLetterFailed, DeadLetterStored};
pub use keys::{KeysFailed, KeysFetched};
pub use requests::{OtherSchemeFailed, RequestAnswered};
pub use sinks::{SinkFailed, SinkRecovered};

use super::{ConnectorSeries, StatusCode, Telemetry};

/// An internal event, which writes its log line and updates its metrics.
pub trait InternalEvent {
    /// Writes the log line, and updates the metrics.
    fn emit(&self, telemetry: &Telemetry);
}
