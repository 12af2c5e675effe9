//! Reads responses member by member, so that an error names the member, what was expected, and which kind of value was found, but
//! contains no value: a response may contain secrets.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The error for a member of a response that is not as documented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadAnswer {
    pub path: String,
    pub expected: &'static str,
    pub found: String,
}

type Read<T> = Result<T, BadAnswer>;

/// The description of a body that ends too early, in [`BadAnswer`].
pub const INCOMPLETE: &str = "incomplete JSON";

const TEXT: &str = "a text";
const TEXTS: &str = "an array of texts";
const OBJECT: &str = "an object";

/// A JSON object of a response, with its path in the response.
pub struct Object<'a> {
    path: String,
    members: BTreeMap<String, &'a RawValue>,
}

impl<'a> Object<'a> {
    /// Parses the body of a response, which must be a JSON object.
    pub fn of_body(body: &'a [u8]) -> Read<Self> {
        let bad = |found: String| BadAnswer { path: "the body".to_owned(), expected: "a JSON object", found };
        let raw: &RawValue = serde_json::from_slice(body).map_err(|error| {
            bad(if error.classify() == Category::Eof { INCOMPLETE } else { "no JSON" }.to_owned())
        })?;
        match raw.get().starts_with('{') {
            true => Self::of(raw, String::new()),
            false => Err(bad(kind(raw).to_owned())),
        }
    }

    /// Parses a JSON object, which has this path in the response.
    pub fn of(raw: &'a RawValue, path: String) -> Read<Self> {
        match serde_json::from_str(raw.get()) {
            Ok(members) => Ok(Self { path, members }),
            Err(_) => Err(BadAnswer { path, expected: OBJECT, found: kind(raw).to_owned() }),
        }
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn bad(&self, name: &str, expected: &'static str) -> BadAnswer {
        let found = self.members.get(name).map_or("no such member", |raw| kind(raw));
        BadAnswer { path: self.path_of(name), expected, found: found.to_owned() }
    }

    /// Returns the JSON of a member; `None` if it is absent or `null`.
    fn member(&self, name: &str) -> Option<&'a RawValue> {
        self.members.get(name).copied().filter(|raw| raw.get() != "null")
    }

    /// Reads a member; `None` if it is absent or `null`.
    fn optional<T: Deserialize<'a>>(&self, name: &str, expected: &'static str) -> Read<Option<T>> {
        let read = |raw: &'a RawValue| serde_json::from_str(raw.get()).map_err(|_| self.bad(name, expected));
        self.member(name).map(read).transpose()
    }

    /// Returns the JSON of a member, which may be `null`; `None` if it is absent.
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.members.get(name).copied()
    }

    /// Returns the string in a required member.
    pub fn text(&self, name: &str) -> Read<String> {
        self.optional_text(name)?.ok_or_else(|| self.bad(name, TEXT))
    }

    /// Returns the string in an optional member; `None` if it is absent or `null`.
    pub fn optional_text(&self, name: &str) -> Read<Option<String>> {
        self.optional(name, TEXT)
    }

    /// Returns the strings in an array; empty if the member is absent or `null`.
    pub fn texts(&self, name: &str) -> Read<Vec<String>> {
        Ok(self.optional(name, TEXTS)?.unwrap_or_default())
    }

    /// Returns the members of an object of strings; `None` if the object is absent or `null`.
    pub fn optional_text_map(&self, name: &str) -> Read<Option<BTreeMap<String, String>>> {
        self.optional(name, "an object of texts")
    }

    /// Returns a boolean; `false` if the member is absent or `null`.
    pub fn boolean(&self, name: &str) -> Read<bool> {
        Ok(self.optional(name, "true or false")?.unwrap_or_default())
    }

    /// Returns a count; `None` if the member is absent or `null`. The JSON of Protocol Buffers writes 64-bit integers as strings,
    /// so numbers and strings are accepted.
    pub fn optional_count(&self, name: &str) -> Read<Option<u64>> {
        let Some(raw) = self.member(name) else { return Ok(None) };
        let digits = raw.get().trim_matches('"');
        digits.parse().map(Some).map_err(|_| self.bad(name, "a count"))
    }

    /// Returns the count in a required member.
    pub fn count(&self, name: &str) -> Read<u64> {
        self.optional_count(name)?.ok_or_else(|| self.bad(name, "a count"))
    }

    /// Returns the object in a required member.
    pub fn object(&self, name: &str) -> Read<Object<'a>> {
        self.optional_object(name)?.ok_or_else(|| self.bad(name, OBJECT))
    }

    /// Returns the object in an optional member; `None` if it is absent or `null`.
    pub fn optional_object(&self, name: &str) -> Read<Option<Object<'a>>> {
        self.member(name).map(|raw| Object::of(raw, self.path_of(name))).transpose()
    }

    /// Returns the items of a required array. `read` reads one item, and gets its path.
    pub fn list<T>(&self, name: &str, read: impl Fn(&'a RawValue, String) -> Read<T>) -> Read<Vec<T>> {
        let items: Vec<&RawValue> =
            self.optional(name, "an array")?.ok_or_else(|| self.bad(name, "an array"))?;
        let path = self.path_of(name);
        items.into_iter().enumerate().map(|(at, raw)| read(raw, format!("{path}[{at}]"))).collect()
    }

    /// Returns the error for a member that is present, but not in the expected form.
    pub fn malformed(&self, name: &str, expected: &'static str) -> BadAnswer {
        BadAnswer { path: self.path_of(name), expected, found: "another form".to_owned() }
    }

    /// Returns the names and the JSON of all members.
    pub fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.members.iter().map(|(name, raw)| (name.as_str(), *raw))
    }

    /// Returns the path of a member in the response.
    pub fn at(&self, name: &str) -> String {
        self.path_of(name)
    }

    /// Returns the members that are not listed in `known`, except for those that are `null`.
    pub fn others(&self, known: &[&str]) -> Map<String, Value> {
        let others =
            self.members.iter().filter(|(name, raw)| !known.contains(&name.as_str()) && raw.get() != "null");
        others.filter_map(|(name, raw)| Some((name.clone(), serde_json::from_str(raw.get()).ok()?))).collect()
    }
}

/// Returns the type of a JSON value, in words.
fn kind(raw: &RawValue) -> &'static str {
    match raw.get().bytes().next() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a text",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Returns the message in the body of an error response: the string `error`, with `error_description` of RFC 6749 if it is
/// present, or `error.message` as on the stream. `None` if the body has none of them.
pub fn reason(body: &[u8]) -> Option<String> {
    let object = Object::of_body(body).ok()?;
    if let Ok(error) = object.object("error") {
        return error.text("message").ok();
    }
    let error = object.text("error").ok()?;
    Some(match object.text("error_description") {
        Ok(description) => format!("{error}: {description}"),
        Err(_) => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problem<T>(read: Read<T>) -> (String, &'static str, String) {
        let bad = read.err().expect("not as documented");
        (bad.path, bad.expected, bad.found)
    }

    #[test]
    fn an_error_names_the_member_and_no_value() {
        let body = br#"{"a": {"b": "hunter2", "n": null, "t": ["x", 7]}, "list": [{"c": 1}, 5], "count": "12", "-": -1}"#;
        let object = Object::of_body(body).expect("an object");
        let a = object.object("a").expect("an object");
        assert_eq!(problem(a.count("b")), ("a.b".into(), "a count", "a text".into()));
        assert_eq!(problem(a.text("n")), ("a.n".into(), "a text", "null".into()));
        assert_eq!(problem(a.text("x")), ("a.x".into(), "a text", "no such member".into()));
        assert_eq!(problem(a.texts("t")), ("a.t".into(), "an array of texts", "an array".into()));
        assert_eq!(problem(a.object("b").map(|_| ())), ("a.b".into(), "an object", "a text".into()));
        assert_eq!(problem(object.count("-")), ("-".into(), "a count", "a number".into()));
        assert_eq!(object.count("count"), Ok(12));
        assert_eq!(
            (a.optional_text("n"), a.optional_text("x")),
            (Ok(None), Ok(None)),
            "null counts as absent"
        );
        let items = object.list("list", |raw, path| Object::of(raw, path)?.count("c"));
        assert_eq!(problem(items), ("list[1]".into(), "an object", "a number".into()));
        for (body, found) in [
            ("", "incomplete JSON"),
            ("{\"a\":", "incomplete JSON"),
            ("<html>", "no JSON"),
            ("[]", "an array"),
        ] {
            assert_eq!(problem(Object::of_body(body.as_bytes()).map(|_| ())).2, found, "{body}");
        }
    }

    #[test]
    fn each_form_of_an_error_is_read() {
        for (body, text) in [
            (r#"{"error": "no such project", "code": 404, "help": ""}"#, Some("no such project")),
            (r#"{"error": "x", "code": "404"}"#, Some("x")),
            (r#"{"error": {"code": 404, "message": "gone"}}"#, Some("gone")),
            (r#"{"error": "invalid_grant", "error_description": "Timing"}"#, Some("invalid_grant: Timing")),
            ("<html>", None),
            ("{}", None),
        ] {
            assert_eq!(reason(body.as_bytes()).as_deref(), text, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body: Vec<u8>, text in "[\\[\\]{}\",:a0 ]{0,40}") {
            let _read = Object::of_body(&body).map(|object| object.count("a"));
            let _read = Object::of_body(text.as_bytes()).map(|object| object.texts("a"));
            let _reason = reason(text.as_bytes());
        }
    }
}
