//! Receives what Disruptive Technologies (DT) *Data Connectors* send: verifies it on the raw bytes, and passes it on.
//!
//! A Data Connector pushes every sensor event to an Endpoint URL as one HTTPS `POST`, signed by a JWT in
//! `X-Dt-Signature` (HS256, a shared secret) or `DT-Asymmetric-Signature` (ES256, DT's public keys). The token carries
//! a checksum of the body, so a receiver has to verify the bytes that came over the wire, before anything parses them.
//!
//! This crate is three things in layers, each behind a feature:
//!
//! | feature | what it adds |
//! |---|---|
//! | none but a back-end (`aws-lc` or `pure-rust`) | the core: [`verify`] and [`event`]. No I/O, no clock, no async, no logging |
//! | `http` | [`verify::Headers`] for `http::HeaderMap` |
//! | `server` | the Endpoint URL target: configuration, HTTP server, spool, sinks, metrics |
//! | `kafka` (default) | the sink `kafka`; `kafka-tls` with TLS and SCRAM by the system's OpenSSL, `kafka-tls-vendored` by its own |
//! | `emulator` | `emulator`: DT's Data Connector API, devices and delivery engine on this machine, for tests |
//! | `cli` (default) | the `dt-receiver` program |
//!
//! # Examples
//!
//! The core in ten lines: the headers and the body of a request and the time go in, a proof or a reason comes out.
//!
//! ```
//! use dt_receiver::event::Delivery;
//! use dt_receiver::verify::{Secret, Signer, Verifier};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let body = br#"{"event":{"eventId":"c82gg9catj3vmh4248og","eventType":"touch","data":{"touch":{}}},"labels":{}}"#;
//! let token = Signer::secret(Secret::new("some-good-secret")?).sign(body, 1_700_000_000, "c82gg99hga35jc2afkeg")?;
//!
//! let verifier = Verifier::builder().secret("primary", Secret::new("some-good-secret")?).build()?;
//! let verified = verifier.verify(&[("X-Dt-Signature", token)], body, 1_700_000_001)?;
//! let delivery = Delivery::parse(&verified)?;
//! assert_eq!(delivery.event.event_id, "c82gg9catj3vmh4248og");
//! # Ok(())
//! # }
//! ```

#[cfg(not(any(feature = "aws-lc", feature = "pure-rust")))]
compile_error!(
    "dt-receiver needs a cryptographic back-end: enable the feature `aws-lc` (fast, needs a C compiler) or `pure-rust`"
);

pub mod event;
pub mod verify;

#[cfg(feature = "server")]
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod deliver;
#[cfg(feature = "server")]
pub mod disk;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod keys;
#[cfg(feature = "server")]
pub mod log;
#[cfg(feature = "server")]
pub mod record;
#[cfg(feature = "server")]
pub mod service;
#[cfg(feature = "server")]
pub mod sink;
#[cfg(feature = "server")]
mod sync;
#[cfg(feature = "server")]
pub mod telemetry;
#[cfg(feature = "server")]
pub mod tls;
#[cfg(feature = "server")]
mod token_bucket;

#[cfg(feature = "emulator")]
pub mod emulator;

#[cfg(feature = "cli")]
pub mod cli;

/// The Rust code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
