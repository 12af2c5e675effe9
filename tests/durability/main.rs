//! What was acknowledged is never lost: the promises of the spool against faults, crashes, full disks and outages.
//!
//! Every proof has a short form here; environment variables set the full counts that `.ci/long` runs, and
//! `DT_RECEIVER_TEST_SEED` repeats a run. What needs `strace`, `sqlite3` or root says in one line what it leaves out
//! without them; `DT_RECEIVER_TEST_REQUIRE_TOOLS=1` makes that a failure.

// Everything here is a test, helpers included: they may fail loudly.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

mod crash;
mod crash_matrix;
mod damage;
mod duplicates;
mod faults;
mod format;
mod full_disk;
mod killed_before_sync;
mod model;
mod open_errors;
mod outage;
mod reconfigured;
mod sync_before_reply;

mod child;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/events.rs"]
mod events;
#[path = "../common/sender.rs"]
mod sender;
mod server;
mod spools;
mod trace;
