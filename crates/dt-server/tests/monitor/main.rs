//! The monitor: a real receiver and the emulator of DT's cloud, over sockets, both on one fast clock. The receiver calls the REST API
//! through a proxy that records each request and can answer in the emulator's place.
//!
//! | module | what |
//! |---|---|
//! | `clock` | the clock, many times as fast as the machine's |
//! | `proxy` | the proxy in front of the REST API |
//! | `world` | the emulator, the proxy, and a receiver that is started and stopped |
//! | `logs` | the log lines of all tests |
//! | `status` | Data Connectors that are disabled, and enabled again |
//! | `bad_api` | wrong credentials, missing roles, outages, changed answers |
//! | `gaps` | events that were missed, and are fetched |

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
mod logs;
mod proxy;
mod world;

mod bad_api;
mod gaps;
mod status;
