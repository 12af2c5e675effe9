//! Text with placeholders such as `{date}`, filled in from a record. Paths, topics and the fields of a request have the notation
//! and the names in common; each kind of template names the values that it can have.
//!
//! In file paths and Kafka topics the value of a placeholder may come from outside, so only `A-Z a-z 0-9 _ -` are used, and at
//! most 64 characters. Any other character becomes `_`, and an empty value becomes `none`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::Record;
use dt_verify::event::rfc3339_millis;

/// The largest length of a placeholder's value in a path or a Kafka topic, in characters.
pub const MAX_VALUE: usize = 64;

const MILLIS_PER_HOUR: i64 = 3_600_000;

/// The placeholders of file paths and Kafka topics.
const OF_PATHS: [Placeholder; 5] = [
    Placeholder::Date,
    Placeholder::Hour,
    Placeholder::Connector,
    Placeholder::Project,
    Placeholder::EventType,
];

/// A value of a record that a template can contain as a placeholder. `Display` writes its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placeholder {
    /// `date`: the day of receipt in UTC, such as 2026-01-31.
    Date,
    /// `hour`: the hour of receipt in UTC, 00 to 23.
    Hour,
    /// `connector`: the name of the connector.
    Connector,
    /// `project`: the id of the project.
    Project,
    /// `device`: the id of the device.
    Device,
    /// `eventType`: the type of the event.
    EventType,
    /// `eventId`: the id of the event.
    EventId,
    /// `receivedAt`: the time of receipt in RFC 3339, with milliseconds.
    ReceivedAt,
    /// `verifiedBy`: the key with which the event was verified, or `api`.
    VerifiedBy,
    /// `source`: the part of DT's API from which the event was fetched.
    Source,
    /// `requestId`: the id of the request in which the event was received.
    RequestId,
}

impl Placeholder {
    /// All placeholders.
    pub const ALL: [Self; 11] = [
        Self::Date,
        Self::Hour,
        Self::Connector,
        Self::Project,
        Self::Device,
        Self::EventType,
        Self::EventId,
        Self::ReceivedAt,
        Self::VerifiedBy,
        Self::Source,
        Self::RequestId,
    ];

    /// Returns the name of the placeholder, without braces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Date => "date",
            Self::Hour => "hour",
            Self::Connector => "connector",
            Self::Project => "project",
            Self::Device => "device",
            Self::EventType => "eventType",
            Self::EventId => "eventId",
            Self::ReceivedAt => "receivedAt",
            Self::VerifiedBy => "verifiedBy",
            Self::Source => "source",
            Self::RequestId => "requestId",
        }
    }

    /// Returns the placeholder with this name; `None` if it is not one of `among`.
    #[must_use]
    pub fn find(name: &str, among: &[Self]) -> Option<Self> {
        among.iter().copied().find(|placeholder| placeholder.name() == name)
    }

    /// Returns the value of the placeholder for a record; `None` if the record has none.
    #[must_use]
    pub fn value(self, record: &Record) -> Option<Cow<'_, str>> {
        let part_of_time = |part: Range<usize>| {
            rfc3339_millis(record.received_at).get(part).map(|text| Cow::from(text.to_owned()))
        };
        match self {
            Self::Date => part_of_time(0..10),
            Self::Hour => part_of_time(11..13),
            Self::Connector => Some((&*record.connector).into()),
            Self::Project => record.project.as_deref().map(Cow::from),
            Self::Device => record.device.as_deref().map(Cow::from),
            Self::EventType => Some((&*record.event_type).into()),
            Self::EventId => Some((&*record.event_id).into()),
            Self::ReceivedAt => Some(rfc3339_millis(record.received_at).into()),
            Self::VerifiedBy => Some(record.provenance.verified_by().to_string().into()),
            Self::Source => record.provenance.source().map(|source| source.name().into()),
            Self::RequestId => record.request_id.map(|id| id.as_str().to_owned().into()),
        }
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<T> {
    /// A text that is written as it is.
    Text(String),
    /// A placeholder.
    Value(T),
}

/// A text with placeholders. `Display` writes it as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template<T>(Vec<Part<T>>);

/// Why a text is not a valid template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadTemplate {
    /// An opening brace has no closing brace.
    #[error("a `{{` without a `}}`")]
    Unclosed,
    /// A closing brace has no opening brace.
    #[error("a `}}` without a `{{`")]
    Unopened,
    /// The name between braces is not a placeholder, or not one of this kind of template.
    #[error("unknown placeholder \"{{{}}}\"", .0.escape_debug())]
    Unknown(String),
}

impl<T> Template<T> {
    /// Parses a text with placeholders. `find` returns the placeholder with a name; `None` if there is no such placeholder.
    ///
    /// # Errors
    ///
    /// [`BadTemplate`] for an unmatched brace, or an unknown placeholder.
    pub fn parse(text: &str, find: impl Fn(&str) -> Option<T>) -> Result<Self, BadTemplate> {
        let (mut parts, mut left) = (Vec::new(), text);
        while !left.is_empty() {
            let (literal, after) = left.split_once('{').unwrap_or((left, ""));
            if literal.contains('}') {
                return Err(BadTemplate::Unopened);
            }
            if !literal.is_empty() {
                parts.push(Part::Text(literal.to_owned()));
            }
            if literal.len() == left.len() {
                break;
            }
            let (name, after) = after.split_once('}').ok_or(BadTemplate::Unclosed)?;
            parts.push(Part::Value(find(name).ok_or_else(|| BadTemplate::Unknown(name.to_owned()))?));
            left = after;
        }
        Ok(Self(parts))
    }

    /// Creates a template without placeholders.
    #[must_use]
    pub fn fixed(text: String) -> Self {
        Self(vec![Part::Text(text)])
    }

    /// Returns the texts and placeholders of the template, in order.
    #[must_use]
    pub fn parts(&self) -> &[Part<T>] {
        &self.0
    }

    /// Returns whether the template has no placeholders.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(_)))
    }
}

impl<T: fmt::Display> fmt::Display for Template<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Value(value) => write!(f, "{{{value}}}"),
        })
    }
}

/// The error for a text that is not a template of a path or of a Kafka topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; the placeholders are {{date}}, {{hour}}, {{connector}}, {{project}}, {{eventType}}")]
pub struct NotATemplate(pub(super) String);

/// Parses the template of a path or of a Kafka topic.
pub fn parse(text: &str) -> Result<Template<Placeholder>, NotATemplate> {
    let find = |name: &str| Placeholder::find(name, &OF_PATHS);
    Template::parse(text, find).map_err(|error| NotATemplate(error.to_string()))
}

/// Writes the path or the Kafka topic of a record into `out`.
pub fn render(template: &Template<Placeholder>, record: &Record, out: &mut String) {
    out.clear();
    for part in template.parts() {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Value(placeholder) => push_safe(placeholder.value(record).as_deref(), out),
        }
    }
}

/// Returns whether the placeholders have equal values for two records, so that the texts are equal.
pub fn is_same(template: &Template<Placeholder>, one: &Record, other: &Record) -> bool {
    let hour = |record: &Record| record.received_at.div_euclid(MILLIS_PER_HOUR);
    template.parts().iter().all(|part| match part {
        Part::Text(_) => true,
        Part::Value(Placeholder::Date | Placeholder::Hour) => hour(one) == hour(other),
        Part::Value(placeholder) => placeholder.value(one) == placeholder.value(other),
    })
}

/// Appends a value in a form that is safe in a file or topic name.
fn push_safe(value: Option<&str>, out: &mut String) {
    let value = value.filter(|value| !value.is_empty()).unwrap_or("none");
    out.extend(value.chars().take(MAX_VALUE).map(|c| if is_safe(c) { c } else { '_' }));
}

pub const fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_leads_out_of_a_folder() {
        for (value, safe) in [
            (Some("touch"), "touch"),
            (Some(""), "none"),
            (None, "none"),
            (Some(".."), "__"),
            (Some("../../etc/passwd"), "______etc_passwd"),
            (Some("a\0b\nc æ"), "a_b_c__"),
        ] {
            let mut out = String::new();
            push_safe(value, &mut out);
            assert_eq!(out, safe);
        }
        let mut out = String::new();
        push_safe(Some(&"é".repeat(1000)), &mut out);
        assert_eq!(out, "_".repeat(64));
    }
}
