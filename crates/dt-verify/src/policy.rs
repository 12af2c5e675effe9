//! The signatures that the requests of a connector must have.

use std::fmt;
use std::str::FromStr;

/// The signatures that a request must have. Every policy requires at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// `X-Dt-Signature` must be valid; the other header is ignored. The default when secrets are given.
    Secret,
    /// `DT-Asymmetric-Signature` must be valid; the other header is ignored. The default when only a key set is given.
    Asymmetric,
    /// One of the two headers must be valid.
    Either,
    /// Both headers must be valid.
    Both,
}

impl Policy {
    /// All policies.
    pub const ALL: [Self; 4] = [Self::Secret, Self::Asymmetric, Self::Either, Self::Both];

    /// Returns the name of the policy in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Asymmetric => "asymmetric",
            Self::Either => "either",
            Self::Both => "both",
        }
    }

    pub(super) const fn uses_secret(self) -> bool {
        !matches!(self, Self::Asymmetric)
    }

    pub(super) const fn uses_asymmetric(self) -> bool {
        !matches!(self, Self::Secret)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error for a text that is not the name of a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown policy; expected secret, asymmetric, either or both")]
pub struct UnknownPolicy;

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|policy| policy.name() == name).ok_or(UnknownPolicy)
    }
}
