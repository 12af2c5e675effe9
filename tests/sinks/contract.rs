//! What every sink promises. A new sink is one row of `sinks`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dt_receiver::clock::SystemClock;
use dt_receiver::record::{Format, Record};
use dt_receiver::sink::{Fate, FileConfig, OpenError, Settings, Sink, SinkContext, StdoutSink};
use dt_receiver::sink_types;
use dt_receiver::telemetry::Telemetry;
use parking_lot::Mutex;

use crate::records::{body, envelope, record, record_of};

/// A sink under test: how to make it, how to see what it holds, and how to break and mend its target.
pub(crate) struct UnderTest {
    pub(crate) name: &'static str,
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) lines: Box<dyn Fn() -> Vec<String>>,
    pub(crate) set_broken: Box<dyn Fn(bool)>,
    /// Whether its output is lines; otherwise the received bytes stay as they are.
    pub(crate) is_lines: bool,
}

impl UnderTest {
    /// Gives a batch until each record's fate is known, as whoever drives a sink does.
    fn deliver(&mut self, batch: &[Arc<Record>]) -> Vec<Fate> {
        let mut fates = vec![Fate::Pending { last_error: None }; batch.len()];
        let mut begun = Vec::new();
        while fates.iter().any(|fate| matches!(fate, Fate::Pending { .. })) {
            begun.push(());
            assert!(begun.len() < 1000, "{}: {fates:?}", self.name);
            let open: Vec<usize> =
                (0..batch.len()).filter(|at| matches!(fates[*at], Fate::Pending { .. })).collect();
            let given: Vec<Arc<Record>> = open.iter().map(|at| Arc::clone(&batch[*at])).collect();
            let outcome = self.sink.deliver(&given);
            assert_eq!(outcome.fates.len(), given.len(), "{}: one fate each", self.name);
            open.into_iter().zip(outcome.fates).for_each(|(at, fate)| fates[at] = fate);
        }
        fates
    }
}

fn sinks(folder: &Path, format: Format) -> Vec<UnderTest> {
    let config =
        |path: &str| FileConfig::new(folder.join(path).to_str().expect("text").parse().expect("a template"));
    let mut rotated = config("c/events.ndjson");
    (rotated.rotate_size, rotated.rotate_every) = (Some(1024), Some(Duration::from_secs(3600)));
    let mut sinks = vec![
        stdout(format),
        file("file", &of_type("file", &folder.join("a/events.ndjson")), format, folder.join("a")),
        file("file with a template", &config("b/{date}/{eventType}").into(), format, folder.join("b")),
        file("file with rotation", &rotated.into(), format, folder.join("c")),
    ];
    sinks.extend(crate::http::under_test(format));
    sinks.extend(crate::kafka::under_test(format));
    sinks.extend(crate::mqtt::under_test(format));
    sinks.extend(crate::postgres::under_test(format));
    sinks
}

fn stdout(format: Format) -> UnderTest {
    let pipe = Arc::new(Mutex::new(Pipe::default()));
    let (lines, broken) = (Arc::clone(&pipe), Arc::clone(&pipe));
    UnderTest {
        name: "stdout",
        sink: Box::new(StdoutSink::to(Box::new(SharedPipe(pipe)), format)),
        lines: Box::new(move || text_lines(&lines.lock().written)),
        set_broken: Box::new(move |is_broken| broken.lock().is_broken = is_broken),
        is_lines: true,
    }
}

/// A pipe that can be closed in the middle of a write.
#[derive(Default)]
struct Pipe {
    written: Vec<u8>,
    is_broken: bool,
}

struct SharedPipe(Arc<Mutex<Pipe>>);

impl Write for SharedPipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = self.0.lock();
        if pipe.is_broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let some = bytes.len().min(7);
        pipe.written.extend_from_slice(&bytes[..some]);
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The settings of a type of sink whose place is a path.
fn of_type(name: &str, path: &Path) -> Settings {
    sink_types().parse(&format!("{name}:{}", path.display())).expect("a sink")
}

/// A sink that writes files into a folder.
fn file(name: &'static str, settings: &Settings, format: Format, folder: PathBuf) -> UnderTest {
    fs::create_dir_all(&folder).expect("made");
    let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
    let reporter = telemetry.sink_reporter(name, settings.metrics());
    let sink = settings.sink(SinkContext::new(format, reporter)).expect("made");
    let aside = folder.with_extension("aside");
    let lines = {
        // What was delivered before the target broke was moved away with it, as by logrotate.
        let folders = [aside.clone(), folder.clone()];
        move || text_lines(&folders.iter().flat_map(|folder| content_of(folder)).collect::<Vec<u8>>())
    };
    let set_broken = move |is_broken| {
        if is_broken {
            fs::rename(&folder, &aside).expect("moved");
        } else {
            fs::create_dir_all(&folder).expect("made");
        }
    };
    let (lines, set_broken) = (Box::new(lines), Box::new(set_broken));
    UnderTest { name, sink, lines, set_broken, is_lines: true }
}

/// All files in a folder, in the order of their names: closed ones come first.
fn content_of(folder: &Path) -> Vec<u8> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let content =
        |path: PathBuf| if path.is_dir() { content_of(&path) } else { fs::read(path).expect("read") };
    paths.into_iter().flat_map(content).collect()
}

fn text_lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8(bytes.to_vec()).expect("text").lines().map(str::to_owned).collect()
}

fn each(format: Format, check: impl Fn(UnderTest)) {
    let folder = tempfile::tempdir().expect("a folder");
    for mut under_test in sinks(folder.path(), format) {
        let opened: Result<(), OpenError> = under_test.sink.open(None);
        opened.unwrap_or_else(|error| panic!("{}: {error}", under_test.name));
        check(under_test);
    }
}

fn batch(numbers: std::ops::Range<usize>) -> Vec<Arc<Record>> {
    numbers.map(record).collect()
}

#[test]
fn records_are_delivered_in_order_each_on_one_line_with_one_fate_each() {
    each(Format::Body, |mut under_test| {
        for numbers in [0..1, 1..100, 100..101] {
            let count = numbers.len();
            let fates = under_test.deliver(&batch(numbers));
            assert_eq!(fates, vec![Fate::Delivered; count], "{}", under_test.name);
        }
        assert_eq!((under_test.lines)(), (0..101).map(body).collect::<Vec<_>>(), "{}", under_test.name);
    });
}

#[test]
fn what_is_delivered_can_be_seen_before_the_sink_is_closed() {
    each(Format::Body, |mut under_test| {
        under_test.deliver(&batch(0..3));
        let UnderTest { name, mut sink, lines, set_broken, .. } = under_test;
        assert_eq!(lines().len(), 3, "{name}");
        sink.close();
        drop(sink);
        assert_eq!(lines().len(), 3, "{name}");
        drop(set_broken);
    });
}

#[test]
fn the_envelope_keeps_the_received_members_byte_for_byte() {
    // Odd spellings that a re-serialised copy would lose.
    let odd = r#"{"event":{"eventId":"a","eventType":"x","data":{"v":1.50e+1,"u":"\u00e6"}},  "new":[1 ,2]}"#;
    each(Format::Envelope, |mut under_test| {
        under_test.deliver(&[record_of(odd)]);
        let lines = (under_test.lines)();
        assert_eq!(lines, [envelope(odd)], "{}", under_test.name);
        let line: serde_json::Value = serde_json::from_str(&lines[0]).expect("one JSON object");
        assert_eq!(line["event"]["eventId"], "a");
    });
}

#[test]
fn line_ends_between_tokens_become_spaces() {
    let pretty = "\r\n{\r\n \"event\": {\n\"eventId\": \"a\",\n\"eventType\": \"x\"}}\n\n";
    for (format, line) in [
        (Format::Body, "{   \"event\": { \"eventId\": \"a\", \"eventType\": \"x\"}}".to_owned()),
        (Format::Envelope, envelope("{\"event\": { \"eventId\": \"a\", \"eventType\": \"x\"}}")),
    ] {
        each(format, |mut under_test| {
            under_test.deliver(&[record_of(pretty)]);
            let lines = (under_test.lines)();
            let exact = match format {
                Format::Body => pretty.to_owned(),
                _ => envelope(pretty.trim_start()),
            };
            let expected = if under_test.is_lines { &line } else { &exact };
            assert_eq!(lines, [expected.as_str()], "{} {format}", under_test.name);
        });
    }
}

#[test]
fn a_broken_target_means_retry_and_the_retry_tears_no_line() {
    each(Format::Body, |mut under_test| {
        let name = under_test.name;
        under_test.deliver(&batch(0..2));
        (under_test.set_broken)(true);
        let fates = under_test.deliver(&batch(2..4));
        assert!(fates.iter().all(|fate| matches!(fate, Fate::Retry { .. })), "{name}: {fates:?}");
        (under_test.set_broken)(false);
        let fates = under_test.deliver(&batch(2..4));
        assert_eq!(fates, vec![Fate::Delivered; 2], "{name}");
        let lines: Vec<String> = (under_test.lines)().into_iter().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines, (0..4).map(body).collect::<Vec<_>>(), "{name}");
    });
}

#[test]
fn cloudevents_hold_the_received_object_as_their_data() {
    let odd = r#"{"event":{"eventId":"a","eventType":"x","targetName":"projects/p/devices/d","data":{"v":1.50e+1}}}"#;
    each(Format::CloudEvents, |mut under_test| {
        under_test.deliver(&[record_of(odd)]);
        let lines = (under_test.lines)();
        if !under_test.is_lines {
            assert_eq!(lines, [odd], "{}", under_test.name);
            return;
        }
        let expected = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"a\",\"source\":\"//disruptive-technologies.com/projects/p\",\
             \"type\":\"com.disruptive-technologies.x\",\"subject\":\"projects/p/devices/d\",\
             \"datacontenttype\":\"application/json\",\"dtconnector\":\"plant-1\",\
             \"dtreceivedat\":\"2023-11-14T22:13:20.123Z\",\"data\":{odd}}}"
        );
        assert_eq!(lines, [expected], "{}", under_test.name);
    });
}

#[test]
fn an_event_without_readings_is_delivered_as_no_line_of_line_protocol() {
    let event = |id: &str, event_type: &str| {
        record_of(&format!(
            r#"{{"event":{{"eventId":"{id}","eventType":"{event_type}","data":{{"{event_type}":{{}}}}}},"labels":{{"n":"{id}"}}}}"#
        ))
    };
    each(Format::LineProtocol, |mut under_test| {
        // A sink that writes values, not lines, takes no line protocol: `check` says so.
        if !under_test.is_lines {
            return;
        }
        for batch in [
            vec![event("1", "smell")],
            vec![event("2", "touch"), event("3", "smell"), event("4", "touch")],
            vec![event("5", "smell")],
            vec![event("6", "touch")],
        ] {
            let fates = under_test.deliver(&batch);
            assert_eq!(fates, vec![Fate::Delivered; batch.len()], "{}", under_test.name);
        }
        let expected = [2, 4, 6].map(|id| format!("touch,label_n={id} touch=1.0 1700000000123000000"));
        assert_eq!((under_test.lines)(), expected, "{}", under_test.name);
    });
}
