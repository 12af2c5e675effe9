//! The sink `postgres` against PostgreSQL 15 itself: what was acknowledged is there exactly once, whatever happens to the server,
//! and what goes wrong is named.
//!
//! Every proof has a short form here; environment variables set the full counts that `.ci/long` runs. The tests start servers
//! of their own (Debian: `postgresql-15`); one line says what is left out without it, and `DT_RECEIVER_TEST_REQUIRE_TOOLS=1`
//! makes that a failure.

// Everything here is a test, helpers included: they may fail loudly.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

mod connect;
mod content;
mod end_to_end;
mod grafana;
mod insert;
mod kills;
mod throughput;
mod tls;
mod waits;

mod receiver;
mod server;

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/events.rs"]
mod common_events;
#[path = "../kafka/load.rs"]
#[allow(dead_code, reason = "the tests of Kafka use the rest")]
mod load;
#[path = "../common/sender.rs"]
mod sender;
#[path = "../common/setup.rs"]
mod setup;

/// The events that are sent: temperatures with two samples, a minute apart.
mod events {
    pub(crate) use crate::common_events::*;

    /// The body of an event: each is different, and some are long.
    pub(crate) fn body(device: u64, number: u64) -> String {
        let filler = "x".repeat(usize::try_from((device + number) % 7 * 100).expect("small"));
        let base = i64::try_from(number).expect("small") * 120 + 1_700_000_000;
        let [before, time] = [base - 60, base].map(dt_receiver::verify::event::rfc3339_seconds);
        format!(
            r#"{{"event":{{"eventId":"{}","targetName":"projects/p/devices/dev{device}","eventType":"temperature","data":{{"temperature":{{"value":{number},"updateTime":"{time}","samples":[{{"value":{number},"sampleTime":"{time}"}},{{"value":-1.5,"sampleTime":"{before}"}}]}}}},"timestamp":"{time}"}},"labels":{{"f":"{filler}"}}}}"#,
            id(device, number)
        )
    }
}
