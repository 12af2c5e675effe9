//! The parts of a body that sinks store or send as they were received.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::Record;

/// The members of a record's body that sinks store as JSON, byte for byte as received. A member that is absent or `null` is
/// `None`.
#[derive(Debug, Clone, Copy)]
pub struct JsonParts<'a> {
    /// The member `labels`.
    pub labels: Option<&'a RawValue>,
    /// The member `event.data`.
    pub data: Option<&'a RawValue>,
}

impl Record {
    /// Returns the labels and the data of the event as they were received.
    #[must_use]
    pub fn json_parts(&self) -> JsonParts<'_> {
        type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;
        let members: Members<'_> = serde_json::from_slice(&self.body).unwrap_or_default();
        let event = members.get("event").map_or("", |event| event.get());
        let event: Members<'_> = serde_json::from_str(event).unwrap_or_default();
        let present = |part: &&RawValue| part.get() != "null";
        JsonParts {
            labels: members.get("labels").copied().filter(present),
            data: event.get("data").copied().filter(present),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn parts(body: &'static str) -> (Option<String>, Option<String>) {
        let record = Record { body: Bytes::from_static(body.as_bytes()), ..Record::sample("a") };
        let JsonParts { labels, data } = record.json_parts();
        let text = |part: &RawValue| part.get().to_owned();
        (labels.map(text), data.map(text))
    }

    #[test]
    fn parts_are_those_that_were_received() {
        let some = |labels: &str, data: &str| (Some(labels.to_owned()), Some(data.to_owned()));
        let body = r#"{"labels" : {"a":"\u00e6"}, "event":{"eventId":"a","eventType":"x","data":{"x":{"v":1.50e+1}}}}"#;
        assert_eq!(parts(body), some(r#"{"a":"\u00e6"}"#, r#"{"x":{"v":1.50e+1}}"#));
        assert_eq!(parts(r#"{"l\u0061bels":[1],"event":{"d\u0061ta":2}}"#), some("[1]", "2"));
        assert_eq!(parts(r#"{"labels":null,"event":[]}"#), (None, None));
        assert_eq!(parts("no JSON"), (None, None));
    }
}
