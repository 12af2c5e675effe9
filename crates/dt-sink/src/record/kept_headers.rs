//! The parts of a request's headers that are stored: enough to verify a dead letter again, and no credential.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::json_text::escaped;
use dt_verify::{ASYMMETRIC_HEADER, SECRET_HEADER};

/// [`SECRET_HEADER`] in lower case, as in a [`HeaderMap`].
static SECRET: HeaderName = HeaderName::from_static("x-dt-signature");
/// [`ASYMMETRIC_HEADER`] in lower case, as in a [`HeaderMap`].
static ASYMMETRIC: HeaderName = HeaderName::from_static("dt-asymmetric-signature");

/// The two signature headers with their values, and only the names of all other headers, since their values may be credentials.
///
/// A record in memory holds these instead of the whole [`HeaderMap`], which also keeps the read buffer of its connection
/// alive.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeptHeaders {
    /// The two JSON arrays in which the headers are stored: the signatures, each a pair of name and value, followed by the names.
    /// Empty if there are no headers.
    json: String,
    /// The offset of the second array in `json`.
    names_at: usize,
}

impl KeptHeaders {
    /// Returns the parts of `headers` that are stored.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        // The capacity suffices unless a value must be escaped.
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
        // `keys` returns each name once.
        for name in headers.keys().filter(|name| signature_name(name).is_none()) {
            json.push_str(if json.len() == names_at { "[\"" } else { ",\"" });
            // A name is a token, in which nothing has to be escaped.
            json.push_str(name.as_str());
            json.push('"');
        }
        json.push_str(if json.len() == names_at { "[]" } else { "]" });
        Self { json, names_at }
    }

    /// Returns the headers that [`signatures_json`](Self::signatures_json) and [`names_json`](Self::names_json) represent.
    pub fn from_json(signatures: &str, names: &str) -> Self {
        Self { json: [signatures, names].concat(), names_at: signatures.len() }
    }

    /// Returns the signature headers, each as name and value.
    #[must_use]
    pub fn signatures(&self) -> Vec<(&'static str, String)> {
        let all: Vec<(String, String)> = serde_json::from_str(self.signatures_json()).unwrap_or_default();
        let known = |name: &str| [SECRET_HEADER, ASYMMETRIC_HEADER].into_iter().find(|known| *known == name);
        all.into_iter().filter_map(|(name, value)| Some((known(&name)?, value))).collect()
    }

    /// Returns the names of all other headers.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        serde_json::from_str(self.names_json()).unwrap_or_default()
    }

    /// Returns [`signatures`](Self::signatures) as a JSON array of pairs.
    #[must_use]
    #[inline]
    pub fn signatures_json(&self) -> &str {
        self.json.get(..self.names_at).filter(|json| !json.is_empty()).unwrap_or("[]")
    }

    /// Returns [`names`](Self::names) as a JSON array.
    #[must_use]
    #[inline]
    pub fn names_json(&self) -> &str {
        self.json.get(self.names_at..).filter(|json| !json.is_empty()).unwrap_or("[]")
    }
}

/// Returns the name of a signature header in DT's spelling; `None` for other headers.
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
    /// Does not show signatures: each could be replayed for an hour.
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
