//! `/v2/projects/{p}/dataconnectors`: list, get, create, update, delete, `:sync`, `:metrics`.

use http::Method;
use serde_json::json;

use super::{Answer, Answered, ApiError, Call, pages, with_verb};
use crate::cloud::Cloud;
use crate::state::{self, Connector, MAX_CONNECTORS, Settings, State, drop_queue, is_id};

pub fn collection(cloud: &Cloud, call: &Call, project: &str) -> Answered {
    match call.method {
        Method::GET => cloud.with_state(|state, _| {
            let connectors = state.projects.get(project).map(|project| &project.connectors);
            let items = connectors.into_iter().flatten();
            let items = items.map(|(id, connector)| (id, connector.to_json(project)));
            let (connectors, next) = pages::of(items, &call.query())?;
            Ok(json!({"dataConnectors": connectors, "nextPageToken": next}).into())
        }),
        Method::POST => create(cloud, call, project),
        _ => Err(ApiError::method("GET, POST")),
    }
}

fn create(cloud: &Cloud, call: &Call, project: &str) -> Answered {
    let body = call.object()?;
    let settings = Settings::create(&body).map_err(|error| ApiError::bad_request(error.to_string()))?;
    // DT chooses ids; here the client can, so that a test knows them.
    let wanted = body.get("name").and_then(|name| name.as_str()).filter(|name| !name.is_empty());
    let wanted = wanted.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned());
    if wanted.as_deref().is_some_and(|id| !is_id(id)) {
        return Err(ApiError::bad_request("name: an id has 1 to 64 letters, digits, - and _"));
    }
    cloud.with_state(|state, now| {
        let id = wanted.unwrap_or_else(|| state.id(now));
        state.mark_changed();
        let incarnation = state.incarnation();
        let owner =
            state.project(project).ok_or_else(|| ApiError::bad_request("there are too many projects"))?;
        if owner.connectors.contains_key(&id) {
            return Err(ApiError::conflict("a data connector of that name already exists"));
        }
        if owner.connectors.len() >= MAX_CONNECTORS {
            return Err(ApiError::bad_request("a project has at most 10 data connectors"));
        }
        let connector = Connector::new(id.clone(), settings, incarnation);
        log_warning(call, &connector);
        let shown = answer(&connector, project);
        owner.connectors.insert(id, connector);
        Ok(shown)
    })
}

pub fn one(cloud: &Cloud, call: &Call, project: &str, name: &str) -> Answered {
    match (with_verb(name), &call.method) {
        ((id, None), &Method::GET) => {
            cloud.with_state(|state, _| Ok(answer(find(state, project, id)?, project)))
        }
        ((id, None), &Method::PATCH) => update(cloud, call, project, id),
        ((id, None), &Method::DELETE) => cloud.with_state(|state, now| {
            find(state, project, id)?;
            state.mark_changed();
            let connectors = state.projects.get_mut(project).map(|project| &mut project.connectors);
            if let Some(mut connector) = connectors.and_then(|connectors| connectors.remove(id)) {
                drop_queue(&mut connector, &mut state.ledger, now.millis());
            }
            Ok(json!({}).into())
        }),
        ((id, Some("sync")), &Method::POST) => cloud.publishing(|state, now, _| {
            find(state, project, id)?;
            let _synchronized = state.synchronize(project, id, now);
            Ok(json!({}).into())
        }),
        ((id, Some("metrics")), &Method::GET) => cloud.with_state(|state, now| {
            let connector = find(state, project, id)?;
            Ok(json!({"metrics": connector.metrics.show(now.millis())}).into())
        }),
        ((_, None), _) => Err(ApiError::method("GET, PATCH, DELETE")),
        ((_, Some("sync")), _) => Err(ApiError::method("POST")),
        ((_, Some("metrics")), _) => Err(ApiError::method("GET")),
        ((_, Some(_)), _) => Err(ApiError::not_found("a data connector has no such method")),
    }
}

fn update(cloud: &Cloud, call: &Call, project: &str, id: &str) -> Answered {
    let body = call.object()?;
    cloud.publishing(|state, now, _| {
        let connector = find(state, project, id)?;
        let settings =
            connector.settings.patched(&body).map_err(|error| ApiError::bad_request(error.to_string()))?;
        let was_active = connector.is_active();
        connector.settings = settings;
        log_warning(call, connector);
        let is_active = connector.is_active();
        if is_active && !was_active {
            // The five days of failures begin at the next failure.
            (connector.failing_since, connector.disabled_at) = (None, None);
        }
        let shown = answer(connector, project);
        state.mark_changed();
        if !is_active {
            let State { projects, ledger, .. } = state;
            let connectors = projects.get_mut(project).map(|project| &mut project.connectors);
            if let Some(connector) = connectors.and_then(|connectors| connectors.get_mut(id)) {
                connector.failing_since = None;
                drop_queue(connector, ledger, now.millis());
            }
        }
        Ok(shown)
    })
}

/// Disables a connector at once, as DT does after five days of failures.
pub fn system_disable(cloud: &Cloud, project: &str, id: &str) -> Answered {
    cloud.with_state(|state, now| {
        let State { projects, ledger, .. } = &mut *state;
        let connectors = projects.get_mut(project).map(|project| &mut project.connectors);
        let connector = connectors.and_then(|connectors| connectors.get_mut(id)).ok_or_else(no_connector)?;
        state::system_disable(connector, ledger, now.millis());
        let shown = answer(connector, project);
        state.mark_changed();
        Ok(shown)
    })
}

fn find<'a>(state: &'a mut State, project: &str, id: &str) -> Result<&'a mut Connector, ApiError> {
    let connector = state.projects.get_mut(project).and_then(|project| project.connectors.get_mut(id));
    connector.ok_or_else(no_connector)
}

fn no_connector() -> ApiError {
    ApiError::not_found("there is no such data connector")
}

/// Returns a connector as JSON, with a warning if the real DT would reject its URL.
fn answer(connector: &Connector, project: &str) -> Answer {
    Answer::Json(connector.to_json(project), connector.settings.warning())
}

/// Logs the warning about a changed connector, since few clients show the header with it. Callers in this process log their own.
fn log_warning(call: &Call, connector: &Connector) {
    if let Some(warning) = connector.settings.warning().filter(|_| !call.trusted) {
        tracing::warn!(connector = connector.id, warning, "accepted by the emulator");
    }
}
