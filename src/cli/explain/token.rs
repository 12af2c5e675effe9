//! Reverses changes that proxies and users make to a token or its header.

use super::attempt::{Attempt, Scheme};

pub fn unquoted(token: &[u8]) -> Vec<Vec<u8>> {
    let trimmed = token.trim_ascii();
    let quoted = [b'"', b'\'', b'`'].into_iter().find_map(|quote| {
        trimmed.strip_prefix(&[quote]).and_then(|rest| rest.strip_suffix(&[quote])).map(<[u8]>::to_vec)
    });
    quoted.into_iter().collect()
}

pub fn without_name(token: &[u8]) -> Vec<Vec<u8>> {
    // A token has no colon, so it can only be after the last one.
    let value = token.rsplit(|byte| *byte == b':').next().map(<[u8]>::trim_ascii);
    value.into_iter().map(<[u8]>::to_vec).collect()
}

pub fn without_bearer(token: &[u8]) -> Vec<Vec<u8>> {
    let trimmed = token.trim_ascii();
    match trimmed.split_at_checked(6) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer") => vec![rest.trim_ascii().to_vec()],
        _ => Vec::new(),
    }
}

pub fn without_white_space(token: &[u8]) -> Vec<Vec<u8>> {
    vec![token.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()]
}

pub fn without_padding(token: &[u8]) -> Vec<Vec<u8>> {
    vec![token.iter().copied().filter(|byte| *byte != b'=').collect()]
}

pub fn from_renamed_header(attempt: &Attempt, scheme: Scheme) -> Vec<Attempt> {
    if attempt.has_header(scheme) {
        return Vec::new();
    }
    let is_like = |name: &str| {
        let name = name.to_ascii_lowercase().replace('_', "-");
        ["", "http-", "x-", "x-original-", "x-forwarded-"].iter().any(|prefix| {
            name.strip_prefix(prefix).is_some_and(|rest| rest.eq_ignore_ascii_case(scheme.header()))
        })
    };
    let renamed = attempt.headers.iter().filter(|(name, _)| is_like(name));
    renamed.map(|(_, value)| attempt.with_token(scheme, value.clone())).collect()
}

pub fn from_repeated_header(attempt: &Attempt, scheme: Scheme) -> Vec<Attempt> {
    let mut values: Vec<&[u8]> = attempt
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(scheme.header()))
        // Proxies can also join the values to one (RFC 9110, section 5.3).
        .flat_map(|(_, value)| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    if values.len() < 2 {
        return Vec::new();
    }
    values.truncate(8);
    values.into_iter().map(|value| attempt.with_token(scheme, value.to_vec())).collect()
}
