//! Which events a sink receives: `only` and `backfill` in `[[sink]]`.

use std::collections::{BTreeMap, BTreeSet};

use super::connector::read_events;
use dt_sink::config::{Section, config_keys, custom, texts};
use dt_sink::record::{ApiSource, Record};

/// Which of the events of its connectors a sink receives. The default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordFilter {
    /// The condition `only` of the sink.
    pub only: SinkFilter,
    /// Whether the sink receives no events that were fetched from a device's history.
    pub skips_backfilled: bool,
}

impl RecordFilter {
    /// Returns whether the sink receives a record.
    #[must_use]
    pub fn wants(&self, record: &Record) -> bool {
        let is_skipped = self.skips_backfilled && record.provenance.source() == Some(ApiSource::Backfill);
        !is_skipped && self.only.wants(record)
    }
}

impl From<SinkFilter> for RecordFilter {
    fn from(only: SinkFilter) -> Self {
        Self { only, ..Self::default() }
    }
}

config_keys! {
    /// The events that a sink receives. An event must match every key that is given, and of a list one value.
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct SinkFilter {
        /// The event types.
        events: BTreeSet<String> = custom("list of event types", read_events)
            .or(BTreeSet::new())
            .default_words("all")
            .sample("[\"temperature\", \"humidity\"]"),
        /// The projects. An event without a project matches none.
        projects: BTreeSet<String> = texts("list of project ids", "all projects")
            .or(BTreeSet::new())
            .default_words("all")
            .sample("[\"c14u9p094l47cdv1o3pg\"]"),
        /// The devices. An event without a device matches none.
        devices: BTreeSet<String> = texts("list of device ids", "all devices")
            .or(BTreeSet::new())
            .default_words("all")
            .sample("[\"b6roh6d7rihmn9oji86g\"]"),
        /// The labels, all of which the event must have: with this text, or with any text if it says `true`. DT sends
        /// the labels that the Data Connector lists. The body of each event is parsed for this key.
        labels: BTreeMap<String, Label> = custom("table of label keys, each with a string or `true`", read_labels)
            .shown_as(shown_labels)
            .or(BTreeMap::new())
            .default_words("any")
            .sample("{ room = \"kitchen\" }"),
    }
}

/// The condition on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Label {
    /// The event has the label, with any text.
    Present,
    /// The label has this text, which may be empty.
    Is(String),
}

impl SinkFilter {
    /// Returns whether a record matches the filter.
    #[must_use]
    pub fn wants(&self, record: &Record) -> bool {
        let is_among = |list: &BTreeSet<String>, value: Option<&str>| {
            list.is_empty() || value.is_some_and(|value| list.contains(value))
        };
        is_among(&self.events, Some(&record.event_type))
            && is_among(&self.projects, record.project.as_deref())
            && is_among(&self.devices, record.device.as_deref())
            && (self.labels.is_empty() || self.has_labels(record))
    }

    fn has_labels(&self, record: &Record) -> bool {
        let Ok(delivery) = record.delivery() else { return false };
        self.labels.iter().all(|(key, label)| match (label, delivery.labels.get(key)) {
            (_, None) => false,
            (Label::Present, Some(_)) => true,
            (Label::Is(text), Some(found)) => found == text,
        })
    }
}

fn read_labels(section: &mut Section<'_>, key: &'static str) -> Option<BTreeMap<String, Label>> {
    let labels = section.section(key)?.into_texts_or_true();
    if labels.is_empty() && !section.has_errors_at(key) {
        section.complain(key, "the table is empty; leave the key out for any labels");
    }
    let label = |text: Option<String>| text.map_or(Label::Present, Label::Is);
    Some(labels.into_iter().map(|(key, text)| (key, label(text))).collect())
}

fn shown_labels(labels: &BTreeMap<String, Label>) -> String {
    let shown = labels.iter().map(|(key, label)| match label {
        Label::Present => format!("{key:?} = true"),
        Label::Is(text) => format!("{key:?} = {text:?}"),
    });
    format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use dt_sink::record::Provenance;

    fn record(event_type: &str, device: Option<&str>, labels: &str) -> Record {
        let body = format!(r#"{{"event":{{"eventId":"e","eventType":"{event_type}"}},"labels":{labels}}}"#);
        Record {
            event_type: event_type.into(),
            project: Some("p".into()),
            device: device.map(Into::into),
            body: Bytes::from(body),
            ..Record::sample("e")
        }
    }

    fn set(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn every_key_must_match_and_of_a_list_one_value() {
        let touch = record("touch", Some("d"), "{}");
        assert!(SinkFilter::default().wants(&touch));
        let filter = |events: &[&str], projects: &[&str], devices: &[&str]| SinkFilter {
            events: set(events),
            projects: set(projects),
            devices: set(devices),
            ..SinkFilter::default()
        };
        assert!(filter(&["touch", "co2"], &["p", "q"], &["d"]).wants(&touch));
        assert!(!filter(&["co2"], &["p"], &["d"]).wants(&touch));
        assert!(!filter(&["touch"], &["q"], &["d"]).wants(&touch));
        assert!(!filter(&["touch"], &["p"], &["c"]).wants(&touch));
        let nowhere = Record { project: None, ..record("touch", None, "{}") };
        assert!(filter(&["touch"], &[], &[]).wants(&nowhere));
        assert!(!filter(&[], &["p"], &[]).wants(&nowhere) && !filter(&[], &[], &["d"]).wants(&nowhere));
    }

    #[test]
    fn labels_have_a_text_or_are_present() {
        let with = |labels: &[(&str, Label)]| SinkFilter {
            labels: labels.iter().map(|(key, label)| ((*key).to_owned(), label.clone())).collect(),
            ..SinkFilter::default()
        };
        let is = |text: &str| Label::Is(text.to_owned());
        let kitchen = record("touch", None, r#"{"room":"kitchen","virtual-sensor":"","floor":2}"#);
        for (labels, expected) in [
            (&[("room", is("kitchen"))][..], true),
            (&[("room", is("kitchen")), ("floor", is("2"))], true),
            (&[("room", is("kitchen")), ("floor", is("3"))], false),
            (&[("room", is("Kitchen"))], false),
            (&[("room", is(""))], false),
            (&[("virtual-sensor", is(""))], true),
            (&[("virtual-sensor", Label::Present), ("room", Label::Present)], true),
            (&[("name", Label::Present)], false),
            (&[("name", is(""))], false),
        ] {
            assert_eq!(with(labels).wants(&kitchen), expected, "{labels:?}");
        }
        let unreadable = Record { body: Bytes::from_static(b"{}"), ..kitchen };
        assert!(!with(&[("room", Label::Present)]).wants(&unreadable));
    }

    #[test]
    fn a_sink_without_backfill_gets_all_but_backfilled_events() {
        let from = |provenance| Record { provenance, ..record("touch", Some("d"), "{}") };
        let pushed = record("touch", Some("d"), "{}");
        let (filled, streamed) =
            (from(Provenance::Api(ApiSource::Backfill)), from(Provenance::Api(ApiSource::Stream)));
        let all = RecordFilter::default();
        assert!(all.wants(&pushed) && all.wants(&filled) && all.wants(&streamed));
        let without = RecordFilter { skips_backfilled: true, ..RecordFilter::default() };
        assert!(without.wants(&pushed) && !without.wants(&filled) && without.wants(&streamed));
        let other = SinkFilter { devices: set(&["c"]), ..SinkFilter::default() };
        assert!(!RecordFilter { skips_backfilled: true, only: other }.wants(&pushed));
    }

    #[test]
    fn a_body_is_parsed_only_for_labels() {
        let broken = Record { body: Bytes::from_static(b"no JSON"), ..record("touch", None, "{}") };
        assert!(SinkFilter { events: set(&["touch"]), ..SinkFilter::default() }.wants(&broken));
    }
}
