//! The client: its configuration, and the state that all calls share.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderValue;
use tokio::sync::Mutex;

use crate::connection::{self, HttpClient};
use crate::credentials::Credentials;
use crate::pace::Pace;
use crate::retry::Backoff;
use crate::token::Token;
use crate::url::{BadUrl, BaseUrl};

/// The base URL of DT's REST API.
pub const DT_API_URL: &str = "https://api.disruptive-technologies.com/v2";

/// DT's token endpoint.
pub const DT_TOKEN_ENDPOINT: &str = "https://identity.disruptive-technologies.com/oauth2/token";

/// The defaults of [`ClientBuilder`]: the time limits of an attempt and of a call, and the number of attempts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 5;

/// A source of the current time in Unix milliseconds.
type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Why a client cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The base URL of the API is invalid, or credentials must not be sent to it.
    #[error("the base URL of the API: {0}")]
    ApiUrl(BadUrl),
    /// The URL of the token endpoint is invalid, or credentials must not be sent to it.
    #[error("the token endpoint: {0}")]
    TokenEndpoint(BadUrl),
    /// A part of the credentials is empty, or cannot be part of a request.
    #[error(
        "the credentials: expected a key id without a colon, a secret, and for OAuth2 an e-mail address, all in one line each"
    )]
    Credentials,
    /// A time limit, the number of attempts, or the rate of requests is 0.
    #[error("the time limits, the number of attempts and the rate of requests must not be 0")]
    Limits,
    /// The TLS library does not accept its own defaults.
    #[error("TLS cannot be set up")]
    Tls,
    /// The operating system provides no random numbers.
    #[error("the system has no random numbers")]
    NoRandomNumbers,
}

impl BuildError {
    /// Returns a stable name of the error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ApiUrl(_) => "api_url",
            Self::TokenEndpoint(_) => "token_endpoint",
            Self::Credentials => "credentials_malformed",
            Self::Limits => "limits",
            Self::Tls => "no_tls",
            Self::NoRandomNumbers => "no_random_numbers",
        }
    }
}

/// Calls DT's REST API. A clone uses the same connections and the same access token.
///
/// Calls need a tokio runtime with time and I/O enabled.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Inner>);

/// The state that all calls of a client share.
pub struct Inner {
    pub http: HttpClient,
    pub api: BaseUrl,
    pub token_endpoint: BaseUrl,
    pub credentials: Credentials,
    /// The value of the header `Authorization` for basic auth; `None` for OAuth2.
    pub basic: Option<HeaderValue>,
    pub token: Mutex<Option<Token>>,
    pub limits: Limits,
    /// Spaces the attempts; `None` without a limit of their rate.
    pub pace: Option<Pace>,
    pub backoff: Backoff,
    pub clock: Clock,
}

/// The limits of one call.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The time limit of one attempt.
    pub request: Duration,
    /// The time limit of all attempts together, with the pauses between them.
    pub total: Duration,
    /// The largest number of attempts.
    pub attempts: u32,
}

/// Configures a [`Client`].
#[must_use]
pub struct ClientBuilder {
    credentials: Credentials,
    api_url: String,
    token_endpoint: String,
    limits: Limits,
    rate: Option<u32>,
    clock: Clock,
    seed: Option<u64>,
}

impl Client {
    /// Returns the default configuration, for DT's cloud.
    pub fn builder(credentials: Credentials) -> ClientBuilder {
        ClientBuilder {
            credentials,
            api_url: DT_API_URL.to_owned(),
            token_endpoint: DT_TOKEN_ENDPOINT.to_owned(),
            limits: Limits { request: REQUEST_TIMEOUT, total: TOTAL_TIMEOUT, attempts: ATTEMPTS },
            rate: None,
            clock: Arc::new(system_millis),
            seed: None,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({}, {:?})", self.0.api.as_str(), self.0.credentials)
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Sets the base URL of the API, by default [`DT_API_URL`]. It includes the version: `/v2`.
    pub fn api_url(mut self, url: impl Into<String>) -> Self {
        self.api_url = url.into();
        self
    }

    /// Sets the URL of the token endpoint, by default [`DT_TOKEN_ENDPOINT`]. It is also the audience of the assertion.
    pub fn token_endpoint(mut self, url: impl Into<String>) -> Self {
        self.token_endpoint = url.into();
        self
    }

    /// Sets the time limit for the response to one attempt, by default 10 s. Half of it is the limit for a TCP connection.
    pub const fn request_timeout(mut self, limit: Duration) -> Self {
        self.limits.request = limit;
        self
    }

    /// Sets the time limit of a call with all its attempts and the pauses between them, by default 60 s. A call fails instead of
    /// a pause that would exceed the limit, so a longer `Retry-After` is not waited for.
    pub const fn total_timeout(mut self, limit: Duration) -> Self {
        self.limits.total = limit;
        self
    }

    /// Sets the largest number of attempts of a call, by default 5.
    pub const fn attempts(mut self, most: u32) -> Self {
        self.limits.attempts = most;
        self
    }

    /// Sets the largest rate of requests in attempts per second, by default without a limit. Attempts of all calls and of all
    /// clones start at equal distances, also after a pause. The time that a call waits for its first attempt is no part of its
    /// time limit. Requests to the token endpoint do not count.
    pub const fn max_requests_per_second(mut self, rate: u32) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Replaces the system clock by a function that returns Unix milliseconds. The clock is used for the times of assertions, and
    /// for dates in `Retry-After`.
    pub fn clock(mut self, unix_millis: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(unix_millis);
        self
    }

    /// Sets the seed of the jitter in the pauses between attempts. The default is a random seed.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Builds the client, without opening a connection.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if a URL, the credentials or a limit is invalid.
    pub fn build(self) -> Result<Client, BuildError> {
        let api = BaseUrl::new(&self.api_url).map_err(BuildError::ApiUrl)?;
        let token_endpoint = BaseUrl::new(&self.token_endpoint).map_err(BuildError::TokenEndpoint)?;
        let Limits { request, total, attempts } = self.limits;
        if request.is_zero() || total.is_zero() || attempts == 0 {
            return Err(BuildError::Limits);
        }
        if !self.credentials.are_usable() {
            return Err(BuildError::Credentials);
        }
        let basic = match self.credentials.email {
            Some(_) => None,
            None => Some(self.credentials.basic_header().ok_or(BuildError::Credentials)?),
        };
        let pace = match self.rate {
            Some(rate) => Some(Pace::new(rate).ok_or(BuildError::Limits)?),
            None => None,
        };
        let seed = self.seed.map_or_else(getrandom::u64, Ok).map_err(|_| BuildError::NoRandomNumbers)?;
        Ok(Client(Arc::new(Inner {
            // Less than the limit of an attempt, so that an attempt without a connection is known as one: nothing was sent.
            http: connection::client(request.min(total).checked_div(2).unwrap_or(request))
                .ok_or(BuildError::Tls)?,
            api,
            token_endpoint,
            credentials: self.credentials,
            basic,
            token: Mutex::new(None),
            limits: self.limits,
            pace,
            backoff: Backoff::new(seed),
            clock: self.clock,
        })))
    }
}

/// Returns the time of the system clock in Unix milliseconds; 0 for a time before 1970.
fn system_millis() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dt_verify::Secret;

    fn builder() -> ClientBuilder {
        Client::builder(Credentials::basic("key", Secret::new("hunter2").expect("not empty")))
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let code = |builder: ClientBuilder| builder.build().err().map(|error| error.code());
        assert_eq!(code(builder()), None);
        assert_eq!(code(builder().api_url("http://api.example")), Some("api_url"));
        assert_eq!(code(builder().token_endpoint("x")), Some("token_endpoint"));
        assert_eq!(code(builder().attempts(0)), Some("limits"));
        assert_eq!(code(builder().total_timeout(Duration::ZERO)), Some("limits"));
        assert_eq!(code(builder().max_requests_per_second(0)), Some("limits"));
        let secret = Secret::new("s").expect("not empty");
        assert_eq!(code(Client::builder(Credentials::basic("a:b", secret))), Some("credentials_malformed"));
    }

    #[test]
    fn no_secret_is_shown() {
        let client = builder().build().expect("a client");
        let shown = format!("{client:?} {:?}", builder());
        assert!(shown.contains("key") && !shown.contains("hunter2"), "{shown}");
    }
}
