//! Topics with placeholders such as `{device}`.
//!
//! The value of a placeholder may come from outside, so it is escaped as in a URL (RFC 3986, section 2.3): `A-Z a-z 0-9 - . _ ~`
//! stay, and every other byte becomes `%` and two hexadecimal digits. So no value adds a level, a wildcard or a control
//! character to a topic, and two values never have the same form. An empty or missing value is `none`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use dt_sink::record::{BadTemplate, Part, Placeholder, Record, Template};

use crate::packet::MAX_TEXT;

/// The placeholders for values of a record that a topic can contain.
const OF_RECORDS: [Placeholder; 4] =
    [Placeholder::Connector, Placeholder::Project, Placeholder::Device, Placeholder::EventType];

/// The name of the placeholder that only the topics of states have.
const QUANTITY: &str = "quantity";

/// The value that a placeholder in a topic inserts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    OfRecord(Placeholder),
    Quantity,
}

impl Value {
    fn find(name: &str) -> Option<Self> {
        if name == QUANTITY {
            return Some(Self::Quantity);
        }
        Placeholder::find(name, &OF_RECORDS).map(Self::OfRecord)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfRecord(placeholder) => placeholder.fmt(f),
            Self::Quantity => f.write_str(QUANTITY),
        }
    }
}

/// A topic with the placeholders `{connector}`, `{project}`, `{device}`, `{eventType}` and, for states, `{quantity}`.
///
/// # Examples
///
/// ```
/// use dt_sink_mqtt::MqttTopic;
///
/// assert!("dt/{project}/{device}/{eventType}".parse::<MqttTopic>().is_ok());
/// let error = "dt/{label}".parse::<MqttTopic>().unwrap_err();
/// assert!(error.to_string().contains("{connector}, {project}, {device}, {eventType}, {quantity}"));
/// assert!("dt/#".parse::<MqttTopic>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttTopic(Template<Value>);

/// Why a text is not a valid topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadTopic {
    /// The topic is empty.
    #[error("a topic may not be empty")]
    Empty,
    /// The topic has more bytes than the protocol allows. Contains their number.
    #[error("a topic of {0} bytes is longer than MQTT allows ({MAX_TEXT})")]
    TooLong(usize),
    /// The topic contains a wildcard or a control character.
    #[error("a topic may not contain `+`, `#` or control characters")]
    Character,
    /// The topic is one of those that brokers reserve.
    #[error("topics that begin with `$` belong to the broker")]
    Reserved,
    /// A brace is unmatched, or a placeholder is unknown.
    #[error("{0}; the placeholders are {{connector}}, {{project}}, {{device}}, {{eventType}}, {{quantity}}")]
    Template(#[from] BadTemplate),
}

/// Checks a topic without placeholders.
///
/// # Errors
///
/// Returns [`BadTopic`] if no message can be published to it.
pub fn check_topic(topic: &str) -> Result<(), BadTopic> {
    match topic {
        "" => Err(BadTopic::Empty),
        _ if topic.len() > MAX_TEXT => Err(BadTopic::TooLong(topic.len())),
        _ if topic.starts_with('$') => Err(BadTopic::Reserved),
        _ if topic.contains(|c: char| matches!(c, '+' | '#') || is_forbidden(c)) => Err(BadTopic::Character),
        _ => Ok(()),
    }
}

/// Returns whether a broker may reject a text because of this character (MQTT 5, section 1.5.4).
pub fn is_forbidden(c: char) -> bool {
    let code = u32::from(c);
    c.is_control() || (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
}

impl MqttTopic {
    /// Returns the topic for a record.
    ///
    /// # Errors
    ///
    /// Returns [`BadTopic`] if the topic is too long.
    pub fn render(&self, record: &Record, quantity: Option<&str>) -> Result<String, BadTopic> {
        let mut out = String::new();
        for part in self.0.parts() {
            let value = match part {
                Part::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Part::Value(Value::OfRecord(placeholder)) => placeholder.value(record),
                Part::Value(Value::Quantity) => quantity.map(Cow::from),
            };
            push_escaped(value.as_deref().filter(|value| !value.is_empty()).unwrap_or("none"), &mut out);
        }
        check_topic(&out).map(|()| out)
    }

    /// Returns a topic without placeholders.
    pub(crate) fn plain(text: &str) -> Self {
        Self(Template::fixed(text.to_owned()))
    }

    /// Returns whether each device and quantity has a different topic.
    #[must_use]
    pub fn tells_states_apart(&self) -> bool {
        self.has(Value::OfRecord(Placeholder::Device)) && self.has_quantity()
    }

    /// Returns whether the topic contains the placeholder of a quantity, which an event does not have.
    #[must_use]
    pub fn has_quantity(&self) -> bool {
        self.has(Value::Quantity)
    }

    fn has(&self, value: Value) -> bool {
        self.0.parts().contains(&Part::Value(value))
    }
}

/// Appends a value as one level of a topic.
fn push_escaped(value: &str, out: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

impl FromStr for MqttTopic {
    type Err = BadTopic;

    fn from_str(text: &str) -> Result<Self, BadTopic> {
        let template = Template::parse(text, Value::find)?;
        // A value has at least one character, and none that is not allowed.
        check_topic(text)?;
        Ok(Self(template))
    }
}

impl fmt::Display for MqttTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(device: &str) -> Record {
        Record { project: Some("p".into()), device: Some(device.into()), ..Record::sample("id") }
    }

    #[test]
    fn no_value_adds_a_level_or_a_wildcard() {
        let topic: MqttTopic = "dt/{connector}/{project}/{device}/{eventType}".parse().expect("a topic");
        for (device, escaped) in [
            ("b6sfpst7rihg1n9qkn9g", "b6sfpst7rihg1n9qkn9g"),
            ("", "none"),
            ("a/b", "a%2Fb"),
            ("#", "%23"),
            ("+", "%2B"),
            ("%2B", "%252B"),
            ("$SYS", "%24SYS"),
            ("\0\n\u{7f}", "%00%0A%7F"),
            ("{device}", "%7Bdevice%7D"),
            ("\u{e6} \u{feff}", "%C3%A6%20%EF%BB%BF"),
        ] {
            let rendered = topic.render(&record(device), None).expect("short");
            assert_eq!(rendered, format!("dt/default/p/{escaped}/touch"));
        }
        let rendered = topic.render(&Record::sample("id"), None).expect("short");
        assert_eq!(rendered, "dt/default/none/none/touch");
    }

    #[test]
    fn a_topic_that_is_too_long_is_an_error() {
        let topic: MqttTopic = "{device}".parse().expect("a topic");
        assert_eq!(topic.render(&record(&"é".repeat(11_000)), None), Err(BadTopic::TooLong(66_000)));
        let most = "a".repeat(65_535);
        assert_eq!(topic.render(&record(&most), None), Ok(most));
    }

    #[test]
    fn what_no_broker_takes_is_refused() {
        for (text, error) in [
            ("", BadTopic::Empty),
            ("dt/+", BadTopic::Character),
            ("dt/#", BadTopic::Character),
            ("dt/\u{0}", BadTopic::Character),
            ("dt/\u{ffff}", BadTopic::Character),
            ("$SYS/{device}", BadTopic::Reserved),
            ("dt/{device", BadTemplate::Unclosed.into()),
            ("dt/device}", BadTemplate::Unopened.into()),
            ("dt/{date}", BadTemplate::Unknown("date".to_owned()).into()),
            ("dt/{}", BadTemplate::Unknown(String::new()).into()),
        ] {
            assert_eq!(text.parse::<MqttTopic>(), Err(error), "{text:?}");
        }
        for text in ["a", "/a//b/", "{connector}", "dt/{device}/state/{quantity}", "d t/æ"] {
            assert_eq!(text.parse::<MqttTopic>().expect(text).to_string(), text);
        }
    }
}
