//! The sink against real servers over real sockets: every status, order, batches, connections, TLS, signatures.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may fail loudly"
)]

mod batches;
mod connections;
mod driver;
mod fields;
mod network;
mod order;
mod probe;
mod rejections;
mod settings;
mod signatures;
mod statuses;
mod target;
mod tls;
