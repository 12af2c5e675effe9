//! A configuration that changes while the receiver runs: everything that may change does so under a steady load, from
//! connections that stay open, without one failed request, one lost event or one out of order; everything that must not
//! be taken is refused as a whole, with the reason in log, metric and `/readyz`.
//!
//! The real program, with real files and signals. Nothing here sleeps for a time that is hoped to suffice: it waits until
//! a metric says that something was done.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests may fail loudly"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/events.rs"]
mod events;
#[path = "../common/sender.rs"]
mod sender;

mod clock;
mod descriptors;
mod embedded;
mod files;
#[cfg(feature = "kafka")]
mod kafka;
mod load;
mod only;
mod place;
mod refused;
mod storm;
mod taken;
