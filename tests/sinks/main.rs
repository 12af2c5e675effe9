//! The sinks: the contract that each of them keeps, and what is special to the file.

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
mod exactly_once;
mod file;
mod kafka;
mod records;
