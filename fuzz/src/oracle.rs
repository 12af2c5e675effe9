//! A second opinion on what was accepted, by code that shares nothing with the verifier but base64 and `serde_json`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::request::{hex, hs256};

/// Judges an HS256 token that was accepted; without `now`, whatever its time.
///
/// # Panics
///
/// When the secret did not sign it, or the claims do not hold for the body or the time.
#[track_caller]
pub fn assert_signed_for(token: &[u8], secret: &str, body: &[u8], now: Option<i64>) {
    let token = std::str::from_utf8(token).expect("an accepted token is ASCII").trim();
    let [jose, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!("an accepted token has {} dots", token.matches('.').count());
    };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("an accepted token is base64url");
    let signed = format!("{jose}.{payload}");
    assert_eq!(decode(signature), hs256(secret, signed.as_bytes()), "the signature is not the secret's");
    let jose = Members::read(&decode(jose));
    assert_eq!(jose.value("alg"), "HS256", "another algorithm was accepted");
    assert!(jose.value("crit").is_null(), "critical extensions were accepted");

    let claims = Members::read(&decode(payload));
    let checksums = [("checksum", hex(&Sha1::digest(body))), ("checksum_sha256", hex(&Sha256::digest(body)))];
    let mut bound = false;
    for (name, computed) in checksums {
        match claims.value(name) {
            Value::Null => {}
            claimed => {
                let claimed = claimed.as_str().expect("an accepted checksum is a text");
                assert!(claimed.eq_ignore_ascii_case(&computed), "{name} is not the body's");
                bound = true;
            }
        }
    }
    assert!(bound, "a token without a checksum was accepted");
    let seconds = |name: &str| claims.value(name).as_f64();
    let exp = seconds("exp").expect("an accepted token has an exp");
    let Some(now) = now else { return };
    // As floats: the exact edges are in the unit tests.
    let (now, slack) = (now as f64, 61.0 + (now as f64).abs() * 1e-9);
    assert!(now - exp < slack, "an expired token was accepted");
    for name in ["iat", "nbf"] {
        assert!(seconds(name).is_none_or(|from| from - now < slack), "a token of the future was accepted");
    }
}

/// The members that matter. The rest may be what no [`Value`] can hold, such as half a surrogate pair or `1e999`: that is
/// JSON all the same (RFC 8259, sections 6 and 8.2), and the verifier does not look at it.
#[derive(Deserialize)]
struct Members {
    alg: Option<Box<RawValue>>,
    crit: Option<Box<RawValue>>,
    exp: Option<Box<RawValue>>,
    iat: Option<Box<RawValue>>,
    nbf: Option<Box<RawValue>>,
    checksum: Option<Box<RawValue>>,
    checksum_sha256: Option<Box<RawValue>>,
}

impl Members {
    fn read(json: &[u8]) -> Self {
        let text = std::str::from_utf8(json).expect("an accepted token is UTF-8");
        serde_json::from_str(text).expect("an accepted token is JSON")
    }

    fn value(&self, name: &str) -> Value {
        let member = match name {
            "alg" => &self.alg,
            "crit" => &self.crit,
            "exp" => &self.exp,
            "iat" => &self.iat,
            "nbf" => &self.nbf,
            "checksum" => &self.checksum,
            "checksum_sha256" => &self.checksum_sha256,
            other => unreachable!("nobody asks for {other}"),
        };
        let read = |raw: &RawValue| serde_json::from_str(raw.get()).expect("an accepted member is JSON");
        member.as_deref().map_or(Value::Null, read)
    }
}
