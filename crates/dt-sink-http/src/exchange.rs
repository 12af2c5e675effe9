//! Makes the requests for records, and determines the result of each record by the responses.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;

use dt_sink::clock::Clock;
use dt_sink::config::ClientTls;
use dt_sink::{Fate, Format, OpenError, Record, tls};
use dt_verify::{Secret, Signer};

use crate::answer::{Verdict, advice, retry_after};
use crate::client::{Answer, Client};
use crate::request::{Encoder, digest, idempotency_key};
use crate::settings::HttpConfig;
use crate::signature::Signatures;
use crate::url::TargetUrl;

/// The number of consecutive rejected records after which the target is assumed to be the cause.
pub const MAX_REJECTED: u32 = 10;
/// The largest number of characters of a response's body in an error message.
const MAX_SHOWN: usize = 200;
/// The smallest size in bytes of a part of a secret that is redacted as well. Shorter parts are words such as `Bearer` or `api`.
const MIN_PART: usize = 8;

/// The largest number of characters of an event id or a device in an error message.
const MAX_NAME: usize = 64;

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Why records were not delivered. A later attempt may succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The cause, in words fit for a log line. For a fault of single events, it names the first of them.
    pub error: String,
    /// Whether the target is at fault, so that all other records would fail, too.
    pub is_of_target: bool,
    /// How long the target requests to wait; `None` if it does not.
    pub pause: Option<Duration>,
}

/// The result of sending some records.
#[derive(Debug, Default)]
pub struct Sent {
    /// The result of each record, in order; `None` for a record that was not sent since the sink pauses.
    pub fates: Vec<Option<Fate>>,
    /// Why records have the result [`Fate::Retry`]; `None` if no record has it.
    pub failure: Option<Failure>,
}

/// The numbers of requests by their outcome.
#[derive(Debug, Default)]
pub struct Counts {
    pub accepted: AtomicU64,
    pub rejected: AtomicU64,
    pub failed: AtomicU64,
    pub signed: AtomicU64,
}

/// The state that all requests of a sink share.
pub struct Exchange {
    url: TargetUrl,
    client: Client,
    encoder: Encoder,
    signatures: Signatures,
    /// The configured headers, `Authorization` and `User-Agent`.
    headers: HeaderMap,
    /// The secrets that a response may repeat, and that an error message must not contain.
    secrets: Vec<Secret>,
    clock: Arc<dyn Clock>,
    /// The number of consecutive rejected records. The sink keeps it when the exchange is replaced.
    rejected_in_a_row: Arc<AtomicU32>,
    /// Whether no further request may be started.
    pub is_closing: AtomicBool,
    pub counts: Counts,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("url", &self.url)
            .field("encoder", &self.encoder)
            .finish_non_exhaustive()
    }
}

/// The meaning of a response for the records of its request.
enum Outcome {
    Accepted,
    /// The encoded body is empty, so no request was sent.
    Nothing,
    Rejected(String),
    Failed(Failure),
}

impl Exchange {
    /// Creates the exchange of a sink, without a connection.
    ///
    /// # Errors
    ///
    /// [`OpenError::Unusable`] if the settings cannot be used.
    pub fn new(
        config: &HttpConfig,
        format: Format,
        timeout: Duration,
        clock: Arc<dyn Clock>,
        rejected_in_a_row: Arc<AtomicU32>,
    ) -> Result<Self, OpenError> {
        let unusable = |what: String| OpenError::Unusable(what);
        let tls = tls::client_config(config.tls.as_ref().unwrap_or(&ClientTls::default()))
            .map_err(|error| unusable(error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers
            .insert(USER_AGENT, HeaderValue::from_static(concat!("dt-receiver/", env!("CARGO_PKG_VERSION"))));
        let mut secrets = Vec::new();
        if let Some(auth) = &config.auth {
            let value =
                auth.header().ok_or_else(|| unusable("auth: the secret cannot be in a header".to_owned()))?;
            secrets.push(auth.secret().clone());
            let credentials = value.as_bytes().split(|byte| *byte == b' ').next_back();
            secrets.extend(credentials.and_then(|credentials| Secret::new(credentials).ok()));
            headers.insert(AUTHORIZATION, value);
        }
        let plain = config.headers.iter().map(|(name, value)| (name, value.as_bytes(), false));
        let secret = config.secret_headers.iter().map(|(name, value)| (name, value.expose(), true));
        for (name, value, is_secret) in plain.chain(secret) {
            let bad = || unusable(format!("the header {} is invalid", name.escape_debug()));
            let name: HeaderName = name.parse().map_err(|_| bad())?;
            let mut header = HeaderValue::from_bytes(value).map_err(|_| bad())?;
            header.set_sensitive(is_secret);
            if is_secret {
                secrets.extend(Secret::new(value).ok());
            }
            headers.insert(name, header);
        }
        secrets.extend(config.url.expose_path().and_then(|path| Secret::new(path).ok()));
        // An answer may contain a segment of the URL, or the token of a header without its scheme.
        let parts: Vec<Secret> = secrets.iter().flat_map(parts).collect();
        secrets.extend(parts);
        // The longest first: one may contain another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        Ok(Self {
            client: Client::new(tls, timeout, config.concurrency),
            encoder: Encoder {
                format,
                fields: config.fields.clone(),
                cloud_events: config.cloudevents,
                batch: config.batch.map(|batch| batch.format),
            },
            signatures: Signatures {
                is_forwarding: config.forward_signature,
                signer: config.sign.clone().map(Signer::secret),
            },
            url: config.url.clone(),
            headers,
            secrets,
            clock,
            rejected_in_a_row,
            is_closing: AtomicBool::new(false),
            counts: Counts::default(),
        })
    }

    /// Returns whether so many consecutive records were rejected that the target is assumed to be the cause, and no record is
    /// rejected.
    pub fn is_holding(&self) -> bool {
        self.rejected_in_a_row.load(Ordering::Relaxed) >= MAX_REJECTED
    }

    /// Sends records in one request. If it is rejected, each half is sent in a request of its own, and so on, until each record
    /// that is at fault is in a request of its own.
    pub async fn send(&self, records: &[Arc<Record>]) -> Sent {
        let mut sent = Sent { fates: vec![None; records.len()], failure: None };
        // The parts that are left, as first index and number of records, the next one last.
        let mut parts = vec![(0, records.len())];
        while let Some((start, count)) = parts.pop() {
            let of_part = records.get(start..).and_then(|rest| rest.get(..count)).unwrap_or_default();
            let fate = match self.send_part(of_part).await {
                Outcome::Accepted => {
                    self.rejected_in_a_row.store(0, Ordering::Relaxed);
                    Fate::Delivered
                }
                Outcome::Nothing => Fate::Delivered,
                Outcome::Rejected(_) if count > 1 && self.is_closing.load(Ordering::Relaxed) => break,
                Outcome::Rejected(_) if count > 1 => {
                    let (half, rest) = (count / 2, count.div_ceil(2));
                    parts.push((start.saturating_add(half), rest));
                    parts.push((start, half));
                    continue;
                }
                Outcome::Rejected(error) if self.may_reject() => Fate::Rejected { error },
                Outcome::Rejected(_) => {
                    sent.failure = Some(Failure { error: self.holding(), is_of_target: false, pause: None });
                    break;
                }
                Outcome::Failed(mut failure) => {
                    // The target may fail for these records only, for ever.
                    if !failure.is_of_target {
                        failure.error.push_str(&format!(", for {}", name_of_first(of_part)));
                    }
                    sent.failure = Some(failure);
                    break;
                }
            };
            sent.fates.iter_mut().skip(start).take(count).for_each(|place| *place = Some(fate.clone()));
            if self.is_closing.load(Ordering::Relaxed) {
                break;
            }
        }
        if let Some(failure) = &sent.failure {
            let retry = || Fate::Retry { error: failure.error.clone() };
            sent.fates.iter_mut().filter(|fate| fate.is_none()).for_each(|fate| *fate = Some(retry()));
        }
        sent
    }

    /// Counts a rejected record. Returns `false` if it must not be rejected, since too many consecutive records were.
    fn may_reject(&self) -> bool {
        let add = |count: u32| count.checked_add(1).filter(|count| *count <= MAX_REJECTED);
        self.rejected_in_a_row.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// Returns the error for a record that would be rejected after too many consecutive ones were.
    fn holding(&self) -> String {
        format!(
            "{}: {MAX_REJECTED} events in a row were rejected, so the target may be at fault; no more are dead-lettered until \
             it accepts one; check `url`, `headers` and `format`, and see `dt-receiver dead list` for its answers",
            self.url
        )
    }

    /// Sends one request with these records.
    async fn send_part(&self, records: &[Arc<Record>]) -> Outcome {
        let request = match self.request(records) {
            Ok(Some(request)) => request,
            Ok(None) => return Outcome::Nothing,
            Err(error) => {
                return Outcome::Failed(Failure { error, is_of_target: true, pause: None });
            }
        };
        let tokens: Vec<HeaderValue> = ["x-dt-signature", "dt-asymmetric-signature"]
            .iter()
            .filter_map(|name| request.headers().get(*name))
            .cloned()
            .collect();
        match self.client.send(request).await {
            Ok(answer) => self.outcome(&answer, &tokens),
            Err(error) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                let error = format!("{}: {error}", self.url);
                Outcome::Failed(Failure { error, is_of_target: true, pause: None })
            }
        }
    }

    /// Returns the request for records; `None` if their encoded body is empty.
    fn request(&self, records: &[Arc<Record>]) -> Result<Option<Request<Full<bytes::Bytes>>>, String> {
        let encoded = self.encoder.encode(records);
        if encoded.body.is_empty() {
            return Ok(None);
        }
        let digest = digest(records);
        let now = self.clock.unix_seconds();
        let unique = digest.first_chunk().copied().unwrap_or_default();
        let signed = self
            .signatures
            .headers(records, &encoded.body, now, unique)
            .map_err(|error| error.to_string())?;
        if signed.is_new {
            self.counts.signed.fetch_add(1, Ordering::Relaxed);
        }
        let mut request = Request::new(Full::new(encoded.body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.expose().clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, encoded.content_type);
        headers.extend(encoded.headers);
        headers.extend(self.headers.clone());
        headers.extend(signed.headers);
        if let Some(key) = idempotency_key(records, &digest) {
            headers.insert(IDEMPOTENCY_KEY.clone(), key);
        }
        Ok(Some(request))
    }

    /// Returns the meaning of a response. `tokens` are the signatures of the request, which are redacted.
    fn outcome(&self, answer: &Answer, tokens: &[HeaderValue]) -> Outcome {
        let verdict = Verdict::of(answer.status);
        let count = match verdict {
            Verdict::Accepted => &self.counts.accepted,
            Verdict::Rejected => &self.counts.rejected,
            Verdict::Busy | Verdict::Pause | Verdict::Misconfigured => &self.counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let status = shown(answer.status);
        let failed =
            |error: String, is_of_target, pause| Outcome::Failed(Failure { error, is_of_target, pause });
        match verdict {
            Verdict::Accepted => Outcome::Accepted,
            Verdict::Rejected => {
                let text = self.shown_body(&answer.body, tokens);
                let text = if text.is_empty() { text } else { format!(": {text}") };
                Outcome::Rejected(format!("{}: status {status}{text}", self.url))
            }
            Verdict::Misconfigured => {
                failed(format!("{}: status {status}; {}", self.url, advice(answer.status)), true, None)
            }
            Verdict::Busy | Verdict::Pause => {
                let pause =
                    retry_after(&answer.headers, self.clock.unix_millis()).filter(|pause| !pause.is_zero());
                let asks = if pause.is_some() { "; the target asks to wait (Retry-After)" } else { "" };
                let is_of_target = verdict == Verdict::Pause || pause.is_some();
                failed(format!("{}: status {status}{asks}", self.url), is_of_target, pause)
            }
        }
    }

    /// Returns the first characters of a response's body on one line, with secrets redacted that it may repeat.
    fn shown_body(&self, body: &[u8], tokens: &[HeaderValue]) -> String {
        let mut text = body.to_vec();
        let tokens = tokens.iter().map(HeaderValue::as_bytes).filter(|token| !token.is_empty());
        for secret in tokens.chain(self.secrets.iter().map(Secret::expose)) {
            text = without(&text, secret);
        }
        let text = String::from_utf8_lossy(&text);
        text.trim().chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect()
    }
}

/// Returns the event id and the device of the first of the records. It does not say how many others there are: that number
/// differs with each attempt while events arrive, and each text would be one more line in the log.
fn name_of_first(records: &[Arc<Record>]) -> String {
    let Some(record) = records.first() else { return "no event".to_owned() };
    let shown = |text: &str| text.chars().take(MAX_NAME).flat_map(char::escape_debug).collect::<String>();
    let device = record.device.as_deref().map_or_else(String::new, |device| format!(" of {}", shown(device)));
    format!("event {}{device}", shown(&record.event_id))
}

/// Returns the parts of a path, a query or a header's value that may be secrets themselves.
fn parts(secret: &Secret) -> Vec<Secret> {
    let parts = secret.expose().split(|byte| b"/?&=:;, ".contains(byte));
    parts.filter(|part| part.len() >= MIN_PART).filter_map(|part| Secret::new(part).ok()).collect()
}

/// Returns a text with each copy of a secret redacted, including a part of it at the end, where the text was cut.
fn without(text: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(secret) {
            out.extend_from_slice(b"[secret]");
            rest = after;
        } else if rest.len() < secret.len() && rest.len() >= 4 && secret.starts_with(rest) {
            out.extend_from_slice(b"[secret]");
            break;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

/// Returns a status as text, such as `404 Not Found`, or as its number if it has no name.
fn shown(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_str()),
        None => status.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_copy_of_a_secret_is_left() {
        for (text, expected) in [
            ("key=s3cret.", "key=[secret]."),
            ("s3crets3cret", "[secret][secret]"),
            ("s3s3cret", "s3[secret]"),
            ("cut off: s3cre", "cut off: [secret]"),
            ("harmless s3", "harmless s3"),
            ("", ""),
        ] {
            assert_eq!(String::from_utf8(without(text.as_bytes(), b"s3cret")).expect("text"), expected);
        }
    }
}
