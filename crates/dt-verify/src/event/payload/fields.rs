//! Takes the members of a payload one by one, and keeps those that nobody took.

use serde_json::{Map, Value};

use crate::event::event_type::EventType;
use crate::event::timestamp::Timestamp;

/// Why a payload is not as documented.
pub(super) enum Unfit {
    /// `data` is not an object.
    Data,
    /// `data.<type>` is not an object.
    Payload { absent: bool },
    /// A required member is missing or of another type.
    Member { name: &'static str, wanted: &'static str, absent: bool },
}

impl Unfit {
    pub(super) fn reason(&self, event_type: &EventType) -> String {
        match self {
            Self::Data => "`data` is not an object".to_owned(),
            Self::Payload { absent: true } => format!("`data` has no `{event_type}`"),
            Self::Payload { absent: false } => format!("`data.{event_type}` is not an object"),
            Self::Member { name, absent: true, .. } => format!("`{event_type}` has no `{name}`"),
            Self::Member { name, wanted, absent: false } => {
                format!("`{name}` of `{event_type}` is not {wanted}")
            }
        }
    }
}

/// The members of one object.
pub(super) struct Fields<'a> {
    members: &'a Map<String, Value>,
    taken: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) const fn of(members: &'a Map<String, Value>) -> Self {
        Self { members, taken: Vec::new() }
    }

    /// A member without which the payload says nothing. `wanted` is what it has to be, such as "a number".
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        wanted: &'static str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, Unfit> {
        let absent = !self.members.contains_key(name);
        self.optional(name, convert).ok_or(Unfit::Member { name, wanted, absent })
    }

    /// A member that may be absent or `null`. Of another type it counts as absent, but stays in `extra`.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.members.get(name)?;
        let converted = convert(value);
        if converted.is_some() || value.is_null() {
            self.taken.push(name);
        }
        converted
    }

    /// A member that has to be right if it is there, and may be absent or `null`.
    pub(super) fn right_if_there<T: Default>(
        &mut self,
        name: &'static str,
        wanted: &'static str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, Unfit> {
        if self.members.get(name).is_none_or(Value::is_null) {
            self.taken.push(name);
            return Ok(T::default());
        }
        self.required(name, wanted, convert)
    }

    /// What was measured.
    pub(super) fn number(&mut self, name: &'static str) -> Result<f64, Unfit> {
        self.required(name, "a number", Value::as_f64)
    }

    /// What was counted. Whole numbers only, also if they are spelled `27.0`.
    pub(super) fn count(&mut self, name: &'static str) -> Result<i64, Unfit> {
        self.required(name, "a whole number", |value| value.as_i64().or_else(|| whole(value.as_f64()?)))
    }

    /// A text, or an enum of texts.
    pub(super) fn text<T: for<'b> From<&'b str>>(&mut self, name: &'static str) -> Result<T, Unfit> {
        self.required(name, "a text", |value| value.as_str().map(T::from))
    }

    pub(super) fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        self.optional(name, |value| value.as_str().map(Timestamp::from))
    }

    /// A list of objects. If one of them is not as documented, the whole list stays in `extra`.
    pub(super) fn objects<T>(
        &mut self,
        name: &'static str,
        read: fn(Fields<'_>) -> Result<T, Unfit>,
    ) -> Vec<T> {
        self.list(name, |item| read(Fields::of(item.as_object()?)).ok())
    }

    /// A list of texts; the same holds for it.
    pub(super) fn texts<T: for<'b> From<&'b str>>(&mut self, name: &'static str) -> Vec<T> {
        self.list(name, |item| item.as_str().map(T::from))
    }

    pub(super) fn list<T>(&mut self, name: &'static str, item: impl Fn(&Value) -> Option<T>) -> Vec<T> {
        self.optional(name, |value| value.as_array()?.iter().map(item).collect()).unwrap_or_default()
    }

    /// The members that nobody took.
    pub(super) fn rest(self) -> Map<String, Value> {
        let left = self.members.iter().filter(|(key, _)| !self.taken.contains(&key.as_str()));
        left.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// A float that is a whole number and exact as such.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    #[expect(clippy::cast_possible_truncation, reason = "whole, and far below 2^63")]
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
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
