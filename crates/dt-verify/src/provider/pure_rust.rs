//! The back-end `pure-rust`: a provider of `jsonwebtoken` with HS256 (HMAC-SHA256) and ES256 (ECDSA on P-256), by RustCrypto's
//! crates, and no other algorithm.
//!
//! Signing needs no random numbers: ES256 derives its nonce from key and message (RFC 6979). Keys are zeroed when dropped.

use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::signature::{Error, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
// `jsonwebtoken` has the traits of an older `signature` than `p256`.
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::pkcs8::DecodePrivateKey;
use sha2::Sha256;

/// The cryptographic provider. Its `key_utils` panic: only `jsonwebtoken::jwk` calls them, and only those of an installed
/// provider.
pub(super) static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// The length in bytes of an uncompressed point (SEC 1, section 2.3.3), the form of the keys in a JWK set.
const POINT: usize = 65;

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Ok(Box::new(Hs256::new(key.as_bytes())?)),
        (Algorithm::ES256, AlgorithmFamily::Ec) => {
            let key = SigningKey::from_pkcs8_der(key.as_bytes()).map_err(|_| ErrorKind::InvalidEcdsaKey)?;
            Ok(Box::new(Es256Signer(key)))
        }
        (algorithm, _) => Err(refused(*algorithm)),
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Ok(Box::new(Hs256::new(key.try_get_as_bytes()?)?)),
        (Algorithm::ES256, AlgorithmFamily::Ec) => {
            let point = key.try_get_as_bytes()?;
            let key = VerifyingKey::from_sec1_bytes(point).ok().filter(|_| point.len() == POINT);
            Ok(Box::new(Es256Verifier(key.ok_or(ErrorKind::InvalidEcdsaKey)?)))
        }
        (algorithm, _) => Err(refused(*algorithm)),
    }
}

/// Returns the error for a pair of algorithm and key that this provider does not support.
fn refused(algorithm: Algorithm) -> jsonwebtoken::errors::Error {
    match algorithm {
        Algorithm::HS256 | Algorithm::ES256 => ErrorKind::InvalidKeyFormat.into(),
        _ => ErrorKind::UnsupportedAlgorithm.into(),
    }
}

/// HMAC-SHA256, initialised with the key.
struct Hs256(Hmac<Sha256>);

impl Hs256 {
    fn new(key: &[u8]) -> Result<Self> {
        let keyed = Hmac::new_from_slice(key).map_err(|_| ErrorKind::InvalidKeyFormat)?;
        Ok(Self(keyed))
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        Ok(self.0.clone().chain_update(message).finalize().into_bytes().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], mac: &Vec<u8>) -> std::result::Result<(), Error> {
        // In constant time, and never true for a MAC of another length.
        self.0.clone().chain_update(message).verify_slice(mac).map_err(Error::from_source)
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

struct Es256Signer(SigningKey);

impl Signer<Vec<u8>> for Es256Signer {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        let signature: Signature = self.0.try_sign(message).map_err(Error::from_source)?;
        Ok(signature.to_bytes().to_vec())
    }
}

impl JwtSigner for Es256Signer {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

struct Es256Verifier(VerifyingKey);

impl Verifier<Vec<u8>> for Es256Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        // 64 bytes, r and s from 1 to the order less one (RFC 7518, section 3.4). A high s is legal.
        let signature = Signature::from_slice(signature).map_err(Error::from_source)?;
        self.0.verify(message, &signature).map_err(Error::from_source)
    }
}

impl JwtVerifier for Es256Verifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}
