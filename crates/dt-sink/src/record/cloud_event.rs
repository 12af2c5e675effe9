//! A record as a CloudEvent (CloudEvents 1.0): its attributes, for the headers of a Kafka record (binary mode) and for a
//! JSON object (structured mode).

use std::borrow::Cow;

use super::{ApiSource, Record};
use dt_verify::event::{Timestamp, rfc3339_millis, target_and_time};

/// The prefix of the attribute `type`; the event type follows.
const TYPE_PREFIX: &str = "com.disruptive-technologies.";
/// The prefix of the attribute `source`; the project follows.
const SOURCE_PREFIX: &str = "//disruptive-technologies.com/projects/";
/// The attribute `source` of an event without a project.
const NO_PROJECT: &str = "//disruptive-technologies.com";

/// The attributes of a CloudEvent. Its data is the record's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent<'a> {
    /// `id`: the event id, equal for every copy of the event.
    pub id: &'a str,
    /// `source`: a URI that names the project, or only DT for an event without a project.
    pub source: String,
    /// `type`: the event type with a prefix.
    pub event_type: String,
    /// `subject`: `event.targetName`; `None` if the event has none.
    pub subject: Option<Cow<'a, str>>,
    /// `time`: `event.timestamp`; `None` if it is absent or not RFC 3339.
    pub time: Option<Cow<'a, str>>,
    /// `dtconnector`: the name of the connector that received the event.
    pub connector: &'a str,
    /// `dtreceivedat`: when the event was received, in RFC 3339.
    pub received_at: String,
    /// `dtsource`: the part of DT's API from which the event was fetched; `None` if DT pushed it.
    pub api_source: Option<&'static str>,
}

impl<'a> CloudEvent<'a> {
    /// Returns the attributes of a record.
    #[must_use]
    pub fn of(record: &'a Record) -> Self {
        let (target, time) = target_and_time(&record.body);
        let is_time = |time: &Cow<'_, str>| Timestamp::new(&**time).unix_seconds().is_some();
        Self {
            id: &record.event_id,
            source: record.project.as_deref().map_or_else(
                || NO_PROJECT.to_owned(),
                |project| format!("{SOURCE_PREFIX}{}", escaped(project)),
            ),
            event_type: format!("{TYPE_PREFIX}{}", record.event_type),
            subject: target.filter(|target| !target.is_empty()),
            time: time.filter(is_time),
            connector: &record.connector,
            received_at: rfc3339_millis(record.received_at),
            api_source: record.provenance.source().map(ApiSource::name),
        }
    }

    /// Returns the name and value of every attribute, including the media type of the data.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("specversion", Some("1.0")),
            ("id", Some(self.id)),
            ("source", Some(&*self.source)),
            ("type", Some(&*self.event_type)),
            ("subject", self.subject.as_deref()),
            ("time", self.time.as_deref()),
            ("datacontenttype", Some("application/json")),
            ("dtconnector", Some(self.connector)),
            ("dtreceivedat", Some(&*self.received_at)),
            ("dtsource", self.api_source),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// Escapes a text for use in a URI (RFC 3986, section 2.3).
fn escaped(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    if text.as_bytes().iter().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    for byte in text.bytes() {
        if is_plain(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use bytes::Bytes;

    use crate::record::Provenance;

    fn attributes(project: Option<&str>, body: &'static str) -> Vec<(&'static str, String)> {
        let record = Record {
            connector: Arc::from("plant"),
            received_at: 1_700_000_000_123,
            project: project.map(Into::into),
            body: Bytes::from_static(body.as_bytes()),
            ..Record::sample("c82gg9catj3vmh4248og")
        };
        CloudEvent::of(&record).attributes().map(|(name, value)| (name, value.to_owned())).collect()
    }

    #[test]
    fn a_delivery_has_all_attributes() {
        let body =
            r#"{"event":{"targetName":"projects/p/devices/d","timestamp":"2021-05-16T08:13:15.361624Z"}}"#;
        let expected = [
            ("specversion", "1.0"),
            ("id", "c82gg9catj3vmh4248og"),
            ("source", "//disruptive-technologies.com/projects/p"),
            ("type", "com.disruptive-technologies.touch"),
            ("subject", "projects/p/devices/d"),
            ("time", "2021-05-16T08:13:15.361624Z"),
            ("datacontenttype", "application/json"),
            ("dtconnector", "plant"),
            ("dtreceivedat", "2023-11-14T22:13:20.123Z"),
        ];
        assert_eq!(attributes(Some("p"), body), expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn what_is_not_there_or_no_time_is_left_out() {
        let of = |project, body| {
            let all = attributes(project, body);
            let get =
                |wanted: &str| all.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone());
            (get("source"), get("subject"), get("time"))
        };
        let nowhere = Some("//disruptive-technologies.com".to_owned());
        assert_eq!(of(None, r#"{"event":{}}"#), (nowhere.clone(), None, None));
        assert_eq!(of(None, r#"{"event":{"targetName":"","timestamp":"yesterday"}}"#), (nowhere, None, None));
        let odd = Some("//disruptive-technologies.com/projects/a%20%C3%A6%2F".to_owned());
        assert_eq!(of(Some("a \u{e6}/"), "not JSON"), (odd, None, None));
    }

    #[test]
    fn an_event_of_the_api_names_its_source() {
        for source in ApiSource::ALL {
            let record = Record { provenance: Provenance::Api(source), ..Record::sample("e1") };
            let event = CloudEvent::of(&record);
            let found = event.attributes().find(|(name, _)| *name == "dtsource");
            assert_eq!(found, Some(("dtsource", source.name())));
        }
    }
}
