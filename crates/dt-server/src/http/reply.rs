//! The table of answers. It alone determines the HTTP statuses. An answer contains only the event's id from the request, and
//! nothing from the configuration, from paths or from error texts of libraries.

use bytes::Bytes;
use bytestring::ByteString;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use super::intake::Unavailable;
use dt_sink::record::{RequestId, escaped};
use dt_verify::Rejection;

/// The header with the request's id. Only hyper's own answers to malformed HTTP do not have it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The answer to a request.
#[derive(Debug)]
pub enum Reply {
    Accepted {
        event_id: ByteString,
    },
    Duplicate {
        event_id: ByteString,
    },
    Ignored {
        event_id: ByteString,
    },
    Quarantined,
    Refused {
        rejection: Rejection,
        /// Whether the body was not read to its end.
        unread: bool,
    },
    ProjectNotAllowed {
        found: ByteString,
    },
    AddressNotAllowed,
    NotFound,
    MethodNotAllowed,
    BodyUnreadable,
    BodyTimeout,
    BodyTooLarge,
    Unavailable(Unavailable),
    ShuttingDown,
}

impl Reply {
    /// Returns the HTTP status.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Accepted { .. } | Self::Duplicate { .. } | Self::Ignored { .. } | Self::Quarantined => {
                StatusCode::OK
            }
            Self::Refused { .. } => StatusCode::UNAUTHORIZED,
            Self::ProjectNotAllowed { .. } | Self::AddressNotAllowed => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyUnreadable => StatusCode::BAD_REQUEST,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unavailable(_) | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the stable code of the answer: `reason` in metrics and logs, `code` in the problem details.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Duplicate { .. } => "duplicate",
            Self::Ignored { .. } => "ignored",
            Self::Quarantined => "quarantined",
            Self::Refused { rejection, .. } => rejection.code(),
            Self::ProjectNotAllowed { .. } => "project_not_allowed",
            Self::AddressNotAllowed => "address_not_allowed",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyUnreadable => "body_unreadable",
            Self::BodyTimeout => "body_timeout",
            Self::BodyTooLarge => "body_too_large",
            Self::Unavailable(Unavailable::Overloaded) => "overloaded",
            Self::Unavailable(Unavailable::Sink) => "sink_unavailable",
            Self::Unavailable(Unavailable::Storage) => "storage_unavailable",
            Self::Unavailable(Unavailable::Keys) => "keys_unavailable",
            Self::Unavailable(Unavailable::Unverified) => "unverified",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// Returns the status and the reason of every possible answer.
    pub fn outcomes() -> Vec<(StatusCode, &'static str)> {
        let event_id = ByteString::new;
        let replies = [
            Self::Accepted { event_id: event_id() },
            Self::Duplicate { event_id: event_id() },
            Self::Ignored { event_id: event_id() },
            Self::Quarantined,
            Self::ProjectNotAllowed { found: ByteString::new() },
            Self::AddressNotAllowed,
            Self::NotFound,
            Self::MethodNotAllowed,
            Self::BodyUnreadable,
            Self::BodyTimeout,
            Self::BodyTooLarge,
            Self::Unavailable(Unavailable::Overloaded),
            Self::Unavailable(Unavailable::Sink),
            Self::Unavailable(Unavailable::Storage),
            Self::Unavailable(Unavailable::Keys),
            Self::Unavailable(Unavailable::Unverified),
            Self::ShuttingDown,
        ];
        let of_rejections = Rejection::CODES.map(|code| (StatusCode::UNAUTHORIZED, code));
        replies.iter().map(|reply| (reply.status(), reply.reason())).chain(of_rejections).collect()
    }

    /// Returns the title of the problem details.
    const fn title(&self) -> &'static str {
        match self {
            Self::Accepted { .. } | Self::Duplicate { .. } | Self::Ignored { .. } | Self::Quarantined => "OK",
            Self::Refused { .. } => "The request is not authentic, or no longer valid",
            Self::ProjectNotAllowed { .. } => "The event's project is not allowed here",
            Self::AddressNotAllowed => "Requests from this address are not allowed here",
            Self::NotFound => "No connector has this path",
            Self::MethodNotAllowed => "Only POST is allowed",
            Self::BodyUnreadable => "The body ended before its length",
            Self::BodyTimeout => "The body took too long",
            Self::BodyTooLarge => "The body is too large",
            Self::Unavailable(Unavailable::Keys | Unavailable::Unverified) => {
                "The signature cannot be verified now; try again"
            }
            Self::Unavailable(_) => "The event cannot be stored now; try again",
            Self::ShuttingDown => "The receiver is shutting down; try again",
        }
    }

    /// Makes the response, with the request's id in a header.
    pub fn into_response(self, id: RequestId) -> Response<Full<Bytes>> {
        let (status, code) = (self.status(), self.reason());
        let (content_type, body) = match &self {
            Self::Accepted { event_id } | Self::Duplicate { event_id } | Self::Ignored { event_id } => {
                // Most answers are of this kind, so it is written without a JSON tree.
                let body = format!(r#"{{"eventId":"{}","status":"{code}"}}"#, escaped(event_id));
                ("application/json", body)
            }
            Self::Quarantined => ("application/json", json!({"status": code}).to_string()),
            _ => {
                let problem = json!({"title": self.title(), "status": status.as_u16(), "code": code});
                ("application/problem+json", problem.to_string())
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(REQUEST_ID, id.header_value());
        match self {
            Self::MethodNotAllowed => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            Self::Unavailable(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Self::ShuttingDown => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            // The rest of the body may still arrive and would be read as a request, so the connection is closed.
            Self::BodyUnreadable
            | Self::BodyTimeout
            | Self::BodyTooLarge
            | Self::AddressNotAllowed
            | Self::Refused { unread: true, .. } => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}
