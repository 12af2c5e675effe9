//! Makes tokens exactly as DT does, for tests and emulators.

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, EncodingKey};
use serde::Serialize;
use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::asymmetric::ASYMMETRIC_HEADER;
use super::checks::TOKEN_LIFETIME;
use super::provider;
use super::secret::{SECRET_HEADER, Secret};

/// Signs request bodies as DT's cloud does.
///
/// # Examples
///
/// ```
/// use dt_verify::{Secret, Signer, xid};
///
/// let signer = Signer::secret(Secret::new("some-good-secret").unwrap());
/// let issued_at = 1_700_000_000;
/// let jti = xid(issued_at, [7; 8]);
/// let token = signer.sign(b"{}", issued_at, &jti).unwrap();
/// assert_eq!(signer.header_name(), "X-Dt-Signature");
/// assert!(token.starts_with("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."));
/// ```
#[derive(Clone)]
pub struct Signer {
    key: EncodingKey,
    scheme: Scheme,
}

#[derive(Clone)]
enum Scheme {
    Secret,
    Asymmetric { kid: Arc<str>, issuer: Arc<str>, organization: Arc<str> },
}

/// Why a token cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// The private key is not a PKCS#8 DER document of an EC key on P-256.
    #[error("the private key is not PKCS#8 DER of an EC key on P-256")]
    BadKey,
    /// The cryptographic back-end does not sign.
    #[error("the cryptographic back-end refused to sign")]
    Refused,
}

/// The claims of a token with a shared secret, in DT's order.
#[derive(Serialize)]
struct SecretClaims<'a> {
    checksum: String,
    checksum_sha256: String,
    exp: i64,
    iat: i64,
    jti: &'a str,
}

/// The claims of a token with DT's own signature, in DT's order.
#[derive(Serialize)]
struct AsymmetricClaims<'a> {
    checksum_sha256: String,
    exp: i64,
    iat: i64,
    iss: &'a str,
    jti: &'a str,
    sub: &'a str,
}

impl Signer {
    /// Signs with a shared secret, for the header `X-Dt-Signature`.
    #[expect(clippy::needless_pass_by_value, reason = "the signer takes the secret over")]
    #[must_use]
    pub fn secret(secret: Secret) -> Self {
        Self { key: EncodingKey::from_secret(secret.expose()), scheme: Scheme::Secret }
    }

    /// Signs with a private key, for the header `DT-Asymmetric-Signature`.
    ///
    /// `pkcs8_der` is the private key (EC on P-256), `kid` its id in the key set, `issuer` and `organization` become
    /// `iss` and `sub`.
    ///
    /// # Errors
    ///
    /// Returns [`SignerError::BadKey`] if the private key cannot sign.
    pub fn asymmetric(
        pkcs8_der: &[u8],
        kid: impl Into<Arc<str>>,
        issuer: impl Into<Arc<str>>,
        organization: impl Into<Arc<str>>,
    ) -> Result<Self, SignerError> {
        let scheme =
            Scheme::Asymmetric { kid: kid.into(), issuer: issuer.into(), organization: organization.into() };
        let signer = Self { key: EncodingKey::from_ec_der(pkcs8_der), scheme };
        match signer.sign(b"", 0, "") {
            Ok(_) => Ok(signer),
            Err(_) => Err(SignerError::BadKey),
        }
    }

    /// Returns the name of the header for the token.
    #[must_use]
    pub const fn header_name(&self) -> &'static str {
        match self.scheme {
            Scheme::Secret => SECRET_HEADER,
            Scheme::Asymmetric { .. } => ASYMMETRIC_HEADER,
        }
    }

    /// Makes the token for `body`, issued at `issued_at` (Unix seconds) and valid for an hour, with the token id `jti`.
    ///
    /// # Errors
    ///
    /// Returns [`SignerError::Refused`] if the cryptographic back-end does not sign.
    pub fn sign(&self, body: &[u8], issued_at: i64, jti: &str) -> Result<String, SignerError> {
        self.sign_for(body, issued_at, TOKEN_LIFETIME, jti)
    }

    /// Makes the token for `body`, issued at `issued_at` (Unix seconds), which expires after `lifetime` seconds.
    ///
    /// # Errors
    ///
    /// Returns [`SignerError::Refused`] if the cryptographic back-end does not sign.
    pub fn sign_for(
        &self,
        body: &[u8],
        issued_at: i64,
        lifetime: i64,
        jti: &str,
    ) -> Result<String, SignerError> {
        let checksum_sha256 = hex::encode(Sha256::digest(body));
        let (iat, exp) = (issued_at, issued_at.saturating_add(lifetime));
        let token = match &self.scheme {
            Scheme::Secret => {
                let checksum = hex::encode(Sha1::digest(body));
                self.encode(
                    Algorithm::HS256,
                    None,
                    &SecretClaims { checksum, checksum_sha256, exp, iat, jti },
                )
            }
            Scheme::Asymmetric { kid, issuer: iss, organization: sub } => self.encode(
                Algorithm::ES256,
                Some(kid),
                &AsymmetricClaims { checksum_sha256, exp, iat, iss, jti, sub },
            ),
        };
        token.map_err(|_| SignerError::Refused)
    }

    fn encode(
        &self,
        alg: Algorithm,
        kid: Option<&str>,
        claims: &impl Serialize,
    ) -> jsonwebtoken::errors::Result<String> {
        // The `Header` of jsonwebtoken begins with `typ`; DT's tokens begin with `alg`.
        #[derive(Serialize)]
        struct JoseHeader<'a> {
            alg: Algorithm,
            #[serde(skip_serializing_if = "Option::is_none")]
            kid: Option<&'a str>,
            typ: &'static str,
        }
        let segment =
            |bytes: Vec<u8>| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
        let header = segment(serde_json::to_vec(&JoseHeader { alg, kid, typ: "JWT" })?);
        let payload = segment(serde_json::to_vec(claims)?);
        let mut token = format!("{header}.{payload}");
        let signature = provider::sign(alg, &self.key, token.as_bytes())?;
        token.push('.');
        token.push_str(&segment(signature));
        Ok(token)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.header_name())
    }
}

/// Returns an id as DT makes for events and tokens: an xid, which has 20 characters of base32hex and begins with the time.
///
/// `unique` takes the part of machine, process and counter. It must differ among ids of the same second.
///
/// # Examples
///
/// ```
/// assert_eq!(dt_verify::xid(0, [0; 8]), "00000000000000000000");
/// assert_eq!(dt_verify::xid(1_644_496_933, [255; 8]), "c82gg9fvvvvvvvvvvvvg");
/// ```
#[must_use]
pub fn xid(unix_seconds: i64, unique: [u8; 8]) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    // The time has 32 bits; later and earlier times wrap, as in every xid.
    let time = unix_seconds.to_be_bytes();
    let mut bits =
        time.iter().skip(4).chain(&unique).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    bits <<= 4; // 96 bits fill 19.2 characters of 5 bits
    let mut text: Vec<char> = Vec::with_capacity(20);
    for _ in 0..20 {
        // Five bits are an index below 32.
        let digit = usize::try_from(bits & 31).ok().and_then(|index| ALPHABET.get(index));
        text.extend(digit.map(|digit| char::from(*digit)));
        bits >>= 5;
    }
    text.into_iter().rev().collect()
}
