//! The reasons for which a request is rejected: one variant for each, with expected and found values that are safe to show.

use std::fmt;

use super::rfc3339::rfc3339_seconds;

/// Where the cause of a [`Rejection`] is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The request does not come from DT, or a proxy has removed its signature. There is nothing to fix in the receiver.
    Sender,
    /// DT and the receiver have different secrets, key sets, organizations or headers: fix the configuration.
    Setup,
    /// The body was changed after it was signed: look for a proxy or framework that rewrites bodies.
    Transit,
    /// The token is too old or too new: check the clocks and the delay of the delivery.
    Time,
}

/// Why a required header does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// The required header was not sent.
    Absent,
    /// The required header was sent with another value.
    Different,
    /// The required header was sent more than once.
    Repeated,
}

impl fmt::Display for HeaderProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "is absent",
            Self::Different => "has another value",
            Self::Repeated => "was sent more than once",
        })
    }
}

/// Why a request is rejected.
///
/// [`code`](Self::code) is stable and goes to metrics, `--json` output and replies; the text may change. No variant
/// holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The signature header that the policy requires was not sent.
    #[error("the header {header} is missing")]
    SignatureMissing {
        /// The name of the signature header.
        header: &'static str,
    },
    /// The signature header holds no readable compact JWS (RFC 7515, section 7.1), or was sent twice.
    #[error("the header {header} holds no readable token: {reason}")]
    SignatureMalformed {
        /// The name of the signature header.
        header: &'static str,
        /// The part of the token that could not be read.
        reason: &'static str,
    },
    /// The algorithm in the token (`alg`) is not the one of the scheme.
    #[error("the token in {header} is signed with `{found}`; only {expected} is allowed")]
    AlgorithmNotAllowed {
        /// The name of the signature header.
        header: &'static str,
        /// The only algorithm that the scheme of this header allows, as in `alg`.
        expected: &'static str,
        /// The token's `alg`, shortened and sanitised.
        found: String,
    },
    /// The signature was made with none of the secrets, or not with the key that the token names.
    #[error("the signature in {header} was not made with any of the {keys} key(s) known here")]
    SignatureMismatch {
        /// The name of the signature header.
        header: &'static str,
        /// The number of keys that were tried.
        keys: usize,
    },
    /// The key set does not contain the key that the token names.
    #[error("the key set has no key `{}`; it holds {known} key(s)", found.as_deref().unwrap_or("(no kid)"))]
    KeyUnknown {
        /// The token's `kid`, shortened and sanitised.
        found: Option<String>,
        /// The number of keys in the set.
        known: usize,
    },
    /// The token has expired. All other checks of the request succeeded.
    #[error("the token expired at {}, {} s before {} (leeway {leeway} s)", rfc3339_seconds(*expired_at), now.saturating_sub(*expired_at), rfc3339_seconds(*now))]
    Expired {
        /// `exp`, or `iat` + 3600, in Unix seconds.
        expired_at: i64,
        /// The time given to the verifier, in Unix seconds.
        now: i64,
        /// The tolerated difference of the clocks, in seconds.
        leeway: i64,
    },
    /// The token is not valid yet.
    #[error("the token's {claim} is {}, {} s after {} (leeway {leeway} s)", rfc3339_seconds(*valid_from), valid_from.saturating_sub(*now), rfc3339_seconds(*now))]
    NotYetValid {
        /// The claim with a time in the future: `iat` or `nbf`.
        claim: &'static str,
        /// The time of this claim, in Unix seconds.
        valid_from: i64,
        /// The time given to the verifier, in Unix seconds.
        now: i64,
        /// The tolerated difference of the clocks, in seconds.
        leeway: i64,
    },
    /// The token lacks a claim that the scheme needs.
    #[error("the token has no `{claim}`")]
    ClaimsMissing {
        /// The name of the missing claim.
        claim: &'static str,
    },
    /// The token has no checksum that is strong enough for its scheme, so it does not prove that the body is unchanged.
    #[error("the token has no `checksum_sha256` (with HS256, `checksum` is enough)")]
    ChecksumMissing,
    /// The checksum of the body differs from the one in the token: the body is not the one that was signed.
    #[error("`{claim}` of the token is {expected}, that of the body is {found}")]
    ChecksumMismatch {
        /// The claim with the checksum: `checksum` (SHA-1) or `checksum_sha256`.
        claim: &'static str,
        /// The checksum in the token, shortened and sanitised.
        expected: String,
        /// The checksum of the body, in lower-case hex.
        found: String,
    },
    /// The token comes from another issuer.
    #[error("the token's issuer is `{}`, not `{expected}`", found.as_deref().unwrap_or("(none)"))]
    IssuerMismatch {
        /// The only issuer whose tokens the verifier accepts.
        expected: String,
        /// The token's `iss`, shortened and sanitised.
        found: Option<String>,
    },
    /// The token is for another organization of DT. DT's keys sign for all organizations.
    #[error("the token's organization is `{}`, not `{expected}`", found.as_deref().unwrap_or("(none)"))]
    OrganizationMismatch {
        /// The configured organization id.
        expected: String,
        /// The token's `sub`, shortened and sanitised.
        found: Option<String>,
    },
    /// A required custom header is absent, repeated or different.
    #[error("the header {name} {problem}")]
    HeaderMismatch {
        /// The name of the required header.
        name: String,
        /// Why the header does not match. Its value is not shown, since it may be a credential.
        problem: HeaderProblem,
    },
}

impl Rejection {
    /// Returns the stable code of this variant.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SignatureMissing { .. } => "signature_missing",
            Self::SignatureMalformed { .. } => "signature_malformed",
            Self::AlgorithmNotAllowed { .. } => "algorithm_not_allowed",
            Self::SignatureMismatch { .. } => "signature_mismatch",
            Self::KeyUnknown { .. } => "key_unknown",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::ClaimsMissing { .. } => "claims_missing",
            Self::ChecksumMissing => "checksum_missing",
            Self::ChecksumMismatch { .. } => "checksum_mismatch",
            Self::IssuerMismatch { .. } => "issuer_mismatch",
            Self::OrganizationMismatch { .. } => "organization_mismatch",
            Self::HeaderMismatch { .. } => "header_mismatch",
        }
    }

    /// The codes of all variants, for tables and metrics.
    pub const CODES: [&'static str; 13] = [
        "signature_missing",
        "signature_malformed",
        "algorithm_not_allowed",
        "signature_mismatch",
        "key_unknown",
        "expired",
        "not_yet_valid",
        "claims_missing",
        "checksum_missing",
        "checksum_mismatch",
        "issuer_mismatch",
        "organization_mismatch",
        "header_mismatch",
    ];

    /// Returns where the cause is to be found.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::SignatureMissing { .. }
            | Self::SignatureMalformed { .. }
            | Self::AlgorithmNotAllowed { .. }
            | Self::ClaimsMissing { .. }
            | Self::ChecksumMissing => Fault::Sender,
            Self::SignatureMismatch { .. }
            | Self::KeyUnknown { .. }
            | Self::IssuerMismatch { .. }
            | Self::OrganizationMismatch { .. }
            | Self::HeaderMismatch { .. } => Fault::Setup,
            Self::ChecksumMismatch { .. } => Fault::Transit,
            Self::Expired { .. } | Self::NotYetValid { .. } => Fault::Time,
        }
    }

    /// Returns whether the request was rejected only because its token has expired.
    #[must_use]
    pub const fn is_expired(&self) -> bool {
        matches!(self, Self::Expired { .. })
    }
}

/// Makes a value from a request safe to show: printable ASCII only, at most 80 characters.
pub fn safe_to_show(text: &str) -> String {
    const MAX: usize = 80;
    let mut shown: String =
        text.chars().take(MAX).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    if text.chars().nth(MAX).is_some() {
        shown.push_str("...");
    }
    shown
}
