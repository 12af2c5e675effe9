//! The verifier: its keys, its policy, and the order of the checks.

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::asymmetric::{ASYMMETRIC_HEADER, AsymmetricScheme, DT_ISSUER, KeySet};
use super::checks;
use super::headers::{Found, Headers};
use super::policy::Policy;
use super::rejection::{HeaderProblem, Rejection};
use super::secret::{SECRET_HEADER, Secret, SecretScheme};
use super::token::{Claims, Compact};
use super::verified::{Proof, Verified, VerifiedBy};

/// Verifies the requests of one connector. Created with [`Verifier::builder`]. Share it behind an `Arc`.
#[derive(Clone)]
pub struct Verifier {
    pub(super) policy: Policy,
    pub(super) secret: Option<SecretScheme>,
    pub(super) asymmetric: Option<AsymmetricScheme>,
    pub(super) required_headers: Vec<(String, Secret)>,
}

/// Why a verifier cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Neither a secret nor a key set was given.
    #[error("no secret and no key set was given; nothing could be verified")]
    NoKeys,
    /// The policy requires a secret, and none was given.
    #[error("policy `{0}` needs a secret")]
    SecretNeeded(Policy),
    /// The policy requires a key set, and none was given.
    #[error("policy `{0}` needs a key set with an organization")]
    KeySetNeeded(Policy),
    /// Two secrets have the same label.
    #[error("two secrets have the label `{0}`")]
    RepeatedLabel(String),
    /// The organization is empty. DT's keys sign for all customers, so it must be set.
    #[error("the organization id is empty; DT's keys sign for all of its customers, so it must be set")]
    NoOrganization,
}

/// Builds a [`Verifier`] from a policy, secrets, keys and required headers.
#[derive(Default)]
pub struct VerifierBuilder {
    policy: Option<Policy>,
    secrets: Vec<(Arc<str>, Secret)>,
    asymmetric: Option<AsymmetricScheme>,
    required_headers: Vec<(String, Secret)>,
}

impl VerifierBuilder {
    /// Adds a shared secret. While DT's secret is being changed, add the old and the new one; logs and envelopes show the label
    /// of the one that matched.
    #[must_use]
    pub fn secret(mut self, label: impl Into<Arc<str>>, secret: Secret) -> Self {
        self.secrets.push((label.into(), secret));
        self
    }

    /// Sets DT's key set, and the organization id that tokens must contain.
    #[must_use]
    pub fn key_set(self, keys: KeySet, organization: impl Into<String>) -> Self {
        self.key_set_of_issuer(keys, organization, DT_ISSUER)
    }

    /// Sets the key set of an issuer other than DT, such as an emulator, and the organization id that tokens must contain.
    #[must_use]
    pub fn key_set_of_issuer(
        mut self,
        keys: KeySet,
        organization: impl Into<String>,
        issuer: impl Into<String>,
    ) -> Self {
        self.asymmetric =
            Some(AsymmetricScheme { keys, organization: organization.into(), issuer: issuer.into() });
        self
    }

    /// Sets the policy. The default is [`Policy::Secret`] if a secret was added, and otherwise [`Policy::Asymmetric`].
    #[must_use]
    pub const fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Requires a custom header (`httpConfig.headers` of the Data Connector) with exactly this value.
    #[must_use]
    pub fn require_header(mut self, name: impl Into<String>, value: Secret) -> Self {
        self.required_headers.push((name.into(), value));
        self
    }

    /// Builds the verifier.
    ///
    /// # Errors
    ///
    /// Returns [`BuildError`] if keys that the policy needs are missing, two secrets have one label, or the organization is
    /// empty.
    pub fn build(self) -> Result<Verifier, BuildError> {
        let policy = match (self.policy, self.secrets.is_empty(), &self.asymmetric) {
            (_, true, None) => return Err(BuildError::NoKeys),
            (Some(policy), ..) => policy,
            (None, false, _) => Policy::Secret,
            (None, true, Some(_)) => Policy::Asymmetric,
        };
        if policy.uses_secret() && self.secrets.is_empty() && policy != Policy::Either {
            return Err(BuildError::SecretNeeded(policy));
        }
        if policy.uses_asymmetric() && self.asymmetric.is_none() && policy != Policy::Either {
            return Err(BuildError::KeySetNeeded(policy));
        }
        let mut labels: Vec<_> = self.secrets.iter().map(|(label, _)| label).collect();
        labels.sort_unstable();
        if let Some([label, _]) = labels.array_windows().find(|[a, b]| a == b) {
            return Err(BuildError::RepeatedLabel(label.to_string()));
        }
        if self.asymmetric.as_ref().is_some_and(|scheme| scheme.organization.is_empty()) {
            return Err(BuildError::NoOrganization);
        }
        let secret =
            (policy.uses_secret() && !self.secrets.is_empty()).then(|| SecretScheme::new(&self.secrets));
        let asymmetric = self.asymmetric.filter(|_| policy.uses_asymmetric());
        Ok(Verifier { policy, secret, asymmetric, required_headers: self.required_headers })
    }
}

impl fmt::Debug for VerifierBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifierBuilder").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<_> = self.secret.iter().flat_map(SecretScheme::labels).collect();
        f.debug_struct("Verifier")
            .field("policy", &self.policy)
            .field("secrets", &labels)
            .field("asymmetric", &self.asymmetric)
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// Returns a builder without keys.
    #[must_use]
    pub fn builder() -> VerifierBuilder {
        VerifierBuilder::default()
    }

    /// Returns the policy: which of the two signatures a request needs.
    #[must_use]
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// Verifies a request. Takes `headers` and `body` as they were received, and `now` in Unix seconds.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection`] if the request is not authentic, or not valid at `now`.
    pub fn verify<H, B>(&self, headers: &H, body: B, now: i64) -> Result<Verified<B>, Rejection>
    where
        H: Headers + ?Sized,
        B: AsRef<[u8]>,
    {
        self.authenticate(headers)?.verify_body(body, now)
    }

    /// Verifies the signatures of the tokens: the first half of [`verify`](Self::verify), which needs no body. A server that
    /// calls it before it reads the body spends no memory on unauthenticated peers.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection`] if the request cannot be authentic with any body.
    pub fn authenticate<H: Headers + ?Sized>(&self, headers: &H) -> Result<Authenticated, Rejection> {
        let policy = self.policy;
        let secret = self.secret.as_ref().map(|scheme| Token::signed_with_secret(scheme, headers));
        let asymmetric = self.asymmetric.as_ref().map(|scheme| Token::signed_by_dt(scheme, headers));
        // The secret comes first, if both schemes are active.
        let (first, second) = match (secret, asymmetric) {
            (Some(secret), asymmetric) => (secret, asymmetric.map(Box::new)),
            (None, Some(asymmetric)) => (asymmetric, None),
            (None, None) => return Err(Rejection::SignatureMissing { header: SECRET_HEADER }),
        };
        let second_is_enough = policy == Policy::Either && second.as_deref().is_some_and(Result::is_ok);
        let first = match first {
            // With `Both`, a failure of the second token alone is reported later: `verify_body` may find a more important one.
            Err(rejection) if !second_is_enough => {
                return Err(match second.and_then(|second| second.err()) {
                    Some(other) => worst(policy, rejection, other),
                    None => rejection,
                });
            }
            first => first,
        };
        let header_mismatch = self.check_required_headers(headers).err().map(Box::new);
        Ok(Authenticated { policy, first, second, header_mismatch })
    }

    /// Returns this verifier without the required headers. It verifies stored requests, for which only the signature headers are
    /// kept.
    #[must_use]
    pub fn without_required_headers(&self) -> Self {
        Self { required_headers: Vec::new(), ..self.clone() }
    }

    /// Returns whether the request's token names a key that is not in the key set. Verifies no signature.
    #[must_use]
    pub fn names_unknown_key<H: Headers + ?Sized>(&self, headers: &H) -> bool {
        let Some(scheme) = &self.asymmetric else { return false };
        let value = only_value(headers, ASYMMETRIC_HEADER);
        let token = value.and_then(|value| Compact::parse(ASYMMETRIC_HEADER, value));
        token.is_ok_and(|token| matches!(scheme.key_of(&token), Err(Rejection::KeyUnknown { .. })))
    }

    /// Returns this verifier with another key set. A verifier that only uses secrets ignores `keys`.
    #[must_use]
    pub fn with_keys(&self, keys: KeySet) -> Self {
        let mut other = self.clone();
        if let Some(scheme) = &mut other.asymmetric {
            scheme.keys = keys;
        }
        other
    }

    /// Checks that the required headers have their values.
    fn check_required_headers<H: Headers + ?Sized>(&self, headers: &H) -> Result<(), Rejection> {
        for (name, expected) in &self.required_headers {
            let problem = match headers.find(name) {
                Found::Absent => HeaderProblem::Absent,
                Found::Repeated => HeaderProblem::Repeated,
                Found::Once(value) if value.ct_eq(expected.expose()).into() => continue,
                Found::Once(_) => HeaderProblem::Different,
            };
            return Err(Rejection::HeaderMismatch { name: name.clone(), problem });
        }
        Ok(())
    }
}

/// A request whose tokens have valid signatures. Its body and its time are not verified yet.
#[derive(Debug)]
pub struct Authenticated {
    policy: Policy,
    /// The result for the first active scheme. If it is an error, the policy is [`Policy::Either`] and `second` is `Ok`.
    first: Result<Token, Rejection>,
    /// The result for the second scheme; `None` if only one scheme is active.
    second: Option<Box<Result<Token, Rejection>>>,
    header_mismatch: Option<Box<Rejection>>,
}

impl Authenticated {
    fn tokens(&self) -> impl Iterator<Item = &Result<Token, Rejection>> {
        std::iter::once(&self.first).chain(self.second.as_deref())
    }

    /// Returns whether one of the two tokens names a key that is not in the key set. The other token then has a valid signature.
    #[must_use]
    pub fn names_unknown_key(&self) -> bool {
        self.tokens().any(|token| matches!(token, Err(Rejection::KeyUnknown { .. })))
    }

    /// Returns whether the tokens with valid signatures are as many as the policy requires.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.policy == Policy::Either || self.tokens().all(Result::is_ok)
    }

    /// Returns whether as many tokens as the policy requires are valid at `now`, in Unix seconds.
    #[must_use]
    pub fn is_timely(&self, now: i64) -> bool {
        let is_timely = |token: &Result<Token, Rejection>| {
            token.as_ref().is_ok_and(|token| checks::time(&token.claims, token.expires_at, now).is_ok())
        };
        match self.policy {
            Policy::Either => self.tokens().any(is_timely),
            _ => self.tokens().all(is_timely),
        }
    }

    /// Verifies the body's checksums, the required headers and the time: the second half of [`Verifier::verify`]. Takes `now` in
    /// Unix seconds.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection`] if the request is not authentic, or not valid at `now`.
    pub fn verify_body<B: AsRef<[u8]>>(self, body: B, now: i64) -> Result<Verified<B>, Rejection> {
        self.verify_body_at(body, Some(now))
    }

    /// Verifies the body as [`verify_body`](Self::verify_body) does, but each token at the time at which it was issued. It is for
    /// stored requests that were rejected only because their token had expired.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection`] if the request is not authentic.
    pub fn verify_body_when_issued<B: AsRef<[u8]>>(self, body: B) -> Result<Verified<B>, Rejection> {
        self.verify_body_at(body, None)
    }

    fn verify_body_at<B: AsRef<[u8]>>(self, body: B, now: Option<i64>) -> Result<Verified<B>, Rejection> {
        let Self { policy, first, second, header_mismatch } = self;
        let check = |token: Result<Token, Rejection>| {
            token.and_then(|token| token.verify_body(body.as_ref(), header_mismatch.as_deref(), now))
        };
        let one_of_two = |mut proof: Proof, rejection| {
            if policy != Policy::Either {
                return Err(rejection);
            }
            let was_sent = !matches!(rejection, Rejection::SignatureMissing { .. });
            proof.other_scheme = was_sent.then(|| Box::new(rejection));
            Ok(proof)
        };
        let proof = match (check(first), second.map(|token| check(*token))) {
            (Ok(proof), None | Some(Ok(_))) => Ok(proof),
            (Ok(proof), Some(Err(rejection))) | (Err(rejection), Some(Ok(proof))) => {
                one_of_two(proof, rejection)
            }
            (Err(rejection), None) => Err(rejection),
            (Err(first), Some(Err(second))) => Err(worst(policy, first, second)),
        };
        Ok(Verified { proof: proof?, body })
    }
}

/// Chooses which of two rejections to report. [`Rejection::Expired`] means that all other checks succeeded: with
/// [`Policy::Either`] for one of the schemes, with [`Policy::Both`] for both.
fn worst(policy: Policy, first: Rejection, second: Rejection) -> Rejection {
    let weight = |rejection: &Rejection| match (policy, rejection) {
        (Policy::Either, Rejection::Expired { .. }) => 0,
        // A header with an error tells more than one that is missing.
        (Policy::Either, Rejection::SignatureMissing { .. }) => 2,
        (Policy::Both, Rejection::Expired { .. }) => 2,
        _ => 1,
    };
    if weight(&second) < weight(&first) { second } else { first }
}

/// A token with a valid signature and, for the asymmetric scheme, the expected issuer and organization.
#[derive(Debug)]
struct Token {
    by: VerifiedBy,
    claims: Claims,
    expires_at: i64,
}

impl Token {
    fn signed_with_secret<H: Headers + ?Sized>(
        scheme: &SecretScheme,
        headers: &H,
    ) -> Result<Self, Rejection> {
        let token = Compact::parse(SECRET_HEADER, only_value(headers, SECRET_HEADER)?)?;
        let label = Arc::clone(scheme.authenticate(&token)?);
        let claims = Claims::decode(&token, |_, _| Ok(()))?;
        let expires_at = checks::expiry(&claims, true)?;
        Ok(Self { by: VerifiedBy::Secret { label }, claims, expires_at })
    }

    fn signed_by_dt<H: Headers + ?Sized>(scheme: &AsymmetricScheme, headers: &H) -> Result<Self, Rejection> {
        let token = Compact::parse(ASYMMETRIC_HEADER, only_value(headers, ASYMMETRIC_HEADER)?)?;
        let kid = scheme.authenticate(&token)?;
        let claims = Claims::decode(&token, |issuer, subject| scheme.check_claims(issuer, subject))?;
        let expires_at = checks::expiry(&claims, false)?;
        Ok(Self { by: VerifiedBy::Asymmetric { kid }, claims, expires_at })
    }

    fn verify_body(
        self,
        body: &[u8],
        header_mismatch: Option<&Rejection>,
        now: Option<i64>,
    ) -> Result<Proof, Rejection> {
        let Self { by, claims, expires_at } = self;
        let sha1_is_enough = matches!(by, VerifiedBy::Secret { .. });
        checks::checksums(&claims, body, sha1_is_enough)?;
        if let Some(rejection) = header_mismatch {
            return Err(rejection.clone());
        }
        let issued_at = claims.iat.map(|iat| iat.0);
        let when_issued = || issued_at.unwrap_or_else(|| expires_at.saturating_sub(checks::TOKEN_LIFETIME));
        checks::time(&claims, expires_at, now.unwrap_or_else(when_issued))?;
        Ok(Proof { by, issued_at, expires_at, token_id: claims.jti, other_scheme: None })
    }
}

fn only_value<'a, H: Headers + ?Sized>(headers: &'a H, header: &'static str) -> Result<&'a [u8], Rejection> {
    match headers.find(header) {
        Found::Once(value) => Ok(value),
        Found::Absent => Err(Rejection::SignatureMissing { header }),
        Found::Repeated => {
            Err(Rejection::SignatureMalformed { header, reason: "it was sent more than once" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Signer;

    /// An attacker's ES256 signature costs some 100 us; twice would be half the rate at which they can be refused.
    #[test]
    fn a_bad_signature_is_verified_once() {
        let set = br#"{"keys":[{"kty":"EC","crv":"P-256","use":"sig","kid":"one","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
        let set = KeySet::from_jwks(set).expect("a set");
        let verifier = Verifier::builder().key_set_of_issuer(set, "org", "https://issuer.example");
        let verifier = verifier.build().expect("has keys");
        let token = |kid: &str| {
            use base64::Engine as _;
            let encode = |json: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json);
            let head = encode(&format!(r#"{{"alg":"ES256","typ":"JWT","kid":"{kid}"}}"#));
            [("dt-asymmetric-signature", format!("{head}.{}.{}", encode("{}"), "A".repeat(86)))]
        };
        for (kid, code, is_unknown, verified) in
            [("one", "signature_mismatch", false, 1), ("other", "key_unknown", true, 0)]
        {
            let before = crate::token::verified_here();
            let headers = token(kid);
            assert_eq!(verifier.authenticate(&headers).err().map(|rejection| rejection.code()), Some(code));
            assert_eq!(verifier.names_unknown_key(&headers), is_unknown);
            assert_eq!(crate::token::verified_here() - before, verified, "{kid}");
        }
    }

    #[test]
    fn a_kept_request_is_verified_for_the_moment_it_was_issued_and_without_the_headers() {
        let secret = || Secret::new("some-good-secret").expect("not empty");
        let header = Secret::new("value").expect("not empty");
        let verifier = Verifier::builder().secret("a", secret()).require_header("x-mine", header);
        let verifier = verifier.build().expect("has keys");
        let (body, issued) = (b"{}".as_slice(), 1_700_000_000);
        let token = Signer::secret(secret()).sign(body, issued, "c82gg99hga35jc2afkeg").expect("signed");
        let headers = [("x-dt-signature", token)];
        let when_issued = |verifier: &Verifier, body| {
            let authenticated = verifier.authenticate(&headers).expect("signed with our key");
            authenticated.verify_body_when_issued(body).map_err(|rejection| rejection.code())
        };
        let is_timely = |now| verifier.authenticate(&headers).expect("signed with our key").is_timely(now);
        assert_eq!(
            [-61, -60, 0, 3659, 3660].map(|after| is_timely(issued + after)),
            [false, true, true, true, false]
        );
        assert_eq!(when_issued(&verifier, body), Err("header_mismatch"));
        let kept = verifier.without_required_headers();
        assert_eq!(kept.verify(&headers, body, issued + 9000).map_err(|r| r.code()), Err("expired"));
        assert_eq!(when_issued(&kept, body).map(|verified| verified.issued_at()), Ok(Some(issued)));
        assert_eq!(when_issued(&kept, b"{ }"), Err("checksum_mismatch"));
    }
}
