//! The errors of calls, sorted by who can fix them.

use std::fmt;
use std::time::Duration;

use http::{Method, StatusCode};

/// The failed call: its request, and its attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailedCall {
    /// The HTTP method of the request.
    pub method: Method,
    /// The URL of the request, without the query.
    pub url: String,
    /// The number of attempts that were made.
    pub attempts: u32,
    /// Whether DT may have carried out the request although the call failed. In this case, read the state before you repeat a
    /// change.
    pub may_have_been_done: bool,
}

impl FailedCall {
    /// Returns a boxed copy, which keeps an error small.
    pub(crate) fn boxed(&self) -> Box<Self> {
        Box::new(self.clone())
    }
}

impl fmt::Display for FailedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.url)?;
        if self.attempts > 1 {
            write!(f, " ({} attempts)", self.attempts)?;
        }
        Ok(())
    }
}

/// Why a call failed.
///
/// The variants are sorted by who can fix the error: first the caller, then an administrator of the DT project, then DT, then the
/// network. No message contains a secret, an access token, or the value of a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument cannot be part of a request. Nothing was sent.
    #[error("{name}: expected {expected}")]
    Argument {
        /// The name of the argument.
        name: &'static str,
        /// The expected form of the argument.
        expected: &'static str,
    },
    /// DT rejects the request's content (400, 409 and others).
    #[error("{call}: DT rejects the request with status {}: {text}", .status.as_u16())]
    Rejected {
        /// The failed call.
        call: Box<FailedCall>,
        /// The status of the response.
        status: StatusCode,
        /// DT's message.
        text: String,
    },
    /// The system clock is wrong, so DT rejects the assertion for an access token.
    #[error(
        "{call}: DT rejects the credentials since the clock of this machine is {} s {}; set it (NTP). DT says: {text}",
        .seconds.unsigned_abs(), if *.seconds < 0 { "behind" } else { "ahead" }
    )]
    ClockOff {
        /// The failed call of the token endpoint.
        call: Box<FailedCall>,
        /// The difference between the system clock and DT's clock in seconds; negative if the system clock is behind.
        seconds: i64,
        /// DT's message.
        text: String,
    },
    /// DT does not accept the credentials (401; 400 to 403 from the token endpoint).
    #[error(
        "{call}: DT rejects the credentials with status {}: {text}; check key id, secret and e-mail of the service account \
         (for basic auth, it must be enabled for the service account)", .status.as_u16()
    )]
    Credentials {
        /// The failed call.
        call: Box<FailedCall>,
        /// The status of the response.
        status: StatusCode,
        /// DT's message.
        text: String,
    },
    /// The role of the service account does not permit the call (403).
    #[error(
        "{call}: the service account has no permission: {text}; grant it a role in the project that permits the call"
    )]
    Forbidden {
        /// The failed call.
        call: Box<FailedCall>,
        /// DT's message.
        text: String,
    },
    /// The project, device or connector does not exist, or the service account cannot see it (404).
    #[error(
        "{call}: not found: {text}; check the ids, and that the service account is a member of the project"
    )]
    NotFound {
        /// The failed call.
        call: Box<FailedCall>,
        /// DT's message.
        text: String,
    },
    /// DT limits the rate of requests (429), and the call may not wait long enough.
    #[error(
        "{call}: DT limits the rate of requests: {text}; try again {}",
        .retry_after.map_or_else(|| "later".to_owned(), |wait| format!("in {} s", wait.as_secs()))
    )]
    RateLimited {
        /// The failed call.
        call: Box<FailedCall>,
        /// The value of `Retry-After`; `None` if DT does not send it.
        retry_after: Option<Duration>,
        /// DT's message.
        text: String,
    },
    /// DT cannot process the request (5xx).
    #[error("{call}: DT cannot answer, status {}: {text}; try again later", .status.as_u16())]
    Unavailable {
        /// The failed call.
        call: Box<FailedCall>,
        /// The status of the response.
        status: StatusCode,
        /// DT's message.
        text: String,
    },
    /// The response is not as documented: DT has changed the API, or the URL is that of another server.
    #[error(
        "{call}: the answer is not as documented: `{path}`: found {found}; expected {expected}. Check the base URL; \
         otherwise a newer version of this program may know the change"
    )]
    NotUnderstood {
        /// The failed call.
        call: Box<FailedCall>,
        /// The path of the member in the response, such as `devices[3].name`.
        path: String,
        /// The value that was expected at this path.
        expected: &'static str,
        /// A description of what was found at this path. It never contains a value of the response.
        found: String,
    },
    /// There is no connection, or it was interrupted before the response was complete.
    #[error("{call}: {text}; check the network and the base URL")]
    Network {
        /// The failed call.
        call: Box<FailedCall>,
        /// The cause, in words.
        text: String,
    },
    /// The response was not complete within the time limit.
    #[error("{call}: no answer within {limit:?}; check the network, or try again later")]
    Timeout {
        /// The failed call.
        call: Box<FailedCall>,
        /// The time limit that was exceeded.
        limit: Duration,
    },
}

impl Error {
    /// Returns the stable name of the error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Argument { .. } => "argument",
            Self::Rejected { .. } => "rejected",
            Self::ClockOff { .. } => "clock_off",
            Self::Credentials { .. } => "credentials",
            Self::Forbidden { .. } => "forbidden",
            Self::NotFound { .. } => "not_found",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } => "unavailable",
            Self::NotUnderstood { .. } => "not_understood",
            Self::Network { .. } => "network",
            Self::Timeout { .. } => "timeout",
        }
    }

    /// Returns the failed call; `None` if no request was sent.
    #[must_use]
    pub fn call(&self) -> Option<&FailedCall> {
        match self {
            Self::Argument { .. } => None,
            Self::Rejected { call, .. }
            | Self::ClockOff { call, .. }
            | Self::Credentials { call, .. }
            | Self::Forbidden { call, .. }
            | Self::NotFound { call, .. }
            | Self::RateLimited { call, .. }
            | Self::Unavailable { call, .. }
            | Self::NotUnderstood { call, .. }
            | Self::Network { call, .. }
            | Self::Timeout { call, .. } => Some(call),
        }
    }

    /// Sets the number of attempts, and whether DT may have carried out one of them, in an error of a call.
    pub(crate) fn with(mut self, attempts: u32, may_have_been_done: bool) -> Self {
        match &mut self {
            Self::Argument { .. } => {}
            Self::Rejected { call, .. }
            | Self::ClockOff { call, .. }
            | Self::Credentials { call, .. }
            | Self::Forbidden { call, .. }
            | Self::NotFound { call, .. }
            | Self::RateLimited { call, .. }
            | Self::Unavailable { call, .. }
            | Self::NotUnderstood { call, .. }
            | Self::Network { call, .. }
            | Self::Timeout { call, .. } => {
                call.attempts = attempts;
                call.may_have_been_done |= may_have_been_done;
            }
        }
        self
    }

    /// Returns whether DT may have carried out the request although the call failed. In this case, read the state before you
    /// repeat a change.
    #[must_use]
    pub fn may_have_been_done(&self) -> bool {
        self.call().is_some_and(|call| call.may_have_been_done)
    }

    /// Returns whether the same call may succeed later, without a change by a person.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. } | Self::Unavailable { .. } | Self::Network { .. } | Self::Timeout { .. }
        )
    }
}
