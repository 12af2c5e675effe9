//! A look into a token that nobody vouches for, to say what it seems to be. Nothing here decides anything.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha1::{Digest, Sha1};
use sha2::Sha256;

/// What a token says about itself.
#[derive(Debug, Default)]
pub(super) struct Peek {
    alg: Option<String>,
    claims: Value,
    begins_as_tokens_do: bool,
    parts: usize,
    /// How long the last part is, in characters.
    signature: usize,
}

impl Peek {
    pub(super) fn into(token: &[u8]) -> Self {
        let token = token.trim_ascii();
        let parts: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
        let json = |part: usize| -> Value {
            let decoded = parts.get(part).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
            decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
        };
        Self {
            alg: json(0).get("alg").and_then(Value::as_str).map(str::to_owned),
            claims: json(1),
            // The base64url of `{"`.
            begins_as_tokens_do: token.starts_with(b"eyJ"),
            parts: parts.len(),
            signature: parts.get(2).map_or(0, |part| part.len()),
        }
    }

    pub(super) fn alg(&self) -> Option<&str> {
        self.alg.as_deref()
    }

    pub(super) fn issued_at(&self) -> Option<i64> {
        self.claims.get("iat").and_then(Value::as_i64)
    }

    /// Whether the token looks like the beginning of one.
    pub(super) fn is_cut_short(&self) -> bool {
        let whole = match self.alg() {
            Some("HS256") => 43,
            Some("ES256") => 86,
            _ => 0,
        };
        self.begins_as_tokens_do && (self.parts < 3 || self.parts == 3 && self.signature < whole)
    }

    /// Whether the token's checksums are those of the body; `None` if it has none.
    pub(super) fn fits(&self, body: &[u8]) -> Option<bool> {
        let claim = |name: &str| self.claims.get(name).and_then(Value::as_str).map(str::to_ascii_lowercase);
        let sha256 = claim("checksum_sha256").map(|claimed| claimed == hex::encode(Sha256::digest(body)));
        let sha1 = claim("checksum").map(|claimed| claimed == hex::encode(Sha1::digest(body)));
        sha256.or(sha1)
    }
}
