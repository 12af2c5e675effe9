//! The sink `kafka` against Apache Kafka itself: everything that was acknowledged is there, in order per device, whatever
//! happens to the brokers, and what goes wrong is named.
//!
//! Every proof has a short form here; environment variables set the full counts that `.ci/long` runs. Tests share two
//! clusters, one of one broker and one of three, and take turns on each. They need Java, Maven and the Python packages of
//! `requirements.txt` (found by `DT_RECEIVER_TEST_PYTHON`, or in `target/ci-tools/venv`); one line says what is left out
//! without them, and `DT_RECEIVER_TEST_REQUIRE_TOOLS=1` makes that a failure.

// Everything here is a test, helpers included: they may fail loudly.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

mod brokers;
mod connect;
mod end_to_end;
mod oversize;
mod places;
mod purges;
mod receivers;
mod security;
mod throughput;
mod topics;

mod cluster;
mod load;
mod receiver;
mod seen;

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/events.rs"]
mod events;
#[path = "../common/sender.rs"]
mod sender;
#[path = "../common/setup.rs"]
mod setup;
