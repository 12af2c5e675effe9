//! Escapes text for JSON, in nearly all cases without an allocation.

use std::borrow::Cow;

/// Returns a text as it is written between the quotes of a JSON string.
pub fn escaped(text: &str) -> Cow<'_, str> {
    // The characters that `serde_json` does not escape. The loop has no early exit and no branch, so that the compiler
    // vectorises it.
    let is_plain = |byte: u8| (byte >= b' ') & (byte != b'"') & (byte != b'\\');
    if text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        return Cow::Borrowed(text);
    }
    let string = serde_json::Value::from(text).to_string();
    Cow::Owned(string.get(1..string.len().saturating_sub(1)).unwrap_or_default().to_owned())
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
