//! Fetches a key set: the discovery document of the issuer (OpenID Connect Discovery 1.0, section 4), then the JWK set that
//! it names.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

/// What follows the issuer in the address of its discovery document.
const DISCOVERY: &str = "/.well-known/openid-configuration";
/// How long each of the two answers may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The largest answer.
pub(super) const MAX_ANSWER: usize = 256 * 1024;

type Connector = hyper_rustls::HttpsConnector<HttpConnector>;

/// Why keys cannot be fetched from an issuer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadIssuer {
    /// It is no URL.
    #[error("found \"{}\"; allowed is a URL such as \"https://issuer.example/path\"", .0.escape_debug())]
    NotAUrl(String),
    /// Whoever is on the way could put keys of their own in their place.
    #[error("found \"{}\"; allowed is https (http on this machine only), or anyone on the way could forge keys", .0.escape_debug())]
    NotSecure(String),
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up; name a file with `key_set`")]
    NoTls,
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No answer.
    #[error("{url}: {text}")]
    NoAnswer {
        /// What was asked for.
        url: String,
        /// What happened.
        text: String,
    },
    /// An answer other than 200.
    #[error("{url}: found status {found}; expected 200")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        found: StatusCode,
    },
    /// The discovery document is not one, or of another issuer.
    #[error("{url}: {text}")]
    Discovery {
        /// Where it came from.
        url: String,
        /// What is wrong with it.
        text: String,
    },
}

/// The part of a discovery document that counts.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Whether keys can be fetched from an issuer.
///
/// # Errors
///
/// [`BadIssuer`] says why not.
pub fn check_issuer(issuer: &str) -> Result<(), BadIssuer> {
    let uri: Uri = issuer.parse().map_err(|_| BadIssuer::NotAUrl(issuer.to_owned()))?;
    let host = uri.host().ok_or_else(|| BadIssuer::NotAUrl(issuer.to_owned()))?;
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_here(host) => Ok(()),
        Some("http") => Err(BadIssuer::NotSecure(issuer.to_owned())),
        _ => Err(BadIssuer::NotAUrl(issuer.to_owned())),
    }
}

/// Checks that keys can be fetched from the address that an issuer's discovery document names: as safely as the document
/// itself.
fn check_jwks_uri(issuer: &str, jwks_uri: &str) -> Result<(), BadIssuer> {
    check_issuer(jwks_uri)?;
    let is_https = |url: &str| url.parse().is_ok_and(|uri: Uri| uri.scheme_str() == Some("https"));
    if is_https(issuer) && !is_https(jwks_uri) {
        return Err(BadIssuer::NotSecure(jwks_uri.to_owned()));
    }
    Ok(())
}

fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Asks one issuer.
pub(super) struct Fetcher {
    issuer: String,
    client: Client<Connector, Empty<Bytes>>,
}

impl Fetcher {
    pub(super) fn new(issuer: &str) -> Result<Self, BadIssuer> {
        check_issuer(issuer)?;
        let client = Client::builder(TokioExecutor::new()).build(connector()?);
        Ok(Self { issuer: issuer.to_owned(), client })
    }

    /// Where the set is, and the set.
    pub(super) async fn fetch(&self) -> Result<(String, Vec<u8>), FetchError> {
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
        let late = || no_answer(format!("no answer within {} s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(late()))
    }
}

fn connector() -> Result<Connector, BadIssuer> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_provider_and_webpki_roots(provider);
    Ok(builder.map_err(|_| BadIssuer::NoTls)?.https_or_http().enable_http1().build())
}

/// An error with what caused it: the outermost one only says that something failed.
fn causes(error: &dyn std::error::Error) -> String {
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
    fn keys_come_from_where_nobody_can_replace_them() {
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
