//! The server of `dt-receiver`: receives the events that Data Connectors push, verifies them on the raw bytes, stores them in the
//! log, and delivers them to sinks. Configuration, metrics, TLS and key sets are part of it; [`service`] connects the modules.

pub mod cloud;
pub mod config;
pub mod deliver;
pub mod http;
pub mod keys;
pub mod service;
pub mod sink;
pub mod spool_admin;
pub mod telemetry;
pub mod tls;
mod token_bucket;
