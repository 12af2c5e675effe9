//! Makes a delivery from an event of the API and its device: the body that DT would have pushed, with the event's bytes as the
//! API sent them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use dt_api::{Device, EventRecord};
use dt_sink::record::{ApiSource, KeptHeaders, Provenance, Record};
use dt_verify::event::{Envelope, NotADelivery};

/// What a delivery says about the device of its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFacts {
    /// The id of the device.
    pub id: String,
    /// The id of the project to which the device belongs now; empty if DT does not say.
    pub project: String,
    /// The device type, such as `temperature`.
    pub device_type: String,
    /// The product number; empty for emulated devices.
    pub product_number: String,
    /// The labels that deliveries contain.
    pub labels: BTreeMap<String, String>,
}

impl DeviceFacts {
    /// Takes what deliveries contain from a device: of its labels only those with a key in `labels`, or all if that is `None`.
    #[must_use]
    pub fn of(device: &Device, labels: Option<&BTreeSet<String>>) -> Self {
        let is_sent = |key: &String| labels.is_none_or(|labels| labels.contains(key));
        let sent = device.labels.iter().filter(|(key, _)| is_sent(key));
        Self {
            id: device.id().to_owned(),
            project: device.project().unwrap_or_default().to_owned(),
            device_type: device.device_type.clone(),
            product_number: device.product_number.clone(),
            labels: sent.map(|(key, value)| (key.clone(), value.clone())).collect(),
        }
    }
}

/// The member `metadata` of a delivery.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    device_id: &'a str,
    project_id: &'a str,
    device_type: &'a str,
    product_number: &'a str,
}

/// Returns the body of a delivery of this event: `event` as the API sent it, `labels` and `metadata` of the device. The
/// `projectId` is that of the event, which may be older than the device's move to another project.
#[must_use]
pub fn delivery(event: &EventRecord, device: &DeviceFacts) -> String {
    let project = event.target_name.strip_prefix("projects/").and_then(|rest| rest.split('/').next());
    let metadata = Metadata {
        device_id: event.device().unwrap_or(&device.id),
        project_id: project.filter(|project| !project.is_empty()).unwrap_or(&device.project),
        device_type: &device.device_type,
        product_number: &device.product_number,
    };
    // Texts alone can always be written as JSON.
    let labels = serde_json::to_string(&device.labels).unwrap_or_else(|_| "{}".to_owned());
    let metadata = serde_json::to_string(&metadata).unwrap_or_else(|_| "{}".to_owned());
    format!(r#"{{"event":{},"labels":{labels},"metadata":{metadata}}}"#, event.raw.get())
}

/// Returns the record of a delivery that was made from an event of this part of the API. It was verified by no signature.
///
/// # Errors
///
/// [`NotADelivery`] if the event cannot be stored, such as one with an id that is too long.
pub fn record(
    body: Bytes,
    connector: Arc<str>,
    received_at: i64,
    source: ApiSource,
) -> Result<Record, NotADelivery> {
    let envelope = Envelope::parse_stored(&body)?;
    let (event_id, event_type) = ((&*envelope.event_id).into(), (&*envelope.event_type).into());
    let (project, device) = (envelope.project().map(Into::into), envelope.device().map(Into::into));
    Ok(Record {
        connector,
        received_at,
        provenance: Provenance::Api(source),
        event_id,
        event_type,
        project,
        device,
        request_id: None,
        headers: KeptHeaders::default(),
        body,
    })
}
