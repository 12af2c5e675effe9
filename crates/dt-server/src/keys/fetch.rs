//! Fetches a key set: first the issuer's discovery document (OpenID Connect Discovery 1.0, section 4), then the JWK set that it
//! names.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

/// The path of the discovery document, which is appended to the issuer's URL.
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// The time limit for each of the two responses.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// The largest size of a response, in bytes.
pub const MAX_ANSWER: usize = 256 * 1024;

pub type Connector = hyper_rustls::HttpsConnector<HttpConnector>;

/// Why keys cannot be fetched from an issuer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadIssuer {
    /// The issuer is not a valid URL.
    #[error("found \"{}\"; expected a URL such as \"https://issuer.example/path\"", .0.escape_debug())]
    NotAUrl(String),
    /// The URL is not https, so an attacker in the network could replace the keys.
    #[error("found \"{}\"; expected https (http is allowed on this machine only), since an attacker in the network could forge keys", .0.escape_debug())]
    NotSecure(String),
    /// The TLS library does not accept its own defaults.
    #[error("TLS cannot be set up; name a file with `key_set`")]
    NoTls,
}

/// Why a key set was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There was no response, or it was incomplete.
    #[error("{url}: {text}")]
    NoAnswer {
        /// The requested URL.
        url: String,
        /// The cause, in words: a failure of the connection, of TLS or of reading, or a timeout.
        text: String,
    },
    /// The status of the response was not 200.
    #[error("{url}: found status {found}; expected 200")]
    Status {
        /// The requested URL.
        url: String,
        /// The status of the response.
        found: StatusCode,
    },
    /// The discovery document is malformed, or that of another issuer.
    #[error("{url}: {text}")]
    Discovery {
        /// The URL of the document.
        url: String,
        /// A description of the problem of the document.
        text: String,
    },
}

/// The members of a discovery document that are used.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Checks that keys can be fetched from an issuer.
///
/// # Errors
///
/// Returns [`BadIssuer`] if the issuer is not a valid URL, or not a secure one.
pub fn check_issuer(issuer: &str) -> Result<(), BadIssuer> {
    let uri: Uri = issuer.parse().map_err(|_| BadIssuer::NotAUrl(issuer.to_owned()))?;
    let host = uri.host().ok_or_else(|| BadIssuer::NotAUrl(issuer.to_owned()))?;
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_local(host) => Ok(()),
        Some("http") => Err(BadIssuer::NotSecure(issuer.to_owned())),
        _ => Err(BadIssuer::NotAUrl(issuer.to_owned())),
    }
}

/// Checks that the `jwks_uri` of a discovery document is as secure as the issuer's own URL.
///
/// # Errors
///
/// Returns [`BadIssuer`] if the `jwks_uri` is not a valid URL, or less secure.
fn check_jwks_uri(issuer: &str, jwks_uri: &str) -> Result<(), BadIssuer> {
    check_issuer(jwks_uri)?;
    let is_https = |url: &str| url.parse().is_ok_and(|uri: Uri| uri.scheme_str() == Some("https"));
    if is_https(issuer) && !is_https(jwks_uri) {
        return Err(BadIssuer::NotSecure(jwks_uri.to_owned()));
    }
    Ok(())
}

/// Returns whether a host is this machine.
fn is_local(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Fetches the key set of one issuer.
pub struct Fetcher {
    issuer: String,
    client: Client<Connector, Empty<Bytes>>,
}

impl Fetcher {
    /// Creates a fetcher, without sending a request.
    ///
    /// # Errors
    ///
    /// Returns [`BadIssuer`] if keys cannot be fetched from this issuer.
    pub fn new(issuer: &str) -> Result<Self, BadIssuer> {
        check_issuer(issuer)?;
        let client = Client::builder(TokioExecutor::new()).build(connector()?);
        Ok(Self { issuer: issuer.to_owned(), client })
    }

    /// Fetches the key set. Returns its URL and its JSON text.
    ///
    /// # Errors
    ///
    /// Returns [`FetchError`] if a response is late, does not have status 200, is too large, or is not as expected.
    pub async fn fetch(&self) -> Result<(String, Vec<u8>), FetchError> {
        let discovery = format!("{}{DISCOVERY}", self.issuer.trim_end_matches('/'));
        let found = self.get(&discovery).await?;
        let wrong = |text: String| FetchError::Discovery { url: discovery.clone(), text };
        let Discovery { issuer, jwks_uri } = serde_json::from_slice(&found)
            .map_err(|error| wrong(format!("no discovery document: {error}")))?;
        if issuer != self.issuer {
            let found = issuer.escape_debug();
            return Err(wrong(format!("`issuer`: found \"{found}\"; expected \"{}\"", self.issuer)));
        }
        check_jwks_uri(&self.issuer, &jwks_uri).map_err(|error| wrong(format!("`jwks_uri`: {error}")))?;
        let set = self.get(&jwks_uri).await?;
        Ok((jwks_uri, set))
    }

    /// Fetches one URL.
    async fn get(&self, url: &str) -> Result<Vec<u8>, FetchError> {
        let no_answer = |text: String| FetchError::NoAnswer { url: url.to_owned(), text };
        let request = Request::get(url)
            .header(http::header::USER_AGENT, concat!("dt-receiver/", env!("CARGO_PKG_VERSION")))
            .header(http::header::ACCEPT, "application/json")
            .body(Empty::new())
            .map_err(|error| no_answer(error.to_string()))?;
        let answer = async {
            let response = self.client.request(request).await.map_err(|error| no_answer(causes(&error)))?;
            if response.status() != StatusCode::OK {
                return Err(FetchError::Status { url: url.to_owned(), found: response.status() });
            }
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            Ok(body.map_err(|error| no_answer(error.to_string()))?.to_bytes().to_vec())
        };
        let late = || no_answer(format!("no answer within {} s", FETCH_TIMEOUT.as_secs()));
        tokio::time::timeout(FETCH_TIMEOUT, answer).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Returns the connector for HTTPS, and for HTTP on this machine.
pub fn connector() -> Result<Connector, BadIssuer> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_provider_and_webpki_roots(provider);
    Ok(builder.map_err(|_| BadIssuer::NoTls)?.https_or_http().enable_http1().build())
}

/// Returns the text of an error, followed by those of its causes, since the outermost text is often too general.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_a_secure_url() {
        for good in ["http://127.0.0.1:8081/data-connector", "http://localhost/x", "http://[::1]:80"] {
            assert_eq!(check_issuer(good), Ok(()), "{good}");
        }
        for insecure in ["http://issuer.example", "http://127.0.0.1.example/", "http://10.0.0.1"] {
            assert!(matches!(check_issuer(insecure), Err(BadIssuer::NotSecure(_))), "{insecure}");
        }
        for bad in ["", "issuer", "/path", "ftp://issuer.example", "https://"] {
            assert!(matches!(check_issuer(bad), Err(BadIssuer::NotAUrl(_))), "{bad}");
        }
        let (secure, here) = ("https://issuer.example", "http://127.0.0.1:8081/keys");
        assert_eq!(check_jwks_uri(secure, "https://elsewhere.example/keys"), Ok(()));
        assert_eq!(check_jwks_uri(here, here), Ok(()));
        let insecure = check_jwks_uri(secure, here);
        assert!(matches!(insecure, Err(BadIssuer::NotSecure(_))), "{insecure:?}");
        assert_eq!(check_issuer(dt_verify::DT_ISSUER), Ok(()));
    }
}
