//! Receives what Disruptive Technologies (DT) *Data Connectors* send: verifies the raw bytes of each request, stores its event and forwards it.
//!
//! A Data Connector pushes every sensor event to an Endpoint URL as one HTTPS `POST`, signed by a JWT in
//! `X-Dt-Signature` (HS256, a shared secret) or `DT-Asymmetric-Signature` (ES256, DT's public keys). The token carries
//! a checksum of the body, so a receiver has to verify the received bytes, before anything parses them.
//!
//! This package is the program `dt-receiver`, and re-exports the crates that it consists of:
//!
//! | crate | here | what it is |
//! |---|---|---|
//! | `dt-verify` | [`verify`], [`event`] | the embeddable core: no I/O, no clock, no async, no logging |
//! | `dt-sink` | [`sink`], [`record`], [`clock`] | the interface of sinks, and the records that they receive |
//! | `dt-log` | [`log`], [`disk`] | the append-only log |
//! | `dt-server` | [`service`], [`config`], [`http`], … | the Endpoint URL target |
//! | `dt-sink-http` | – | the sink `http` (feature `http`) |
//! | `dt-sink-kafka` | – | the sink `kafka` (feature `kafka`) |
//! | `dt-sink-mqtt` | – | the sink `mqtt` (feature `mqtt`) |
//! | `dt-api` | [`api`] | a client of DT's REST API |
//! | `dt-emulator` | [`emulator`] | DT's cloud on this machine, for tests |
//!
//! # Examples
//!
//! Verifies the headers and the body of a request at a time, and reads its event:
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

pub mod cli;
mod sink_types;
pub use sink_types::sink_types;

pub use dt_api as api;
pub use dt_emulator as emulator;
pub use dt_log::{self as log, disk};
pub use dt_server::{cloud, config, deliver, http, keys, service, sink, spool_admin, telemetry, tls};
pub use dt_sink::{clock, record};
pub use dt_verify::{self as verify, event};

/// The Rust code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// The Rust code of the page on embedding.
#[cfg(doctest)]
#[doc = include_str!("../docs/embed.md")]
pub struct Embedding;
