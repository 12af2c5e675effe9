//! What operators ask: is it alive, is it ready, and how is it doing.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use super::endpoint::Endpoint;
use super::intake::Readiness;

const PLAIN: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers a request of an operator.
pub(super) fn answer<B>(endpoint: &Endpoint, request: &Request<B>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET is allowed\n".to_owned());
        response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => respond(StatusCode::OK, PLAIN, "ok\n".to_owned()),
        "/readyz" => {
            let Readiness { ready, troubles } = readiness(endpoint);
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            // One line, whatever an error text holds.
            let reasons = troubles.join("; ").replace(['\r', '\n'], " ");
            let text = match (ready, troubles.is_empty()) {
                (true, true) => "ready\n".to_owned(),
                (true, false) => format!("ready, but: {reasons}\n"),
                (false, _) => format!("not ready: {reasons}\n"),
            };
            respond(status, PLAIN, text)
        }
        "/metrics" => {
            endpoint.routing().intake.measure();
            endpoint.telemetry.in_flight(endpoint.in_flight());
            endpoint.measure_keys();
            endpoint.telemetry.ready(readiness(endpoint).ready);
            respond(StatusCode::OK, PROMETHEUS, endpoint.telemetry.render())
        }
        _ => respond(StatusCode::NOT_FOUND, PLAIN, "there are /healthz, /readyz and /metrics\n".to_owned()),
    }
}

fn readiness(endpoint: &Endpoint) -> Readiness {
    if endpoint.is_stopping() {
        return Readiness { ready: false, troubles: vec!["shutting down".to_owned()] };
    }
    let Readiness { ready, mut troubles } = endpoint.routing().intake.readiness();
    let (keys, is_blind) = endpoint.key_troubles();
    if is_blind && keys.is_empty() {
        troubles.push("the key set is not fetched yet".to_owned());
    }
    troubles.extend(keys);
    troubles.extend(endpoint.tls.as_ref().and_then(|tls| tls.trouble(endpoint.clock.unix_seconds())));
    troubles.extend(endpoint.clock_doubt.trouble());
    troubles.extend(endpoint.config_trouble());
    Readiness { ready: ready && !is_blind, troubles }
}

fn respond(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
