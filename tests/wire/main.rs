//! The service over real sockets: every row of the status table, what odd clients do to it, and what it does when
//! sinks, disks and operators fail.
//!
//! Every reply that any of these tests reads on the public port is also searched for what must never be shown
//! ([`client::Reply`]).

#![allow(clippy::arithmetic_side_effects, reason = "a test may overflow loudly")]

#[cfg(test)]
mod client;
#[cfg(test)]
mod direct;
#[cfg(test)]
mod fake_sink;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod rejections;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod status_table;
#[cfg(test)]
mod wire;
