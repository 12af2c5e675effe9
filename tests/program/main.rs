//! The program and its pages: every subcommand but `serve`, which has test binaries of its own, the generated pages, the snippets
//! of the documentation, what `deploy/` holds, and the arrows between the crates. One binary, since each one is linked anew.

// Everything here is a test, helpers included: they may fail loudly.
#![cfg(test)]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests may fail loudly"
)]

#[path = "../tls/authority.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod authority;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/events.rs"]
mod events;
#[path = "../common/sender.rs"]
mod sender;

mod arrows;
mod check;
mod cli_send;
mod cli_verify;
mod config;
mod config_reference;
mod connectors_cli;
mod dtintegrations;
mod log_lines;
mod packaging;
mod promtool;
mod readme;
mod spool_cli;
