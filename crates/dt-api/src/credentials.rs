//! The credentials of a service account, and the assertion for an access token (RFC 7523, section 2.1).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde::Serialize;

use dt_verify::Secret;

/// The lifetime of an assertion, in seconds (DT docs, "OAuth2").
const LIFETIME: i64 = 3600;

/// The credentials of a service account: the id and the secret of a key, and for OAuth2 the account's e-mail address.
///
/// # Examples
///
/// ```
/// use dt_api::Credentials;
/// use dt_verify::Secret;
///
/// let secret = Secret::new("239dcd912b8041a58054f843a2a633a4").unwrap();
/// let credentials = Credentials::service_account("c19tg0eoiv9008epsv50", secret, "me@example.com");
/// assert_eq!(format!("{credentials:?}"), "Credentials(OAuth2, key c19tg0eoiv9008epsv50)");
/// ```
#[derive(Clone)]
pub struct Credentials {
    pub(crate) key_id: String,
    pub(crate) secret: Secret,
    /// The e-mail address of the service account for OAuth2; `None` for basic auth.
    pub(crate) email: Option<String>,
}

/// The claims of an assertion, in the order of DT's documentation.
#[derive(Serialize)]
struct Claims<'a> {
    iat: i64,
    exp: i64,
    aud: &'a str,
    iss: &'a str,
}

impl Credentials {
    /// Returns credentials for OAuth2: an assertion signed with the secret is exchanged for an access token, which is valid for
    /// an hour. DT recommends OAuth2.
    #[must_use]
    pub fn service_account(key_id: impl Into<String>, secret: Secret, email: impl Into<String>) -> Self {
        Self { key_id: key_id.into(), secret, email: Some(email.into()) }
    }

    /// Returns credentials for basic auth (RFC 7617): each request contains the secret. Basic auth must be enabled for the
    /// service account.
    #[must_use]
    pub fn basic(key_id: impl Into<String>, secret: Secret) -> Self {
        Self { key_id: key_id.into(), secret, email: None }
    }

    /// Returns whether all parts of the credentials can be part of a request.
    pub(crate) fn are_usable(&self) -> bool {
        let is_plain = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        // In basic auth, a colon ends the user name.
        is_plain(&self.key_id) && !self.key_id.contains(':') && self.email.as_deref().is_none_or(is_plain)
    }

    /// Returns the value of the header `Authorization` for basic auth; `None` if it is not a valid header value.
    pub(crate) fn basic_header(&self) -> Option<HeaderValue> {
        let pair = [self.key_id.as_bytes(), b":", self.secret.expose()].concat();
        let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Returns the assertion for `audience`, the token endpoint, at `now` in Unix seconds. `None` for basic auth, or if the
    /// cryptographic back-end does not sign.
    pub(crate) fn assertion(&self, audience: &str, now: i64) -> Option<String> {
        #[derive(Serialize)]
        struct Header<'a> {
            alg: Algorithm,
            kid: &'a str,
            typ: &'static str,
        }
        let header = Header { alg: Algorithm::HS256, kid: &self.key_id, typ: "JWT" };
        let claims = Claims {
            iat: now,
            exp: now.saturating_add(LIFETIME),
            aud: audience,
            iss: self.email.as_deref()?,
        };
        let encode = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
        let header = encode(serde_json::to_vec(&header).ok()?);
        let mut token = format!("{header}.{}", encode(serde_json::to_vec(&claims).ok()?));
        // As in `dt-verify`, the provider is called directly: the default of the process belongs to the embedding program.
        let key = EncodingKey::from_secret(self.secret.expose());
        let signer = (DEFAULT_PROVIDER.signer_factory)(&Algorithm::HS256, &key).ok()?;
        let signature = signer.try_sign(token.as_bytes()).ok()?;
        token.push('.');
        token.push_str(&encode(signature));
        Some(token)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.email.is_some() { "OAuth2" } else { "basic auth" };
        write!(f, "Credentials({scheme}, key {})", self.key_id.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials::service_account("key", Secret::new("secret").expect("not empty"), "me@example.com")
    }

    #[test]
    fn an_assertion_is_that_of_an_independent_implementation() {
        // Computed with Python's json, base64, hmac and hashlib.
        let assertion = credentials().assertion("https://x/t", 1_700_000_000).expect("signed");
        assert_eq!(assertion, EXPECTED);
        assert_eq!(Credentials::basic("key", credentials().secret).assertion("https://x/t", 0), None);
    }

    const EXPECTED: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImtleSIsInR5cCI6IkpXVCJ9.eyJpYXQiOjE3MDAwMDAwMDAsImV4cCI6MTcwMDAwMzYwMCwiYXVkIjoiaHR0cHM6Ly94L3QiLCJpc3MiOiJtZUBleGFtcGxlLmNvbSJ9.ZiOqevlAZ363vCQ_-zjI6D4m6gpSGj9LqyIg2ECmtfQ";

    #[test]
    fn a_basic_header_is_that_of_rfc_7617() {
        let secret = Secret::new("open sesame").expect("not empty");
        let header = Credentials::basic("Aladdin", secret).basic_header().expect("a header");
        assert_eq!(header.to_str().ok(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert_eq!(format!("{header:?}"), "Sensitive");
    }

    #[test]
    fn the_secret_is_not_shown_and_odd_parts_are_refused() {
        assert!(!format!("{:?}", credentials()).contains("secret"));
        assert!(credentials().are_usable());
        for (key, email) in [("", "e"), ("a:b", "e"), ("a\n", "e"), ("a", "")] {
            assert!(
                !Credentials { key_id: key.into(), email: Some(email.into()), ..credentials() }.are_usable()
            );
        }
    }
}
