//! Hostile clients, while DT's own traffic runs: it gets its 200s, in time, and memory stays below
//! [`Limits::max_memory`](dt_receiver::config::Limits::max_memory).
//!
//! Each attack is short here; environment variables set the full counts that `.ci/long` runs. With
//! `DT_RECEIVER_TEST_HOSTILE_P99=1` the 99th percentile of DT's traffic has to be below 100 ms, which only a machine that
//! does nothing else can promise; it is printed always. What needs `slowhttptest` or `h2spec` says in one line what it
//! leaves out without them; `DT_RECEIVER_TEST_REQUIRE_TOOLS=1` makes that a failure.

// Everything here is a test, helpers included: they may fail loudly.
#![cfg(test)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests may fail loudly"
)]

mod bodies;
mod forged;
mod h2spec;
mod http2;
mod idle;
mod log_volume;
mod slow;
mod stalled;

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/events.rs"]
mod events;
#[path = "../common/sender.rs"]
mod sender;
mod siege;
