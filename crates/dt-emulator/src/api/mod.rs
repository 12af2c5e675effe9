//! The HTTP API, all on one port: DT's REST API and emulator API under `/v2`, the identity provider, and the emulator's
//! own controls under `/emulator`.
//!
//! Each request is read completely, and then answered by a function that never waits: `connectors.rs`, `devices.rs`,
//! `events.rs`, `identity.rs`, `control.rs`. The `Content-Type` of JSON is not checked, since `curl -d` sends that of a form.
//! A web page in a browser on this machine could therefore send requests, so requests of web pages are rejected.

mod connectors;
mod control;
mod devices;
mod error;
mod events;
mod filter;
mod identity;
mod order;
mod pages;
mod payload;
mod projects;
mod query;
mod server;
mod stream;

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method};
use serde_json::{Map, Value};

pub(crate) use devices::add as add_device;
pub(crate) use error::ApiError;
pub(crate) use server::serve;
pub(crate) use stream::Stream;

use super::cloud::Cloud;
use super::identity::authorize;
use super::state::is_id;
use query::Query;

/// A request with its complete body.
pub struct Call {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    /// The `:authority` of an HTTP/2 request, which has no `Host`.
    pub authority: Option<String>,
    pub body: Bytes,
    /// Whether the caller is this process. If so, no credentials are needed.
    pub trusted: bool,
}

impl Call {
    /// Parses the body as a JSON object.
    fn object(&self) -> Result<Map<String, Value>, ApiError> {
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(members)) => Ok(members),
            Ok(_) => Err(ApiError::bad_request("the body is not a JSON object")),
            Err(error) => Err(ApiError::bad_request(format!("the body is not JSON: {error}"))),
        }
    }

    fn query(&self) -> Query {
        Query::read(&self.query)
    }

    /// Returns the host and port in the request; `None` if it has none.
    fn host(&self) -> Option<&str> {
        let header = self.headers.get(HOST).and_then(|host| host.to_str().ok());
        self.authority.as_deref().or(header)
    }
}

/// The response to a successful request; failures are [`ApiError`]s.
pub enum Answer {
    /// A response with status 200 and JSON. The second value is a warning, if there is one.
    Json(Value, Option<&'static str>),
    /// A response with status 200, and events until the client closes the connection.
    Stream(Box<Stream>),
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        Self::Json(value, None)
    }
}

type Answered = Result<Answer, ApiError>;

/// Answers a request.
pub fn answer(cloud: &Cloud, call: &Call) -> Answered {
    if !call.trusted {
        reject_web_pages(cloud, call)?;
    }
    let path = with_colons(&call.path);
    // Clients whose base URL ends in a slash send a double one.
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        ["oauth2", "token"] => identity::token(cloud, call),
        ["data-connector", ".well-known", "openid-configuration"] => identity::discovery(cloud, call),
        ["data-connector", "jwks.json"] => identity::jwks(cloud, call),
        ["emulator", rest @ ..] => control::answer(cloud, call, rest),
        ["v2", rest @ ..] => rest_api(cloud, call, rest),
        _ => Err(ApiError::not_found("there is nothing at this path")),
    }
}

/// Returns whether a path is that of a stream, whose errors have a different JSON.
fn is_stream(path: &str) -> bool {
    with_colons(path).trim_end_matches('/').ends_with("/devices:stream")
}

/// Decodes the percent-encoded colons of a path: some clients encode the colon of a verb.
fn with_colons(path: &str) -> String {
    path.replace("%3A", ":").replace("%3a", ":")
}

/// Rejects requests of web pages. Any credentials may be accepted, and JSON is read under any type, so a page in a browser on
/// this machine could create connectors and send requests from here to any address. Its requests have `Origin`, or, if its
/// name was made to resolve to this machine (DNS rebinding), another `Host`.
fn reject_web_pages(cloud: &Cloud, call: &Call) -> Result<(), ApiError> {
    if call.headers.contains_key(ORIGIN) {
        return Err(ApiError::forbidden("web pages cannot use the emulator"));
    }
    let is_local = |host: &str| {
        let host = host.parse::<Authority>();
        host.is_ok_and(|host| {
            let name = host.host().trim_start_matches('[').trim_end_matches(']');
            let own = cloud.reach.public_host.as_deref();
            own.is_some_and(|own| host.host().eq_ignore_ascii_case(own))
                || name.eq_ignore_ascii_case("localhost")
                || name.parse::<IpAddr>().is_ok()
        })
    };
    if cloud.reach.on_loopback && call.host().is_some_and(|host| !is_local(host)) {
        return Err(ApiError::forbidden("the host is neither an IP address nor localhost"));
    }
    Ok(())
}

/// Rejects requests without accepted credentials, and changes by a role that can only read.
fn check_credentials(cloud: &Cloud, call: &Call) -> Result<(), ApiError> {
    let now = cloud.wall_seconds();
    let role = authorize(&call.headers, &cloud.accounts, &cloud.grants.lock(), now);
    let role = role.map_err(|error| ApiError::unauthorized(error.to_string()))?;
    if call.method != Method::GET && call.method != Method::HEAD && !role.may_write() {
        return Err(ApiError::forbidden("the role project.user can only read"));
    }
    Ok(())
}

fn rest_api(cloud: &Cloud, call: &Call, segments: &[&str]) -> Answered {
    if !call.trusted {
        cloud.with_state(|state, _| {
            if state.faults.api_outage {
                return Err(ApiError::unavailable("an outage, emulated by the fault api-outage"));
            }
            if state.api_rng.chance(state.faults.rate_limit) {
                return Err(ApiError::too_many("too many requests, emulated by the fault rate-limit"));
            }
            Ok(())
        })?;
        check_credentials(cloud, call)?;
    }
    let Some((_, rest)) = segments.split_first().filter(|(first, _)| **first == "projects") else {
        return Err(ApiError::not_found("there is nothing at this path"));
    };
    let Some((project, rest)) = rest.split_first() else { return projects::list(cloud, call) };
    if !is_id(project) {
        return Err(ApiError::bad_request("a project's id has 1 to 64 letters, digits, - and _"));
    }
    let looks_up = matches!(rest, ["devices"] | ["devices", _] | ["devices:stream"]);
    if *project == "-" && !(looks_up && call.method == Method::GET) {
        return Err(ApiError::bad_request(
            "the project - stands for any project, which only requests for devices support",
        ));
    }
    match rest {
        [] => projects::one(cloud, call, project),
        ["dataconnectors"] => connectors::collection(cloud, call, project),
        ["dataconnectors", name] => connectors::one(cloud, call, project, name),
        ["devices"] => devices::collection(cloud, call, project),
        ["devices:batchUpdate"] => devices::batch_update(cloud, call, project),
        ["devices:transfer"] => devices::transfer(cloud, call, project),
        ["devices:stream"] => stream::open(cloud, call, project),
        ["devices", name] => devices::one(cloud, call, project, name),
        ["devices", device, "events"] => events::history(cloud, call, project, device),
        _ => Err(ApiError::not_found("there is nothing at this path")),
    }
}

/// Splits the last segment of a path into a name and the verb after its colon; `None` if it has no verb.
fn with_verb(name: &str) -> (&str, Option<&str>) {
    name.split_once(':').map_or((name, None), |(name, verb)| (name, Some(verb)))
}
