//! Stub.
use std::path::PathBuf;
/// Stub.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeadError {
    /// Stub.
    #[error("{path}")]
    Missing {
        /// Stub.
        path: PathBuf,
    },
}
/// Stub.
#[derive(Debug)]
pub struct DeadLetters;
impl DeadLetters {
    /// Stub.
    pub fn highest_id(&self) -> i64 { 0 }
    /// Stub.
    pub fn size_bytes(&self) -> u64 { 0 }
}
