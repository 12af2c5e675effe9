//! Power loss, tried on the real program: its system calls are recorded under load, kills and restarts included. For
//! points of the recording the disks are built that may be left when the power fails there; the program starts on each
//! and is held to what it had answered before that point.
//!
//! The disks are made by the fake disk of `crates/dt-log/src/disk/fake/mod.rs`. A recording runs on a fresh tmpfs in a mount namespace of
//! its own: inode numbers of a fresh tmpfs count up from 2, so a disk is rebuilt under the same path with the same
//! inode numbers, which the file sink's checkpoint holds. Two lanes run side by side.
//!
//! `DT_RECEIVER_TEST_POWER_POINTS` (40) points in `DT_RECEIVER_TEST_POWER_RUNS` (4) recordings of about
//! `DT_RECEIVER_TEST_POWER_EVENTS` (2,000) events; `DT_RECEIVER_TEST_POWER_PER_PHASE` (2) points at least in each phase;
//! `DT_RECEIVER_TEST_SEED` repeats the choices. Each recording but a lane's first begins after a power loss.
//! `DT_RECEIVER_TEST_POWER_FORGET=.ndjson` leaves out the syncs of files and folders whose path ends so: then the test
//! has to fail. Needs `strace` and `unshare`.

// Everything here is a test, helpers included: they may fail loudly.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

mod check;
mod lane;
mod load;
mod place;
mod replay;
mod syscalls;

#[path = "../common/events.rs"]
mod events;
#[path = "../common/sender.rs"]
mod sender;
#[path = "../durability/server.rs"]
#[allow(dead_code, reason = "the tests use a part")]
mod server;
#[path = "../durability/trace.rs"]
#[allow(dead_code, reason = "the tests use a part")]
mod trace;

use dt_receiver::disk;
