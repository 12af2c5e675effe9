//! A Data Connector: its representation in DT's REST API, its queue and its metrics.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::settings::{ConnectorStatus, Settings};
use crate::engine::{Metrics, Queue};

/// The only type of connector that is emulated.
pub const HTTP_PUSH: &str = "HTTP_PUSH";

/// A Data Connector of a project. It does not implement `Debug`, since it has a secret.
#[derive(Serialize, Deserialize)]
pub struct Connector {
    pub id: String,
    pub settings: Settings,
    pub queue: Queue,
    /// A number that distinguishes connectors that had the same name since the start.
    #[serde(skip)]
    pub incarnation: u64,
    #[serde(skip)]
    pub metrics: Metrics,
    /// The time of the first failed attempt since the last success, in Unix milliseconds of the emulated clock; `None` without a
    /// failure. Not saved: while the emulator does not run, no attempt can succeed.
    #[serde(skip)]
    pub failing_since: Option<i64>,
    /// The time at which the system disabled the connector, in Unix milliseconds of the emulated clock; `None` if it did not.
    pub disabled_at: Option<i64>,
}

impl Connector {
    pub fn new(id: String, settings: Settings, incarnation: u64) -> Self {
        Self {
            id,
            settings,
            incarnation,
            queue: Queue::default(),
            metrics: Metrics::default(),
            failing_since: None,
            disabled_at: None,
        }
    }

    pub fn is_active(&self) -> bool {
        self.settings.status == ConnectorStatus::Active
    }

    /// Returns whether the connector forwards events of this type.
    pub fn wants(&self, event_type: &str) -> bool {
        let events = &self.settings.events;
        events.is_empty() || events.iter().any(|wanted| wanted == event_type)
    }

    /// Returns the connector as DT's REST API shows it, which includes the secret.
    pub fn to_json(&self, project: &str) -> Value {
        let Settings { display_name, status, events, labels, url, signature_secret, headers } =
            &self.settings;
        json!({
            "name": format!("projects/{project}/dataconnectors/{}", self.id),
            "displayName": display_name,
            "type": HTTP_PUSH,
            "status": status,
            "events": events,
            "labels": labels,
            "httpConfig": {"url": url, "signatureSecret": signature_secret, "headers": headers},
        })
    }
}
