//! Where fetched events are stored.

use std::fmt;
use std::path::PathBuf;

use crate::spool_admin::{ControlError, FillReport, FillRequest, Repair, RepairError, RepairRequest, ask};

/// Why fetched events could not be stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FillError {
    /// The log failed.
    #[error("the log: {0}")]
    Log(#[from] RepairError),
    /// The running server did not store them.
    #[error("{0}")]
    Server(#[from] ControlError),
    /// The running server answered something else.
    #[error("the running server is of another version; restart it with this one")]
    OtherVersion,
}

impl FillError {
    /// Returns the stable code of the error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Log(_) => "fill_log",
            Self::Server(_) => "fill_server",
            Self::OtherVersion => "fill_other_version",
        }
    }
}

/// Stores fetched events.
pub trait Fill: fmt::Debug + Send + Sync {
    /// Stores events in their order, and returns after they are durable. Blocks.
    ///
    /// # Errors
    ///
    /// [`FillError`] if they could not be stored. Some of them may be stored.
    fn fill(&self, request: FillRequest) -> Result<FillReport, FillError>;
}

/// In the server, and with a log that this process has opened.
impl Fill for Repair {
    fn fill(&self, request: FillRequest) -> Result<FillReport, FillError> {
        Ok(Self::fill(self, &request)?)
    }
}

/// The running server on a spool.
#[derive(Debug, Clone)]
pub struct ControlSocket(
    /// The folder of the spool.
    pub PathBuf,
);

impl Fill for ControlSocket {
    fn fill(&self, request: FillRequest) -> Result<FillReport, FillError> {
        ask(&self.0, &RepairRequest::Fill(request))?.fill.ok_or(FillError::OtherVersion)
    }
}
