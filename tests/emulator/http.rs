//! A client for the emulator's HTTP side.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// `any:secret`, for basic auth.
pub(crate) const ANYONE: (&str, &str) = ("authorization", "Basic YW55OnNlY3JldA==");

/// An answer that was read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// Sends a request and gives the answer once its head is there.
pub(crate) async fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response<Incoming> {
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
    Client::builder(TokioExecutor::new()).build_http().request(request).await.expect("an answer")
}

/// Sends a request and reads the answer, which has to be JSON.
pub(crate) async fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let (head, body) = send(method, url, headers, body).await.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}
