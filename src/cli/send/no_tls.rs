//! In place of `tls.rs` in a build without TLS.

use std::path::Path;

use tokio::net::TcpStream;

use super::super::{Failure, usage};
use super::client::Failed;

/// There is none in this build.
#[derive(Debug, Clone)]
pub(super) enum Tls {}

impl Tls {
    /// Says that this build has no TLS.
    pub(super) fn new(_host: &str, _ca: Option<&Path>) -> Result<Self, Failure> {
        Err(usage("--url: this build has no TLS; build with the feature `aws-lc`"))
    }

    /// Never called.
    pub(super) async fn connect(&self, _stream: TcpStream) -> Result<TcpStream, Failed> {
        match *self {}
    }
}
