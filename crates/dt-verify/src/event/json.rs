//! Two JSON readers that accept the same texts: [`visit`] reads a few members, [`tree`] builds a tree.
//!
//! serde's own readers differ from each other: derived structs also accept arrays; `IgnoredAny` accepts texts that a tree cannot
//! hold (deep nesting, `1e999`, half of a surrogate pair); `Value` converts objects with one of `serde_json`'s private keys. Both
//! readers here call `deserialize_any` for every value, so that the parser makes the same checks.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::not_a_delivery::NotADelivery;

/// Reads one JSON value and extracts a result from it.
pub trait FieldVisitor<'de>: Sized {
    type Found;

    /// Returns the result for a value of a type that the visitor does not read.
    fn otherwise(self) -> Self::Found;

    /// Reads a string without escapes, borrowed from the input.
    fn borrowed_text(self, text: &'de str) -> Self::Found {
        self.text(text)
    }

    /// Reads a string with escapes, which lives only during the call.
    fn text(self, _text: &str) -> Self::Found {
        self.otherwise()
    }

    /// Reads an object. The default skips it.
    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Found, A::Error> {
        while members.next_key_seed(At(Skip))?.is_some() {
            members.next_value_seed(At(Skip))?;
        }
        Ok(self.otherwise())
    }
}

/// Adapts a [`FieldVisitor`] to serde's seeds and visitors.
pub struct At<L>(pub L);

impl<'de, L: FieldVisitor<'de>> DeserializeSeed<'de> for At<L> {
    type Value = L::Found;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<L::Found, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, L: FieldVisitor<'de>> Visitor<'de> for At<L> {
    type Value = L::Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<L::Found, E> {
        Ok(self.0.otherwise())
    }

    fn visit_bool<E>(self, _: bool) -> Result<L::Found, E> {
        Ok(self.0.otherwise())
    }

    fn visit_i64<E>(self, _: i64) -> Result<L::Found, E> {
        Ok(self.0.otherwise())
    }

    fn visit_u64<E>(self, _: u64) -> Result<L::Found, E> {
        Ok(self.0.otherwise())
    }

    fn visit_f64<E>(self, _: f64) -> Result<L::Found, E> {
        Ok(self.0.otherwise())
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<L::Found, E> {
        Ok(self.0.borrowed_text(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<L::Found, E> {
        Ok(self.0.text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<L::Found, A::Error> {
        while items.next_element_seed(At(Skip))?.is_some() {}
        Ok(self.0.otherwise())
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<L::Found, A::Error> {
        self.0.object(members)
    }
}

/// Reads a value of any type and discards it.
pub struct Skip;

impl FieldVisitor<'_> for Skip {
    type Found = ();

    fn otherwise(self) {}
}

/// Reads a string, without a copy if it has no escapes. The result is `None` for a value of another type.
pub struct Text;

impl<'de> FieldVisitor<'de> for Text {
    type Found = Option<Cow<'de, str>>;

    fn otherwise(self) -> Self::Found {
        None
    }

    fn borrowed_text(self, text: &'de str) -> Self::Found {
        Some(Cow::Borrowed(text))
    }

    fn text(self, text: &str) -> Self::Found {
        Some(Cow::Owned(text.to_owned()))
    }
}

/// Reads the key of a member. The result is `None` unless the key is one of these names.
pub struct OneOf(pub &'static [&'static str]);

impl FieldVisitor<'_> for OneOf {
    type Found = Option<&'static str>;

    fn otherwise(self) -> Self::Found {
        None
    }

    fn text(self, text: &str) -> Self::Found {
        self.0.iter().find(|name| **name == text).copied()
    }
}

/// Reads the JSON value in `body` with a visitor.
///
/// # Errors
///
/// Returns [`NotADelivery`] if the body is not UTF-8 or not one JSON value.
pub fn visit<'de, L: FieldVisitor<'de>>(body: &'de [u8], visitor: L) -> Result<L::Found, NotADelivery> {
    read(body, At(visitor))
}

/// Builds the tree of the JSON value in `body`. Of members with one name, the last one counts.
///
/// # Errors
///
/// Returns [`NotADelivery`] if the body is not UTF-8 or not one JSON value.
pub fn tree(body: &[u8]) -> Result<Value, NotADelivery> {
    read(body, PhantomData::<Tree>).map(|tree| tree.0)
}

fn read<'de, S: DeserializeSeed<'de>>(body: &'de [u8], seed: S) -> Result<S::Value, NotADelivery> {
    let text = std::str::from_utf8(body)
        .map_err(|error| NotADelivery::NotUtf8 { valid_up_to: error.valid_up_to() })?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct Tree(Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Builder).map(Self)
    }
}

struct Builder;

impl<'de> Visitor<'de> for Builder {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Tree(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Tree(value))) = members.next_entry()? {
            object.insert(key, value);
        }
        Ok(number_in_disguise(&object).map_or(Value::Object(object), Value::Number))
    }
}

/// Returns the number that an object stands for. If another crate enables `arbitrary_precision` of `serde_json`, the parser
/// passes every number as an object with this one key.
fn number_in_disguise(object: &Map<String, Value>) -> Option<Number> {
    let text = object.get("$serde_json::private::Number").filter(|_| object.len() == 1)?.as_str()?;
    let switched_on = "1e999".parse::<Number>().is_ok();
    if switched_on { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(body: &str) -> Option<Value> {
        let visited = visit(body.as_bytes(), Skip);
        let built = tree(body.as_bytes());
        assert_eq!(visited, built.clone().map(|_| ()), "{body}");
        built.ok()
    }

    #[test]
    fn what_a_tree_cannot_hold_is_refused_by_both_ways() {
        for body in
            ["1e999", r#""\ud800""#, "\u{feff}{}", "{} x", "", " ", "[1,]", "{\"a\":1,}", "nul", "\"\n\""]
        {
            assert_eq!(both(body), None, "{body}");
        }
    }

    #[test]
    fn nesting_ends_at_the_same_depth_for_both_ways() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(both(&nested(127)).is_some());
        assert!(both(&nested(128)).is_none());
        assert!(both(&nested(100_000)).is_none());
    }

    #[test]
    fn private_keys_of_the_library_are_ordinary_members() {
        for key in ["$serde_json::private::RawValue", "$serde_json::private::Number"] {
            for value in ["1", "\"1\"", "\"[\"", "{}"] {
                let tree = both(&format!("{{\"{key}\":{value}}}"));
                assert!(tree.is_some_and(|tree| tree.get(key).is_some()), "{key} {value}");
            }
        }
    }

    #[test]
    fn trees_are_the_usual_ones() {
        for body in [
            r#" {"a":[1,-1,1.5,true,null,"x\u00e9\n"],"b":{}} "#,
            "18446744073709551615",
            "-0",
            "2.0e1",
            "\"\"",
        ] {
            assert_eq!(both(body), serde_json::from_str(body).ok());
        }
        assert_eq!(both(r#"{"a":1,"a":2}"#), Some(serde_json::json!({"a": 2})));
    }
}
