//! Sends forged requests, made from an authentic one, as an attacker could.

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::screen::{self, Tone};
use super::values;
use super::wire::{Answer, Wire};
use crate::cli::Failure;
use dt_emulator::AttemptRequest;
use dt_sink::clock::{Clock, SystemClock};
use dt_verify::{SECRET_HEADER, Secret, Signer, xid};

/// The forged temperature, in °C.
const FORGED: &str = "99.5";

/// The responses to the forged requests.
#[derive(Debug, Default)]
pub struct Rejections(Vec<Answer>);

impl Rejections {
    /// Returns the codes of the forged requests that were answered 401.
    pub fn codes(&self) -> Vec<&str> {
        self.0.iter().filter(|answer| answer.status == 401).map(|answer| answer.code.as_str()).collect()
    }

    /// Returns the number of forged requests that were accepted.
    pub fn accepted(&self) -> usize {
        self.0.iter().filter(|answer| (200..300).contains(&answer.status)).count()
    }
}

/// Sends an authentic request three more times: changed, signed with a guessed secret, and unchanged.
///
/// # Errors
///
/// [`Failure::Internal`] if a request gets no response.
pub async fn send(wire: &Wire) -> Result<Rejections, Failure> {
    let authentic = wire.temperature().await.context("waiting for a temperature")?;
    let (changed, from) = changed(&authentic).context("changing a request")?;
    let to = FORGED.parse().map(values::celsius).unwrap_or_default();
    let mut rejections = Rejections::default();
    for (request, what) in [
        (changed, format!("{} changed to {} on the way", from.trim_start(), to.trim_start())),
        (signed_by_guess(&authentic)?, "signed with a guessed secret".to_owned()),
    ] {
        let answer = answer(wire, request).await?;
        report(&answer, &what)?;
        rejections.0.push(answer);
    }
    let repeated = answer(wire, authentic).await?;
    report(&repeated, "an authentic request again; it is not delivered twice")?;
    Ok(rejections)
}

async fn answer(wire: &Wire, request: AttemptRequest) -> Result<Answer, Failure> {
    let answered = wire.send(request).await;
    answered.map_err(|error| Failure::Internal(anyhow::anyhow!("a forged request got no answer: {error}")))
}

fn report(answer: &Answer, what: &str) -> std::io::Result<()> {
    let (tone, tag) = match answer.status {
        401 => (Tone::Bad, "refused"),
        200 if answer.code == "duplicate" => (Tone::Good, "duplicate"),
        _ => (Tone::Warning, "answered"),
    };
    screen::report(tone, tag, what, &format!("{} {}", answer.status, answer.code))
}

/// Returns the request with a forged temperature and the same signatures, and the true temperature. `None` if the body has no
/// temperature.
fn changed(authentic: &AttemptRequest) -> Option<(AttemptRequest, String)> {
    let text = std::str::from_utf8(&authentic.body).ok()?;
    let body: Value = serde_json::from_str(text).ok()?;
    let value = body.pointer("/event/data/temperature/value")?;
    let forged = text.replace(&format!("\"value\":{value}"), &format!("\"value\":{FORGED}"));
    let mut request = authentic.clone();
    request.body = Bytes::from(forged);
    Some((request, values::celsius(value.as_f64()?)))
}

/// Returns the request with an `X-Dt-Signature` that is signed with a wrong secret.
fn signed_by_guess(authentic: &AttemptRequest) -> anyhow::Result<AttemptRequest> {
    let now = SystemClock.unix_seconds();
    let signer = Signer::secret(Secret::new("guessed")?);
    let token = signer.sign(&authentic.body, now, &xid(now, [0; 8]))?;
    let mut request = authentic.clone();
    request.headers.insert(HeaderName::from_bytes(SECRET_HEADER.as_bytes())?, HeaderValue::try_from(token)?);
    Ok(request)
}
