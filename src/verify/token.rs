//! The compact JWS (RFC 7515, section 7.1) in a signature header, and the claims in it (RFC 7519).
//!
//! Reading and trusting are apart: [`Compact::parse`] takes the token to pieces, [`signature_holds`] checks the
//! signature, and only then does [`Claims::decode`] look at what is claimed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, Visitor};

use super::rejection::{Rejection, safe_to_show};

/// Longest token that is looked at; DT's are about 400 bytes.
pub const MAX_TOKEN_LEN: usize = 8192;

/// A token taken to pieces; nothing of it is trusted yet.
#[derive(Debug)]
pub(super) struct Compact<'a> {
    header: &'static str,
    jose: JoseHeader,
    /// `header.payload`, the bytes that are signed.
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
}

#[derive(Debug, Deserialize)]
struct JoseHeader {
    alg: Option<String>,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl<'a> Compact<'a> {
    /// Takes the value of the signature header named `header` to pieces.
    pub(super) fn parse(header: &'static str, value: &'a [u8]) -> Result<Self, Rejection> {
        let malformed = |reason| Rejection::SignatureMalformed { header, reason };
        let value = value.trim_ascii();
        if value.len() > MAX_TOKEN_LEN {
            return Err(malformed("it is longer than 8192 bytes"));
        }
        let is_legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !value.iter().all(is_legal) {
            return Err(malformed("it has characters that are not base64url"));
        }
        let text = std::str::from_utf8(value).map_err(|_| malformed("it is not text"))?;
        let three = "it is not three parts joined by dots";
        let (signed, signature) = text.rsplit_once('.').ok_or_else(|| malformed(three))?;
        let (jose, payload) = signed.split_once('.').ok_or_else(|| malformed(three))?;
        if payload.contains('.') {
            return Err(malformed(three));
        }
        let jose = URL_SAFE_NO_PAD.decode(jose).map_err(|_| malformed("its header is not base64url"))?;
        let jose: JoseHeader =
            from_object(&jose).ok_or_else(|| malformed("its header is not a JOSE header"))?;
        if jose.crit.is_some() {
            // RFC 7515, section 4.1.11: extensions that are not understood make the token invalid.
            return Err(malformed("its header has critical extensions"));
        }
        Ok(Self { header, jose, signed, payload, signature })
    }

    /// Refuses any algorithm but the scheme's own, whatever keys there are.
    pub(super) fn require_algorithm(&self, expected: &'static str) -> Result<(), Rejection> {
        let header = self.header;
        match self.jose.alg.as_deref() {
            Some(alg) if alg == expected => Ok(()),
            Some(alg) => Err(Rejection::AlgorithmNotAllowed { header, expected, found: safe_to_show(alg) }),
            None => Err(Rejection::SignatureMalformed { header, reason: "its header has no `alg`" }),
        }
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.jose.kid.as_deref()
    }
}

/// Whether `key` made the token's signature.
pub(super) fn signature_holds(
    token: &Compact<'_>,
    key: &DecodingKey,
    alg: Algorithm,
) -> Result<bool, Rejection> {
    match jsonwebtoken::crypto::verify(token.signature, token.signed.as_bytes(), key, alg) {
        Ok(holds) => Ok(holds),
        Err(error) if matches!(error.kind(), ErrorKind::Base64(_)) => Err(Rejection::SignatureMalformed {
            header: token.header,
            reason: "its signature is not base64url",
        }),
        // A key that the back-end cannot use has not made the signature either.
        Err(_) => Ok(false),
    }
}

/// The claims DT uses. JSON `null` counts as absent; what is not listed here is ignored.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Claims {
    pub(super) exp: Option<NumericDate>,
    pub(super) iat: Option<NumericDate>,
    pub(super) nbf: Option<NumericDate>,
    pub(super) jti: Option<String>,
    pub(super) iss: Option<String>,
    pub(super) sub: Option<String>,
    pub(super) checksum: Option<String>,
    pub(super) checksum_sha256: Option<String>,
}

impl Claims {
    /// Reads the claims of a token whose signature was found to hold.
    pub(super) fn decode(token: &Compact<'_>) -> Result<Self, Rejection> {
        let payload = URL_SAFE_NO_PAD.decode(token.payload).ok();
        payload.as_deref().and_then(from_object).ok_or(Rejection::SignatureMalformed {
            header: token.header,
            reason: "its claims are not a JSON object with values of the right types",
        })
    }
}

/// Reads a JSON object. serde would take an array for a struct as well, and let bad UTF-8 pass where it skips.
fn from_object<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(json).ok()?;
    if text.trim_ascii_start().starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

/// A point in time as JWTs have it (RFC 7519, section 2): seconds since 1970, integer or fractional.
///
/// Fractions are floored; what does not fit an `i64` saturates, so that no value of a token can overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NumericDate(pub(super) i64);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = NumericDate;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of seconds")
            }

            fn visit_i64<E>(self, value: i64) -> Result<NumericDate, E> {
                Ok(NumericDate(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<NumericDate, E> {
                Ok(NumericDate(i64::try_from(value).unwrap_or(i64::MAX)))
            }

            #[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which is what is wanted")]
            fn visit_f64<E>(self, value: f64) -> Result<NumericDate, E> {
                Ok(NumericDate(value.floor() as i64))
            }
        }
        deserializer.deserialize_any(Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Option<Claims> {
        serde_json::from_str(json).ok()
    }

    #[test]
    fn numeric_dates_saturate_and_floor() {
        let exp = |text: &str| claims(&format!(r#"{{"exp":{text}}}"#)).map(|c| c.exp.map(|date| date.0));
        assert_eq!(exp("1700000000"), Some(Some(1_700_000_000)));
        assert_eq!(exp("1700000000.9"), Some(Some(1_700_000_000)));
        assert_eq!(exp("-1.5"), Some(Some(-2)));
        assert_eq!(exp("9223372036854775807"), Some(Some(i64::MAX)));
        assert_eq!(exp("9223372036854775808"), Some(Some(i64::MAX)));
        assert_eq!(exp("-9223372036854775808"), Some(Some(i64::MIN)));
        assert_eq!(exp("1e300"), Some(Some(i64::MAX)));
        assert_eq!(exp("null"), Some(None));
        assert_eq!(exp("\"1700000000\""), None);
        assert_eq!(exp("true"), None);
    }

    #[test]
    fn a_claim_given_twice_is_not_readable() {
        assert_eq!(claims(r#"{"exp":1,"exp":2}"#), None);
        assert_eq!(claims(r#"{"checksum":"a","checksum":"b"}"#), None);
    }
}
