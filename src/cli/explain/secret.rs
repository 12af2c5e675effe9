//! Reverses changes that shells, editors and service managers make to a secret.

use base64::Engine;
use base64::alphabet::{STANDARD as STANDARD_ALPHABET, URL_SAFE as URL_SAFE_ALPHABET};
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{
    GeneralPurpose, GeneralPurposeConfig, STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD,
};

use super::attempt::{Attempt, Scheme};

/// The largest number of lines of a settings file that are tried.
const MAX_LINES: usize = 64;

pub fn trimmed(secret: &[u8]) -> Vec<Vec<u8>> {
    vec![secret.trim_ascii().to_vec(), secret.trim_ascii_end().to_vec(), secret.trim_ascii_start().to_vec()]
}

pub fn unquoted(secret: &[u8]) -> Vec<Vec<u8>> {
    super::token::unquoted(secret)
}

/// Returns the value of each line of a settings file such as `.env`.
pub fn without_name(secret: &[u8]) -> Vec<Vec<u8>> {
    secret.split(|byte| *byte == b'\n').take(MAX_LINES).filter_map(setting).map(<[u8]>::to_vec).collect()
}

/// Returns the value in a line of the form `NAME=value`; `None` for any other line.
fn setting(line: &[u8]) -> Option<&[u8]> {
    let line = line.trim_ascii();
    let line = line.strip_prefix(b"export ").unwrap_or(line);
    let (name, value) = line.split_at_checked(line.iter().position(|byte| *byte == b'=')?)?;
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b' ');
    let is_setting = !name.is_empty() && name.iter().all(is_name);
    value.strip_prefix(b"=").map(<[u8]>::trim_ascii).filter(|_| is_setting)
}

pub fn without_bom(secret: &[u8]) -> Vec<Vec<u8>> {
    let plain = secret.strip_prefix(b"\xef\xbb\xbf").map(<[u8]>::to_vec);
    plain.into_iter().chain(utf8_of_utf16(secret)).collect()
}

/// Converts UTF-16 with a byte order mark to UTF-8. Returns the text without and with its line end; empty if it is not UTF-16.
pub fn utf8_of_utf16(bytes: &[u8]) -> Vec<Vec<u8>> {
    let read: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return Vec::new(),
    };
    let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().skip(1).map(|unit| read(*unit)).collect();
    let Ok(text) = String::from_utf16(&units) else { return Vec::new() };
    vec![text.trim_end_matches(['\r', '\n']).into(), text.into_bytes()]
}

pub fn with_line_end(secret: &[u8]) -> Vec<Vec<u8>> {
    [&b"\n"[..], b"\r\n"].iter().map(|end| [secret, end].concat()).collect()
}

/// Decodes base64 in either alphabet, with or without padding.
pub fn from_base64(text: &[u8]) -> Vec<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let alphabets = [&STANDARD_ALPHABET, &URL_SAFE_ALPHABET];
    alphabets.iter().filter_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(&text).ok()).collect()
}

pub fn to_base64(secret: &[u8]) -> Vec<Vec<u8>> {
    [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD]
        .iter()
        .map(|e| e.encode(secret).into_bytes())
        .collect()
}

pub fn from_hex(secret: &[u8]) -> Vec<Vec<u8>> {
    hex::decode(secret).into_iter().collect()
}

pub fn spare(attempt: &Attempt, scheme: Scheme) -> Vec<Attempt> {
    if scheme != Scheme::Secret {
        return Vec::new();
    }
    attempt.spare_secrets.iter().map(|(label, secret)| attempt.with_secret(label, secret.clone())).collect()
}
