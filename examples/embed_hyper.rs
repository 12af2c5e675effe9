//! The core in your own hyper server: read the body whole, verify its raw bytes, then parse.
//!
//! `DT_SIGNATURE_SECRET=some-good-secret cargo run --example embed_hyper` listens on 127.0.0.1:8090;
//! `DT_SIGNATURE_SECRET=some-good-secret dt-receiver send --url http://127.0.0.1:8090/` sends it an event.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dt_receiver::event::Delivery;
use dt_receiver::verify::{Secret, Verifier};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Body, Bytes};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// DT's bodies are a few hundred bytes; a stranger's are cut off here.
const MAX_BODY: usize = 64 * 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = Secret::new(std::env::var("DT_SIGNATURE_SECRET")?)?;
    let verifier = Arc::new(Verifier::builder().secret("primary", secret).build()?);
    let listener = TcpListener::bind("127.0.0.1:8090").await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let verifier = Arc::clone(&verifier);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let verifier = Arc::clone(&verifier);
                async move { Ok::<_, Infallible>(respond(receive(&verifier, request).await)) }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                eprintln!("connection: {error}");
            }
        });
    }
}

/// 401 keeps the event in DT's queue, so an honest mistake in the set-up loses nothing for 12 hours. A body that is
/// authentic but no delivery is answered 200: sending it again could not help.
async fn receive<B>(verifier: &Verifier, request: Request<B>) -> StatusCode
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else { return StatusCode::PAYLOAD_TOO_LARGE };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    match verifier.verify(&head.headers, body.to_bytes(), now) {
        Err(rejection) => {
            eprintln!("refused: {}: {rejection}", rejection.code());
            StatusCode::UNAUTHORIZED
        }
        Ok(verified) => {
            match Delivery::parse(&verified) {
                // Store it durably here, before 200 is answered.
                Ok(delivery) => println!("{} {}", delivery.event.event_id, delivery.event.event_type),
                Err(reason) => eprintln!("authentic, but not a delivery: {reason}"),
            }
            StatusCode::OK
        }
    }
}

fn respond(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use dt_receiver::verify::Signer;
    use http_body_util::Full;

    #[tokio::test]
    async fn a_signed_event_is_taken_and_a_changed_one_is_not() {
        let secret = Secret::new("some-good-secret").unwrap();
        let verifier = Verifier::builder().secret("primary", secret.clone()).build().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let token = Signer::secret(secret).sign(b"{}", now, "c82gg99hga35jc2afkeg").unwrap();
        let request = |body: &'static str| {
            Request::post("/").header("X-Dt-Signature", &token).body(Full::new(Bytes::from(body))).unwrap()
        };
        assert_eq!(receive(&verifier, request("{}")).await, StatusCode::OK);
        assert_eq!(receive(&verifier, request("{ }")).await, StatusCode::UNAUTHORIZED);
    }
}
