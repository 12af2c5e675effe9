//! Makes records and sinks, and drives a sink as the engine does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dt_sink::clock::{Clock, ManualClock};
use dt_sink::config::{Problems, Section, Sources};
use dt_sink::{
    Fate, Format, LogPermit, Metric, OpenError, Record, Settings, Sink, SinkContext, SinkReporter, SinkType,
};
use dt_sink_http::{HttpConfig, HttpSink};

/// The time of all tests.
pub(crate) const NOW: i64 = 1_700_000_000;

/// Adds up what a sink reports.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<BTreeMap<&'static str, u64>>);

impl SinkReporter for Counts {
    fn sink(&self) -> &str {
        "http"
    }

    fn set(&self, _: &Metric, _: f64) {}

    fn add(&self, metric: &Metric, count: u64) {
        *self.0.lock().unwrap().entry(metric.name).or_default() += count;
    }

    fn log_permit(&self) -> Option<LogPermit> {
        None
    }
}

/// Secrets and files by name.
#[derive(Default)]
pub(crate) struct Files(pub(crate) BTreeMap<String, Vec<u8>>);

impl Sources for Files {
    fn env(&self, name: &str) -> Option<std::ffi::OsString> {
        self.0.get(name).map(|value| String::from_utf8(value.clone()).expect("text").into())
    }

    fn file(&self, path: &std::path::Path) -> std::io::Result<Vec<u8>> {
        let found = self.0.get(path.to_str().expect("text"));
        found.cloned().ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

/// Reads the keys of a sink. Returns the settings, the errors and the warnings.
pub(crate) fn read(toml: &str, files: &Files) -> (Option<HttpConfig>, Vec<String>, Vec<String>) {
    let problems = Problems::default();
    let mut section = Section::root(toml.parse().expect("TOML"), &problems, files);
    let settings: Option<Settings> = SinkType::of::<HttpConfig>().read(&mut section);
    // The keys that all sinks have.
    section.skip(["format"]);
    section.finish();
    let (errors, warnings) = problems.into_parts();
    let text = |problems: Vec<dt_sink::config::Problem>| problems.iter().map(ToString::to_string).collect();
    (settings.and_then(|settings| settings.get().cloned()), text(errors), text(warnings))
}

/// Reads keys that are right.
pub(crate) fn config(toml: &str, files: &Files) -> HttpConfig {
    let (config, errors, _) = read(toml, files);
    assert_eq!(errors, [] as [String; 0], "{toml}");
    config.expect("settings")
}

/// A sink under test.
pub(crate) struct Driver {
    pub(crate) sink: HttpSink,
    pub(crate) clock: Arc<ManualClock>,
    counts: Arc<Counts>,
}

impl Driver {
    /// Opens a sink with these keys beside `url`.
    pub(crate) fn new(url: &str, toml: &str) -> Self {
        Self::with(config(&format!("url = '{url}'\n{toml}"), &Files::default()), Format::Body)
    }

    pub(crate) fn with(config: HttpConfig, format: Format) -> Self {
        let counts = Arc::new(Counts::default());
        let clock = Arc::new(ManualClock::at(NOW * 1000));
        let reporter: Arc<dyn SinkReporter> = Arc::clone(&counts) as _;
        let sink = HttpSink::new(config, SinkContext::new(format, reporter));
        let mut sink = sink.with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let opened: Result<(), OpenError> = sink.open(None);
        opened.expect("opens");
        Self { sink, clock, counts }
    }

    /// Delivers a batch until no record is pending. Records that fail are not delivered again.
    pub(crate) fn deliver(&mut self, batch: &[Arc<Record>]) -> Vec<Fate> {
        let mut fates = vec![Fate::Pending { last_error: None }; batch.len()];
        while fates.iter().any(|fate| matches!(fate, Fate::Pending { .. })) {
            let open: Vec<usize> =
                (0..batch.len()).filter(|at| matches!(fates[*at], Fate::Pending { .. })).collect();
            let given: Vec<_> = open.iter().map(|at| Arc::clone(&batch[*at])).collect();
            let outcome = self.sink.deliver(&given);
            assert_eq!(outcome.fates.len(), given.len());
            for (at, fate) in open.into_iter().zip(outcome.fates) {
                fates[at] = fate;
            }
        }
        fates
    }

    /// Delivers one record.
    pub(crate) fn deliver_one(&mut self, record: Arc<Record>) -> Fate {
        self.deliver(&[record]).remove(0)
    }

    /// Delivers a batch as the engine does: again and again, without a pause, until each record has a result. Returns the
    /// errors of the records that were rejected.
    pub(crate) fn insist(&mut self, batch: &[Arc<Record>]) -> Vec<Option<String>> {
        let mut results = vec![None; batch.len()];
        let mut left: Vec<usize> = (0..batch.len()).collect();
        while !left.is_empty() {
            let given: Vec<_> = left.iter().map(|at| Arc::clone(&batch[*at])).collect();
            let fates = self.sink.deliver(&given).fates;
            let mut still = Vec::new();
            for (at, fate) in left.into_iter().zip(fates) {
                match fate {
                    Fate::Delivered => {}
                    Fate::Rejected { error } => results[at] = Some(error),
                    Fate::Retry { .. } | Fate::Pending { .. } => still.push(at),
                }
            }
            left = still;
        }
        results
    }

    /// A counter, by the middle of its name.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let name = format!("dt_receiver_http_requests_{name}_total");
        self.counts.0.lock().unwrap().get(name.as_str()).copied().unwrap_or_default()
    }
}

/// The record of an event of a device.
pub(crate) fn record(device: &str, number: usize) -> Arc<Record> {
    let id = format!("{device}-{number}");
    let body = format!(r#"{{"event":{{"eventId":"{id}","eventType":"touch"}}}}"#);
    Arc::new(Record { device: Some(device.into()), body: body.into(), ..Record::sample(&id) })
}

/// The records of some devices, which take turns.
pub(crate) fn records(devices: usize, each: usize) -> Vec<Arc<Record>> {
    (0..each)
        .flat_map(|number| (0..devices).map(move |device| record(&format!("dev{device}"), number)))
        .collect()
}

/// The id of the event of a body.
pub(crate) fn id_of(body: &str) -> &str {
    body.split("\"eventId\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default()
}

/// Waits until something is so.
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = std::time::Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn error_of(fate: &Fate) -> &str {
    match fate {
        Fate::Retry { error } | Fate::Rejected { error } => error,
        Fate::Delivered | Fate::Pending { .. } => panic!("{fate:?}"),
    }
}

pub(crate) fn is_retry(fate: &Fate) -> bool {
    matches!(fate, Fate::Retry { .. })
}

pub(crate) fn is_rejected(fate: &Fate) -> bool {
    matches!(fate, Fate::Rejected { .. })
}
