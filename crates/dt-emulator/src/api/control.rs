//! `/emulator`: the emulator's own controls, which DT does not have. They need credentials only if service accounts are
//! configured.
//!
//! | call | what |
//! |---|---|
//! | `GET /emulator` | version, time, devices, queues |
//! | `GET`, `PATCH`, `DELETE /emulator/faults` | shows, changes and clears the faults |
//! | `GET /emulator/ledger?fate=…&connector=…` | the delivery status of every event |
//! | `POST /emulator/keys:rotate` | creates a key, which signs from now on |
//! | `POST /emulator/projects/P/dataconnectors/C:disable` | makes a connector `SYSTEM_DISABLED` |
//! | `POST /emulator/projects/P/devices/D:publish?age=SECONDS&push=false` | publishes late events |

use http::Method;
use serde_json::json;

use super::devices::{LateEvents, publish};
use super::{Answered, ApiError, Call, check_credentials, connectors, query::Query, with_verb};
use crate::cloud::Cloud;
use crate::faults::Faults;
use crate::heartbeat;
use crate::state::{DeviceRef, Now};
use dt_verify::event::rfc3339_micros;

pub fn answer(cloud: &Cloud, call: &Call, path: &[&str]) -> Answered {
    // If any credentials were accepted, requiring them would protect nothing.
    if !call.trusted && !cloud.accounts.is_empty() {
        check_credentials(cloud, call)?;
    }
    match (path, &call.method) {
        ([], &Method::GET) => Ok(status(cloud)),
        (["faults"], &Method::GET) => cloud.with_state(|state, _| show(&state.faults)),
        (["faults"], &Method::PATCH) => change_faults(cloud, call),
        (["faults"], &Method::DELETE) => cloud.publishing(|state, now, _| {
            state.set_faults(Faults::default(), now);
            show(&state.faults)
        }),
        (["ledger"], &Method::GET) => ledger(cloud, &call.query()),
        (["keys:rotate"], &Method::POST) => {
            let kid = cloud.keys.lock().rotate().map_err(|error| ApiError::internal(error.to_string()))?;
            cloud.with_state(|state, _| state.mark_changed());
            tracing::info!(kid, "a new key signs from now on");
            Ok(json!({"kid": kid}).into())
        }
        (["projects", project, "dataconnectors", name], &Method::POST) => match with_verb(name) {
            (id, Some("disable")) => connectors::system_disable(cloud, project, id),
            _ => Err(ApiError::not_found("the only method is :disable")),
        },
        (["projects", project, "devices", name], &Method::POST) => match with_verb(name) {
            (device, Some("publish")) => {
                publish(cloud, call, DeviceRef { project, device }, late_events(&call.query())?)
            }
            _ => Err(ApiError::not_found("the only method is :publish")),
        },
        (["projects", _, "dataconnectors" | "devices", _], _) => Err(ApiError::method("POST")),
        ([], _) | (["ledger"], _) => Err(ApiError::method("GET")),
        (["faults"], _) => Err(ApiError::method("GET, PATCH, DELETE")),
        (["keys:rotate"], _) => Err(ApiError::method("POST")),
        _ => Err(ApiError::not_found("there is nothing at this path")),
    }
}

fn show(faults: &Faults) -> Answered {
    serde_json::to_value(faults).map(Into::into).map_err(|error| ApiError::internal(error.to_string()))
}

fn change_faults(cloud: &Cloud, call: &Call) -> Answered {
    let changes = call.object()?;
    cloud.publishing(|state, now, published| {
        // The current faults, with the members of the body in their place.
        let current = serde_json::to_value(&state.faults).unwrap_or_default();
        let mut members = current.as_object().cloned().unwrap_or_default();
        members.extend(changes);
        let mut faults: Faults = serde_json::from_value(members.into())
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        faults.check().map_err(|error| ApiError::bad_request(error.to_string()))?;
        let burst = std::mem::take(&mut faults.burst);
        // Checked before anything changes: a rejected request changes nothing.
        if burst > 0 && state.projects.values().all(|project| project.devices.is_empty()) {
            return Err(ApiError::bad_request("a burst needs a device"));
        }
        tracing::info!(?faults, burst, "faults");
        state.set_faults(faults, now);
        if burst > 0 {
            let _any = heartbeat::burst(state, burst, now, published);
        }
        show(&state.faults)
    })
}

/// Reads `age`, in seconds, and `push`.
fn late_events(query: &Query) -> Result<LateEvents, ApiError> {
    let age = query.last("age").unwrap_or("0").parse::<u32>();
    let age = age.map_err(|_| ApiError::bad_request("age: expected a number of seconds"))?;
    let is_unpushed = match query.last("push") {
        None | Some("true") => false,
        Some("false") => true,
        Some(_) => return Err(ApiError::bad_request("push: expected true or false")),
    };
    Ok(LateEvents { age: Some(i64::from(age).saturating_mul(1_000_000)), is_unpushed })
}

fn ledger(cloud: &Cloud, query: &Query) -> Answered {
    let (fate, connector) = (query.last("fate"), query.last("connector"));
    cloud.with_state(|state, _| {
        let entries = state.ledger.entries().filter_map(|entry| {
            let shown = serde_json::to_value(&entry).ok()?;
            let wanted = fate.is_none_or(|fate| shown.get("fate").is_some_and(|value| value == fate))
                && connector.is_none_or(|connector| &*entry.connector == connector);
            wanted.then_some(shown)
        });
        Ok(json!({"entries": entries.collect::<Vec<_>>()}).into())
    })
}

fn status(cloud: &Cloud) -> super::Answer {
    cloud.with_state(|state, now: Now| {
        let mut connectors = Vec::new();
        for (id, project) in &state.projects {
            for connector in project.connectors.values() {
                let name = format!("projects/{id}/dataconnectors/{}", connector.id);
                let disabled = connector.disabled_at.map(|at| rfc3339_micros(at.saturating_mul(1_000)));
                connectors.push(json!({
                    "name": name,
                    "status": connector.settings.status,
                    "queued": connector.queue.len(),
                    "disabledAt": disabled,
                }));
            }
        }
        let devices = state.projects.iter().map(|(id, project)| (id.clone(), project.devices.len().into()));
        let devices: serde_json::Map<_, _> = devices.collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "time": rfc3339_micros(now.micros()),
            "devices": devices,
            "connectors": connectors,
            "streams": cloud.listeners(),
        })
        .into()
    })
}
