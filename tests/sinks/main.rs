//! The sinks: the contract that each of them keeps, what is special to the file, and types that an embedder adds.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests may fail loudly"
)]

mod contract;
mod embedded;
mod exactly_once;
mod file;
mod http;
mod kafka;
mod mqtt;
mod postgres;
mod records;

#[path = "../common/events.rs"]
mod events;
#[cfg(feature = "mqtt")]
#[allow(dead_code, reason = "the contract uses a part")]
#[path = "../mqtt/broker.rs"]
mod mqtt_broker;
#[cfg(feature = "postgres")]
#[path = "../postgres/server.rs"]
mod server;
