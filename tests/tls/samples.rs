//! The sample configurations of docs/tls.md.
