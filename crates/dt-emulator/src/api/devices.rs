//! `/v2/projects/{p}/devices`: DT's device API (list, get, labels, transfer) and its emulator API (create, replace labels,
//! delete, `:publish`).
//!
//! In requests that only read devices, the project `-` stands for any project.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Map, Value, json};

use super::filter::Filter;
use super::order::Order;
use super::{Answered, ApiError, Call, pages, payload, projects, with_verb};
use crate::cloud::Cloud;
use crate::state::{
    Device, DeviceRef, Labels, MAX_DEVICES, MAX_LABELS, NewEvent, Now, Published, State, TooManyLabels,
    is_id, is_label,
};
use dt_verify::event::{rfc3339_micros, simulation};

/// The largest number of devices in one call, since all other calls wait while they are changed.
const MAX_NAMES: usize = 1_000;

/// The largest size of a published event, in bytes: real events are far smaller.
const MAX_EVENT: usize = 16 << 10;

pub fn collection(cloud: &Cloud, call: &Call, project: &str) -> Answered {
    match call.method {
        Method::GET => list(cloud, call, project),
        Method::POST => create(cloud, call, project),
        _ => Err(ApiError::method("GET, POST")),
    }
}

fn list(cloud: &Cloud, call: &Call, project: &str) -> Answered {
    let query = call.query();
    let filter = Filter::read(&query, false);
    let order = Order::read(&query)?;
    let projects: BTreeSet<&str> =
        query.all("projects").map(|name| name.strip_prefix("projects/").unwrap_or(name)).collect();
    let of_organization = projects::are_of_organization(cloud, &query);
    cloud.with_state(|state, _| {
        // As for DT's Python client, `projects` and `organization` only matter for the project `-`.
        let wanted = |id: &str| match project {
            "-" => of_organization && (projects.is_empty() || projects.contains(id)),
            _ => id == project,
        };
        // Sorted by project and device, since a page token is a device's name.
        let mut devices: Vec<(String, &str, &Device)> = state
            .projects
            .iter()
            .filter(|(id, _)| wanted(id))
            .flat_map(|(id, project)| project.devices.values().map(move |device| (id.as_str(), device)))
            .filter(|(_, device)| filter.wants(&device.id, &device.device_type, &device.labels))
            .map(|(id, device)| (format!("{id}/{}", device.id), id, device))
            .collect();
        let (page, next) = match order {
            None => pages::of(devices.iter().map(|entry| (&entry.0, entry)), &query)?,
            Some(order) => {
                order.sort(&mut devices);
                pages::in_order(devices.iter().map(|entry| (&entry.0, entry)), &query)?
            }
        };
        let devices: Vec<Value> = page.into_iter().map(|(_, id, device)| device.to_json(id)).collect();
        Ok(json!({"devices": devices, "nextPageToken": next}).into())
    })
}

fn create(cloud: &Cloud, call: &Call, project: &str) -> Answered {
    let body = call.object()?;
    let device_type =
        body.get("type").and_then(Value::as_str).ok_or_else(|| ApiError::bad_request("type is missing"))?;
    let types = simulation::device_types();
    if !types.contains(&device_type) {
        let (found, expected) = (device_type.escape_debug(), types.join(", "));
        return Err(ApiError::bad_request(format!("type: found \"{found}\"; expected {expected}")));
    }
    let labels = read_labels(body.get("labels"), "labels")?;
    cloud.with_state(|state, now| {
        let id = format!("emu{}", state.id(now));
        let device = Device::new(id, device_type.to_owned(), labels, false);
        if device.labels.len() > MAX_LABELS {
            return Err(TooManyLabels.into());
        }
        let shown = device.to_json(project);
        add(state, project, device)?;
        Ok(shown.into())
    })
}

/// Adds a device to a project.
pub fn add(state: &mut State, project: &str, device: Device) -> Result<(), ApiError> {
    state.mark_changed();
    let owner = state.project(project).ok_or_else(|| ApiError::bad_request("there are too many projects"))?;
    if owner.devices.len() >= MAX_DEVICES {
        return Err(ApiError::bad_request(format!("a project has at most {MAX_DEVICES} devices")));
    }
    owner.devices.insert(device.id.clone(), device);
    Ok(())
}

pub fn one(cloud: &Cloud, call: &Call, project: &str, name: &str) -> Answered {
    match (with_verb(name), &call.method) {
        ((id, None), &Method::GET) => cloud.with_state(|state, _| {
            let (project, device) = look_up(state, project, id)?;
            Ok(device.to_json(&project).into())
        }),
        ((id, None), &Method::PUT | &Method::PATCH) => replace_labels(cloud, call, project, id),
        ((id, None), &Method::DELETE) => cloud.with_state(|state, _| {
            let removed = state.projects.get_mut(project).and_then(|project| project.devices.remove(id));
            removed.ok_or_else(not_found)?;
            state.mark_changed();
            state.history.forget(id);
            Ok(json!({}).into())
        }),
        ((id, Some("publish")), &Method::POST) => {
            publish(cloud, call, DeviceRef { project, device: id }, LateEvents::default())
        }
        ((_, None), _) => Err(ApiError::method("GET, PUT, PATCH, DELETE")),
        ((_, Some("publish")), _) => Err(ApiError::method("POST")),
        ((_, Some(_)), _) => Err(ApiError::not_found("a device has no such method")),
    }
}

/// How the events of a body are published that were measured earlier than they are received.
#[derive(Clone, Copy, Default)]
pub struct LateEvents {
    /// The age of an event without `updateTime`, in microseconds; `None` for events that are not late.
    pub age: Option<i64>,
    /// Whether the events are only stored: neither connectors nor streams get them.
    pub is_unpushed: bool,
}

/// Publishes the events of a body such as `{"touch":{}}`.
pub fn publish(cloud: &Cloud, call: &Call, name: DeviceRef<'_>, late: LateEvents) -> Answered {
    if call.body.len() > MAX_EVENT {
        return Err(ApiError::bad_request("an event has at most 16 KiB"));
    }
    let body = call.object()?;
    cloud.publishing(|state, now, published| {
        let device = state.device(name).ok_or_else(not_found)?;
        let default_time = rfc3339_micros(now.micros().saturating_sub(late.age.unwrap_or(0)));
        let events = payload::complete(&body, &default_time, late.age.is_some())
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        if let Some((foreign, ..)) =
            events.iter().find(|(event_type, ..)| !simulation::may_send(&device.device_type, event_type))
        {
            let (kind, foreign) = (&device.device_type, foreign.as_str());
            return Err(ApiError::bad_request(format!(
                "a device of type {kind} has no event type {foreign}"
            )));
        }
        for (event_type, data, time) in events {
            let event = NewEvent { device: name, event_type: &event_type, data: &data };
            if late.is_unpushed {
                let _stored = state.store(event, Some(&time), now);
            } else {
                published.extend(state.publish(event, Some(&time), now));
            }
        }
        Ok(json!({}).into())
    })
}

fn replace_labels(cloud: &Cloud, call: &Call, project: &str, id: &str) -> Answered {
    let body = call.object()?;
    let labels = read_labels(body.get("labels"), "labels")?;
    let name = DeviceRef { project, device: id };
    cloud.publishing(|state, now, published| {
        let device = state.device(name).ok_or_else(not_found)?;
        let is_removed = |key: &&String| !labels.contains_key(*key) && *key != "virtual-sensor";
        let removed: BTreeSet<String> = if call.method == Method::PUT {
            device.labels.keys().filter(is_removed).cloned().collect()
        } else {
            BTreeSet::new()
        };
        published.extend(state.change_labels(name, &labels, &removed, now)?);
        let device = state.device(name).ok_or_else(not_found)?;
        Ok(device.to_json(project).into())
    })
}

pub fn batch_update(cloud: &Cloud, call: &Call, project: &str) -> Answered {
    if call.method != Method::POST {
        return Err(ApiError::method("POST"));
    }
    let body = call.object()?;
    let add = read_labels(body.get("addLabels"), "addLabels")?;
    let remove = read_names(&body, "removeLabels", MAX_LABELS)?;
    if add.is_empty() && remove.is_empty() {
        return Err(ApiError::bad_request("neither addLabels nor removeLabels has a label"));
    }
    let devices = read_names(&body, "devices", MAX_NAMES)?;
    cloud.publishing(|state, now, published| {
        let mut errors = Vec::new();
        for name in &devices {
            match update_one(state, project, name, (&add, &remove), now) {
                Ok(change) => published.extend(change),
                Err(error) => {
                    let status = json!({"code": error.code(), "message": error.to_string()});
                    errors.push(json!({"device": name, "status": status}));
                }
            }
        }
        Ok(json!({"batchErrors": errors}).into())
    })
}

/// Why one device of a batch was not changed.
#[derive(Debug, thiserror::Error)]
enum BatchError {
    #[error("the device is not of this project")]
    OtherProject,
    #[error("there is no such device")]
    NoDevice,
    #[error(transparent)]
    TooManyLabels(#[from] TooManyLabels),
    #[error("the name is not projects/PROJECT/devices/DEVICE")]
    BadName,
    #[error("the project is full")]
    ProjectFull,
}

impl BatchError {
    /// Returns the gRPC code, as in DT's documentation of batches: 3 is an invalid argument, 5 is not found.
    const fn code(&self) -> u8 {
        match self {
            Self::OtherProject | Self::TooManyLabels(_) => 3,
            Self::NoDevice | Self::BadName | Self::ProjectFull => 5,
        }
    }
}

/// Changes the labels of one device of a batch.
fn update_one(
    state: &mut State,
    project: &str,
    name: &str,
    (add, remove): (&Labels, &BTreeSet<String>),
    now: Now,
) -> Result<Option<Published>, BatchError> {
    let device = own_device(project, name).ok_or(BatchError::OtherProject)?;
    let name = DeviceRef { project, device };
    state.device(name).ok_or(BatchError::NoDevice)?;
    Ok(state.change_labels(name, add, remove, now)?)
}

/// Moves devices to this project. Their history and their heartbeat move with them. Old events keep their `targetName`, and stay in
/// the queues of the connectors of their old project.
pub fn transfer(cloud: &Cloud, call: &Call, project: &str) -> Answered {
    if call.method != Method::POST {
        return Err(ApiError::method("POST"));
    }
    let names = read_names(&call.object()?, "devices", MAX_NAMES)?;
    cloud.with_state(|state, _| {
        let (mut moved, mut errors) = (Vec::new(), Vec::new());
        for name in names {
            match move_one(state, project, &name) {
                Ok(new_name) => moved.push(new_name),
                Err(error) => {
                    let status = json!({"code": error.code(), "message": error.to_string()});
                    errors.push(json!({"device": name, "status": status}));
                }
            }
        }
        Ok(json!({"transferredDevices": moved, "transferErrors": errors}).into())
    })
}

/// Moves one device of a batch and returns its new name.
fn move_one(state: &mut State, target: &str, name: &str) -> Result<String, BatchError> {
    let (source, id) = name
        .strip_prefix("projects/")
        .and_then(|rest| rest.split_once("/devices/"))
        .ok_or(BatchError::BadName)?;
    let target_project = state.project(target).filter(|project| project.devices.len() < MAX_DEVICES);
    target_project.ok_or(BatchError::ProjectFull)?;
    let device = state.projects.get_mut(source).and_then(|project| project.devices.remove(id));
    let device = device.ok_or(BatchError::NoDevice)?;
    add(state, target, device).map_err(|_| BatchError::ProjectFull)?;
    Ok(format!("projects/{target}/devices/{id}"))
}

/// Returns the project and the device of an id; `-` stands for any project.
fn look_up<'a>(state: &'a State, project: &str, id: &str) -> Result<(String, &'a Device), ApiError> {
    let found = state.projects.iter().filter(|(name, _)| project == "-" || *name == project);
    let mut found = found.filter_map(|(name, project)| Some((name.clone(), project.devices.get(id)?)));
    found.next().ok_or_else(not_found)
}

impl From<TooManyLabels> for ApiError {
    fn from(error: TooManyLabels) -> Self {
        Self::bad_request(error.to_string())
    }
}

fn not_found() -> ApiError {
    ApiError::not_found("there is no such device")
}

/// Returns the id of the device in a full name of this project; `None` for any other name.
fn own_device<'a>(project: &str, name: &'a str) -> Option<&'a str> {
    name.strip_prefix("projects/")?.strip_prefix(project)?.strip_prefix("/devices/").filter(|id| is_id(id))
}

fn read_labels(value: Option<&Value>, name: &str) -> Result<Labels, ApiError> {
    let bad = |what: &str| ApiError::bad_request(format!("{name}: {what}"));
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(Labels::new()) };
    let members = value.as_object().ok_or_else(|| bad("not an object"))?;
    if members.len() > MAX_LABELS {
        return Err(bad("expected at most 100"));
    }
    let mut labels = Labels::new();
    for (key, value) in members {
        let value = value.as_str().ok_or_else(|| bad("a value is not a string"))?;
        if !is_label(key, value) {
            return Err(bad("a key is empty, or a key or value is longer than 1024 bytes"));
        }
        labels.insert(key.clone(), value.to_owned());
    }
    Ok(labels)
}

/// Reads the member `name` of a body, an array of strings, and merges repeated ones. Absent or `null` is empty. Returns an
/// error (400) if it is anything else, or has more than `limit` elements.
fn read_names(body: &Map<String, Value>, name: &str, limit: usize) -> Result<BTreeSet<String>, ApiError> {
    let bad = || ApiError::bad_request(format!("{name} is not an array of strings"));
    let Some(value) = body.get(name).filter(|value| !value.is_null()) else { return Ok(BTreeSet::new()) };
    let names = value.as_array().ok_or_else(bad)?;
    if names.len() > limit {
        return Err(ApiError::bad_request(format!("{name}: expected at most {limit}")));
    }
    names.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(bad)).collect()
}
