//! Signs and verifies with the cryptographic back-end that the features choose.
//!
//! The provider is called directly and never installed as `jsonwebtoken`'s default of the process. That default belongs to the
//! embedding program, which may need algorithms that our back-ends lack; and whatever provider another crate installs, it
//! does not decide which requests are authentic.

use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

#[cfg(all(feature = "pure-rust", any(test, not(feature = "aws-lc"))))]
mod pure_rust;
#[cfg(test)]
mod tests;

#[cfg(feature = "aws-lc")]
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER as PROVIDER;
#[cfg(all(feature = "pure-rust", not(feature = "aws-lc")))]
use pure_rust::PROVIDER;

/// Returns the signature of `message`, not yet encoded.
///
/// # Errors
///
/// `jsonwebtoken`'s error when `key` is not a private key for `algorithm`, or the back-end cannot sign.
pub fn sign(algorithm: Algorithm, key: &EncodingKey, message: &[u8]) -> Result<Vec<u8>> {
    let signer = (PROVIDER.signer_factory)(&algorithm, key)?;
    signer.try_sign(message).map_err(|error| ErrorKind::Signing(error.to_string()).into())
}

/// Returns whether `signature`, in bytes, was made with `key` over `message`. `false` if `key` is not a key for `algorithm`.
pub fn verify(algorithm: Algorithm, key: &DecodingKey, message: &[u8], signature: &Vec<u8>) -> bool {
    (PROVIDER.verifier_factory)(&algorithm, key)
        .is_ok_and(|verifier| verifier.verify(message, signature).is_ok())
}
