//! The core behind an API Gateway, as an AWS Lambda handler sees it: the request is JSON, and its body is text or, with
//! `isBase64Encoded`, base64. The bytes that were signed are those before that encoding.
//!
//! `cargo run --example aws_lambda < event.json` answers one request from standard input, with the secret in
//! `DT_SIGNATURE_SECRET`; under Lambda, call `handle` from your runtime's handler.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dt_receiver::event::Delivery;
use dt_receiver::verify::{Secret, Verifier};
use serde::Deserialize;
use serde_json::{Value, json};

/// The part of an API Gateway request (payload versions 1.0 and 2.0) that matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    #[serde(default)]
    headers: HashMap<String, String>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = Secret::new(std::env::var("DT_SIGNATURE_SECRET")?)?;
    let verifier = Verifier::builder().secret("primary", secret).build()?;
    let request: Request = serde_json::from_reader(std::io::stdin())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().cast_signed();
    println!("{}", handle(&verifier, request, now));
    Ok(())
}

fn handle(verifier: &Verifier, request: Request, now: i64) -> Value {
    let text = request.body.unwrap_or_default();
    let body = if request.is_base64_encoded {
        match STANDARD.decode(text) {
            Ok(body) => body,
            Err(_) => return json!({"statusCode": 400}),
        }
    } else {
        text.into_bytes()
    };
    match verifier.verify(&request.headers, body, now) {
        Err(rejection) => {
            eprintln!("refused: {}: {rejection}", rejection.code());
            json!({"statusCode": 401})
        }
        Ok(verified) => {
            if let Ok(delivery) = Delivery::parse(&verified) {
                // Store it durably here, before 200 is answered.
                eprintln!("{} {}", delivery.event.event_id, delivery.event.event_type);
            }
            json!({"statusCode": 200})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dt_receiver::verify::Signer;

    #[test]
    fn text_and_base64_bodies_verify_and_a_changed_one_does_not() {
        let secret = Secret::new("some-good-secret").unwrap();
        let verifier = Verifier::builder().secret("primary", secret.clone()).build().unwrap();
        let (body, now) = (r#"{"name":"Küche"}"#, 1_700_000_000);
        let token = Signer::secret(secret).sign(body.as_bytes(), now, "c82gg99hga35jc2afkeg").unwrap();
        let answer = |body: &str, is_base64: bool| {
            let request =
                json!({"headers": {"x-dt-signature": token}, "body": body, "isBase64Encoded": is_base64});
            handle(&verifier, serde_json::from_value(request).unwrap(), now)["statusCode"].clone()
        };
        assert_eq!(answer(body, false), 200);
        assert_eq!(answer(&STANDARD.encode(body), true), 200);
        assert_eq!(answer(&STANDARD.encode(body), false), 401);
        assert_eq!(answer("{}", false), 401);
        assert_eq!(answer("not base64!", true), 400);
    }
}
