//! `/v2/projects`: list, get, and set the display name. A project exists as soon as a request names it, so none has to be created.

use http::Method;
use serde_json::{Value, json};

use super::filter::contains;
use super::query::Query;
use super::{Answered, ApiError, Call, pages};
use crate::cloud::Cloud;
use crate::state::{MAX_NAME, Project};

pub fn list(cloud: &Cloud, call: &Call) -> Answered {
    if call.method != Method::GET {
        return Err(ApiError::method("GET"));
    }
    let query = call.query();
    // As for DT's Python client, words are searched in the display names of project and organization.
    let words = query.last("query").unwrap_or_default().to_lowercase();
    let of_organization = are_of_organization(cloud, &query);
    cloud.with_state(|state, _| {
        let wanted = |id: &str, project: &Project| {
            let mut words = words.split_whitespace();
            words.all(|word| contains(project.name(id), word) || contains(&cloud.organization_name, word))
        };
        let items = state.projects.iter().filter(|(id, project)| of_organization && wanted(id, project));
        let items = items.map(|(id, project)| (id, to_json(cloud, id, project)));
        let (projects, next) = pages::of(items, &query)?;
        Ok(json!({"projects": projects, "nextPageToken": next}).into())
    })
}

pub fn one(cloud: &Cloud, call: &Call, id: &str) -> Answered {
    match call.method {
        Method::GET => cloud.with_state(|state, _| {
            let empty = Project::default();
            Ok(to_json(cloud, id, state.projects.get(id).unwrap_or(&empty)).into())
        }),
        Method::PATCH => rename(cloud, call, id),
        _ => Err(ApiError::method("GET, PATCH")),
    }
}

/// Sets the display name, as `Project.update_project` of DT's Python client does. An empty one removes it.
fn rename(cloud: &Cloud, call: &Call, id: &str) -> Answered {
    let body = call.object()?;
    let name = match body.get("displayName") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if name.len() <= MAX_NAME => Some(name),
        Some(_) => {
            return Err(ApiError::bad_request(format!(
                "displayName is not a string of at most {MAX_NAME} bytes"
            )));
        }
    };
    cloud.with_state(|state, _| {
        state.mark_changed();
        let project =
            state.project(id).ok_or_else(|| ApiError::bad_request("there are too many projects"))?;
        if let Some(name) = name {
            project.display_name = Some(name.clone()).filter(|name| !name.is_empty());
        }
        Ok(to_json(cloud, id, project).into())
    })
}

/// Returns whether a query has no `organization`, or that of the emulator.
pub fn are_of_organization(cloud: &Cloud, query: &Query) -> bool {
    query
        .last("organization")
        .is_none_or(|name| name.strip_prefix("organizations/").unwrap_or(name) == cloud.organization)
}

fn to_json(cloud: &Cloud, id: &str, project: &Project) -> Value {
    let ccons = project.devices.values().filter(|device| device.device_type == "ccon").count();
    json!({
        "name": format!("projects/{id}"),
        "displayName": project.name(id),
        "inventory": false,
        "organization": format!("organizations/{}", cloud.organization),
        "organizationDisplayName": cloud.organization_name,
        "sensorCount": project.devices.len().saturating_sub(ccons),
        "cloudConnectorCount": ccons,
    })
}
