//! The proof that a request was verified.

use std::fmt;
use std::sync::Arc;

use super::rejection::Rejection;

/// The key with which a request was verified.
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
        /// The id of the key (`kid`); empty if the key has none, which is possible for the only key of a set.
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

/// A body whose signature, claims, checksum and time were verified. Only a [`Verifier`](super::Verifier) creates values of this
/// type.
///
/// `B` is the type of the body that was passed to the verifier, such as `&[u8]`, `Vec<u8>` or `bytes::Bytes`.
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

    /// Returns the body as it was passed to the verifier.
    pub const fn inner(&self) -> &B {
        &self.body
    }

    /// Returns the body as it was passed to the verifier, by value.
    pub fn into_body(self) -> B {
        self.body
    }

    /// Returns the scheme and the key with which the request was verified. With [`Policy::Both`](super::Policy::Both), it is the
    /// secret.
    pub const fn by(&self) -> &VerifiedBy {
        &self.proof.by
    }

    /// Returns when the token was issued (`iat`), in Unix seconds; `None` if the token has no `iat`.
    pub const fn issued_at(&self) -> Option<i64> {
        self.proof.issued_at
    }

    /// Returns when the token expires (`exp`, or `iat` + 3600), in Unix seconds.
    pub const fn expires_at(&self) -> i64 {
        self.proof.expires_at
    }

    /// Returns the id of the token (`jti`); `None` if the token has none.
    pub fn token_id(&self) -> Option<&str> {
        self.proof.token_id.as_deref()
    }

    /// Returns why the token of the other scheme was rejected; `None` if it was not rejected or not sent. With
    /// [`Policy::Either`](super::Policy::Either) a request is authentic in spite of such a rejection.
    pub fn other_scheme(&self) -> Option<&Rejection> {
        self.proof.other_scheme.as_deref()
    }
}
