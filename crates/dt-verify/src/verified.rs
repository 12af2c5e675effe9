//! The proof that a request was verified.

use std::fmt;
use std::sync::Arc;

use super::rejection::Rejection;

/// The key that has verified a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerifiedBy {
    /// The shared secret with this label.
    Secret {
        /// The label given with the secret.
        label: Arc<str>,
    },
    /// A key of DT's key set.
    Asymmetric {
        /// The key's id; empty for the only key of a set whose key has none.
        kid: Arc<str>,
    },
}

impl fmt::Display for VerifiedBy {
    /// Writes `secret:LABEL` or `asymmetric:KID`, as in the envelope.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret { label } => write!(f, "secret:{label}"),
            Self::Asymmetric { kid } => write!(f, "asymmetric:{kid}"),
        }
    }
}

/// A body whose signature, claims, checksum and time were verified. Only [`Verifier`](super::Verifier) makes one.
///
/// `B` is the type of the body that the caller passed in, such as `&[u8]`, `Vec<u8>` or `bytes::Bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<B> {
    pub(super) body: B,
    pub(super) proof: Proof,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    pub by: VerifiedBy,
    pub issued_at: Option<i64>,
    pub expires_at: i64,
    pub token_id: Option<String>,
    pub other_scheme: Option<Box<Rejection>>,
}

impl<B: AsRef<[u8]>> Verified<B> {
    /// Returns the bytes that were signed.
    pub fn body(&self) -> &[u8] {
        self.body.as_ref()
    }

    /// Returns the body as it was passed in.
    pub const fn inner(&self) -> &B {
        &self.body
    }

    /// Returns the body as it was passed in, by value.
    pub fn into_body(self) -> B {
        self.body
    }

    /// Returns the scheme and the key that matched. With [`Policy::Both`](super::Policy::Both), it is the secret.
    pub const fn by(&self) -> &VerifiedBy {
        &self.proof.by
    }

    /// Returns when the token was issued (`iat`), in Unix seconds; `None` if it does not say so.
    pub const fn issued_at(&self) -> Option<i64> {
        self.proof.issued_at
    }

    /// Returns when the token expires (`exp`, or `iat` + 3600), in Unix seconds.
    pub const fn expires_at(&self) -> i64 {
        self.proof.expires_at
    }

    /// Returns the id of the token (`jti`); `None` if it has none.
    pub fn token_id(&self) -> Option<&str> {
        self.proof.token_id.as_deref()
    }

    /// Returns why the other scheme's token was rejected, if it was sent. [`Policy::Either`](super::Policy::Either) accepts the
    /// request all the same.
    pub fn other_scheme(&self) -> Option<&Rejection> {
        self.proof.other_scheme.as_deref()
    }
}
