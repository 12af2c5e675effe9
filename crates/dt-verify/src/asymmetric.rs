//! The scheme of the header `DT-Asymmetric-Signature`: a JWT signed with one of DT's own keys (ES256, RFC 7518
//! section 3.4). One DT key signs for all of DT's customers, so the token's `sub` has to name *your* organization.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use super::rejection::{Rejection, safe_to_show};
use super::token::{self, Compact};

/// The name of the request header with the ES256 token (DT's Terraform provider).
pub const ASYMMETRIC_HEADER: &str = "DT-Asymmetric-Signature";

/// The issuer of DT's tokens; its discovery document is at `/.well-known/openid-configuration` below it.
pub const DT_ISSUER: &str = "https://identity.disruptive-technologies.com/data-connector";

/// The largest number of keys in a set. It limits the search that every request needs.
const MAX_KEYS: usize = 64;

/// DT's public keys: the part of a JWK set (RFC 7517) that can verify ES256.
///
/// Keys of other types, curves or uses are ignored, as RFC 7517 section 5 requires.
#[derive(Clone)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Clone)]
pub(super) struct Key {
    id: Option<Arc<str>>,
    key: DecodingKey,
}

/// Why a JWK set cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// The text is not a JWK set.
    #[error("not a JWK set (RFC 7517): {0}")]
    NotAKeySet(#[from] serde_json::Error),
    /// A coordinate (`x` or `y`) of a P-256 key is missing, or is not 32 bytes in base64url.
    #[error("the coordinates of key `{kid}` are not two times 32 bytes of base64url")]
    BadCoordinates {
        /// The `kid` (key id) of the key with the invalid coordinates.
        kid: String,
    },
    /// Two keys have the same `kid`.
    #[error("two keys have the kid `{kid}`")]
    RepeatedKey {
        /// The `kid` (key id) that both keys have.
        kid: String,
    },
    /// The set has more than 64 keys.
    #[error("the set has {found} keys; at most {MAX_KEYS} are allowed")]
    TooMany {
        /// The number of keys in the set.
        found: usize,
    },
    /// No key of the set can verify ES256.
    #[error("none of the {found} key(s) is an EC key on P-256 for signatures")]
    NoUsableKey {
        /// The number of keys of any type in the set.
        found: usize,
    },
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: Option<String>,
    crv: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    fn verifies_es256(&self) -> bool {
        self.kty.as_deref() == Some("EC")
            && self.crv.as_deref() == Some("P-256")
            && self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.alg.as_deref().is_none_or(|alg| alg == "ES256")
    }

    fn decode(self) -> Result<Key, KeySetError> {
        let (x, y) = (self.x.unwrap_or_default(), self.y.unwrap_or_default());
        let is_coordinate = |text: &str| URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32);
        if is_coordinate(&x)
            && is_coordinate(&y)
            && let Ok(key) = DecodingKey::from_ec_components(&x, &y)
        {
            return Ok(Key { id: self.kid.map(Arc::from), key });
        }
        Err(KeySetError::BadCoordinates { kid: safe_to_show(self.kid.as_deref().unwrap_or("(none)")) })
    }
}

impl KeySet {
    /// Parses a JWK set, as DT's `jwks_uri` serves it.
    ///
    /// # Errors
    ///
    /// Returns [`KeySetError`] if the text is not a JWK set, has no key for ES256 or more than 64 keys, or has two keys with one
    /// `kid`.
    pub fn from_jwks(json: &[u8]) -> Result<Self, KeySetError> {
        let set: JwkSet = serde_json::from_slice(json)?;
        let found = set.keys.len();
        if found > MAX_KEYS {
            return Err(KeySetError::TooMany { found });
        }
        let mut keys: Vec<Key> = Vec::new();
        // A key of an unknown kind must not make the other keys unusable.
        let readable = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        for jwk in readable.filter(Jwk::verifies_es256) {
            let key = jwk.decode()?;
            if let Some(id) = key.id.as_deref()
                && keys.iter().any(|known| known.id.as_deref() == Some(id))
            {
                return Err(KeySetError::RepeatedKey { kid: safe_to_show(id) });
            }
            keys.push(key);
        }
        if keys.is_empty() { Err(KeySetError::NoUsableKey { found }) } else { Ok(Self { keys }) }
    }

    /// Returns a set without keys. A verifier with this set rejects every ES256 token with [`Rejection::KeyUnknown`].
    #[must_use]
    pub const fn none() -> Self {
        Self { keys: Vec::new() }
    }

    /// Returns whether the set has no usable keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the number of usable keys: those that can verify ES256.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns the ids (`kid`) of the usable keys, in the order of the set. Keys without an id are left out.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(|key| key.id.as_deref())
    }

    /// Returns the ids and the bytes of all keys, so that two sets can be compared.
    pub(super) fn contents(&self) -> Vec<u8> {
        let mut contents = Vec::new();
        for Key { id, key } in &self.keys {
            contents.extend(id.as_deref().unwrap_or_default().bytes().chain([0]));
            contents.extend(key.try_get_as_bytes().unwrap_or_default());
        }
        contents
    }

    /// Returns the key with the id `kid`. Without a `kid`, returns the key of a set that has exactly one. `None` if there is no
    /// such key.
    fn select(&self, kid: Option<&str>) -> Option<&Key> {
        match (kid, self.keys.as_slice()) {
            (Some(kid), keys) => keys.iter().find(|key| key.id.as_deref() == Some(kid)),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

/// The configuration of the asymmetric scheme: keys, and the issuer and organization that tokens must name.
#[derive(Debug, Clone)]
pub(super) struct AsymmetricScheme {
    pub keys: KeySet,
    pub issuer: String,
    pub organization: String,
}

impl AsymmetricScheme {
    /// Returns the key that a token names.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection`] if the algorithm is not ES256, or if the key is not in the set.
    pub(super) fn key_of(&self, token: &Compact<'_>) -> Result<&Key, Rejection> {
        token.require_algorithm("ES256")?;
        let kid = token.kid();
        let unknown = || Rejection::KeyUnknown { found: kid.map(safe_to_show), known: self.keys.len() };
        self.keys.select(kid).ok_or_else(unknown)
    }

    /// Verifies the token's signature with the key that it names. Returns the id of the key.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection`] if the key is unknown, or the signature was not made with it.
    pub(super) fn authenticate(&self, token: &Compact<'_>) -> Result<Arc<str>, Rejection> {
        let key = self.key_of(token)?;
        if token::has_valid_signature(token, &key.key, Algorithm::ES256)? {
            Ok(key.id.clone().unwrap_or_else(|| Arc::from("")))
        } else {
            Err(Rejection::SignatureMismatch { header: ASYMMETRIC_HEADER, keys: 1 })
        }
    }

    /// Checks the issuer (`iss`) and the organization (`sub`) of a token.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection`] if one of them is not the configured one.
    pub(super) fn check_claims(&self, issuer: Option<&str>, subject: Option<&str>) -> Result<(), Rejection> {
        if issuer != Some(&self.issuer) {
            let (expected, found) = (self.issuer.clone(), issuer.map(safe_to_show));
            return Err(Rejection::IssuerMismatch { expected, found });
        }
        if subject != Some(&self.organization) {
            let (expected, found) = (self.organization.clone(), subject.map(safe_to_show));
            return Err(Rejection::OrganizationMismatch { expected, found });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7517 section 5: a set may have keys for other purposes, and DT may add some at any time.
    #[test]
    fn keys_of_another_kind_are_ignored() {
        let usable = r#"{"kty":"EC","crv":"P-256","use":"sig","alg":"ES256","kid":"one","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
        for (member, other) in [
            (r#""kty":"EC""#, r#""kty":"OKP""#),
            (r#""crv":"P-256""#, r#""crv":"P-384""#),
            (r#""crv":"P-256","#, ""),
            (r#""use":"sig""#, r#""use":"enc""#),
            (r#""alg":"ES256""#, r#""alg":"ES384""#),
        ] {
            let unusable = usable.replacen(member, other, 1).replace("\"x\":\"", "\"x\":\"AAAA");
            assert_ne!(unusable, usable);
            let set = |keys: &str| KeySet::from_jwks(format!(r#"{{"keys":[{keys}]}}"#).as_bytes());
            let both = set(&format!("{unusable},{usable}")).expect("one key is usable");
            assert_eq!(both.ids().collect::<Vec<_>>(), ["one"], "{other}");
            assert!(matches!(set(&unusable), Err(KeySetError::NoUsableKey { found: 1 })), "{other}");
        }
    }
}
