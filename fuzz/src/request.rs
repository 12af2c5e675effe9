//! A request as a text: which verifier, what time it is, headers, an empty line, the body.
//!
//! ```text
//! q1736000000
//! X-Dt-Signature: !{"alg":"HS256"}!{"exp":1736000100,"checksum_sha256":"$SHA256"}
//! X-Other: value
//!
//! the body
//! ```
//!
//! The letter is the place of the verifier among the setups. A value that begins with `!` is a header and claims that
//! are still to be signed, with the verifier's first secret or the vectors' private key; `$SHA1` and `$SHA256` stand for
//! the body's checksums. That is how mutations get past the signature, and claims past the checksum.

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dt_verify::ASYMMETRIC_HEADER;
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::{Algorithm, EncodingKey};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::NOW;
use crate::setups::{PRIVATE_KEY, SETUPS, Setup};

/// Name and value.
pub type Header<'a> = (Cow<'a, str>, Cow<'a, [u8]>);

/// One decoded request.
pub struct Request<'a> {
    pub setup: &'static Setup,
    pub now: i64,
    pub headers: Vec<Header<'a>>,
    pub body: &'a [u8],
}

/// How what is still to be signed is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As it stands there.
    Given,
    /// With a space behind each JSON text, and the checksums in upper case. It means the same, and no fast path takes it.
    Unusual,
}

impl<'a> Request<'a> {
    /// Reads the text; `None` when it has no letter, or header lines without a colon.
    pub fn read(text: &'a [u8], spelling: Spelling) -> Option<Self> {
        let (first, mut rest) = line(text)?;
        let (letter, now) = first.split_first()?;
        let setup = SETUPS.get(usize::from(letter.checked_sub(b'a')?))?;
        let now = std::str::from_utf8(now).ok()?.parse().unwrap_or(NOW);
        let mut lines = Vec::new();
        let body = loop {
            // A request without an empty line has no body.
            let Some((line, after)) = line(rest) else { break &[] as &[u8] };
            rest = after;
            if line.is_empty() {
                break rest;
            }
            lines.push(line);
        };
        let mut headers = Vec::new();
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = String::from_utf8_lossy(&line[..colon]);
            let value = &line[colon + 1..];
            let value = value.strip_prefix(b" ").unwrap_or(value);
            let value = match value.strip_prefix(b"!") {
                Some(to_sign) => Cow::Owned(sign(setup, &name, to_sign, body, spelling).into_bytes()),
                None => Cow::Borrowed(value),
            };
            headers.push((name, value));
        }
        Some(Self { setup, now, headers, body })
    }
}

/// The first line without its end, and what follows; `None` at the end.
fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if text.is_empty() {
        return None;
    }
    let end = text.iter().position(|byte| *byte == b'\n');
    Some(end.map_or((text, &[]), |end| (&text[..end], &text[end + 1..])))
}

/// Signs `HEADER!CLAIMS`, whatever they hold, for the header of that name.
fn sign(setup: &Setup, header: &str, to_sign: &[u8], body: &[u8], spelling: Spelling) -> String {
    let split = to_sign.iter().position(|byte| *byte == b'!').unwrap_or(to_sign.len());
    let (jose, claims) = (&to_sign[..split], to_sign.get(split + 1..).unwrap_or_default());
    let (mut sha1, mut sha256) = (hex(&Sha1::digest(body)), hex(&Sha256::digest(body)));
    let (mut jose, behind) = (jose.to_vec(), if spelling == Spelling::Unusual { " " } else { "" });
    if spelling == Spelling::Unusual {
        sha1.make_ascii_uppercase();
        sha256.make_ascii_uppercase();
    }
    let claims = replace(claims, b"$SHA256", sha256.as_bytes());
    let mut claims = replace(&claims, b"$SHA1", sha1.as_bytes()).into_owned();
    jose.extend_from_slice(behind.as_bytes());
    claims.extend_from_slice(behind.as_bytes());
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(jose), URL_SAFE_NO_PAD.encode(claims));
    let signature = if header.eq_ignore_ascii_case(ASYMMETRIC_HEADER) {
        static KEY: LazyLock<EncodingKey> = LazyLock::new(|| EncodingKey::from_ec_der(PRIVATE_KEY));
        jsonwebtoken::crypto::sign(signed.as_bytes(), &KEY, Algorithm::ES256).expect("the key can sign")
    } else {
        let secret = setup.secrets.first().map_or("none", |(_, secret)| secret);
        URL_SAFE_NO_PAD.encode(hs256(secret, signed.as_bytes()))
    };
    format!("{signed}.{signature}")
}

/// HMAC with SHA-256 (RFC 2104).
pub fn hs256(secret: &str, message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length will do");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn replace<'a>(text: &'a [u8], from: &[u8], to: &[u8]) -> Cow<'a, [u8]> {
    let Some(at) = text.windows(from.len()).position(|window| window == from) else {
        return Cow::Borrowed(text);
    };
    let rest = replace(&text[at + from.len()..], from, to);
    Cow::Owned([&text[..at], to, &rest].concat())
}
