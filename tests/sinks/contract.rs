//! What every sink promises. A new sink is one row of `sinks`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dt_receiver::config::FileConfig;
use dt_receiver::record::{Format, Record};
use dt_receiver::sink::{Fate, FileSink, OpenError, Sink, StdoutSink};
use parking_lot::Mutex;

use crate::records::{body, envelope, record, record_of};

/// A sink under test: how to make it, how to see what it holds, and how to break and mend its target.
struct UnderTest {
    name: &'static str,
    sink: Box<dyn Sink>,
    lines: Box<dyn Fn() -> Vec<String>>,
    set_broken: Box<dyn Fn(bool)>,
}

fn sinks(folder: &Path, format: Format) -> Vec<UnderTest> {
    let config =
        |path: &str| FileConfig::new(folder.join(path).to_str().expect("text").parse().expect("a template"));
    let mut rotated = config("c/events.ndjson");
    (rotated.rotate_size, rotated.rotate_every) = (Some(1024), Some(Duration::from_secs(3600)));
    vec![
        stdout(format),
        file("file", FileSink::new(folder.join("a/events.ndjson"), format), folder.join("a")),
        file(
            "file with a template",
            FileSink::with(config("b/{date}/{eventType}"), format),
            folder.join("b"),
        ),
        file("file with rotation", FileSink::with(rotated, format), folder.join("c")),
    ]
}

fn stdout(format: Format) -> UnderTest {
    let pipe = Arc::new(Mutex::new(Pipe::default()));
    let (lines, broken) = (Arc::clone(&pipe), Arc::clone(&pipe));
    UnderTest {
        name: "stdout",
        sink: Box::new(StdoutSink::to(Box::new(SharedPipe(pipe)), format)),
        lines: Box::new(move || text_lines(&lines.lock().written)),
        set_broken: Box::new(move |is_broken| broken.lock().is_broken = is_broken),
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

fn file(name: &'static str, sink: FileSink, folder: PathBuf) -> UnderTest {
    fs::create_dir_all(&folder).expect("made");
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
    UnderTest { name, sink: Box::new(sink), lines: Box::new(lines), set_broken: Box::new(set_broken) }
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
    each(Format::Body, |UnderTest { name, mut sink, lines, .. }| {
        for numbers in [0..1, 1..100, 100..101] {
            let count = numbers.len();
            let outcome = sink.deliver(&batch(numbers));
            assert_eq!(outcome.fates, vec![Fate::Delivered; count], "{name}");
        }
        assert_eq!(lines(), (0..101).map(body).collect::<Vec<_>>(), "{name}");
    });
}

#[test]
fn what_is_delivered_can_be_seen_before_the_sink_is_closed() {
    each(Format::Body, |UnderTest { name, mut sink, lines, .. }| {
        sink.deliver(&batch(0..3));
        assert_eq!(lines().len(), 3, "{name}");
        sink.close();
        drop(sink);
        assert_eq!(lines().len(), 3, "{name}");
    });
}

#[test]
fn the_envelope_keeps_the_received_members_byte_for_byte() {
    // Odd spellings that a re-serialised copy would lose.
    let odd = r#"{"event":{"eventId":"a","eventType":"x","data":{"v":1.50e+1,"u":"\u00e6"}},  "new":[1 ,2]}"#;
    each(Format::Envelope, |UnderTest { name, mut sink, lines, .. }| {
        sink.deliver(&[record_of(odd)]);
        assert_eq!(lines(), [envelope(odd)], "{name}");
        let line: serde_json::Value = serde_json::from_str(&lines()[0]).expect("one JSON object");
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
        each(format, |UnderTest { name, mut sink, lines, .. }| {
            sink.deliver(&[record_of(pretty)]);
            assert_eq!(lines(), [&*line], "{name} {format}");
        });
    }
}

#[test]
fn a_broken_target_means_retry_and_the_retry_tears_no_line() {
    each(Format::Body, |UnderTest { name, mut sink, lines, set_broken }| {
        sink.deliver(&batch(0..2));
        set_broken(true);
        let outcome = sink.deliver(&batch(2..4));
        assert_eq!(outcome.fates.len(), 2, "{name}");
        assert!(outcome.fates.iter().all(|fate| matches!(fate, Fate::Retry { .. })), "{name}: {outcome:?}");
        set_broken(false);
        let outcome = sink.deliver(&batch(2..4));
        assert_eq!(outcome.fates, vec![Fate::Delivered; 2], "{name}");
        let lines: Vec<String> = lines().into_iter().filter(|line| !line.is_empty()).collect();
        assert_eq!(lines, (0..4).map(body).collect::<Vec<_>>(), "{name}");
    });
}
