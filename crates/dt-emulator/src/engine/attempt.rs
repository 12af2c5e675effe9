//! One attempt to deliver an event: its request, with tokens and faults, and its result.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::queue::QueuedEvent;
use super::transport::{AttemptRequest, Cut};
use crate::cloud::Cloud;
use crate::faults::Faults;
use crate::state::Connector;
use dt_verify::event::simulation::Rng;
use dt_verify::{LEEWAY, SECRET_HEADER, Secret, Signer, TOKEN_LIFETIME, xid};

/// The secret of the fault `wrong-secret`.
const WRONG_SECRET: &str = "this is not the secret of any connector";

/// The `User-Agent` of deliveries. DT's is not known.
const USER_AGENT_VALUE: &str = concat!("dt-receiver-emulator/", env!("CARGO_PKG_VERSION"));

/// One attempt to deliver one event for one connector.
pub struct Attempt {
    pub project: String,
    pub connector: String,
    pub incarnation: u64,
    pub number: u64,
    pub entry: u64,
    url: Arc<str>,
    headers: Vec<(String, String)>,
    secret: String,
    body: Arc<str>,
    /// The time for which the tokens are issued, in Unix milliseconds of the emulated clock; `None` for now.
    tokens_of: Option<i64>,
    unique: [u8; 8],
    cut: Option<Cut>,
    tamper: bool,
    wrong_secret: bool,
    /// Whether the tokens of the attempt are too old for any receiver. Set when they are issued.
    expired: bool,
}

/// The result of an attempt.
pub(super) struct AttemptResult {
    /// The status or the error, such as `status_200` or `timeout`.
    pub outcome: String,
    /// Whether the receiver answered 2xx.
    pub is_accepted: bool,
    /// The time until the response or the error, on the machine's clock.
    pub duration: Duration,
}

impl Attempt {
    /// Prepares an attempt to deliver an event of the connector's queue, and determines at random which faults it has.
    pub fn new(
        project: &str,
        connector: &Connector,
        (number, event): (u64, &QueuedEvent),
        faults: &Faults,
        rng: &mut Rng,
    ) -> Self {
        let settings = &connector.settings;
        let cut = rng.chance(faults.drop).then(|| if rng.chance(0.5) { Cut::Request } else { Cut::Answer });
        Self {
            project: project.to_owned(),
            connector: connector.id.clone(),
            incarnation: connector.incarnation,
            number,
            entry: event.entry,
            url: settings.url.as_str().into(),
            headers: settings.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            secret: settings.signature_secret.clone(),
            body: Arc::clone(&event.body),
            tokens_of: event.first_tried_at.filter(|_| faults.stale_tokens),
            unique: rng.next_u64().to_be_bytes(),
            cut,
            tamper: rng.chance(faults.tamper),
            wrong_secret: rng.chance(faults.wrong_secret) && !settings.signature_secret.is_empty(),
            expired: false,
        }
    }

    /// Returns whether a receiver that verifies requests should accept the attempt.
    pub const fn is_valid(&self) -> bool {
        !self.tamper && !self.wrong_secret && !self.expired
    }

    /// Sends the request and records the result.
    pub async fn make(mut self, cloud: Arc<Cloud>) {
        let start = Instant::now();
        let answered = match self.request(&cloud) {
            Some(request) => cloud.transport().post(request).await,
            None => Err("request_unusable"),
        };
        let result = AttemptResult {
            is_accepted: answered.is_ok_and(|status| (200..300).contains(&status)),
            outcome: answered.map_or_else(str::to_owned, |status| format!("status_{status}")),
            duration: start.elapsed(),
        };
        cloud.with_state(|state, now| super::record(state, &self, &result, now));
    }

    fn request(&mut self, cloud: &Cloud) -> Option<AttemptRequest> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
        for (name, value) in &self.headers {
            headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, secret_value(value)?);
        }
        // Receivers check tokens by the machine's clock, on which a stale token has the same age as on the emulated one.
        let issued_at = cloud.wall_time_of(self.tokens_of);
        let age = cloud.wall_seconds().saturating_sub(issued_at);
        self.expired = age > TOKEN_LIFETIME.saturating_add(LEEWAY);
        let jti = xid(issued_at, self.unique);
        let secret = if self.wrong_secret { WRONG_SECRET } else { &self.secret };
        let secret = Secret::new(secret).ok().map(Signer::secret);
        for signer in secret.into_iter().chain(cloud.signer()) {
            let mut token = signer.sign(self.body.as_bytes(), issued_at, &jti).ok()?;
            if self.wrong_secret && signer.header_name() != SECRET_HEADER {
                // A receiver that verifies only this header must reject the request as well.
                token = with_wrong_signature(&token)?;
            }
            let name = HeaderName::from_bytes(signer.header_name().as_bytes()).ok()?;
            headers.insert(name, secret_value(&token)?);
        }
        let mut body = self.body.as_bytes().to_vec();
        if self.tamper {
            let middle = body.len().checked_div(2).unwrap_or(0);
            if let Some(byte) = body.get_mut(middle) {
                *byte ^= 1;
            }
        }
        Some(AttemptRequest { url: Arc::clone(&self.url), headers, body: Bytes::from(body), cut: self.cut })
    }
}

/// Returns a token whose signature does not match.
fn with_wrong_signature(token: &str) -> Option<String> {
    let (signed, signature) = token.rsplit_once('.')?;
    let mut characters = signature.chars();
    let first = if characters.next()? == 'A' { 'B' } else { 'A' };
    Some(format!("{signed}.{first}{}", characters.as_str()))
}

/// Returns a header value that `Debug` does not show: custom headers may be credentials.
fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
