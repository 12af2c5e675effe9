//! The sink `mqtt` against Mosquitto itself: everything that was acknowledged is there, in order per device, whatever happens to
//! the broker, and what goes wrong is named.
//!
//! Every proof has a short form here; environment variables set the full counts that `.ci/long` runs. Each test starts a broker
//! of its own. They need `mosquitto` and `mosquitto-clients`, and the Python packages of `requirements.txt` (found by
//! `DT_RECEIVER_TEST_PYTHON`, or in `target/ci-tools/venv`); one line says what is left out without them, and
//! `DT_RECEIVER_TEST_REQUIRE_TOOLS=1` makes that a failure.

// Everything here is a test, helpers included: they may fail loudly.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

mod closed;
mod connect;
mod direct;
mod end_to_end;
mod home_assistant;
mod outages;
mod rejections;
mod restarts;
mod security;
mod states;

#[allow(dead_code, reason = "the contract test uses the rest")]
mod broker;
mod proxy;
mod receiver;
mod seen;

#[allow(dead_code, reason = "these tests use a part")]
#[path = "../tls/authority.rs"]
mod authority;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/events.rs"]
mod events;
#[allow(dead_code, reason = "these tests use a part")]
#[path = "../kafka/load.rs"]
mod load;
#[path = "../common/sender.rs"]
mod sender;
#[path = "../common/setup.rs"]
mod setup;
