//! A local stand-in for DT's cloud: its Data Connector API, device and emulator API, identity provider and delivery engine,
//! on one port of this machine, so that an integration can be tested without sensors, tunnel or account.
//!
//! DT's own clients work against it unmodified; where they need a base URL, give them [`Emulator::api_url`] and
//! [`Emulator::token_endpoint`].
//!
//! | module | what |
//! |---|---|
//! | `api` | HTTP: `/v2`, `/oauth2/token`, `/data-connector` (discovery, key set), `/emulator` (faults, ledger) |
//! | `identity` | service accounts, access tokens, the keys of `DT-Asymmetric-Signature` |
//! | `state` | projects, devices, connectors, history; `--state FILE` |
//! | `engine` | queues, attempts, back-off, retention, auto-disabling, metrics, the ledger |
//! | `life` | devices with a heartbeat |
//! | [`Faults`] | what goes wrong on purpose |
//!
//! Two clocks: the emulated one, which [`EmulatorBuilder::time_scale`] makes run faster, governs events, back-off, retention
//! and heartbeats; the machine's governs what others check against their own clock: tokens, and the 10 s for an answer.
//!
//! It is for tests on one machine: credentials are accepted unless some are configured, and `http` and loopback targets are
//! allowed. `https` targets need a certificate of a public authority. Web pages are refused: no
//! request may have `Origin`, and, on a loopback address, `Host` has to be an IP address or `localhost`. Never let the
//! internet reach it.
//!
//! # Examples
//!
//! A cloud in one line, a connector, a device, and an event on its way:
//!
//! ```
//! use dt_emulator::Emulator;
//! use serde_json::json;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cloud = Emulator::builder().start().await?;
//!
//! let device = cloud.call("POST", "/v2/projects/p/devices", &json!({"type": "temperature"}))?;
//! let name = device["name"].as_str().unwrap_or_default();
//! cloud.call("POST", &format!("/v2/{name}:publish"), &json!({"temperature": {"value": 21.5}}))?;
//!
//! let history = cloud.call("GET", &format!("/v2/{name}/events"), &json!(null))?;
//! assert_eq!(history["events"][0]["data"]["temperature"]["value"], 21.5);
//! cloud.shutdown().await?;
//! # Ok(())
//! # }
//! ```

mod api;
mod builder;
mod cloud;
mod engine;
mod faults;
mod identity;
mod life;
mod running;
mod state;
mod time;

pub use builder::{EmulatorBuilder, EmulatorError};
pub use engine::{
    AttemptRequest, Cut, DISABLE_AFTER, Fate, LedgerEntry, RETENTION, Transport, TransportFuture,
};
pub use faults::{FaultError, Faults, MAX_BURST};
pub use identity::{AccountError, Role, ServiceAccount};
pub use life::{Population, PopulationError};
pub use running::{CallError, Emulator};
pub use state::url_warning;
pub use time::MAX_TIME_SCALE;
