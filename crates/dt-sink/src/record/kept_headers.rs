//! What is kept of a request's headers: as much as a dead letter needs to be verified again, and no credential.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::json_text::escaped;
use dt_verify::{ASYMMETRIC_HEADER, SECRET_HEADER};

/// [`SECRET_HEADER`] as it is looked for.
static SECRET: HeaderName = HeaderName::from_static("x-dt-signature");
/// [`ASYMMETRIC_HEADER`] as it is looked for.
static ASYMMETRIC: HeaderName = HeaderName::from_static("dt-asymmetric-signature");

/// The two signature headers with their values, and the names of all other headers; their values may be credentials.
///
/// A record waits in the spool's memory and in those of the sinks with these, not with the whole [`HeaderMap`]: that also
/// holds the buffer that the connection was read into.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeptHeaders {
    /// Two JSON arrays, as they are stored: of signatures, each a pair of name and value, and of names. Nothing at all for
    /// no headers.
    json: String,
    /// Where the second one begins.
    names_at: usize,
}

impl KeptHeaders {
    /// What is kept of these.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        // As long as it gets, unless something has to be escaped: it is not made to fit in the end. A look at each header
        // costs less than looking the two up.
        let len = |(name, value): (&HeaderName, &HeaderValue)| match signature_name(name) {
            Some(known) => known.len().saturating_add(value.len()).saturating_add(8),
            None => name.as_str().len().saturating_add(3),
        };
        let mut json = String::with_capacity(headers.iter().map(len).sum::<usize>().saturating_add(4));
        for (name, value) in headers {
            let Some(known) = signature_name(name) else { continue };
            json.push_str(if json.is_empty() { "[[\"" } else { ",[\"" });
            json.push_str(known);
            json.push_str("\",\"");
            match std::str::from_utf8(value.as_bytes()) {
                Ok(value) => json.push_str(&escaped(value)),
                Err(_) => json.push_str(&escaped(&String::from_utf8_lossy(value.as_bytes()))),
            }
            json.push_str("\"]");
        }
        json.push_str(if json.is_empty() { "[]" } else { "]" });
        let names_at = json.len();
        // Without signatures: `keys` gives each name once.
        for name in headers.keys().filter(|name| signature_name(name).is_none()) {
            json.push_str(if json.len() == names_at { "[\"" } else { ",\"" });
            // A name is a token, which has nothing to escape.
            json.push_str(name.as_str());
            json.push('"');
        }
        json.push_str(if json.len() == names_at { "[]" } else { "]" });
        Self { json, names_at }
    }

    /// From what [`signatures_json`](Self::signatures_json) and [`names_json`](Self::names_json) gave.
    pub fn from_json(signatures: &str, names: &str) -> Self {
        Self { json: [signatures, names].concat(), names_at: signatures.len() }
    }

    /// The signature headers: name and value.
    #[must_use]
    pub fn signatures(&self) -> Vec<(&'static str, String)> {
        let all: Vec<(String, String)> = serde_json::from_str(self.signatures_json()).unwrap_or_default();
        let known = |name: &str| [SECRET_HEADER, ASYMMETRIC_HEADER].into_iter().find(|known| *known == name);
        all.into_iter().filter_map(|(name, value)| Some((known(&name)?, value))).collect()
    }

    /// The names of all others.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        serde_json::from_str(self.names_json()).unwrap_or_default()
    }

    /// [`signatures`](Self::signatures) as JSON, an array of pairs.
    #[must_use]
    pub fn signatures_json(&self) -> &str {
        self.json.get(..self.names_at).filter(|json| !json.is_empty()).unwrap_or("[]")
    }

    /// [`names`](Self::names) as JSON, an array.
    #[must_use]
    pub fn names_json(&self) -> &str {
        self.json.get(self.names_at..).filter(|json| !json.is_empty()).unwrap_or("[]")
    }
}

/// DT's own spelling of a signature header's name.
fn signature_name(name: &HeaderName) -> Option<&'static str> {
    if *name == SECRET {
        Some(SECRET_HEADER)
    } else if *name == ASYMMETRIC {
        Some(ASYMMETRIC_HEADER)
    } else {
        None
    }
}

impl fmt::Debug for KeptHeaders {
    /// A signature opens its event to anybody for an hour, so it is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptHeaders").field("names", &self.names_json()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_kept_whole_and_of_the_others_the_names() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "example.com"),
            ("x-dt-signature", "a.b.c"),
            ("authorization", "Bearer x"),
            ("cookie", "one"),
            ("cookie", "two"),
            ("dt-asymmetric-signature", "d.\"e\\.f"),
            ("x-dt-signature", "g"),
        ] {
            headers.append(name, value.parse().expect("a value"));
        }
        let kept = KeptHeaders::of(&headers);
        let signatures = [(SECRET_HEADER, "a.b.c"), (SECRET_HEADER, "g"), (ASYMMETRIC_HEADER, "d.\"e\\.f")];
        assert_eq!(kept.signatures(), signatures.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(kept.names(), ["host", "authorization", "cookie"]);
        assert_eq!(kept.names_json(), r#"["host","authorization","cookie"]"#);
        assert_eq!(kept.signatures_json(), serde_json::to_string(&kept.signatures()).expect("JSON"));
        let shown = format!("{kept:?}");
        assert!(!["a.b.c", "Bearer", "one"].iter().any(|secret| shown.contains(secret)), "{shown}");
    }

    #[test]
    fn no_headers_are_two_empty_arrays() {
        for kept in [KeptHeaders::default(), KeptHeaders::of(&HeaderMap::new())] {
            assert_eq!((kept.signatures_json(), kept.names_json()), ("[]", "[]"));
            assert!(kept.signatures().is_empty() && kept.names().is_empty());
        }
    }
}
