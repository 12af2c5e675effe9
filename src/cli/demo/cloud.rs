//! The cloud of the demo: 25 devices, and a Data Connector to a receiver.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::wire::Wire;
use dt_emulator::{Emulator, Population};

/// The numbers and types of the 25 devices.
const DEVICES: &str = "temperature:8,humidity:4,co2:2,proximity:2,contact:3,motion:3,touch:2,ccon:1";

const PROJECT: &str = "demo";

/// The id of the organization in the signatures of the cloud.
pub const ORGANIZATION: &str = "demo-organization";

/// Starts the cloud. Each device sends one event in each `interval`.
pub async fn start(wire: Arc<Wire>, interval: Duration) -> anyhow::Result<Emulator> {
    let population: Population = DEVICES.parse().context("the devices")?;
    let emulator = Emulator::builder().devices(PROJECT, population, interval).organization(ORGANIZATION);
    emulator.transport(wire).start().await.context("the emulator")
}

/// The settings of a Data Connector of the demo.
pub struct Connector<'a> {
    pub url: &'a str,
    pub secret: &'a str,
    /// The event types that the connector forwards; empty for all.
    pub events: &'a [&'a str],
}

impl Connector<'_> {
    /// Creates the connector with the emulator's API.
    pub fn create(&self, emulator: &Emulator) -> anyhow::Result<()> {
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

/// Returns a random secret of 48 hexadecimal digits.
pub fn random_secret() -> anyhow::Result<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).context("random numbers")?;
    Ok(hex::encode(bytes))
}
