//! Reverses changes that proxies, editors and frameworks make to a body.

use std::io::Read;

use flate2::read::{MultiGzDecoder, ZlibDecoder};
use serde_json::Value;

use super::attempt::{Attempt, Scheme};
use super::json_text;
use crate::cli::request;

/// The largest size of a decompressed body, in bytes. DT's bodies have less than 64 KiB.
const MAX_UNPACKED: usize = 4 * 1024 * 1024;

pub fn without_line_end(body: &[u8]) -> Vec<Vec<u8>> {
    let one = body.strip_suffix(b"\n").map(|rest| rest.strip_suffix(b"\r").unwrap_or(rest));
    one.into_iter().chain([body.trim_ascii_end()]).map(<[u8]>::to_vec).collect()
}

pub fn with_line_end(body: &[u8]) -> Vec<Vec<u8>> {
    super::secret::with_line_end(body)
}

pub fn without_bom(body: &[u8]) -> Vec<Vec<u8>> {
    body.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec).into_iter().collect()
}

pub fn to_lf(body: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len());
    for (at, byte) in body.iter().enumerate() {
        let before_lf = body.get(at.saturating_add(1)) == Some(&b'\n');
        if !(*byte == b'\r' && before_lf) {
            out.push(*byte);
        }
    }
    vec![out]
}

pub fn to_crlf(body: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::with_capacity(body.len());
    for byte in body {
        if *byte == b'\n' && out.last() != Some(&b'\r') {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    vec![out]
}

pub fn unpacked(body: &[u8]) -> Vec<Vec<u8>> {
    let unpack = |packed: &mut dyn Read| {
        let mut out = Vec::new();
        let limit = u64::try_from(MAX_UNPACKED).unwrap_or(u64::MAX).saturating_add(1);
        packed.take(limit).read_to_end(&mut out).ok()?;
        (out.len() <= MAX_UNPACKED).then_some(out)
    };
    let gzip = || unpack(&mut MultiGzDecoder::new(body));
    let zlib = || unpack(&mut ZlibDecoder::new(body));
    gzip().or_else(zlib).into_iter().collect()
}

pub fn from_base64(body: &[u8]) -> Vec<Vec<u8>> {
    super::secret::from_base64(body)
}

/// Returns the text in a JSON string, or in the member `body` of an object, which may be base64. Empty if the body is neither.
pub fn unwrapped(body: &[u8]) -> Vec<Vec<u8>> {
    let text = match serde_json::from_slice(body) {
        Ok(Value::String(text)) => text.into_bytes(),
        Ok(Value::Object(mut members)) => match members.remove("body") {
            Some(Value::String(text)) => text.into_bytes(),
            _ => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    let mut candidates = from_base64(&text);
    candidates.insert(0, text);
    candidates
}

pub fn unchunked(body: &[u8]) -> Vec<Vec<u8>> {
    request::unchunk(body).into_iter().collect()
}

pub fn from_utf16(body: &[u8]) -> Vec<Vec<u8>> {
    super::secret::utf8_of_utf16(body)
}

pub fn compact(body: &[u8]) -> Vec<Vec<u8>> {
    vec![json_text::respaced(body, b"")]
}

pub fn spaced(body: &[u8]) -> Vec<Vec<u8>> {
    vec![json_text::respaced(body, b" ")]
}

pub fn unescaped(body: &[u8]) -> Vec<Vec<u8>> {
    std::str::from_utf8(body).map(|text| json_text::unescaped(text).into_bytes()).into_iter().collect()
}

pub fn escaped(body: &[u8]) -> Vec<Vec<u8>> {
    std::str::from_utf8(body).map(|text| json_text::escaped(text).into_bytes()).into_iter().collect()
}

/// Reverses UTF-8 that was decoded as Latin-1 and encoded as UTF-8, and text that was encoded as Latin-1.
pub fn recoded(body: &[u8]) -> Vec<Vec<u8>> {
    let once = std::str::from_utf8(body)
        .ok()
        .and_then(|text| text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect());
    let from_latin1: String = body.iter().copied().map(char::from).collect();
    once.into_iter().chain([from_latin1.into_bytes()]).collect()
}

pub fn whole(attempt: &Attempt, _: Scheme) -> Vec<Attempt> {
    attempt
        .whole
        .iter()
        .map(|whole| Attempt { body: whole.clone(), whole: None, ..attempt.clone() })
        .collect()
}
