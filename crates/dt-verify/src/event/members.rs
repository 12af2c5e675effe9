//! The members of a payload: how each kind of value is read from JSON and written to it.
//!
//! [`object!`] makes the struct of a JSON object from a list of its members, in the order in which DT writes them. Three
//! words say how strictly a member is read:
//!
//! | word | absent or `null` | of another type |
//! |---|---|---|
//! | `required` | the object is unreadable | the object is unreadable |
//! | `optional` | `None`, or empty | the same, and the member is kept in `extra` |
//! | `checked` | empty | the object is unreadable |

use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};

use super::timestamp::Timestamp;

/// A Rust type that represents the value of a member.
pub(in crate::event) trait Json: Sized {
    /// What an error message calls one value of this type, such as "a number".
    const ONE: &'static str;
    /// The name of a list of such values in an error message.
    const MANY: &'static str;

    /// Converts a JSON value; `None` if it has another type.
    fn from_json(value: &Value) -> Option<Self>;

    /// Serializes the value as DT does.
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;

    /// Returns `true` for a value that is written as an absent member.
    fn is_absent(&self) -> bool {
        false
    }

    /// Checks that DT documents the value.
    ///
    /// # Errors
    ///
    /// Returns [`Undocumented`], which names the values that DT documents.
    fn documented(&self) -> Result<(), Undocumented> {
        Ok(())
    }
}

/// The error for a value that DT does not document. The text names the documented values, in a form that continues "is not".
#[derive(Debug, PartialEq, Eq)]
pub(in crate::event) struct Undocumented(pub(in crate::event) String);

/// Serializes a value by [`Json::write`].
struct Written<'a, T>(&'a T);

impl<T: Json> Serialize for Written<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

/// A measured value. DT writes it as `27` or as `24.9`.
impl Json for f64 {
    const ONE: &'static str = "a number";
    const MANY: &'static str = "a list of numbers";

    fn from_json(value: &Value) -> Option<Self> {
        value.as_f64()
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match whole(*self) {
            Some(whole) => serializer.serialize_i64(whole),
            None => serializer.serialize_f64(*self),
        }
    }
}

/// A count: a whole number, which may be written as `27.0`.
impl Json for i64 {
    const ONE: &'static str = "a whole number";
    const MANY: &'static str = "a list of whole numbers";

    fn from_json(value: &Value) -> Option<Self> {
        value.as_i64().or_else(|| whole(value.as_f64()?))
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(*self)
    }
}

impl Json for bool {
    const ONE: &'static str = "true or false";
    const MANY: &'static str = "a list of true and false";

    fn from_json(value: &Value) -> Option<Self> {
        value.as_bool()
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(*self)
    }
}

impl Json for String {
    const ONE: &'static str = "a text";
    const MANY: &'static str = "a list of texts";

    fn from_json(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl Json for Timestamp {
    const ONE: &'static str = "a text";
    const MANY: &'static str = "a list of texts";

    fn from_json(value: &Value) -> Option<Self> {
        value.as_str().map(Self::from)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Any value, for members whose type DT does not document.
impl Json for Value {
    const ONE: &'static str = "JSON";
    const MANY: &'static str = "a list";

    fn from_json(value: &Value) -> Option<Self> {
        Some(value.clone())
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialize(serializer)
    }
}

/// Labels by key. A value that is not a string is converted to its JSON text.
impl Json for BTreeMap<String, String> {
    const ONE: &'static str = "an object";
    const MANY: &'static str = "a list of objects";

    fn from_json(value: &Value) -> Option<Self> {
        let text_of = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some(value.as_object()?.iter().map(|(key, value)| (key.clone(), text_of(value))).collect())
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialize(serializer)
    }
}

impl<T: Json> Json for Option<T> {
    const ONE: &'static str = T::ONE;
    const MANY: &'static str = T::MANY;

    fn from_json(value: &Value) -> Option<Self> {
        T::from_json(value).map(Some)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(value) => value.write(serializer),
            None => serializer.serialize_none(),
        }
    }

    fn is_absent(&self) -> bool {
        self.is_none()
    }

    fn documented(&self) -> Result<(), Undocumented> {
        self.as_ref().map_or(Ok(()), T::documented)
    }
}

/// A list. If one item has another type than documented, the whole list counts as having another type.
impl<T: Json> Json for Vec<T> {
    const ONE: &'static str = T::MANY;
    const MANY: &'static str = "a list of lists";

    fn from_json(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(T::from_json).collect()
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Written))
    }

    fn documented(&self) -> Result<(), Undocumented> {
        let undocumented = self.iter().find_map(|item| item.documented().err());
        undocumented.map_or(Ok(()), |Undocumented(wanted)| {
            Err(Undocumented(format!("a list in which each item is {wanted}")))
        })
    }
}

/// Returns a float as an integer, if it is exactly a whole number; otherwise `None`.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    #[expect(clippy::cast_possible_truncation, reason = "whole, and far below 2^63")]
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// A JSON object with documented members, made by [`object!`].
pub trait Object: Json + Serialize {
    /// Reads all members.
    ///
    /// # Errors
    ///
    /// Returns [`Unfit`] for the first member without which the object cannot be read.
    fn read(fields: Fields<'_>) -> Result<Self, Unfit>;

    /// Finds a member that DT would not send: one that is in `extra` because of its type, or one with a value that DT does not
    /// document. Returns its name and the documented values.
    fn undocumented(&self) -> Option<(&'static str, String)>;
}

/// Makes the struct of a JSON object from its members, in DT's order, and adds the field `extra`.
macro_rules! object {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$doc:meta])* $strictness:ident $text:literal $member:ident: $type:ty,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$doc])* pub $member: $type,)+
            /// Members that are unknown, or of another type than documented.
            pub extra: ::serde_json::Map<String, ::serde_json::Value>,
        }

        impl $crate::event::members::Object for $name {
            fn read(
                mut fields: $crate::event::members::Fields<'_>,
            ) -> Result<Self, $crate::event::members::Unfit> {
                Ok(Self { $($member: fields.$strictness($text)?,)+ extra: fields.rest() })
            }

            fn undocumented(&self) -> Option<(&'static str, String)> {
                use $crate::event::members::Json;
                $(
                    if self.extra.contains_key($text) {
                        return Some(($text, <$type as Json>::ONE.to_owned()));
                    }
                    if let Err(undocumented) = self.$member.documented() {
                        return Some(($text, undocumented.0));
                    }
                )+
                None
            }
        }

        impl $crate::event::members::Json for $name {
            const ONE: &'static str = "an object";
            const MANY: &'static str = "a list of objects as DT documents them";

            fn from_json(value: &::serde_json::Value) -> Option<Self> {
                use $crate::event::members::{Fields, Object};
                Self::read(Fields::of(value.as_object()?)).ok()
            }

            fn write<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut members = $crate::event::members::Members::new(serializer, &self.extra)?;
                $(members.member($text, &self.$member)?;)+
                members.end()
            }

            fn documented(&self) -> Result<(), $crate::event::members::Undocumented> {
                use $crate::event::members::{Object, Undocumented};
                match self.undocumented() {
                    Some((name, wanted)) => {
                        Err(Undocumented(format!("an object whose {name} is {wanted}")))
                    }
                    None => Ok(()),
                }
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::event::members::Json::write(self, serializer)
            }
        }
    };
}
pub(in crate::event) use object;

/// Writes an object: the documented members as they are named, then those in `extra`.
pub struct Members<'a, M> {
    map: M,
    extra: &'a Map<String, Value>,
}

impl<'a, M: SerializeMap> Members<'a, M> {
    pub fn new<S>(serializer: S, extra: &'a Map<String, Value>) -> Result<Self, S::Error>
    where
        S: Serializer<SerializeMap = M, Ok = M::Ok, Error = M::Error>,
    {
        Ok(Self { map: serializer.serialize_map(None)?, extra })
    }

    pub fn member(&mut self, name: &'static str, value: &impl Json) -> Result<(), M::Error> {
        // What is in `extra` under that name is what was received.
        if value.is_absent() || self.extra.contains_key(name) {
            return Ok(());
        }
        self.map.serialize_entry(name, &Written(value))
    }

    pub fn end(mut self) -> Result<M::Ok, M::Error> {
        for (name, value) in self.extra {
            self.map.serialize_entry(name, value)?;
        }
        self.map.end()
    }
}

/// A required member is missing or has another type, so the object cannot be read.
pub(in crate::event) struct Unfit {
    pub name: &'static str,
    /// The expected type, in a form that continues "is not".
    pub wanted: &'static str,
    pub is_absent: bool,
}

/// Takes the members of an object one by one, and keeps those that were not taken.
pub(in crate::event) struct Fields<'a> {
    members: &'a Map<String, Value>,
    taken: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(in crate::event) const fn of(members: &'a Map<String, Value>) -> Self {
        Self { members, taken: Vec::new() }
    }

    /// Takes a required member.
    pub(in crate::event) fn required<T: Json>(&mut self, name: &'static str) -> Result<T, Unfit> {
        let is_absent = !self.members.contains_key(name);
        let value = self.members.get(name).and_then(T::from_json);
        self.taken.push(name);
        value.ok_or(Unfit { name, wanted: T::ONE, is_absent })
    }

    /// Takes a member that may be absent or `null`. One of another type counts as absent, and is not taken.
    #[expect(clippy::unnecessary_wraps, reason = "`object!` takes all kinds of members alike")]
    pub(in crate::event) fn optional<T: Json + Default>(&mut self, name: &'static str) -> Result<T, Unfit> {
        let Some(value) = self.members.get(name) else { return Ok(T::default()) };
        let read = T::from_json(value);
        if read.is_some() || value.is_null() {
            self.taken.push(name);
        }
        Ok(read.unwrap_or_default())
    }

    /// Takes a member that may be absent or `null`, and otherwise has to be of its type.
    pub(in crate::event) fn checked<T: Json + Default>(&mut self, name: &'static str) -> Result<T, Unfit> {
        match self.members.get(name) {
            None => Ok(T::default()),
            Some(Value::Null) => self.optional(name),
            Some(_) => self.required(name),
        }
    }

    /// Returns the members that were not taken.
    pub(in crate::event) fn rest(self) -> Map<String, Value> {
        let left = self.members.iter().filter(|(key, _)| !self.taken.contains(&key.as_str()));
        left.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn only_exact_whole_numbers_are_counts() {
        assert_eq!(whole(4176.0), Some(4176));
        assert_eq!(whole(-0.0), Some(0));
        for number in [0.5, 1e18, -1e18, f64::NAN, f64::INFINITY] {
            assert_eq!(whole(number), None);
        }
    }
}
