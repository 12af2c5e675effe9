//! Writes JSON: escaped text, in nearly all cases without an allocation; numbers in their short form; received JSON on one line.

use std::borrow::Cow;

use serde_json::Value;

/// Returns a text with the escapes that it needs between the quotes of a JSON string.
pub fn escaped(text: &str) -> Cow<'_, str> {
    // The characters that `serde_json` does not escape. The loop has no early exit and no branch, so that the compiler
    // vectorises it.
    let is_plain = |byte: u8| (byte >= b' ') & (byte != b'"') & (byte != b'\\');
    if text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        return Cow::Borrowed(text);
    }
    let string = Value::from(text).to_string();
    Cow::Owned(string.get(1..string.len().saturating_sub(1)).unwrap_or_default().to_owned())
}

/// Returns a number as JSON in its short form: 469 instead of 469.0. A number that is not finite becomes `null`.
#[must_use]
pub fn json_number(number: f64) -> Value {
    /// The largest absolute value up to which an `f64` holds every whole number exactly (2^53).
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole, and within the range of i64")]
        return Value::from(number as i64);
    }
    Value::from(number)
}

/// Appends JSON as one line. Line breaks (CR and LF), which JSON allows only between tokens, are replaced by spaces.
pub fn write_on_one_line(json: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(json.trim_ascii());
    for byte in out.get_mut(start..).unwrap_or_default() {
        // Stored unconditionally: without a branch, the compiler vectorises the loop.
        *byte = if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_the_library_writes(text in r#"[a"\\\x00-\x1f\x7féλ😀]*"#) {
            prop_assert_eq!(format!("\"{}\"", escaped(&text)), serde_json::Value::from(&*text).to_string());
        }
    }
}
