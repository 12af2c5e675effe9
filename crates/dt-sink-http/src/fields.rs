//! The table `fields`: the JSON object that is sent for an event, with the members that the operator chooses.
//!
//! The value of a member is a text with placeholders, a constant, or a table that becomes an object. A text that consists of one
//! placeholder becomes the JSON value of the placeholder, so that a number stays a number; any other text becomes a string. A
//! member is omitted for an event in which one of its placeholders has no value.

use std::cell::OnceCell;
use std::fmt;
use std::str;

use serde_json::Value;
use serde_json::value::RawValue;

use dt_sink::Record;
use dt_sink::config::{NamedValue, Section, Table, TableEntry};
use dt_sink::record::{
    BadTemplate, JsonParts, Part, Placeholder, Template, escaped, json_number, write_on_one_line,
};
use dt_verify::event::{Delivery, Reading, ReadingValue};

/// The placeholders for parts of the body, by name.
static OF_BODY: [(&str, EventValue); 6] = [
    ("timestamp", EventValue::Timestamp),
    ("timestampMillis", EventValue::TimestampMillis),
    ("deviceType", EventValue::DeviceType),
    ("labels", EventValue::Labels),
    ("data", EventValue::Data),
    ("body", EventValue::Body),
];

/// The prefix of a placeholder for a label.
const LABEL: &str = "labels.";

const NANOS_PER_MILLI: i128 = 1_000_000;

/// The value that a placeholder inserts. `Display` writes the name of the placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum EventValue {
    Record(Placeholder),
    /// `event.timestamp`.
    Timestamp,
    /// `event.timestamp` in Unix milliseconds, as a number.
    TimestampMillis,
    /// `metadata.deviceType`.
    DeviceType,
    /// The labels, as received.
    Labels,
    /// The label with this key.
    Label(String),
    /// `event.data`, as received.
    Data,
    /// The whole body, as received.
    Body,
    /// The value of the newest reading of this quantity.
    Quantity(&'static str),
}

impl fmt::Display for EventValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record(placeholder) => placeholder.fmt(f),
            Self::Label(key) => write!(f, "{LABEL}{key}"),
            Self::Quantity(name) => f.write_str(name),
            other => {
                f.write_str(OF_BODY.iter().find(|(_, known)| known == other).map_or("", |(name, _)| *name))
            }
        }
    }
}

/// The names of the placeholders that fields can contain.
struct Names {
    quantities: Vec<&'static str>,
}

impl Names {
    fn all() -> Self {
        Self { quantities: Reading::quantities() }
    }

    /// Returns the value for the name of a placeholder; `None` if the name is unknown.
    fn find(&self, name: &str) -> Option<EventValue> {
        if let Some(key) = name.strip_prefix(LABEL).filter(|key| !key.is_empty()) {
            return Some(EventValue::Label(key.to_owned()));
        }
        let of_body = || OF_BODY.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        let quantity =
            || self.quantities.iter().find(|known| **known == name).map(|known| EventValue::Quantity(known));
        let of_record = Placeholder::find(name, &Placeholder::ALL).map(EventValue::Record);
        of_record.or_else(of_body).or_else(quantity)
    }

    /// Returns all placeholders in braces, as they are written in the configuration.
    fn in_braces(&self) -> Vec<String> {
        let of_record = Placeholder::ALL.iter().map(|placeholder| placeholder.name());
        let of_body = OF_BODY.iter().map(|(name, _)| *name);
        let names = of_record.chain(of_body).chain(["labels.KEY"]).chain(self.quantities.iter().copied());
        names.map(|name| format!("{{{name}}}")).collect()
    }
}

/// The members of the JSON object that is sent for an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Fields(Vec<(String, Field)>);

/// The value of a member.
#[derive(Debug, Clone, PartialEq)]
enum Field {
    Template(Template<EventValue>),
    Constant(Value),
    Object(Fields),
}

impl Fields {
    /// Returns whether there are no members.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends the JSON object of a record, on one line and without a line feed.
    pub fn write(&self, record: &Record, out: &mut Vec<u8>) {
        self.write_object(&ParsedRecord::of(record), out);
    }

    fn write_object(&self, record: &ParsedRecord<'_>, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut is_first = true;
        for (name, field) in &self.0 {
            let before = out.len();
            if !is_first {
                out.push(b',');
            }
            write_string(name, out);
            out.push(b':');
            if field.write(record, out) {
                is_first = false;
            } else {
                out.truncate(before);
            }
        }
        out.push(b'}');
    }

    fn read(section: Section<'_>, names: &Names) -> Self {
        let (values, section) = section.into_values();
        let mut fields = Vec::new();
        for (name, value) in values {
            let field = match value {
                NamedValue::Text(text) => match Template::parse(&text, |name| names.find(name)) {
                    Ok(template) => Field::Template(template),
                    Err(error) => {
                        report(&section, &name, (&text, &error), names);
                        continue;
                    }
                },
                NamedValue::Constant(value) => Field::Constant(value),
                NamedValue::Section(section) => Field::Object(Self::read(section, names)),
            };
            fields.push((name, field));
        }
        Self(fields)
    }
}

/// Reports an error about a text that is not a valid template.
fn report(section: &Section<'_>, key: &str, (text, error): (&str, &BadTemplate), names: &Names) {
    match error {
        BadTemplate::Unknown(name) => {
            let names = names.in_braces();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            section.no_choice(key, &format!("{{{name}}}"), &names);
        }
        _ => section.problem(key, text, "each placeholder between braces, such as \"{device}\""),
    }
}

impl Field {
    /// Appends the value of the member. Returns `false` if it has none for this record.
    fn write(&self, record: &ParsedRecord<'_>, out: &mut Vec<u8>) -> bool {
        let template = match self {
            Self::Constant(value) => {
                out.extend_from_slice(value.to_string().as_bytes());
                return true;
            }
            Self::Object(fields) => {
                fields.write_object(record, out);
                return true;
            }
            Self::Template(template) => template,
        };
        if let [Part::Value(value)] = template.parts() {
            return record.with(value, |found| found.write(out)).is_some();
        }
        let mut string = String::new();
        for part in template.parts() {
            match part {
                Part::Text(text) => string.push_str(text),
                Part::Value(value) => {
                    if record.with(value, |found| string.push_str(found.text())).is_none() {
                        return false;
                    }
                }
            }
        }
        write_string(&string, out);
        true
    }
}

/// The value of a placeholder for one event.
enum Found<'a> {
    /// A text, which is written as a JSON string.
    Text(&'a str),
    /// A JSON value, which is written unchanged.
    Json(&'a str),
}

impl Found<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Json(text) => text,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => write_string(text, out),
            Self::Json(json) => write_on_one_line(json.as_bytes(), out),
        }
    }
}

/// A record whose body is parsed at most once, and only if a placeholder needs it.
struct ParsedRecord<'a> {
    record: &'a Record,
    delivery: OnceCell<Option<Delivery>>,
    parts: OnceCell<JsonParts<'a>>,
}

impl<'a> ParsedRecord<'a> {
    const fn of(record: &'a Record) -> Self {
        Self { record, delivery: OnceCell::new(), parts: OnceCell::new() }
    }

    fn delivery(&self) -> Option<&Delivery> {
        self.delivery.get_or_init(|| self.record.delivery().ok()).as_ref()
    }

    fn parts(&self) -> &JsonParts<'a> {
        self.parts.get_or_init(|| self.record.json_parts())
    }

    /// Calls `act` with the value of a placeholder, and returns the result; `None` if the placeholder has no value.
    fn with<T>(&self, value: &EventValue, act: impl FnOnce(Found<'_>) -> T) -> Option<T> {
        let found = match value {
            EventValue::Record(placeholder) => {
                return placeholder.value(self.record).map(|text| act(Found::Text(&text)));
            }
            EventValue::TimestampMillis => {
                let nanos = self.delivery()?.event.timestamp.as_ref()?.unix_nanos()?;
                return Some(act(Found::Json(&nanos.div_euclid(NANOS_PER_MILLI).to_string())));
            }
            EventValue::Quantity(name) => match self.newest(name)?.value {
                ReadingValue::Number(number) => {
                    return Some(act(Found::Json(&json_number(number).to_string())));
                }
                ReadingValue::Text(text) => Found::Text(text),
                _ => return None,
            },
            EventValue::Timestamp => Found::Text(self.delivery()?.event.timestamp.as_ref()?.as_str()),
            EventValue::DeviceType => {
                Found::Text(self.delivery()?.metadata.as_ref()?.device_type.as_deref()?)
            }
            EventValue::Label(key) => Found::Text(self.delivery()?.labels.get(key)?),
            EventValue::Labels => Found::Json(self.parts().labels.map(RawValue::get)?),
            EventValue::Data => Found::Json(self.parts().data.map(RawValue::get)?),
            EventValue::Body => Found::Json(str::from_utf8(&self.record.body).ok()?),
        };
        Some(act(found))
    }

    /// Returns the newest reading of a quantity; if several have the same time, the first of them. `None` if there is no reading.
    fn newest(&self, quantity: &str) -> Option<Reading<'_>> {
        let readings = self.delivery()?.readings();
        let of_quantity = readings.into_iter().filter(|reading| reading.quantity == quantity);
        of_quantity.reduce(|newest, next| if next.time > newest.time { next } else { newest })
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(escaped(text).as_bytes());
    out.push(b'"');
}

/// Returns the entry of the table `fields`.
pub const fn entry() -> TableEntry<Option<Fields>> {
    TableEntry {
        read: |section| Some(Some(Fields::read(section, &Names::all()))),
        tables: |field, meaning| {
            let given = "device = \"{device}\"\ntime = \"{timestamp}\"\ncelsius = \"{temperature}\"";
            vec![Table::new(format!("[{field}]"), meaning, Vec::new()).given(given)]
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use dt_sink::config::{Problems, SystemSources};
    use dt_sink::record::{ApiSource, Provenance};
    use serde_json::json;

    /// Reads `fields` from TOML. Returns the errors as well.
    fn read(toml: &str) -> (Fields, Vec<String>) {
        let problems = Problems::default();
        let section = Section::root(toml.parse().expect("TOML"), &problems, &SystemSources);
        let fields = Fields::read(section, &Names::all());
        let (errors, _) = problems.into_parts();
        (fields, errors.iter().map(ToString::to_string).collect())
    }

    fn event(event_type: &str, data: &str) -> Record {
        let body = format!(
            "{{\"event\":{{\"eventId\":\"e1\",\"targetName\":\"projects/p/devices/d\",\"eventType\":\"{event_type}\",\
             \"data\":{data},\"timestamp\":\"2021-05-16T08:13:15.361624Z\"}},\r\n\
             \"labels\":{{\"room\":\"2.31 \\\"north\\\"\",\n\"floor\":3}},\"metadata\":{{\"deviceType\":\"temperature\"}}}}"
        );
        Record {
            received_at: 1_700_000_000_123,
            event_type: event_type.into(),
            project: Some("p".into()),
            device: Some("d".into()),
            body: Bytes::from(body),
            ..Record::sample("e1")
        }
    }

    fn written(toml: &str, record: &Record) -> String {
        let (fields, errors) = read(toml);
        assert_eq!(errors, [] as [String; 0], "{toml}");
        let mut out = Vec::new();
        fields.write(record, &mut out);
        let text = String::from_utf8(out).expect("text");
        assert!(!text.contains(['\r', '\n']), "{text}");
        text
    }

    const TEMPERATURE: &str = r#"{"temperature": {"value": 24.90, "updateTime": "2021-05-16T08:13:15Z", "samples": [
        {"value": 20, "sampleTime": "2021-05-16T08:03:15Z"}, {"value": 24.90, "sampleTime": "2021-05-16T08:13:15Z"}]}}"#;

    #[test]
    fn a_placeholder_alone_keeps_its_type_and_text_around_it_makes_a_string() {
        let record = event("temperature", TEMPERATURE);
        for (template, expected) in [
            ("{date}", json!("2023-11-14")),
            ("{hour}", json!("22")),
            ("{connector}", json!("default")),
            ("{project}", json!("p")),
            ("{device}", json!("d")),
            ("{eventType}", json!("temperature")),
            ("{eventId}", json!("e1")),
            ("{receivedAt}", json!("2023-11-14T22:13:20.123Z")),
            ("{verifiedBy}", json!("secret:a")),
            ("{timestamp}", json!("2021-05-16T08:13:15.361624Z")),
            ("{timestampMillis}", json!(1_621_152_795_361_i64)),
            ("{deviceType}", json!("temperature")),
            ("{labels}", json!({"room": "2.31 \"north\"", "floor": 3})),
            ("{labels.room}", json!("2.31 \"north\"")),
            ("{labels.floor}", json!("3")),
            ("{temperature}", json!(24.9)),
            ("{temperature} °C", json!("24.9 °C")),
            ("{device}{device}", json!("dd")),
            ("room {labels.room}", json!("room 2.31 \"north\"")),
            ("at {timestampMillis}", json!("at 1621152795361")),
            ("no placeholder", json!("no placeholder")),
            ("", json!("")),
        ] {
            let text = written(&format!("x = '{template}'"), &record);
            let value: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(value, json!({ "x": expected }), "{template}");
        }
        let text = written("data = '{data}'\nbody = '{body}'", &record);
        assert!(text.contains(r#""data":{"temperature": {"value": 24.90, "#), "as received: {text}");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["body"], serde_json::from_slice::<Value>(&record.body).expect("JSON"));
        assert_eq!(value["data"], value["body"]["event"]["data"]);
    }

    #[test]
    fn the_newest_reading_counts_and_a_state_is_a_string() {
        let humidity =
            r#"{"humidity":{"temperature":22,"relativeHumidity":17.5,"updateTime":"2021-05-16T08:13:15Z"}}"#;
        let text = written("t = '{temperature}'\nh = '{relativeHumidity}'", &event("humidity", humidity));
        assert_eq!(text, r#"{"h":17.5,"t":22}"#);
        let motion = r#"{"motion":{"state":"MOTION_DETECTED","updateTime":"2021-05-16T08:13:15Z"}}"#;
        assert_eq!(written("m = '{motion}'", &event("motion", motion)), r#"{"m":"MOTION_DETECTED"}"#);
    }

    #[test]
    fn a_member_without_a_value_is_left_out() {
        let fields = "a = '{co2}'\nb = '{device}'\nc = 'room {labels.none}'\nd = { e = '{requestId}' }";
        let text = written(fields, &event("temperature", TEMPERATURE));
        assert_eq!(text, r#"{"b":"d","d":{}}"#);
        let made_by_hand = Record::sample("1");
        assert_eq!(
            written("a = '{labels}'\nb = '{timestamp}'\nc = '{co2}'\nd = '{project}'", &made_by_hand),
            "{}"
        );
        let body = Record { body: Bytes::from_static(b"no JSON"), ..Record::sample("1") };
        assert_eq!(written("a = '{data}'\nb = '{deviceType}'\nc = '{eventId}'", &body), r#"{"c":"1"}"#);
    }

    #[test]
    fn an_event_of_the_api_has_a_source() {
        let fields = "by = '{verifiedBy}'\nfrom = '{source}'";
        let pushed = Record::sample("1");
        assert_eq!(written(fields, &pushed), r#"{"by":"secret:a"}"#);
        let fetched = Record { provenance: Provenance::Api(ApiSource::Backfill), ..pushed };
        assert_eq!(written(fields, &fetched), r#"{"by":"api","from":"backfill"}"#);
    }

    #[test]
    fn constants_and_tables_are_written_as_they_are() {
        let fields = "one = 1\nhalf = 0.5\nyes = true\nsource = 'DT'\n[values]\ncelsius = '{temperature}'\n[values.more]\n'a\"b' = '{device}'";
        let text = written(fields, &event("temperature", TEMPERATURE));
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let values = json!({"celsius": 24.9, "more": {"a\"b": "d"}});
        assert_eq!(value, json!({"one": 1, "half": 0.5, "yes": true, "source": "DT", "values": values}));
    }

    #[test]
    fn no_value_adds_a_member() {
        let evil = "a\",\"admin\":\"yes\\\n{device}\u{0}";
        let record = Record { device: Some(evil.into()), ..Record::sample("1") };
        let text = written("x = '{device}'\ny = 'of {device}'", &record);
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value, json!({"x": evil, "y": format!("of {evil}")}));
    }

    #[test]
    fn mistakes_are_named_with_what_is_expected() {
        for (toml, expected) in [
            ("x = '{devise}'", "x: found \"{devise}\"; did you mean \"{device}\"? expected {date}, {hour}, "),
            (
                "x = 'a {tempreature} b'",
                "x: found \"{tempreature}\"; did you mean \"{temperature}\"? expected ",
            ),
            ("x = '{labels.}'", "x: found \"{labels.}\"; did you mean \"{labels}\"? expected "),
            ("x = '{quantity}'", "x: found \"{quantity}\"; expected "),
            ("x = '{device'", "x: found \"{device\"; expected each placeholder between braces"),
            ("x = 'device}'", "x: found \"device}\"; expected each placeholder between braces"),
            (
                "x = ['{device}']",
                "x: found a list (array); expected a string, a number, true, false or a table",
            ),
            (
                "x = 2024-01-01",
                "x: found 2024-01-01 (datetime); expected a string, a number, true, false or a table",
            ),
            ("x = nan", "x: found nan (float); expected a string, a number, true, false or a table"),
            ("[a.b]\nx = '{no}'", "a.b.x: found \"{no}\"; expected "),
        ] {
            let (_, errors) = read(toml);
            let [error] = &errors[..] else { panic!("{toml}: {errors:?}") };
            assert!(error.starts_with(expected), "{toml}: {error}");
        }
        let (_, errors) = read("x = '{none}'");
        assert!(errors[0].contains("{labels.KEY}") && errors[0].contains("{relativeHumidity}"), "{errors:?}");
    }

    #[test]
    fn each_name_stands_for_itself() {
        let names = Names::all();
        let mut all = names.in_braces();
        all.iter_mut().for_each(|name| *name = name.replace("KEY", "room"));
        for name in &all {
            let (fields, errors) = read(&format!("x = '{name}'"));
            assert_eq!(errors, [] as [String; 0], "{name}");
            let [(_, Field::Template(template))] = &fields.0[..] else { panic!("{fields:?}") };
            assert_eq!(template.to_string(), *name);
        }
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count, "a name is there twice: {all:?}");
    }
}
