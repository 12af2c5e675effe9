//! A request with the keys that verify it. Both can be changed, and the request can be verified again.

use std::sync::Arc;

use dt_verify::{
    ASYMMETRIC_HEADER, Found, Headers, KeySet, Policy, Rejection, SECRET_HEADER, Secret, Verifier,
};

/// The keys, the organization and the issuer that the asymmetric scheme trusts.
#[derive(Debug, Clone)]
pub struct TrustedKeys {
    pub keys: KeySet,
    pub organization: String,
    pub issuer: String,
}

/// A request and the keys that verify it.
#[derive(Debug, Clone, Default)]
pub struct Attempt {
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// All bytes after the head of a dump; `None` if they are just the body.
    pub whole: Option<Vec<u8>>,
    pub secrets: Vec<(Arc<str>, Secret)>,
    /// Secrets that the environment contains, but that were not selected.
    pub spare_secrets: Vec<(Arc<str>, Secret)>,
    pub trusted: Option<TrustedKeys>,
}

/// One of the two signature schemes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Secret,
    Asymmetric,
}

impl Scheme {
    pub const ALL: [Self; 2] = [Self::Secret, Self::Asymmetric];

    pub const fn other(self) -> Self {
        match self {
            Self::Secret => Self::Asymmetric,
            Self::Asymmetric => Self::Secret,
        }
    }

    pub const fn header(self) -> &'static str {
        match self {
            Self::Secret => SECRET_HEADER,
            Self::Asymmetric => ASYMMETRIC_HEADER,
        }
    }

    /// Returns the option of `verify` for the token of this scheme.
    pub const fn option(self) -> &'static str {
        match self {
            Self::Secret => "--signature",
            Self::Asymmetric => "--asymmetric",
        }
    }

    pub const fn algorithm(self) -> &'static str {
        match self {
            Self::Secret => "HS256",
            Self::Asymmetric => "ES256",
        }
    }

    const fn policy(self) -> Policy {
        match self {
            Self::Secret => Policy::Secret,
            Self::Asymmetric => Policy::Asymmetric,
        }
    }
}

impl Attempt {
    /// Builds a verifier with all keys of the attempt.
    pub fn verifier(&self, policy: Policy) -> Result<Verifier, dt_verify::BuildError> {
        let mut builder = Verifier::builder().policy(policy);
        for (label, secret) in &self.secrets {
            builder = builder.secret(Arc::clone(label), secret.clone());
        }
        if let Some(TrustedKeys { keys, organization, issuer }) = &self.trusted {
            builder = builder.key_set_of_issuer(keys.clone(), organization, issuer);
        }
        builder.build()
    }

    /// Verifies the request by one scheme only, at `now` in Unix seconds.
    pub fn verify(&self, scheme: Scheme, now: i64) -> Result<(), Rejection> {
        let missing = Rejection::SignatureMissing { header: scheme.header() };
        let verifier = self.verifier(scheme.policy()).map_err(|_| missing)?;
        verifier.verify(&self.headers, &self.body, now).map(drop)
    }

    pub fn has_keys(&self, scheme: Scheme) -> bool {
        match scheme {
            Scheme::Secret => !self.secrets.is_empty(),
            Scheme::Asymmetric => self.trusted.is_some(),
        }
    }

    pub fn has_header(&self, scheme: Scheme) -> bool {
        self.headers.find(scheme.header()) != Found::Absent
    }

    /// Returns the token of a scheme; `None` if its header is absent or repeated.
    pub fn token(&self, scheme: Scheme) -> Option<&[u8]> {
        match self.headers.find(scheme.header()) {
            Found::Once(value) => Some(value),
            Found::Absent | Found::Repeated => None,
        }
    }

    /// Returns a copy whose only header of the scheme has this value.
    pub fn with_token(&self, scheme: Scheme, value: Vec<u8>) -> Self {
        let mut changed = self.clone();
        changed.headers.retain(|(name, _)| !name.eq_ignore_ascii_case(scheme.header()));
        changed.headers.push((scheme.header().to_owned(), value));
        changed
    }

    /// Returns a copy with another body.
    pub fn with_body(&self, body: Vec<u8>) -> Self {
        Self { body, ..self.clone() }
    }

    /// Returns a copy with only this secret.
    pub fn with_secret(&self, label: &Arc<str>, secret: Secret) -> Self {
        Self { secrets: vec![(Arc::clone(label), secret)], ..self.clone() }
    }
}

/// The stage of the verification that rejects a request, in the order of the verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The signature is invalid.
    Token,
    /// A claim is missing or wrong.
    Claims,
    /// The checksum does not match the body.
    Body,
    /// The token has expired, or is not valid yet.
    Time,
    /// No stage rejects the request.
    Passed,
}

impl Stage {
    pub const fn of(answer: &Result<(), Rejection>) -> Self {
        match answer {
            Ok(()) => Self::Passed,
            Err(Rejection::Expired { .. } | Rejection::NotYetValid { .. }) => Self::Time,
            Err(Rejection::ChecksumMismatch { .. }) => Self::Body,
            Err(
                Rejection::ClaimsMissing { .. }
                | Rejection::ChecksumMissing
                | Rejection::IssuerMismatch { .. }
                | Rejection::OrganizationMismatch { .. }
                | Rejection::HeaderMismatch { .. },
            ) => Self::Claims,
            Err(_) => Self::Token,
        }
    }
}
