//! The demo's cloud: 25 devices, and a data connector to a receiver.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::wire::Wire;
use dt_emulator::{Emulator, Population};

/// The 25 devices.
const DEVICES: &str = "temperature:8,humidity:4,co2:2,proximity:2,contact:3,motion:3,touch:2,ccon:1";

const PROJECT: &str = "demo";

/// The organization that the cloud signs for.
pub(super) const ORGANIZATION: &str = "demo-organization";

/// Starts the cloud. Each device sends once in `interval`.
pub(super) async fn start(wire: Arc<Wire>, interval: Duration) -> anyhow::Result<Emulator> {
    let population: Population = DEVICES.parse().context("the devices")?;
    let emulator = Emulator::builder().devices(PROJECT, population, interval).organization(ORGANIZATION);
    emulator.transport(wire).start().await.context("the emulator")
}

/// A data connector.
pub(super) struct Connector<'a> {
    pub(super) url: &'a str,
    pub(super) secret: &'a str,
    /// The event types that it sends; empty for all.
    pub(super) events: &'a [&'a str],
}

impl Connector<'_> {
    pub(super) fn create(&self, emulator: &Emulator) -> anyhow::Result<()> {
        let body = json!({
            "type": "HTTP_PUSH",
            "displayName": "demo",
            "events": self.events,
            "labels": ["name"],
            "httpConfig": {"url": self.url, "signatureSecret": self.secret},
        });
        let path = format!("/v2/projects/{PROJECT}/dataconnectors");
        emulator.call("POST", &path, &body).context("the connector")?;
        Ok(())
    }
}

/// Returns a secret that was never used before.
pub(super) fn random_secret() -> anyhow::Result<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).context("random numbers")?;
    Ok(hex::encode(bytes))
}
