//! The proof that a request was verified.

use std::fmt;
use std::sync::Arc;

use super::rejection::Rejection;

/// Which key vouches for a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerifiedBy {
    /// The shared secret of that label.
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
    /// `secret:LABEL` or `asymmetric:KID`, as the envelope has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret { label } => write!(f, "secret:{label}"),
            Self::Asymmetric { kid } => write!(f, "asymmetric:{kid}"),
        }
    }
}

/// A body whose signature, claims, checksum and time were verified. Only [`Verifier`](super::Verifier) makes one.
///
/// `B` is whatever held the bytes that went in: `&[u8]`, `Vec<u8>`, `bytes::Bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<B> {
    pub(super) body: B,
    pub(super) proof: Proof,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) by: VerifiedBy,
    pub(super) issued_at: Option<i64>,
    pub(super) expires_at: i64,
    pub(super) token_id: Option<String>,
    pub(super) other_scheme: Option<Box<Rejection>>,
}

impl<B: AsRef<[u8]>> Verified<B> {
    /// The bytes that were signed.
    pub fn body(&self) -> &[u8] {
        self.body.as_ref()
    }

    /// What holds the bytes.
    pub const fn inner(&self) -> &B {
        &self.body
    }

    /// What held the bytes.
    pub fn into_body(self) -> B {
        self.body
    }

    /// The scheme and key that matched. With [`Policy::Both`](super::Policy::Both), the secret's.
    pub const fn by(&self) -> &VerifiedBy {
        &self.proof.by
    }

    /// `iat`: when the token was made, in Unix seconds.
    pub const fn issued_at(&self) -> Option<i64> {
        self.proof.issued_at
    }

    /// `exp`, or `iat` + 3600: when the token's time is over, in Unix seconds.
    pub const fn expires_at(&self) -> i64 {
        self.proof.expires_at
    }

    /// `jti`: the token's own id.
    pub fn token_id(&self) -> Option<&str> {
        self.proof.token_id.as_deref()
    }

    /// Why the other scheme did not hold, where [`Policy::Either`](super::Policy::Either) let this one suffice and the
    /// other's header was sent.
    pub fn other_scheme(&self) -> Option<&Rejection> {
        self.proof.other_scheme.as_deref()
    }
}
