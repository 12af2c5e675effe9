//! Reads a token without verifying it, to describe it in a cause. No decision depends on it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha1::{Digest, Sha1};
use sha2::Sha256;

/// The content of a token that is not verified.
#[derive(Debug, Default)]
pub struct UnverifiedToken {
    alg: Option<String>,
    claims: Value,
    /// Whether the token begins like a JWT.
    has_jwt_prefix: bool,
    parts: usize,
    /// The length of the token's signature, in characters.
    signature_length: usize,
}

impl UnverifiedToken {
    /// Parses a token. Parts that cannot be read are empty.
    pub fn parse(token: &[u8]) -> Self {
        let token = token.trim_ascii();
        let parts: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
        let json = |part: usize| -> Value {
            let decoded = parts.get(part).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
            decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
        };
        Self {
            alg: json(0).get("alg").and_then(Value::as_str).map(str::to_owned),
            claims: json(1),
            // The base64url encoding of `{"`.
            has_jwt_prefix: token.starts_with(b"eyJ"),
            parts: parts.len(),
            signature_length: parts.get(2).map_or(0, |part| part.len()),
        }
    }

    pub fn alg(&self) -> Option<&str> {
        self.alg.as_deref()
    }

    pub fn issued_at(&self) -> Option<i64> {
        self.claims.get("iat").and_then(Value::as_i64)
    }

    /// Returns whether the token seems to be cut off.
    pub fn is_cut_short(&self) -> bool {
        let complete_length = match self.alg() {
            Some("HS256") => 43,
            Some("ES256") => 86,
            _ => 0,
        };
        self.has_jwt_prefix && (self.parts < 3 || self.parts == 3 && self.signature_length < complete_length)
    }

    /// Returns whether the checksum in the token matches the body; `None` if the token has no checksum.
    pub fn matches_body(&self, body: &[u8]) -> Option<bool> {
        let claim = |name: &str| self.claims.get(name).and_then(Value::as_str).map(str::to_ascii_lowercase);
        let sha256 = claim("checksum_sha256").map(|claimed| claimed == hex::encode(Sha256::digest(body)));
        let sha1 = claim("checksum").map(|claimed| claimed == hex::encode(Sha1::digest(body)));
        sha256.or(sha1)
    }
}
