//! The emulator from outside: by DT's own clients, by HTTP, by receivers, and by a network in which days pass.

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

#[path = "../common/mod.rs"]
mod common;
mod http;
mod python;
mod target;
mod wait;

mod connectors;
mod days;
mod delivery;
mod demo;
mod disruptive;
mod errors;
mod faults;
mod flask;
mod history;
mod keep;
mod outage;
mod program;
mod rest;
mod rotation;
mod seed_examples;
