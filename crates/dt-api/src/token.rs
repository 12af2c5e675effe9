//! The access token: exchanged for an assertion (RFC 7523, section 2.1), kept in memory, and renewed before it expires.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, DATE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;

use crate::client::Inner;
use crate::error::{Error, FailedCall};
use crate::exchange::{Failure, Next, no_answer, not_understood, of_status, read};
use crate::json::{BadAnswer, Object};
use crate::retry::{retry_after, unix_time};
use crate::secret_text::SecretText;

/// The grant type of RFC 7523.
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// How long before its expiry a token is renewed; a tenth of the token's lifetime, if that is less.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// The largest lifetime of a token that is accepted, in seconds.
const MAX_LIFETIME: u64 = 24 * 3600;

/// A larger difference between the system clock and DT's clock explains a rejected assertion, in seconds.
const CLOCK_OFF: i64 = 60;

/// An access token, and when it is renewed.
pub struct Token {
    header: HeaderValue,
    renew_at: Instant,
}

impl Inner {
    /// Returns the value of the header `Authorization`. Requests a new access token if there is none or it expires soon.
    pub async fn authorization(&self) -> Result<HeaderValue, Failure> {
        if let Some(basic) = &self.basic {
            return Ok(basic.clone());
        }
        // The lock is held meanwhile, so that many calls at once need one token only.
        let mut kept = self.token.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(token.header.clone());
        }
        let token = self.fetch_token().await?;
        Ok(kept.insert(token).header.clone())
    }

    /// Discards the access token in `header`, which DT did not accept. Returns `false` for basic auth.
    pub async fn forget_token(&self, header: &HeaderValue) -> bool {
        if self.basic.is_some() {
            return false;
        }
        let mut kept = self.token.lock().await;
        if kept.as_ref().is_some_and(|token| token.header == header) {
            *kept = None;
        }
        true
    }

    async fn fetch_token(&self) -> Result<Token, Failure> {
        let endpoint = self.token_endpoint.as_str();
        let call = Box::new(FailedCall {
            method: Method::POST,
            url: endpoint.to_owned(),
            attempts: 1,
            may_have_been_done: false,
        });
        let now = (self.clock)().div_euclid(1000);
        let bad_url = Error::Argument { name: "token endpoint", expected: "a URL" };
        let bad_secret = Error::Argument { name: "credentials", expected: "a secret that can sign" };
        let assertion = self.credentials.assertion(endpoint, now).ok_or_else(|| Failure::stop(bad_secret))?;
        let form = crate::url::query([("assertion", assertion.as_str()), ("grant_type", GRANT_TYPE)]);
        let mut request = Request::new(Full::new(Bytes::from(form)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = endpoint.parse().map_err(|_| Failure::stop(bad_url))?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        // An unused token has no effect, so the request may always be repeated.
        let repeat = |failure: Failure| match failure.next {
            Next::RepeatIfSafe { after } => Failure { next: Next::Repeat { after }, ..failure },
            _ => failure,
        };
        let sent = self.http.request(request).await;
        let response = sent.map_err(|error| repeat(no_answer(call.clone(), &error)))?;
        let (parts, body) = response.into_parts();
        if !parts.status.is_success() {
            let (hidden, none) = ([SecretText::new(assertion)], HeaderValue::from_static(""));
            let text = self.reason(body, &hidden, &none).await;
            return Err(rejected(call, parts.status, &parts.headers, (text, (self.clock)())));
        }
        let body = read(body, &call).await.map_err(repeat)?;
        let started = Instant::now();
        token_of(&body, started).map_err(|bad| Failure::stop(not_understood(call, bad)))
    }
}

/// Reads the response of the token endpoint.
fn token_of(body: &[u8], now: Instant) -> Result<Token, BadAnswer> {
    let object = Object::of_body(body)?;
    let token = object.text("access_token")?;
    let lifetime = Duration::from_secs(object.count("expires_in")?.min(MAX_LIFETIME));
    let mut header = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| object.malformed("access_token", "a text that can be in a header"))?;
    header.set_sensitive(true);
    let early = RENEW_BEFORE.min(lifetime.checked_div(10).unwrap_or_default());
    let renew_at = now.checked_add(lifetime.saturating_sub(early)).unwrap_or(now);
    Ok(Token { header, renew_at })
}

/// Returns the failure for a response of the token endpoint without a success status. `now` is in Unix milliseconds.
fn rejected(
    call: Box<FailedCall>,
    status: StatusCode,
    headers: &HeaderMap,
    (text, now): (String, i64),
) -> Failure {
    let wait = retry_after(headers, now);
    let error = match status.as_u16() {
        400 | 401 | 403 => match ahead(headers, now) {
            Some(seconds) => Error::ClockOff { call, seconds, text },
            None => Error::Credentials { call, status, text },
        },
        _ => of_status(call, status, text, wait),
    };
    let is_temporary = matches!(error, Error::Unavailable { .. } | Error::RateLimited { .. });
    Failure { error, next: if is_temporary { Next::Repeat { after: wait } } else { Next::Stop } }
}

/// Returns the difference between the system clock and the response's `Date`, in seconds; `None` if it is too small to explain a
/// rejection.
fn ahead(headers: &HeaderMap, now: i64) -> Option<i64> {
    let date = unix_time(headers.get(DATE)?.to_str().ok()?)?;
    let ahead = now.div_euclid(1000).checked_sub(i64::try_from(date.as_secs()).ok()?)?;
    (ahead.unsigned_abs() > CLOCK_OFF.unsigned_abs()).then_some(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renewed_after(body: &str) -> Result<Duration, String> {
        let now = Instant::now();
        let token = token_of(body.as_bytes(), now).map_err(|bad| format!("{}: {}", bad.path, bad.found))?;
        assert_eq!(format!("{:?}", token.header), "Sensitive");
        Ok(token.renew_at.duration_since(now))
    }

    #[test]
    fn a_token_is_renewed_before_it_expires() {
        let after =
            |lifetime: &str| renewed_after(&format!(r#"{{"access_token":"t","expires_in":{lifetime}}}"#));
        assert_eq!(after("3600"), Ok(Duration::from_secs(3540)));
        assert_eq!(after("100"), Ok(Duration::from_secs(90)));
        assert_eq!(after("0"), Ok(Duration::ZERO));
        assert_eq!(after("99999999999999999"), Ok(Duration::from_secs(24 * 3600 - 60)));
        assert_eq!(after("-1"), Err("expires_in: a number".to_owned()));
        assert_eq!(
            renewed_after(r#"{"accessToken":"t","expires_in":1}"#),
            Err("access_token: no such member".to_owned())
        );
        assert_eq!(
            renewed_after(r#"{"access_token":"a\nb","expires_in":1}"#),
            Err("access_token: another form".to_owned())
        );
    }

    #[test]
    fn a_clock_that_is_off_is_named() {
        let headers =
            [(DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT"))].into_iter().collect();
        let date = 784_111_777_000;
        assert_eq!(ahead(&headers, date), None);
        assert_eq!(ahead(&headers, date + 60_999), None);
        assert_eq!(ahead(&headers, date + 3_600_000), Some(3600));
        assert_eq!(ahead(&headers, date - 3_600_000), Some(-3600));
        assert_eq!(ahead(&headers, i64::MIN), Some(i64::MIN.div_euclid(1000) - 784_111_777));
        assert_eq!(ahead(&HeaderMap::new(), 0), None);
    }
}
