//! The scheme of the header `X-Dt-Signature`: a JWT signed with a shared secret (HS256, RFC 7518 section 3.2).

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};
use zeroize::Zeroizing;

use super::rejection::Rejection;
use super::token::{self, Compact};

/// The name of the request header with the HS256 token (DT docs, "Receiving events").
pub const SECRET_HEADER: &str = "X-Dt-Signature";

/// A signature secret, as entered in DT Studio.
///
/// The HMAC key is the UTF-8 bytes of the text, with no decoding. A `Secret` is never printed, and is zeroed when dropped.
///
/// # Examples
///
/// ```
/// use dt_verify::Secret;
///
/// let secret = Secret::new("some-good-secret").unwrap();
/// assert_eq!(format!("{secret:?}"), "Secret(redacted)");
/// assert!(Secret::new("").is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// The secret is empty, so any sender could sign with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret is empty")]
pub struct EmptySecret;

impl Secret {
    /// Creates a secret from its bytes.
    ///
    /// # Errors
    ///
    /// Returns [`EmptySecret`] if `bytes` is empty.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, EmptySecret> {
        let bytes = Zeroizing::new(bytes.into());
        if bytes.is_empty() { Err(EmptySecret) } else { Ok(Self(bytes)) }
    }

    /// Returns the bytes of the secret.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// The secrets of one connector, each with the label that logs and envelopes show.
#[derive(Clone)]
pub(super) struct SecretScheme {
    keys: Vec<(Arc<str>, DecodingKey)>,
}

impl SecretScheme {
    pub(super) fn new(secrets: &[(Arc<str>, Secret)]) -> Self {
        let keys = secrets
            .iter()
            .map(|(label, secret)| (Arc::clone(label), DecodingKey::from_secret(secret.expose())));
        Self { keys: keys.collect() }
    }

    pub(super) fn keys(&self) -> &[(Arc<str>, DecodingKey)] {
        &self.keys
    }

    pub(super) fn labels(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|(label, _)| &**label)
    }

    /// Returns the label of the secret with which the token was signed.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection`] if the algorithm is not HS256, or if no secret matches.
    pub(super) fn authenticate(&self, token: &Compact<'_>) -> Result<&Arc<str>, Rejection> {
        token.require_algorithm("HS256")?;
        for (label, key) in &self.keys {
            if token::has_valid_signature(token, key, Algorithm::HS256)? {
                return Ok(label);
            }
        }
        Err(Rejection::SignatureMismatch { header: SECRET_HEADER, keys: self.keys.len() })
    }
}
