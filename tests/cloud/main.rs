//! Days between DT's cloud and a receiver, in seconds: the emulator and a real receiver in this process, on one fast clock. What the
//! receiver's sink has in the end is compared with the emulator's history.
//!
//! | module | what |
//! |---|---|
//! | `clock` | the clock, many times as fast as the machine's |
//! | `world` | the emulator with its 25 devices, and a receiver that is started and stopped |
//! | `receiver` | one run of the receiver, in a runtime of its own |
//! | `sink_file` | the lines of the receiver's sink |
//! | `compare` | what is missing, repeated, unknown or out of order |
//! | `down` | a receiver that is down for hours, and nothing fills the hole |
//! | `filled` | the same and other holes, which a monitor fills |

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

mod clock;
mod compare;
mod receiver;
mod sink_file;
mod world;

mod down;
mod filled;
