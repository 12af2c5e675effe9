//! Text with placeholders such as `{date}`, filled in from a record. File paths and topic names share it.
//!
//! The value of a placeholder may come from outside, so only `A-Z a-z 0-9 _ -` are used, and at most 64 characters. Any
//! other character becomes `_`, and an empty value becomes `none`.

use super::Record;
use dt_verify::event::rfc3339_millis;

/// The longest value of a placeholder, in characters.
pub const MAX_VALUE: usize = 64;

const MILLIS_PER_HOUR: i64 = 3_600_000;

/// All placeholders.
const PLACEHOLDERS: [(&str, Placeholder); 5] = [
    ("date", Placeholder::Date),
    ("hour", Placeholder::Hour),
    ("connector", Placeholder::Connector),
    ("project", Placeholder::Project),
    ("eventType", Placeholder::EventType),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    Date,
    Hour,
    Connector,
    Project,
    EventType,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Value(Placeholder),
}

/// A text that is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; the placeholders are {{date}}, {{hour}}, {{connector}}, {{project}}, {{eventType}}")]
pub struct NotATemplate(pub(super) String);

/// Reads text with placeholders.
pub fn parse(text: &str) -> Result<Vec<Part>, NotATemplate> {
    let (mut parts, mut left) = (Vec::new(), text);
    while !left.is_empty() {
        let (literal, after) = left.split_once('{').unwrap_or((left, ""));
        if literal.contains('}') {
            return Err(NotATemplate("a `}` without a `{`".to_owned()));
        }
        if !literal.is_empty() {
            parts.push(Part::Text(literal.to_owned()));
        }
        if literal.len() == left.len() {
            break;
        }
        let Some((name, after)) = after.split_once('}') else {
            return Err(NotATemplate("a `{` without a `}`".to_owned()));
        };
        match PLACEHOLDERS.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => parts.push(Part::Value(*value)),
            None => return Err(NotATemplate(format!("unknown placeholder \"{{{}}}\"", name.escape_debug()))),
        }
        left = after;
    }
    Ok(parts)
}

/// Writes the text for a record into `out`.
pub fn render(parts: &[Part], record: &Record, out: &mut String) {
    out.clear();
    let mut time = None;
    for part in parts {
        let placeholder = match part {
            Part::Text(text) => {
                out.push_str(text);
                continue;
            }
            Part::Value(placeholder) => placeholder,
        };
        match placeholder {
            Placeholder::Date | Placeholder::Hour => {
                let time = time.get_or_insert_with(|| rfc3339_millis(record.received_at));
                let range = if *placeholder == Placeholder::Date { 0..10 } else { 11..13 };
                push_safe(time.get(range), out);
            }
            Placeholder::Connector => push_safe(Some(&record.connector), out),
            Placeholder::Project => push_safe(record.project.as_deref(), out),
            Placeholder::EventType => push_safe(Some(&record.event_type), out),
        }
    }
}

/// Returns whether the placeholders have equal values for two records, so that the texts are equal.
pub fn is_same(parts: &[Part], one: &Record, other: &Record) -> bool {
    let hour = |record: &Record| record.received_at.div_euclid(MILLIS_PER_HOUR);
    parts.iter().all(|part| match part {
        Part::Text(_) => true,
        Part::Value(Placeholder::Date | Placeholder::Hour) => hour(one) == hour(other),
        Part::Value(Placeholder::Connector) => one.connector == other.connector,
        Part::Value(Placeholder::Project) => one.project == other.project,
        Part::Value(Placeholder::EventType) => one.event_type == other.event_type,
    })
}

/// Returns the text as it was written.
pub fn text(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Value(value) => {
                let name = PLACEHOLDERS.iter().find(|(_, known)| known == value);
                text.extend(["{", name.map_or("", |(name, _)| name), "}"]);
            }
        }
    }
    text
}

/// Returns whether the text has no placeholders.
pub fn is_fixed(parts: &[Part]) -> bool {
    parts.iter().all(|part| matches!(part, Part::Text(_)))
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
