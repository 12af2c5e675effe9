//! The keys of `DT-Asymmetric-Signature`: ES256, published as a JWK set (RFC 7517). The newest key signs.
//!
//! DT does not document its rotation. Here a rotation adds a key, which signs from then on. The key before it stays in the
//! set, so that its signatures can be verified; older keys are removed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::SecretKey;
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::pkcs8::EncodePrivateKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use dt_verify::Signer;

/// The largest number of keys in the set.
const MAX_KEYS: usize = 2;

/// The private keys, in the form of the state file.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SavedKeys {
    /// The private keys, each 32 bytes in base64url. The last one signs.
    keys: Vec<String>,
}

/// The error if a key cannot be created or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot create a signing key")]
pub(crate) struct KeyError;

/// The keys, and the issuer and the organization of the tokens that are signed with them.
pub(crate) struct Keys {
    issuer: String,
    organization: String,
    keys: Vec<Key>,
}

struct Key {
    id: String,
    secret: SecretKey,
    signer: Signer,
}

impl Keys {
    /// Returns the organization's id: `sub` of the tokens.
    pub(crate) fn organization(&self) -> &str {
        &self.organization
    }

    /// Reads the saved keys, or creates a key if there are none.
    pub(crate) fn new(
        issuer: String,
        organization: String,
        saved: Option<&SavedKeys>,
    ) -> Result<Self, KeyError> {
        let mut keys = Self { issuer, organization, keys: Vec::new() };
        if let Some(saved) = saved {
            for text in &saved.keys {
                let secret =
                    URL_SAFE_NO_PAD.decode(text).ok().and_then(|key| SecretKey::from_slice(&key).ok());
                keys.add(secret.ok_or(KeyError)?)?;
            }
        }
        if keys.keys.is_empty() {
            keys.add(random_key()?)?;
        }
        Ok(keys)
    }

    fn add(&mut self, secret: SecretKey) -> Result<(), KeyError> {
        let der = secret.to_pkcs8_der().map_err(|_| KeyError)?;
        // A part of the coordinate x, which is shorter than a thumbprint.
        let (x, _) = coordinates(&secret).ok_or(KeyError)?;
        let id = format!("emulator-{}", x.get(..12).unwrap_or_default());
        let signer = Signer::asymmetric(der.as_bytes(), &*id, &*self.issuer, &*self.organization)
            .map_err(|_| KeyError)?;
        self.keys.push(Key { id, secret, signer });
        while self.keys.len() > MAX_KEYS {
            self.keys.remove(0);
        }
        Ok(())
    }

    /// Adds a key, which signs from now on, and returns its id.
    pub(crate) fn rotate(&mut self) -> Result<String, KeyError> {
        self.add(random_key()?)?;
        self.keys.last().map(|key| key.id.clone()).ok_or(KeyError)
    }

    /// Returns a signer with the newest key.
    pub(crate) fn signer(&self) -> Option<Signer> {
        self.keys.last().map(|key| key.signer.clone())
    }

    pub(crate) fn saved(&self) -> SavedKeys {
        let keys = self.keys.iter().map(|key| URL_SAFE_NO_PAD.encode(key.secret.to_bytes())).collect();
        SavedKeys { keys }
    }

    /// Returns the JWK set.
    pub(crate) fn jwks(&self) -> Value {
        let jwk = |key: &Key| {
            let (x, y) = coordinates(&key.secret)?;
            Some(
                json!({"kty": "EC", "use": "sig", "alg": "ES256", "kid": key.id, "crv": "P-256", "x": x, "y": y}),
            )
        };
        json!({"keys": self.keys.iter().filter_map(jwk).collect::<Vec<_>>()})
    }

    /// Returns the discovery document (OpenID Connect Discovery 1.0, section 3) with the members that verifiers of DT's tokens
    /// read.
    pub(crate) fn discovery(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/jwks.json", self.issuer),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

fn random_key() -> Result<SecretKey, KeyError> {
    // About one of 2^32 random values is not a key; three in a row mean that the random numbers are broken.
    for _ in 0..3 {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|_| KeyError)?;
        if let Ok(key) = SecretKey::from_slice(&bytes) {
            return Ok(key);
        }
    }
    Err(KeyError)
}

fn coordinates(key: &SecretKey) -> Option<(String, String)> {
    let point = key.public_key().to_sec1_point(false);
    Some((URL_SAFE_NO_PAD.encode(point.x()?), URL_SAFE_NO_PAD.encode(point.y()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dt_verify::{KeySet, Verifier};

    fn keys(saved: Option<&SavedKeys>) -> Keys {
        Keys::new("http://i".to_owned(), "org".to_owned(), saved).unwrap_or_else(|error| panic!("{error}"))
    }

    fn verifies(set: &Keys, by: &Keys) -> bool {
        let key_set = KeySet::from_jwks(set.jwks().to_string().as_bytes()).unwrap();
        let verifier = Verifier::builder().key_set_of_issuer(key_set, "org", "http://i").build().unwrap();
        let signer = by.signer().unwrap();
        let token = signer.sign(b"{}", 1_700_000_000, "j").unwrap();
        verifier.verify(&[(signer.header_name(), token)], b"{}", 1_700_000_000).is_ok()
    }

    #[test]
    fn a_rotation_keeps_the_key_before() {
        let mut rotated = keys(None);
        let before = keys(Some(&rotated.saved()));
        assert!(verifies(&rotated, &before));
        let first = rotated.rotate().unwrap();
        assert!(verifies(&rotated, &rotated) && verifies(&rotated, &before) && !verifies(&before, &rotated));
        assert_ne!(rotated.rotate().unwrap(), first);
        assert!(!verifies(&rotated, &before));
        assert_eq!(rotated.jwks()["keys"].as_array().unwrap().len(), 2);
    }
}
