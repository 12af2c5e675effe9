//! `spool` and `dead` against the real program: beside a running server, and with the spool's own lock when there is
//! none.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "helpers of tests may fail loudly"
)]

mod direct;
mod errors;
mod repairs;
mod setup;
