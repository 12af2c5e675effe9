//! The errors of DT's REST API: `{"error":…,"code":…,"help":…}`, and `{"error":{"code":…,"message":…}}` for
//! `devices:stream`.

use http::StatusCode;
use serde_json::{Value, json};

/// The page on which DT explains its errors.
const HELP: &str = "https://docs.developer.disruptive-technologies.com/error-codes";

/// A response with a status other than 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    pub text: String,
    /// The header `Retry-After`, in seconds; `None` to omit it.
    pub retry_after: Option<u16>,
    /// The header `Allow`; `None` to omit it.
    pub allow: Option<&'static str>,
    /// The member `error` of RFC 6749, for the token endpoint; `None` for other calls.
    pub oauth: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), retry_after: None, allow: None, oauth: None }
    }

    pub(crate) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(crate) fn unauthorized(text: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, text)
    }

    pub(crate) fn forbidden(text: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, text)
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    pub(crate) fn conflict(text: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, text)
    }

    pub(crate) fn method(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("expected {allow}")) }
    }

    pub(crate) fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB")
    }

    pub(crate) fn timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "the body was not complete within 10 s")
    }

    /// Returns 429. `Retry-After` is in seconds, since DT's Python client cannot read a date; with the fault `retry-after-date` it
    /// is a date.
    pub(crate) fn too_many(text: impl Into<String>) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::TOO_MANY_REQUESTS, text) }
    }

    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    /// Returns the body of a response to `devices:stream`. DT's Python client 1.7.3 reads it as a line of the stream for any
    /// status, and expects `error.code`.
    pub(crate) fn stream_body(&self) -> Value {
        json!({"error": {"code": self.status.as_u16(), "message": self.text}})
    }

    /// Returns the body of a response to any other call.
    pub(crate) fn body(&self) -> Value {
        let code = self.status.as_u16();
        match self.oauth {
            None => json!({"error": self.text, "code": code, "help": format!("{HELP}#{code}")}),
            Some(error) => {
                json!({"error": error, "error_description": self.text, "code": code, "help": HELP})
            }
        }
    }
}
