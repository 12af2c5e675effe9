//! The core in your own axum server. Take the body as `Bytes`: an extractor such as `Json` would parse it first, and
//! what it writes again is not what was signed.
//!
//! `DT_SIGNATURE_SECRET=some-good-secret cargo run --example embed_axum` listens on 127.0.0.1:8090;
//! `DT_SIGNATURE_SECRET=some-good-secret dt-receiver send --url http://127.0.0.1:8090/dt` sends it an event.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use dt_receiver::event::{Delivery, Payload};
use dt_receiver::verify::{Secret, Verifier};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = Secret::new(std::env::var("DT_SIGNATURE_SECRET")?)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8090").await?;
    axum::serve(listener, app(secret)?).await?;
    Ok(())
}

fn app(secret: Secret) -> Result<Router, dt_receiver::verify::BuildError> {
    let verifier = Verifier::builder().secret("primary", secret).build()?;
    Ok(Router::new()
        .route("/dt", post(receive))
        .layer(DefaultBodyLimit::max(64 * 1024))
        .with_state(Arc::new(verifier)))
}

async fn receive(State(verifier): State<Arc<Verifier>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    let verified = match verifier.verify(&headers, body, now) {
        Ok(verified) => verified,
        Err(rejection) => {
            eprintln!("refused: {}: {rejection}", rejection.code());
            return StatusCode::UNAUTHORIZED;
        }
    };
    if let Ok(delivery) = Delivery::parse(&verified) {
        // Store it durably here, before 200 is answered.
        match &delivery.event.data {
            Payload::Temperature(temperature) => {
                println!("{:?}: {} °C", delivery.device(), temperature.value)
            }
            _ => println!("{:?}: {}", delivery.device(), delivery.event.event_type),
        }
    }
    StatusCode::OK
}

#[cfg(test)]
mod tests {
    use super::*;
    use dt_receiver::verify::Signer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_signed_event_is_taken_and_a_changed_one_is_not() {
        let secret = Secret::new("some-good-secret").unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let token = Signer::secret(secret.clone()).sign(b"{}", now, "c82gg99hga35jc2afkeg").unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app(secret).unwrap()).await });
        for (body, status) in [("{}", "200"), ("[]", "401")] {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!(
                "POST /dt HTTP/1.1\r\nHost: x\r\nX-Dt-Signature: {token}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{body}"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        }
    }
}
