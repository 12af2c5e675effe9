//! `/v2/projects/{p}/devices`: DT's device API (list, get, labels, transfer) and its emulator API (create, replace labels,
//! delete, `:publish`).
//!
//! The project `-` stands for any, where a device is only looked up.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Map, Value, json};

use super::filter::Filter;
use super::order::Order;
use super::{Answered, ApiError, Call, pages, payload, projects, with_verb};
use crate::cloud::Cloud;
use crate::state::{
    Device, Labels, MAX_DEVICES, MAX_LABELS, Now, Published, State, TooManyLabels, is_id, is_label,
};
use dt_verify::event::{rfc3339_micros, simulation};

/// How many devices one call may name: all wait while they are changed.
const MAX_NAMES: usize = 1_000;

/// How large what is published may be: real events are far smaller.
const MAX_EVENT: usize = 16 << 10;

pub(super) fn collection(cloud: &Cloud, call: &Call, project: &str) -> Answered {
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
        // DT's Python client: both are ignored where the project is named.
        let wanted = |id: &str| match project {
            "-" => of_organization && (projects.is_empty() || projects.contains(id)),
            _ => id == project,
        };
        // Sorted by project and device, so that a page token is a device's name.
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
    let known = simulation::device_types();
    if !known.contains(&device_type) {
        let known = known.join(", ");
        let found = device_type.escape_debug();
        return Err(ApiError::bad_request(format!("type: found \"{found}\"; allowed are {known}")));
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

/// Puts a device into a project.
pub(crate) fn add(state: &mut State, project: &str, device: Device) -> Result<(), ApiError> {
    state.changes = state.changes.saturating_add(1);
    let place = state.project(project).ok_or_else(|| ApiError::bad_request("there are too many projects"))?;
    if place.devices.len() >= MAX_DEVICES {
        return Err(ApiError::bad_request(format!("a project has at most {MAX_DEVICES} devices")));
    }
    place.devices.insert(device.id.clone(), device);
    Ok(())
}

pub(super) fn one(cloud: &Cloud, call: &Call, project: &str, name: &str) -> Answered {
    match (with_verb(name), &call.method) {
        ((id, None), &Method::GET) => cloud.with_state(|state, _| {
            let (project, device) = look_up(state, project, id)?;
            Ok(device.to_json(&project).into())
        }),
        ((id, None), &Method::PUT | &Method::PATCH) => replace_labels(cloud, call, project, id),
        ((id, None), &Method::DELETE) => cloud.with_state(|state, _| {
            let removed = state.projects.get_mut(project).and_then(|project| project.devices.remove(id));
            removed.ok_or_else(not_found)?;
            state.changes = state.changes.saturating_add(1);
            state.history.forget(id);
            Ok(json!({}).into())
        }),
        ((id, Some("publish")), &Method::POST) => publish(cloud, call, project, id),
        ((_, None), _) => Err(ApiError::method("GET, PUT, PATCH, DELETE")),
        ((_, Some("publish")), _) => Err(ApiError::method("POST")),
        ((_, Some(_)), _) => Err(ApiError::not_found("a device has no such method")),
    }
}

fn publish(cloud: &Cloud, call: &Call, project: &str, id: &str) -> Answered {
    if call.body.len() > MAX_EVENT {
        return Err(ApiError::bad_request("an event has at most 16 KiB"));
    }
    let body = call.object()?;
    cloud.publishing(|state, now, published| {
        let device = state.device(project, id).ok_or_else(not_found)?;
        let default_time = rfc3339_micros(now.micros());
        let events = payload::complete(&body, &default_time).map_err(ApiError::bad_request)?;
        if let Some((foreign, ..)) =
            events.iter().find(|(event_type, ..)| !simulation::may_send(&device.device_type, event_type))
        {
            let (kind, foreign) = (&device.device_type, foreign.as_str());
            return Err(ApiError::bad_request(format!(
                "a device of type {kind} has no event type {foreign}"
            )));
        }
        for (event_type, data, time) in events {
            published.extend(state.publish((project, id), &event_type, &data, Some(&time), now));
        }
        Ok(json!({}).into())
    })
}

fn replace_labels(cloud: &Cloud, call: &Call, project: &str, id: &str) -> Answered {
    let body = call.object()?;
    let labels = read_labels(body.get("labels"), "labels")?;
    cloud.publishing(|state, now, published| {
        let device = state.device(project, id).ok_or_else(not_found)?;
        let is_gone = |key: &&String| !labels.contains_key(*key) && *key != "virtual-sensor";
        let gone: BTreeSet<String> = if call.method == Method::PUT {
            device.labels.keys().filter(is_gone).cloned().collect()
        } else {
            BTreeSet::new()
        };
        published.extend(state.change_labels((project, id), &labels, &gone, now)?);
        let device = state.device(project, id).ok_or_else(not_found)?;
        Ok(device.to_json(project).into())
    })
}

pub(super) fn batch_update(cloud: &Cloud, call: &Call, project: &str) -> Answered {
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
            if let Err((code, message)) = update_one(state, project, name, (&add, &remove), now, published) {
                errors.push(json!({"device": name, "status": {"code": code, "message": message}}));
            }
        }
        Ok(json!({"batchErrors": errors}).into())
    })
}

/// Codes are those of gRPC, as in DT's documentation of batches: 3 is a bad argument, 5 is not found.
fn update_one(
    state: &mut State,
    project: &str,
    name: &str,
    (add, remove): (&Labels, &BTreeSet<String>),
    now: Now,
    published: &mut Vec<Published>,
) -> Result<(), (u8, &'static str)> {
    let id = own_device(project, name).ok_or((3, "the device is not of this project"))?;
    state.device(project, id).ok_or((5, "there is no such device"))?;
    let changed = state.change_labels((project, id), add, remove, now);
    published.extend(changed.map_err(|TooManyLabels| (3, TOO_MANY_LABELS))?);
    Ok(())
}

/// Moves devices to this project. Their history goes with them as it is: old events keep their `targetName`. A device
/// with a heartbeat stops to beat.
pub(super) fn transfer(cloud: &Cloud, call: &Call, project: &str) -> Answered {
    if call.method != Method::POST {
        return Err(ApiError::method("POST"));
    }
    let names = read_names(&call.object()?, "devices", MAX_NAMES)?;
    cloud.with_state(|state, _| {
        let (mut moved, mut errors) = (Vec::new(), Vec::new());
        for name in names {
            match move_one(state, project, &name) {
                Ok(new_name) => moved.push(new_name),
                Err(message) => {
                    errors.push(json!({"device": name, "status": {"code": 5, "message": message}}));
                }
            }
        }
        Ok(json!({"transferredDevices": moved, "transferErrors": errors}).into())
    })
}

fn move_one(state: &mut State, target: &str, name: &str) -> Result<String, &'static str> {
    let (source, id) = name
        .strip_prefix("projects/")
        .and_then(|rest| rest.split_once("/devices/"))
        .ok_or("the name is not projects/PROJECT/devices/DEVICE")?;
    state.project(target).filter(|place| place.devices.len() < MAX_DEVICES).ok_or("the project is full")?;
    let device = state.projects.get_mut(source).and_then(|project| project.devices.remove(id));
    let mut device = device.ok_or("there is no such device")?;
    // After a restart as well.
    device.lively = false;
    add(state, target, device).map_err(|_| "the project is full")?;
    Ok(format!("projects/{target}/devices/{id}"))
}

/// The device of that id; in any project for `-`.
fn look_up<'a>(state: &'a State, project: &str, id: &str) -> Result<(String, &'a Device), ApiError> {
    let found = state.projects.iter().filter(|(name, _)| project == "-" || *name == project);
    let mut found = found.filter_map(|(name, project)| Some((name.clone(), project.devices.get(id)?)));
    found.next().ok_or_else(not_found)
}

const TOO_MANY_LABELS: &str = "a device has at most 100 labels";

impl From<TooManyLabels> for ApiError {
    fn from(TooManyLabels: TooManyLabels) -> Self {
        Self::bad_request(TOO_MANY_LABELS)
    }
}

fn not_found() -> ApiError {
    ApiError::not_found("there is no such device")
}

/// The device's id in a full name of this project.
fn own_device<'a>(project: &str, name: &'a str) -> Option<&'a str> {
    name.strip_prefix("projects/")?.strip_prefix(project)?.strip_prefix("/devices/").filter(|id| is_id(id))
}

fn read_labels(value: Option<&Value>, name: &str) -> Result<Labels, ApiError> {
    let bad = |what: &str| ApiError::bad_request(format!("{name}: {what}"));
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(Labels::new()) };
    let members = value.as_object().ok_or_else(|| bad("not an object"))?;
    if members.len() > MAX_LABELS {
        return Err(bad("at most 100 are allowed"));
    }
    let mut labels = Labels::new();
    for (key, value) in members {
        let value = value.as_str().ok_or_else(|| bad("a value is not a string"))?;
        if !is_label(key, value) {
            return Err(bad("a key is empty, or longer than 1024 bytes, or its value is"));
        }
        labels.insert(key.clone(), value.to_owned());
    }
    Ok(labels)
}

/// Names in an array, each once, however often it is given.
fn read_names(body: &Map<String, Value>, name: &str, most: usize) -> Result<BTreeSet<String>, ApiError> {
    let bad = || ApiError::bad_request(format!("{name} is not an array of strings"));
    let Some(value) = body.get(name).filter(|value| !value.is_null()) else { return Ok(BTreeSet::new()) };
    let names = value.as_array().ok_or_else(bad)?;
    if names.len() > most {
        return Err(ApiError::bad_request(format!("{name}: at most {most} are allowed")));
    }
    names.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(bad)).collect()
}
