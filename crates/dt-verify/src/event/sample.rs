//! Sample bodies as DT sends them, for tests and emulators.

use serde_json::Value;

use super::rng::Rng;
use super::simulation::Moment;
use super::types::EventType;
use crate::rfc3339::rfc3339_micros;

/// The content of a sample delivery.
///
/// Equal samples have equal bodies. Another `seed` changes the values.
///
/// # Examples
///
/// ```
/// use dt_verify::event::{EventType, Sample};
///
/// let sample = Sample {
///     event_type: EventType::Touch,
///     event_id: "c82gg9catj3vmh4248og",
///     project: "c0md3mm0c7pet3vico8g",
///     device: "emuc1ul5qf2ghkeoq4nj7d0",
///     unix_millis: 1_644_492_133_120,
///     seed: 0,
/// };
/// let body = sample.body();
/// assert!(body.starts_with(r#"{"event":{"eventId":"c82gg9catj3vmh4248og","targetName":"projects/"#));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample<'a> {
    /// The event type. An unknown one gets a payload with `updateTime` only.
    pub event_type: EventType,
    /// The event's id. [`xid`](crate::xid) makes ids of the form that DT's own events have.
    pub event_id: &'a str,
    /// The id of the device's project.
    pub project: &'a str,
    /// The device's id. Those of emulated devices begin with `emu`, and have no product number.
    pub device: &'a str,
    /// The time of the event, in Unix milliseconds.
    pub unix_millis: i64,
    /// The seed of the random values: a sample with the same fields has the same body.
    pub seed: u64,
}

impl Sample<'_> {
    /// Writes the body: compact JSON, members in DT's order.
    #[must_use]
    pub fn body(&self) -> String {
        let mut rng = Rng::new(self.seed);
        // DT writes six digits of a second. The last three are random.
        let unix_micros = self.unix_millis.saturating_mul(1_000).saturating_add(rng.from(0, 1_000));
        let time = rfc3339_micros(unix_micros);
        let device_type = self.device_type();
        let product = if self.device.starts_with("emu") { "" } else { product_number(device_type) };
        let labels = match rng.below(4) {
            0 => r#"{"name":"Møterom 3","floor":"2"}"#,
            1 => r#"{"name":"Cold store"}"#,
            _ => "{}",
        };
        let name = quoted(self.event_type.as_str());
        let mut moment = Moment { rng: &mut rng, unix_micros, active: false };
        let data = match self.event_type.sample(&mut moment) {
            Some(payload) => payload.to_json(),
            None => format!(r#"{{{name}:{{"updateTime":"{time}"}}}}"#),
        };
        format!(
            r#"{{"event":{{"eventId":{id},"targetName":{target},"eventType":{name},"data":{data},"timestamp":"{time}"}},"labels":{labels},"metadata":{{"deviceId":{device},"projectId":{project},"deviceType":"{device_type}","productNumber":"{product}"}}}}"#,
            id = quoted(self.event_id),
            target = quoted(&format!("projects/{}/devices/{}", self.project, self.device)),
            device = quoted(self.device),
            project = quoted(self.project),
        )
    }

    /// Returns a device type that sends events of this sample's type.
    fn device_type(&self) -> &'static str {
        self.event_type.sent().and_then(|sent| sent.by.first()).copied().unwrap_or("temperature")
    }
}

/// Returns an invented product number of six digits.
fn product_number(device_type: &str) -> &'static str {
    match device_type {
        "temperature" => "100001",
        "ccon" => "100003",
        _ => "100002",
    }
}

/// Returns a text as a JSON string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
