//! One attempt: what is sent, with which tokens and faults, and what is noted of its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::transport::{AttemptRequest, Cut};
use crate::cloud::Cloud;
use crate::faults::Faults;
use crate::state::Connector;
use dt_verify::event::simulation::Rng;
use dt_verify::{LEEWAY, SECRET_HEADER, Secret, Signer, TOKEN_LIFETIME, xid};

/// The secret of the fault `wrong-secret`.
const WRONG_SECRET: &str = "this is not the secret of any connector";

/// What a retry may be told: the emulator's own name. DT's is not known.
const AGENT: &str = concat!("dt-receiver-emulator/", env!("CARGO_PKG_VERSION"));

/// One attempt at one event for one connector.
pub(super) struct Attempt {
    pub(super) project: String,
    pub(super) connector: String,
    pub(super) incarnation: u64,
    pub(super) number: u64,
    pub(super) entry: u64,
    url: Arc<str>,
    headers: Vec<(String, String)>,
    secret: String,
    body: Arc<str>,
    /// For which time the tokens are made, in Unix milliseconds of the emulated clock; `None` for now.
    tokens_of: Option<i64>,
    unique: [u8; 8],
    cut: Option<Cut>,
    tamper: bool,
    wrong_secret: bool,
    /// Whether its tokens were too old for any receiver, which is known once they are made.
    expired: bool,
}

impl Attempt {
    /// The entry in the ledger and the body of an item of the connector's queue, and when it was tried first, make one.
    pub(super) fn new(
        project: &str,
        connector: &Connector,
        number: u64,
        (entry, body): (u64, Arc<str>),
        first_tried_at: i64,
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
            entry,
            url: settings.url.as_str().into(),
            headers: settings.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            secret: settings.signature_secret.clone(),
            body,
            tokens_of: faults.stale_tokens.then_some(first_tried_at),
            unique: rng.next_u64().to_be_bytes(),
            cut,
            tamper: rng.chance(faults.tamper),
            wrong_secret: rng.chance(faults.wrong_secret) && !settings.signature_secret.is_empty(),
            expired: false,
        }
    }

    /// Whether a receiver that verifies should accept it.
    pub(super) const fn is_fair(&self) -> bool {
        !self.tamper && !self.wrong_secret && !self.expired
    }

    /// Sends it and notes how that ended.
    pub(super) async fn make(mut self, cloud: Arc<Cloud>) {
        let began = Instant::now();
        let answered = match self.request(&cloud) {
            Some(request) => cloud.transport().post(request).await,
            None => Err("request_unusable"),
        };
        let took: Duration = began.elapsed();
        let accepted = answered.is_ok_and(|status| (200..300).contains(&status));
        let how = answered.map_or_else(str::to_owned, |status| format!("status_{status}"));
        cloud.with_state(|state, now| super::ended(state, &self, took, &how, accepted, now));
    }

    fn request(&mut self, cloud: &Cloud) -> Option<AttemptRequest> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        for (name, value) in &self.headers {
            headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, secret_value(value)?);
        }
        // Tokens are checked by the receiver's clock; a stale one is as old there as it is here.
        let issued_at = cloud.wall_time_of(self.tokens_of);
        let age = cloud.wall_seconds().saturating_sub(issued_at);
        self.expired = age > TOKEN_LIFETIME.saturating_add(LEEWAY);
        let jti = xid(issued_at, self.unique);
        let secret = if self.wrong_secret { WRONG_SECRET } else { &self.secret };
        let secret = Secret::new(secret).ok().map(Signer::secret);
        for signer in secret.into_iter().chain(cloud.signer()) {
            let mut token = signer.sign(self.body.as_bytes(), issued_at, &jti).ok()?;
            if self.wrong_secret && signer.header_name() != SECRET_HEADER {
                // A receiver that only looks at this header must have something to refuse as well.
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

/// A token whose signature belongs to another one.
fn with_wrong_signature(token: &str) -> Option<String> {
    let (signed, signature) = token.rsplit_once('.')?;
    let mut characters = signature.chars();
    let first = if characters.next()? == 'A' { 'B' } else { 'A' };
    Some(format!("{signed}.{first}{}", characters.as_str()))
}

/// A value that `Debug` does not show: custom headers may be credentials.
fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
