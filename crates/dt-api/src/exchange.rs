//! Sends a request until there is a response, or until a further attempt is useless.
//!
//! | outcome of an attempt | repeated |
//! |---|---|
//! | no connection, 429: DT has done nothing | always |
//! | 408, 5xx, no answer in time, a connection that broke, half an answer | only if the request may be repeated |
//! | 401 with an access token | once, with a new token |
//! | anything else | never |
//!
//! A 503 does not prove that DT has done nothing: a gateway also sends it after it has forwarded the request.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::client::Inner;
use crate::connection::causes;
use crate::error::{Error, FailedCall};
use crate::json::{self, BadAnswer, Object};
use crate::retry::retry_after;
use crate::secret_text::{SecretText, shown};

/// The largest body of a response, in bytes. A page of 1,000 devices has about 4 MB.
const MAX_ANSWER: usize = 16 << 20;

/// The largest body of a response without a success status, in bytes. A larger one is not read.
const MAX_REASON: usize = 64 << 10;

/// The time limit for the body of a response without a success status, after its status line.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// The value of the header `User-Agent`, in the form that DT's own clients use.
const NAME: &str = concat!("dt-receiver/", env!("CARGO_PKG_VERSION"));

/// The part of a response with a success status that a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// The body, which must be a JSON object.
    Json,
    /// Nothing: DT sends `{}`, and an empty body is accepted as well.
    Nothing,
    /// The body as a stream, while it is received.
    Stream,
}

/// A request to the API, and how its response is handled.
pub struct Call {
    pub method: Method,
    /// The path below the base URL, with a leading slash.
    pub path: String,
    /// The query, without `?`; empty if there is none.
    pub query: String,
    /// The JSON body; empty if there is none.
    pub body: Bytes,
    /// The parts of the body that an error message must not contain.
    pub hidden: Vec<SecretText>,
    /// Whether the request has the same effect if DT receives it twice.
    pub is_repeatable: bool,
    pub needs: Needs,
    pub accept: &'static str,
}

impl Call {
    /// Returns a `GET` request, which can be repeated.
    pub fn get(path: String) -> Self {
        Self {
            method: Method::GET,
            path,
            query: String::new(),
            body: Bytes::new(),
            hidden: Vec::new(),
            is_repeatable: true,
            needs: Needs::Json,
            accept: "application/json",
        }
    }

    /// Returns a request that changes something, with an empty body.
    pub fn change(method: Method, path: String, is_repeatable: bool) -> Self {
        Self { method, is_repeatable, ..Self::get(path) }
    }
}

/// A response with a success status.
pub struct Answer {
    /// The complete body; empty for [`Needs::Stream`].
    pub body: Bytes,
    /// The body that is still to be received, for [`Needs::Stream`]; otherwise `None`.
    pub open: Option<OpenBody>,
    /// The call, for errors about the response.
    pub call: Box<FailedCall>,
}

/// The body of a response, while it is received.
pub struct OpenBody {
    pub body: Incoming,
    pub content_type: Option<HeaderValue>,
    /// The value of the header `Authorization` in the request, which an error message must not contain.
    pub authorization: HeaderValue,
}

impl Answer {
    /// Parses the body as a JSON object, and reads it with `read`.
    pub fn read<T>(&self, read: impl FnOnce(&Object<'_>) -> Result<T, BadAnswer>) -> Result<T, Error> {
        let value = Object::of_body(&self.body).and_then(|object| read(&object));
        value.map_err(|bad| not_understood(self.call.clone(), bad))
    }
}

/// Returns the error for a response that is not as documented.
pub fn not_understood(call: Box<FailedCall>, bad: BadAnswer) -> Error {
    let BadAnswer { path, expected, found } = bad;
    Error::NotUnderstood { call, path, expected, found }
}

/// Whether another attempt is made after a failed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// DT has not carried out the request, and may do so later: another attempt is made. `after` is the pause that DT requests.
    Repeat { after: Option<Duration> },
    /// DT may have carried out the request: another attempt is made only if the request is repeatable. `after` is the pause that
    /// DT requests.
    RepeatIfSafe { after: Option<Duration> },
    /// DT does not accept the access token: one more attempt is made with a new token.
    NewToken,
    /// Another attempt would fail as well: none is made.
    Stop,
}

/// A failed attempt: the error, and whether another attempt is made.
pub struct Failure {
    pub error: Error,
    pub next: Next,
}

impl Failure {
    pub const fn stop(error: Error) -> Self {
        Self { error, next: Next::Stop }
    }
}

impl Inner {
    /// Sends a request until there is a response with a success status. Returns the error of the last attempt if none is left.
    pub async fn answer(&self, call: &Call) -> Result<Answer, Error> {
        self.pace().await;
        let started = Instant::now();
        let mut failed = FailedCall {
            method: call.method.clone(),
            url: format!("{}{}", self.api.as_str(), call.path),
            attempts: 0,
            may_have_been_done: false,
        };
        let mut has_new_token = false;
        loop {
            failed.attempts = failed.attempts.saturating_add(1);
            let left = self.limits.total.saturating_sub(started.elapsed());
            let limit = self.limits.request.min(left);
            let failure = match tokio::time::timeout(limit, self.attempt(call, &failed)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => Failure {
                    error: Error::Timeout { call: failed.boxed(), limit },
                    next: Next::RepeatIfSafe { after: None },
                },
            };
            let is_change = call.method != Method::GET;
            failed.may_have_been_done |= is_change && matches!(failure.next, Next::RepeatIfSafe { .. });
            let error = failure.error.with(failed.attempts, failed.may_have_been_done);
            let pause = match failure.next {
                Next::Stop => return Err(error),
                Next::RepeatIfSafe { .. } if !call.is_repeatable => return Err(error),
                Next::NewToken if has_new_token => return Err(error),
                Next::NewToken => {
                    has_new_token = true;
                    self.pace().await;
                    continue;
                }
                Next::RepeatIfSafe { after } | Next::Repeat { after } => {
                    after.unwrap_or_else(|| self.backoff.pause(failed.attempts))
                }
            };
            let left = self.limits.total.saturating_sub(started.elapsed());
            if failed.attempts >= self.limits.attempts || pause >= left {
                return Err(error);
            }
            tracing::debug!(
                code = error.code(),
                url = failed.url,
                ?pause,
                "DT's API: the request is repeated"
            );
            tokio::time::sleep(pause).await;
            self.pace().await;
        }
    }

    /// Waits until the rate of requests permits an attempt.
    async fn pace(&self) {
        if let Some(pace) = &self.pace {
            pace.wait().await;
        }
    }

    /// Sends a request once. Any status other than success is an error.
    async fn attempt(&self, call: &Call, failed: &FailedCall) -> Result<Answer, Failure> {
        let authorization = self.authorization().await?;
        let url = match call.query.is_empty() {
            true => failed.url.clone(),
            false => format!("{}?{}", failed.url, call.query),
        };
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        let bad_url = Error::Argument { name: "query", expected: "one that fits into a URL" };
        *request.uri_mut() = url.parse().map_err(|_| Failure::stop(bad_url))?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(call.accept));
        headers.insert(AUTHORIZATION, authorization.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(NAME));
        if !call.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        } else if call.method == Method::POST {
            // hyper leaves it out; a server may answer 411 (RFC 9110, section 8.6).
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let response = self.http.request(request).await.map_err(|error| no_answer(failed.boxed(), &error))?;
        let (parts, body) = response.into_parts();
        if !parts.status.is_success() {
            let reason = self.reason(body, &call.hidden, &authorization).await;
            let retry_after = retry_after(&parts.headers, (self.clock)());
            let next = match parts.status {
                StatusCode::UNAUTHORIZED if self.forget_token(&authorization).await => Next::NewToken,
                StatusCode::TOO_MANY_REQUESTS => Next::Repeat { after: retry_after },
                status if is_of_dt(status) => Next::RepeatIfSafe { after: retry_after },
                _ => Next::Stop,
            };
            return Err(Failure {
                error: of_status(failed.boxed(), parts.status, reason, retry_after),
                next,
            });
        }
        // From here on DT has carried it out, whatever is wrong with the answer.
        let failed = &FailedCall { may_have_been_done: call.method != Method::GET, ..failed.clone() };
        if call.needs == Needs::Stream {
            let content_type = parts.headers.get(CONTENT_TYPE).cloned();
            let open = OpenBody { body, content_type, authorization };
            return Ok(Answer { body: Bytes::new(), open: Some(open), call: failed.boxed() });
        }
        let body = read(body, failed).await?;
        // A body that ends with its connection has no length, so half of it looks complete.
        if call.needs == Needs::Json
            && let Err(BadAnswer { found, .. }) = Object::of_body(&body)
            && found == json::INCOMPLETE
        {
            let error = Error::Network { call: failed.boxed(), text: "the answer is incomplete".to_owned() };
            return Err(Failure { error, next: Next::RepeatIfSafe { after: None } });
        }
        Ok(Answer { body, open: None, call: failed.boxed() })
    }

    /// Returns the error message in the body of DT's response; `no reason given` if the body has none. `hidden` and the token in
    /// `authorization` are redacted in it.
    pub async fn reason(&self, body: Incoming, hidden: &[SecretText], authorization: &HeaderValue) -> String {
        // Without a readable body, the status has to suffice.
        let body = tokio::time::timeout(REASON_TIMEOUT, Limited::new(body, MAX_REASON).collect()).await;
        let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        self.shown(&json::reason(&body).unwrap_or_default(), hidden, authorization)
    }

    /// Returns a text from DT, made safe for an error message: redacts `hidden`, the token in `authorization` and the client's
    /// secret, escapes control characters, and cuts the text after 200 characters.
    pub fn shown(&self, text: &str, hidden: &[SecretText], authorization: &HeaderValue) -> String {
        let token = authorization.to_str().unwrap_or_default();
        let token = token.split_once(' ').map_or(token, |(_, token)| token);
        let secret = std::str::from_utf8(self.credentials.secret.expose()).unwrap_or_default();
        shown(text, hidden.iter().map(SecretText::expose).chain([token, secret]))
    }
}

/// Receives the complete body of a response, at most 16 MiB.
pub async fn read(body: Incoming, failed: &FailedCall) -> Result<Bytes, Failure> {
    match Limited::new(body, MAX_ANSWER).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            let bad = BadAnswer {
                path: "the body".to_owned(),
                expected: "at most 16 MiB",
                found: "more".to_owned(),
            };
            Err(Failure::stop(not_understood(failed.boxed(), bad)))
        }
        Err(error) => {
            let error =
                Error::Network { call: failed.boxed(), text: causes("the answer is incomplete", &*error) };
            Err(Failure { error, next: Next::RepeatIfSafe { after: None } })
        }
    }
}

/// Returns the failure for a request without a response.
pub fn no_answer(call: Box<FailedCall>, error: &hyper_util::client::legacy::Error) -> Failure {
    let (what, next) = match error.is_connect() {
        true => ("cannot connect", Next::Repeat { after: None }),
        false => ("the connection broke", Next::RepeatIfSafe { after: None }),
    };
    let text = std::error::Error::source(error).map_or_else(|| what.to_owned(), |cause| causes(what, cause));
    Failure { error: Error::Network { call, text }, next }
}

/// Returns whether a status says that DT could not process the request.
const fn is_of_dt(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 500..=599)
}

/// Returns the error for a response with this status.
pub fn of_status(
    call: Box<FailedCall>,
    status: StatusCode,
    text: String,
    retry_after: Option<Duration>,
) -> Error {
    match status.as_u16() {
        401 => Error::Credentials { call, status, text },
        403 => Error::Forbidden { call, text },
        404 => Error::NotFound { call, text },
        429 => Error::RateLimited { call, retry_after, text },
        _ if is_of_dt(status) => Error::Unavailable { call, status, text },
        400..=499 => Error::Rejected { call, status, text },
        _ => {
            let found = format!("{}", status.as_u16());
            not_understood(call, BadAnswer { path: "status".to_owned(), expected: "200", found })
        }
    }
}
