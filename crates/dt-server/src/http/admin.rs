//! Answers the requests of operators: `/healthz`, `/readyz` and `/metrics`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::Semaphore;

use super::endpoint::Endpoint;
use super::intake::Readiness;

const PLAIN: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The time limit of a request for the metrics, including the time that it waits for another one: the default timeout of a scrape
/// by Prometheus.
const METRICS_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers a request of an operator. `local` says that the listener has a loopback address. `measuring` has one permit, so that
/// metrics are measured by one request at a time.
pub async fn answer(
    endpoint: Arc<Endpoint>,
    measuring: Arc<Semaphore>,
    request: Request<()>,
    local: bool,
) -> Response<Full<Bytes>> {
    if local && !names_this_machine(&request) {
        let text = "the Host of a request to this address has to be an IP address or localhost: otherwise any web page could \
                    read this (DNS rebinding)\n";
        return respond(StatusCode::MISDIRECTED_REQUEST, PLAIN, text.to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET is allowed\n".to_owned());
        response.headers_mut().insert(http::header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => respond(StatusCode::OK, PLAIN, "ok\n".to_owned()),
        "/readyz" => {
            let Readiness { ready, problems } = endpoint.readiness();
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            // Error texts may contain line ends; the answer is one line.
            let reasons = problems.join("; ").replace(['\r', '\n'], " ");
            let text = match (ready, problems.is_empty()) {
                (true, true) => "ready\n".to_owned(),
                (true, false) => format!("ready, but: {reasons}\n"),
                (false, _) => format!("not ready: {reasons}\n"),
            };
            respond(status, PLAIN, text)
        }
        "/metrics" => metrics(endpoint, measuring).await,
        _ => respond(StatusCode::NOT_FOUND, PLAIN, "there are /healthz, /readyz and /metrics\n".to_owned()),
    }
}

/// Answers a request for the metrics. They are measured on a thread that may block, one request at a time, since this reads the
/// log: while the disk of the log hangs, events and other requests of operators are still answered in time.
async fn metrics(endpoint: Arc<Endpoint>, measuring: Arc<Semaphore>) -> Response<Full<Bytes>> {
    let measured = async {
        let permit = measuring.acquire_owned().await.ok()?;
        let measure = move || {
            let _permit = permit;
            measure(&endpoint)
        };
        tokio::task::spawn_blocking(measure).await.ok()
    };
    match tokio::time::timeout(METRICS_TIMEOUT, measured).await {
        Ok(Some(text)) => respond(StatusCode::OK, PROMETHEUS, text),
        _ => {
            let text = "the metrics cannot be measured in time: the disk of the spool is slow or hangs\n";
            respond(StatusCode::SERVICE_UNAVAILABLE, PLAIN, text.to_owned())
        }
    }
}

/// Updates the gauges, and returns all metrics as text.
fn measure(endpoint: &Endpoint) -> String {
    endpoint.routing().intake.measure();
    endpoint.telemetry.metrics.in_flight.set(endpoint.in_flight() as f64);
    endpoint.measure_keys();
    endpoint.telemetry.metrics.ready.set(f64::from(endpoint.readiness().ready));
    endpoint.telemetry.render()
}

/// Returns whether the requested host is an IP address, `localhost`, or absent. A web page that reaches this listener by DNS
/// rebinding sends its own host name. Browsers always send a host, so a request without one is not such an attack.
fn names_this_machine<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default());
    let Some(host) = host.or_else(|| request.uri().authority().map(Authority::as_str)) else { return true };
    let Ok(authority) = host.parse::<Authority>() else { return host.is_empty() };
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

fn respond(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
