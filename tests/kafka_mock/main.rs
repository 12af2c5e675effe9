//! The sink `kafka` against the mock cluster that librdkafka brings along: brokers that refuse, vanish and forget, as the
//! wire protocol has it. The real brokers are in `tests/kafka`.
//!
//! `DT_RECEIVER_TEST_SEED` repeats a random run, `DT_RECEIVER_TEST_KAFKA_FAULTS` sets how many faults it has.

// Everything here is a test, helpers included: they may fail loudly.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

mod checks;
mod dead_letters;
mod delivery;
mod faults;
mod refusals;

mod cluster;
mod errors;
