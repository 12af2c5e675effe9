//! The service over real sockets: every row of the status table, what odd clients do to it, and what it does when
//! sinks, disks and operators fail.
//!
//! Every reply that any of these tests reads on the public port is also searched for what must never be shown
//! ([`client::Reply`]).

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may fail loudly"
)]

mod client;
mod direct;
mod fake_sink;
mod harness;
mod http2;
mod metrics;
mod rejections;
mod shedding;
mod shutdown;
mod status_table;
mod wire;
