//! The Endpoint URL target of `dt-receiver`: takes what Data Connectors push, verifies it on the raw bytes, stores it in
//! the log, and delivers it to sinks. Configuration, metrics, TLS and key sets belong to it; [`service`] wires it together.

pub mod config;
pub mod deliver;
pub mod http;
pub mod keys;
pub mod service;
pub mod sink;
pub mod telemetry;
pub mod tls;
mod token_bucket;
