//! Rewrites a JSON text with other white space or escapes. It works on the text itself, since a parser would lose the spelling
//! of numbers and the order of members.

/// Returns a JSON text without white space between its tokens, except for `gap` after each `,` and `:`.
pub fn respaced(text: &[u8], gap: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    for byte in text {
        if in_string {
            out.push(*byte);
            in_string = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'"' => in_string = true,
            _ => {}
        }
        out.push(*byte);
        if matches!(byte, b',' | b':') {
            out.extend_from_slice(gap);
        }
    }
    out
}

/// Returns a JSON text in which `\/` and every unnecessary `\uXXXX` are replaced by the character.
pub fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.push_str(before);
        let (spelling, length) = match character(escape) {
            Some((c, length)) if c >= ' ' && !matches!(c, '"' | '\\' | '\u{7f}') => (c.to_string(), length),
            // Any other escape stays with its second character, which may be a `\` that starts no escape.
            _ => {
                let second = escape.chars().nth(1);
                let length = second.map_or(1, |c| c.len_utf8().saturating_add(1));
                (escape.get(..length).unwrap_or(escape).to_owned(), length)
            }
        };
        out.push_str(&spelling);
        rest = escape.get(length..).unwrap_or("");
    }
    out.push_str(rest);
    out
}

/// Returns the character of an escape at the start of `text`, and the length of the escape in bytes; `None` if the text does not
/// begin with `\/` or a valid `\uXXXX`.
fn character(text: &str) -> Option<(char, usize)> {
    if text.starts_with("\\/") {
        return Some(('/', 2));
    }
    let high = code_unit(text)?;
    let low = text.get(6..).and_then(code_unit);
    let pair = [high, low.unwrap_or_default()];
    match char::decode_utf16(pair).next()?.ok()? {
        c if u32::from(c) > 0xffff => Some((c, 12)),
        c => Some((c, 6)),
    }
}

fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok())?
}

/// Returns a JSON text with `\uXXXX` for every character that is not ASCII, as Python writes it.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_changes_between_tokens_only() {
        let text = b"{ \"a b\" : [ 1.0 ,\t\"c\\\" , :\\\\\" , {} ]\r\n}\n";
        assert_eq!(respaced(text, b""), br#"{"a b":[1.0,"c\" , :\\",{}]}"#);
        assert_eq!(respaced(text, b" "), br#"{"a b": [1.0, "c\" , :\\", {}]}"#);
    }

    #[test]
    fn only_escapes_that_need_not_be_are_undone() {
        let text =
            r#"{"a":"M\u00f8terom \ud83d\ude00 \/ \u003c \" \\u00f8 \u000a \u0022 \n \ud83d \ud83dx"}"#;
        let plain = r#"{"a":"Møterom 😀 / < \" \\u00f8 \u000a \u0022 \n \ud83d \ud83dx"}"#;
        assert_eq!(unescaped(text), plain);
        for odd in ["\\", "\\u", "\\u12", "\\u+123", "\\é", "a\\ud83d\\u0022b"] {
            assert_eq!(unescaped(odd), odd);
        }
    }

    #[test]
    fn what_is_not_ascii_is_escaped_as_python_does() {
        assert_eq!(escaped("{\"a\":\"ø😀\u{7f}\"}"), "{\"a\":\"\\u00f8\\ud83d\\ude00\u{7f}\"}");
        assert_eq!(unescaped(&escaped("温度 😀")), "温度 😀");
    }
}
