//! The Kafka topic of a record: a name with placeholders such as `{eventType}`.

use std::fmt;
use std::str::FromStr;

use super::Record;
use super::template::{self, MAX_VALUE, NotATemplate, Part, Placeholder, Template};

/// The largest length of a topic's name in Kafka, in characters (`org.apache.kafka.common.internals.Topic`).
const MAX_NAME: usize = 249;

/// The name of a Kafka topic, with placeholders. The name is valid for Kafka with any values of the placeholders.
///
/// # Examples
///
/// ```
/// use dt_sink::record::TopicTemplate;
///
/// assert!("dt.events".parse::<TopicTemplate>().unwrap().fixed().is_some());
/// assert!("dt.{eventType}".parse::<TopicTemplate>().unwrap().fixed().is_none());
/// let error = "dt/events".parse::<TopicTemplate>().unwrap_err();
/// assert!(error.to_string().contains("letters, digits, `.`, `_` and `-`"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate(Template<Placeholder>);

impl TopicTemplate {
    /// Writes the name of the topic for a record into `out`.
    pub fn render(&self, record: &Record, out: &mut String) {
        template::render(&self.0, record, out);
    }

    /// Returns the name of the topic if the template has no placeholders; otherwise `None`.
    #[must_use]
    pub fn fixed(&self) -> Option<String> {
        self.0.is_fixed().then(|| self.0.to_string())
    }
}

impl FromStr for TopicTemplate {
    type Err = NotATemplate;

    fn from_str(text: &str) -> Result<Self, NotATemplate> {
        let template = template::parse(text)?;
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let mut most = 0_usize;
        for part in template.parts() {
            most = most.saturating_add(match part {
                Part::Text(text) if !text.chars().all(is_legal) => {
                    let text = "a topic name may contain only letters, digits, `.`, `_` and `-`";
                    return Err(NotATemplate(text.to_owned()));
                }
                Part::Text(text) => text.len(),
                Part::Value(_) => MAX_VALUE,
            });
        }
        if most == 0 || matches!(text, "." | "..") {
            return Err(NotATemplate("Kafka does not allow this topic name".to_owned()));
        }
        if most > MAX_NAME {
            let text = format!("the name could have {most} characters, and Kafka allows {MAX_NAME}");
            return Err(NotATemplate(text));
        }
        Ok(Self(template))
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kafka_does_not_allow_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "a b",
            "a/b",
            "a,b",
            "\u{e6}",
            "{day}",
            &"a".repeat(250),
            "{project}{project}{project}{project}",
        ] {
            assert!(text.parse::<TopicTemplate>().is_err(), "{text}");
        }
        for text in ["a", "...", "dt.{eventType}", "{project}-{connector}_1", &"a".repeat(249)] {
            assert_eq!(text.parse::<TopicTemplate>().expect(text).to_string(), text);
        }
    }
}
