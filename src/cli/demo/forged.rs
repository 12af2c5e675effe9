//! Requests that are not authentic, made from a delivery that was: what an attacker could send.

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

/// The temperature that the attacker wants to be believed, in °C.
const FORGED: &str = "99.5";

/// The answers to the forged requests.
#[derive(Debug, Default)]
pub(super) struct Refusals(Vec<Answer>);

impl Refusals {
    /// Returns the codes of the refusals, and how many there are.
    pub(super) fn codes(&self) -> Vec<&str> {
        self.0.iter().filter(|answer| answer.status == 401).map(|answer| answer.code.as_str()).collect()
    }

    /// Returns how many forged requests were accepted.
    pub(super) fn accepted(&self) -> usize {
        self.0.iter().filter(|answer| (200..300).contains(&answer.status)).count()
    }
}

/// Sends an authentic delivery three times more: changed, signed by a guessed secret, and unchanged.
///
/// # Errors
///
/// [`Failure::Internal`] when there is no answer.
pub(super) async fn send(wire: &Wire) -> Result<Refusals, Failure> {
    let authentic = wire.temperature().await.context("waiting for a temperature")?;
    let (changed, from) = changed(&authentic).context("changing a delivery")?;
    let to = FORGED.parse().map(values::celsius).unwrap_or_default();
    let mut refusals = Refusals::default();
    for (request, what) in [
        (changed, format!("{} changed to {} on the way", from.trim_start(), to.trim_start())),
        (signed_by_guess(&authentic)?, "signed with a guessed secret".to_owned()),
    ] {
        let answer = answer(wire, request).await?;
        report(&answer, &what)?;
        refusals.0.push(answer);
    }
    let repeated = answer(wire, authentic).await?;
    report(&repeated, "an authentic request again; it is not delivered twice")?;
    Ok(refusals)
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

/// Returns the delivery with another temperature under the same signatures, and the true temperature.
fn changed(authentic: &AttemptRequest) -> Option<(AttemptRequest, String)> {
    let text = std::str::from_utf8(&authentic.body).ok()?;
    let body: Value = serde_json::from_str(text).ok()?;
    let value = body.pointer("/event/data/temperature/value")?;
    let forged = text.replace(&format!("\"value\":{value}"), &format!("\"value\":{FORGED}"));
    let mut request = authentic.clone();
    request.body = Bytes::from(forged);
    Some((request, values::celsius(value.as_f64()?)))
}

/// Returns the delivery with an `X-Dt-Signature` by somebody who does not know the secret.
fn signed_by_guess(authentic: &AttemptRequest) -> anyhow::Result<AttemptRequest> {
    let now = SystemClock.unix_seconds();
    let signer = Signer::secret(Secret::new("guessed")?);
    let token = signer.sign(&authentic.body, now, &xid(now, [0; 8]))?;
    let mut request = authentic.clone();
    request.headers.insert(HeaderName::from_bytes(SECRET_HEADER.as_bytes())?, HeaderValue::try_from(token)?);
    Ok(request)
}
