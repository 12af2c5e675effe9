//! Emulates DT's cloud on this machine: its Data Connector API, device and emulator API, identity provider and delivery
//! engine, on one port, so that an integration can be tested without sensors, tunnel or account.
//!
//! DT's own clients work with it unmodified. Where they need a base URL, configure [`Emulator::api_url`] and
//! [`Emulator::token_endpoint`].
//!
//! | module | what |
//! |---|---|
//! | `api` | HTTP: `/v2`, `/oauth2/token`, `/data-connector` (discovery, key set), `/emulator` (faults, ledger) |
//! | `identity` | service accounts, access tokens, the keys of `DT-Asymmetric-Signature` |
//! | `state` | projects, devices, connectors, history; `--state FILE` |
//! | `engine` | queues, attempts, back-off, retention, auto-disabling, metrics, the ledger |
//! | `population`, `heartbeat` | devices that send events by themselves |
//! | [`Faults`] | errors that are injected on request |
//!
//! There are two clocks. Events, back-off, retention and heartbeats use the emulated clock, which
//! [`EmulatorBuilder::time_scale`] makes run faster. Tokens and the timeout of a response (10 s) use the machine's clock,
//! since receivers check them against their own clock.
//!
//! The emulator is for tests on one machine. Any credentials are accepted unless service accounts are configured, and
//! `http` and loopback targets are permitted. `https` targets need a certificate of a public authority. Requests of web
//! pages are rejected: a request must not have `Origin`, and, on a loopback address, `Host` has to be an IP address or
//! `localhost`. The internet must never reach the emulator.
//!
//! # Examples
//!
//! Starts a cloud, creates a device, publishes an event and reads it back:
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
mod heartbeat;
mod identity;
mod population;
mod running;
mod sequence;
mod state;
mod time;

pub use builder::{EmulatorBuilder, EmulatorError, MAX_CAPACITY};
pub use engine::{
    AttemptRequest, Cut, DISABLE_AFTER, DeliveryStatus, LedgerEntry, RETENTION, Transport, TransportFuture,
};
pub use faults::{FaultError, Faults, MAX_BURST};
pub use identity::{AccountError, Role, ServiceAccount};
pub use population::{Population, PopulationError};
pub use running::{CallError, Emulator};
pub use state::{HistoryEvent, url_warning};
pub use time::MAX_TIME_SCALE;
