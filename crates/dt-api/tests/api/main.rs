//! The client against the emulator of DT's cloud, against a server that answers as a test says, and against recorded answers.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may fail loudly"
)]

mod changed_answers;
mod connectors;
mod credentials;
mod fixtures;
mod lists;
mod retries;
mod setup;
mod streams;
