//! The compact JWS (RFC 7515, section 7.1) in a signature header, and the claims in it (RFC 7519).
//!
//! [`Compact::parse`] splits the token, [`has_valid_signature`] verifies its signature, and only then [`Claims::decode`] reads
//! the claims.

use std::borrow::Cow;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeSliceError, Engine};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, Visitor};

use super::provider;
use super::rejection::{Rejection, safe_to_show};

/// The largest size of a token in bytes. DT's tokens have about 400.
pub const MAX_TOKEN_LEN: usize = 8192;

/// The parts of a token whose signature is not verified yet.
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
    alg: Option<Cow<'static, str>>,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl JoseHeader {
    /// `{"alg":"HS256","typ":"JWT"}` in base64url, the header of all of DT's tokens with a shared secret. The parser compares a
    /// token's header with this text, and parses it only if they differ.
    const USUAL: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

    /// The length of the signature of such a token, with the dot before it.
    const SIGNATURE: usize = 44;

    const fn usual() -> Self {
        Self { alg: Some(Cow::Borrowed("HS256")), kid: None, crit: None }
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| "its header is not base64url")?;
        // serde_json does not check the UTF-8 of values that it skips.
        let text = std::str::from_utf8(&json).ok();
        let header: Self = text.and_then(from_object).ok_or("its header is not a JOSE header")?;
        // RFC 7515, section 4.1.11: extensions that are not understood make the token invalid.
        if header.crit.is_some() { Err("its header has critical extensions") } else { Ok(header) }
    }
}

impl<'a> Compact<'a> {
    /// Splits the value of the signature header named `header`.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection::SignatureMalformed`] if it is not a compact JWS.
    pub(super) fn parse(header: &'static str, value: &'a [u8]) -> Result<Self, Rejection> {
        let malformed = |reason| Rejection::SignatureMalformed { header, reason };
        let value = value.trim_ascii();
        if value.len() > MAX_TOKEN_LEN {
            return Err(malformed("it is longer than 8192 bytes"));
        }
        // Without an early exit, so that the compiler vectorises the loop.
        let is_legal =
            |byte: u8| byte.is_ascii_alphanumeric() | (byte == b'-') | (byte == b'_') | (byte == b'.');
        if !value.iter().fold(true, |legal, byte| legal & is_legal(*byte)) {
            return Err(malformed("it has characters that are not base64url"));
        }
        let text = std::str::from_utf8(value).map_err(|_| malformed("it is not text"))?;
        // The fast path for DT's tokens with a shared secret; see `ReadClaims::usual`.
        let usual = text.split_at_checked(text.len().saturating_sub(JoseHeader::SIGNATURE));
        if let Some((signed, signature)) = usual
            && let Some((JoseHeader::USUAL, payload)) = signed.split_at_checked(JoseHeader::USUAL.len())
            && let (Some(payload), Some(signature)) = (payload.strip_prefix('.'), signature.strip_prefix('.'))
            && payload.bytes().chain(signature.bytes()).fold(true, |none, byte| none & (byte != b'.'))
        {
            return Ok(Self { header, jose: JoseHeader::usual(), signed, payload, signature });
        }
        let three = "it is not three parts joined by dots";
        let (signed, signature) = text.rsplit_once('.').ok_or_else(|| malformed(three))?;
        let (jose, payload) = signed.split_once('.').ok_or_else(|| malformed(three))?;
        if payload.contains('.') {
            return Err(malformed(three));
        }
        let jose = JoseHeader::read(jose).map_err(malformed)?;
        Ok(Self { header, jose, signed, payload, signature })
    }

    /// Checks that the algorithm in the token is the only one that the scheme allows.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection::AlgorithmNotAllowed`], or [`Rejection::SignatureMalformed`] if the token names no algorithm.
    pub(super) fn require_algorithm(&self, expected: &'static str) -> Result<(), Rejection> {
        let header = self.header;
        match self.jose.alg.as_deref() {
            Some(alg) if alg == expected => Ok(()),
            Some(alg) => Err(Rejection::AlgorithmNotAllowed { header, expected, found: safe_to_show(alg) }),
            None => Err(Rejection::SignatureMalformed { header, reason: "its header has no `alg`" }),
        }
    }

    /// Returns the id of the key that the token names (`kid`); `None` if it has no `kid`.
    pub(super) fn kid(&self) -> Option<&str> {
        self.jose.kid.as_deref()
    }
}

#[cfg(test)]
thread_local! {
    static VERIFIED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Returns the number of signatures that this thread has verified.
#[cfg(test)]
pub fn verified_here() -> u32 {
    VERIFIED.with(std::cell::Cell::get)
}

/// Returns whether the token was signed with `key`.
///
/// # Errors
///
/// Returns [`Rejection::SignatureMalformed`] if the signature is not base64url.
pub fn has_valid_signature(
    token: &Compact<'_>,
    key: &DecodingKey,
    alg: Algorithm,
) -> Result<bool, Rejection> {
    #[cfg(test)]
    VERIFIED.with(|count| count.set(count.get().saturating_add(1)));
    let malformed =
        || Rejection::SignatureMalformed { header: token.header, reason: "its signature is not base64url" };
    let signature = URL_SAFE_NO_PAD.decode(token.signature).map_err(|_| malformed())?;
    Ok(provider::verify(alg, key, token.signed.as_bytes(), &signature))
}

/// The claims that are needed to verify the body. JSON `null` counts as absent. Claims that are neither here nor in
/// [`ReadClaims`] are ignored.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Claims {
    pub exp: Option<NumericDate>,
    pub iat: Option<NumericDate>,
    pub nbf: Option<NumericDate>,
    pub jti: Option<String>,
    pub checksum: Option<Claimed<40>>,
    pub checksum_sha256: Option<Claimed<64>>,
}

/// A checksum in a token: a text with as many bytes as the checksum has hex digits, or another text, which never matches.
#[derive(Debug, PartialEq, Eq)]
pub enum Claimed<const DIGITS: usize> {
    Digits([u8; DIGITS]),
    Other(String),
}

impl<const DIGITS: usize> Claimed<DIGITS> {
    fn of(text: &str) -> Self {
        text.as_bytes().try_into().map_or_else(|_| Self::Other(text.to_owned()), Self::Digits)
    }

    /// Returns the checksum as the text in the token.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Digits(digits) => String::from_utf8_lossy(digits),
            Self::Other(text) => Cow::Borrowed(text),
        }
    }
}

/// The claims in the form in which they are parsed, borrowed from the token.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct ReadClaims<'a> {
    exp: Option<NumericDate>,
    iat: Option<NumericDate>,
    nbf: Option<NumericDate>,
    #[serde(borrow)]
    jti: Option<Text<'a>>,
    #[serde(borrow)]
    iss: Option<Text<'a>>,
    #[serde(borrow)]
    sub: Option<Text<'a>>,
    #[serde(borrow)]
    checksum: Option<Text<'a>>,
    #[serde(borrow)]
    checksum_sha256: Option<Text<'a>>,
}

impl<'a> ReadClaims<'a> {
    /// Parses claims that have exactly the form that DT writes with a shared secret: these five, in this order, without
    /// escapes. Returns `None` for all others, which serde parses. Together with the fast path in [`Compact::parse`], it reduces
    /// a verification from 15,500 instructions to 12,600 (`benches/guard`, `verify`).
    fn usual(json: &'a str) -> Option<Self> {
        let (checksum, rest) = json.strip_prefix(r#"{"checksum":""#)?.split_at_checked(40)?;
        let (checksum_sha256, rest) = rest.strip_prefix(r#"","checksum_sha256":""#)?.split_at_checked(64)?;
        let (exp, rest) = usual_seconds(rest.strip_prefix(r#"","exp":"#)?)?;
        let (iat, rest) = usual_seconds(rest.strip_prefix(r#","iat":"#)?)?;
        let jti = rest.strip_prefix(r#","jti":""#)?.strip_suffix("\"}")?;
        let texts = [checksum, checksum_sha256, jti];
        // Without an early exit, so that the compiler vectorises the loop.
        let is_plain =
            |text: &&str| text.bytes().fold(true, |plain, byte| plain & byte.is_ascii_alphanumeric());
        if !texts.iter().all(is_plain) {
            return None;
        }
        let [checksum, checksum_sha256, jti] = texts.map(|text| Some(Text(Cow::Borrowed(text))));
        Some(Self {
            exp: Some(exp),
            iat: Some(iat),
            nbf: None,
            jti,
            iss: None,
            sub: None,
            checksum,
            checksum_sha256,
        })
    }
}

/// Parses a time of ten digits: the years 2001 to 2286. Returns the time and the rest of the text; `None` for any other text.
fn usual_seconds(text: &str) -> Option<(NumericDate, &str)> {
    let (digits, rest) = text.split_at_checked(10)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    if is_number { Some((NumericDate(digits.parse().ok()?), rest)) } else { None }
}

/// A string in a token, borrowed if it has no escapes. The wrapper is needed since serde borrows for a field of type `Cow`, but
/// not for an `Option<Cow>`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Claims {
    /// Decodes the claims of a token with a valid signature. Calls `check_parties` with the issuer and the subject.
    ///
    /// # Errors
    ///
    /// Returns [`Rejection::SignatureMalformed`] if the payload is not a JSON object with values of the right types, or the
    /// error of `check_parties`.
    pub fn decode(
        token: &Compact<'_>,
        check_parties: impl FnOnce(Option<&str>, Option<&str>) -> Result<(), Rejection>,
    ) -> Result<Self, Rejection> {
        /// The size of the buffer on the stack, in bytes. DT's claims have about 250.
        const USUAL: usize = 512;
        let mut usual = [0; USUAL];
        let decoded = match URL_SAFE_NO_PAD.decode_slice(token.payload, &mut usual) {
            Ok(len) => usual.get(..len).map(Cow::Borrowed),
            Err(DecodeSliceError::OutputSliceTooSmall) => {
                URL_SAFE_NO_PAD.decode(token.payload).ok().map(Cow::Owned)
            }
            Err(DecodeSliceError::DecodeError(_)) => None,
        };
        let text = decoded.as_deref().and_then(|json| std::str::from_utf8(json).ok());
        let read = text.and_then(|text| ReadClaims::usual(text).or_else(|| from_object(text)));
        let read = read.ok_or(Rejection::SignatureMalformed {
            header: token.header,
            reason: "its claims are not a JSON object with values of the right types",
        })?;
        let ReadClaims { exp, iat, nbf, jti, iss, sub, checksum, checksum_sha256 } = read;
        check_parties(iss.as_ref().map(|iss| &*iss.0), sub.as_ref().map(|sub| &*sub.0))?;
        Ok(Self {
            exp,
            iat,
            nbf,
            jti: jti.map(|jti| jti.0.into_owned()),
            checksum: checksum.map(|text| Claimed::of(&text.0)),
            checksum_sha256: checksum_sha256.map(|text| Claimed::of(&text.0)),
        })
    }
}

/// Parses a JSON object. Without this check, serde would accept an array for a struct as well.
fn from_object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    if text.trim_ascii_start().starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

/// A time in a JWT (RFC 7519, section 2): seconds since 1970, integer or fractional.
///
/// Fractions are rounded down. Values beyond an `i64` saturate, so that no value of a token can overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumericDate(pub i64);

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

            #[expect(clippy::cast_possible_truncation, reason = "`as` saturates, as intended")]
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
    use proptest::prelude::*;

    /// Claims as DT writes them.
    fn usual_json() -> String {
        let (sha1, sha256) = ("0a".repeat(20), "1b".repeat(32));
        format!(
            r#"{{"checksum":"{sha1}","checksum_sha256":"{sha256}","exp":1700003600,"iat":1700000000,"jti":"c82gg99hga35jc2afkeg"}}"#
        )
    }

    proptest! {
        /// A change at any position: if the fast path accepts the text, serde reads the same.
        #[test]
        fn the_fast_path_reads_what_serde_reads(at in 0..230_usize, len in 0..3_usize, new in r#"[0-9a-zA-Z"\\,:{}. é-]{0,2}"#) {
            let mut json = usual_json();
            prop_assert!(ReadClaims::usual(&json).is_some());
            let at = at.min(json.len());
            let end = at.saturating_add(len).min(json.len());
            json.replace_range(at..end, &new);
            if let Some(read) = ReadClaims::usual(&json) {
                prop_assert_eq!(Some(read), from_object(&json));
            }
        }
    }

    fn claims(json: &str) -> Option<Claims> {
        let payload = URL_SAFE_NO_PAD.encode(json);
        let jose = JoseHeader::usual();
        let token = Compact { header: "x", jose, signed: "", payload: &payload, signature: "" };
        Claims::decode(&token, |_, _| Ok(())).ok()
    }

    #[test]
    fn the_usual_header_is_what_it_is_taken_for() {
        let json = URL_SAFE_NO_PAD.decode(JoseHeader::USUAL).expect("base64url");
        let read = JoseHeader::read(JoseHeader::USUAL).expect("a header");
        assert_eq!(format!("{read:?}"), format!("{:?}", JoseHeader::usual()));
        assert_eq!(json, br#"{"alg":"HS256","typ":"JWT"}"#);
    }

    #[test]
    fn a_token_is_taken_to_pieces_the_same_way_wherever_its_dots_are() {
        let usual = JoseHeader::USUAL;
        for (payload, signature) in [("e30", 43), ("e30", 42), ("e30", 44), ("", 43), ("", 0), ("e", 43)] {
            let signature = "s".repeat(signature);
            let text = format!("{usual}.{payload}.{signature}");
            let token = Compact::parse("x", text.as_bytes()).expect("three parts");
            assert_eq!((token.payload, token.signature), (payload, &*signature), "{text}");
            assert_eq!(
                (token.signed, token.jose.alg.as_deref()),
                (&*format!("{usual}.{payload}"), Some("HS256"))
            );
        }
        let (short, long) = ("s".repeat(42), "s".repeat(43));
        for text in [
            format!("{usual}.e30.e30.{long}"),
            format!("{usual}.e30..{short}"),
            format!("{usual}..e30{long}."),
            format!("{usual}.e30{long}"),
            format!("{usual}.{long}"),
            usual.to_owned(),
            format!(".{long}"),
            long,
        ] {
            let refused = Compact::parse("x", text.as_bytes()).expect_err(&text);
            let reason = "it is not three parts joined by dots";
            assert_eq!(refused, Rejection::SignatureMalformed { header: "x", reason }, "{text}");
        }
    }

    #[test]
    fn claims_of_any_length_and_spelling_are_read() {
        for filler in [0, 300, 5000] {
            let json = format!(
                r#"{{"jti":"\u0061b","checksum":"{}","checksum_sha256":"AbC","x":"{}"}}"#,
                "0F".repeat(20),
                "y".repeat(filler)
            );
            let claims = claims(&json).expect("readable");
            assert_eq!(claims.jti.as_deref(), Some("ab"));
            assert_eq!(claims.checksum, Some(Claimed::Digits(*b"0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F")));
            assert_eq!(claims.checksum_sha256.expect("claimed").text(), "AbC");
        }
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
