//! The least that a server of the same make does: hyper on tokio reads the body and answers 204. What `dt-receiver` costs
//! is told beside it (`benches/compare`).
//!
//! `cargo bench --bench bare_server -- 127.0.0.1:0` prints the address that it listens on, and serves until it is killed.
//! With `--verify`, it verifies each request with the secret in `DT_SIGNATURE_SECRET`, as an embedder would, and answers
//! 401 when that fails; it stores nothing.

#![allow(clippy::print_stdout, reason = "whoever starts it reads the address")]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dt_receiver::verify::{Secret, Verifier};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = arguments.iter().find(|argument| !argument.starts_with("--"));
    let listener = TcpListener::bind(address.map_or("127.0.0.1:0", String::as_str)).await?;
    let verifier = if arguments.iter().any(|argument| argument == "--verify") {
        let secret = Secret::new(std::env::var("DT_SIGNATURE_SECRET")?)?;
        Some(Arc::new(Verifier::builder().secret("primary", secret).build()?))
    } else {
        None
    };
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let verifier = verifier.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(verifier.as_deref(), request));
            // Errors of a connection are the client's affair.
            let _ended = Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    verifier: Option<&Verifier>,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Empty::new());
    let Ok(body) = body.collect().await else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    let is_authentic =
        verifier.is_none_or(|verifier| verifier.verify(&head.headers, body.to_bytes(), now).is_ok());
    *response.status_mut() = if is_authentic { StatusCode::NO_CONTENT } else { StatusCode::UNAUTHORIZED };
    Ok(response)
}
