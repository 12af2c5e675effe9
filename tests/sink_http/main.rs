//! The sink `http` of the real program against real HTTP servers: whatever was acknowledged arrives, in order per device,
//! whatever happens to the target; what goes wrong is named; a second receiver accepts what is forwarded.
//!
//! Every proof has a short form here; environment variables set the full counts that `.ci/long` runs. Nothing outside this
//! machine is used.

// Everything here is a test, helpers included: they may fail loudly.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

mod connect;
mod end_to_end;
mod fields;
mod forward;
mod influxdb;
mod restarts;
mod throughput;
mod waiting;

mod receiver;
mod target;

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/events.rs"]
mod events;
#[path = "../kafka/load.rs"]
mod load;
#[path = "../common/sender.rs"]
mod sender;
#[path = "../common/setup.rs"]
mod setup;
