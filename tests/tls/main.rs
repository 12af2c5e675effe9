//! The ways in, with the real program: TLS and its certificates, proxies, Unix sockets, what systemd passes and is told.
//!
//! What needs `curl`, `openssl`, `nginx`, `haproxy` or `systemd-socket-activate` says in one line what it leaves out
//! without them; `DT_RECEIVER_TEST_REQUIRE_TOOLS=1` makes that a failure.

// Everything here is a test, helpers included: they may fail loudly.
#![cfg(test)]
#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]
#![allow(clippy::panic, reason = "tests may fail loudly")]

mod client_certificates;
mod handshakes;
mod hostile;
mod proxies;
mod reload;
mod replaced_under_load;
mod samples;
mod send;
mod sockets;
mod start;

mod authority;
mod client;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/events.rs"]
mod events;
mod place;
#[path = "../common/sender.rs"]
mod sender;
