//! Checks from the inside whether the receiver can be reached at its public URL.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::config::PublicUrl;
use crate::keys::{causes, connector};

/// The time limit of the answer: that of DT.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The path that is requested. It is the path of no connector, so that the request counts for none.
const PATH: &str = "/.well-known/dt-receiver";

/// Why the receiver cannot be reached at its public URL.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    #[error("TLS cannot be set up")]
    NoTls,
    #[error("{url} does not answer, or has no valid certificate: {text}")]
    NoAnswer { url: String, text: String },
    #[error("{url} answers with status {}: what is in front of the receiver does not reach it", .status.as_u16())]
    Status { url: String, status: StatusCode },
}

/// Requests the public URL, and checks its certificate as DT does: against the authorities of Mozilla. Any answer is good, except
/// for a status from 500 on.
///
/// # Errors
///
/// [`Unreachable`] if there is no answer.
pub async fn check(public_url: &PublicUrl) -> Result<(), Unreachable> {
    let url = public_url.to_string();
    let client: Client<hyper_rustls::HttpsConnector<HttpConnector>, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build(connector().map_err(|_| Unreachable::NoTls)?);
    let no_answer = |text: String| Unreachable::NoAnswer { url: url.clone(), text };
    let request = Request::get(format!("{public_url}{PATH}"))
        .header(http::header::USER_AGENT, concat!("dt-receiver/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|error| no_answer(error.to_string()))?;
    let answer = tokio::time::timeout(TIMEOUT, client.request(request)).await;
    let late = |_| no_answer(format!("no answer within {} s", TIMEOUT.as_secs()));
    let status = answer.map_err(late)?.map_err(|error| no_answer(causes(&error)))?.status();
    if status.is_server_error() { Err(Unreachable::Status { url, status }) } else { Ok(()) }
}
