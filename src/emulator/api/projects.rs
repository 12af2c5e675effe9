//! `/v2/projects`: a project exists as soon as it is named, so there is nothing to create.

use http::Method;
use serde_json::{Value, json};

use super::{Answered, ApiError, Call, pages};
use crate::emulator::cloud::Cloud;
use crate::emulator::state::Project;

pub(super) fn list(cloud: &Cloud, call: &Call) -> Answered {
    if call.method != Method::GET {
        return Err(ApiError::method("GET"));
    }
    cloud.with_state(|state, _| {
        let items = state.projects.iter().map(|(id, project)| (id, to_json(cloud, id, project)));
        let (projects, next) = pages::of(items, &call.query())?;
        Ok(json!({"projects": projects, "nextPageToken": next}).into())
    })
}

pub(super) fn get(cloud: &Cloud, call: &Call, id: &str) -> Answered {
    if call.method != Method::GET {
        return Err(ApiError::method("GET"));
    }
    cloud.with_state(|state, _| {
        let empty = Project::default();
        Ok(to_json(cloud, id, state.projects.get(id).unwrap_or(&empty)).into())
    })
}

fn to_json(cloud: &Cloud, id: &str, project: &Project) -> Value {
    let ccons = project.devices.values().filter(|device| device.device_type == "ccon").count();
    json!({
        "name": format!("projects/{id}"),
        "displayName": id,
        "inventory": false,
        "organization": format!("organizations/{}", cloud.organization),
        "organizationDisplayName": "Emulator",
        "sensorCount": project.devices.len().saturating_sub(ccons),
        "cloudConnectorCount": ccons,
    })
}
