//! A type of sink that an embedder adds is known wherever those that come with the program are: to the reader of a
//! configuration and its messages, to the command line, to the reference, and to the differences of a reload.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use dt_receiver::clock::SystemClock;
use dt_receiver::config::{Config, ConfigError, SinkConfig, Sources, reference_markdown, sample_file};
use dt_receiver::record::{Format, Record};
use dt_receiver::sink::config::{config_keys, number, text};
use dt_receiver::sink::{
    BadPlace, Metric, MissingType, OpenError, Outcome, Sink, SinkContext, SinkReporter, SinkSettings,
    SinkTypes,
};
use dt_receiver::sink_types;
use dt_receiver::telemetry::Telemetry;

use crate::records::record;

config_keys! {
    /// Where records are counted.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) struct CounterConfig {
        needed {
            /// The name of the counter.
            counter: String = text("text").needed("is missing; name the counter").sample("\"events\""),
        }
        /// How much a record counts.
        step: u32 = number(1..=100).or(1),
    }
}

const COUNTED: Metric =
    Metric::counter("dt_receiver_counted_total", &["sink"], "records", "Records that were counted.");

impl SinkSettings for CounterConfig {
    const NAME: &'static str = "counter";
    const PLACE: Option<&'static str> = Some("NAME");
    const ABOUT: &'static str = "A counter of this test.";
    const METRICS: &'static [Metric] = &[COUNTED];

    fn from_place(place: &str) -> Result<Self, BadPlace> {
        match place {
            "none" => Err(BadPlace::new("there is no such counter")),
            name => Ok(Self::with_defaults(name.to_owned())),
        }
    }

    fn needs_new_sink(&self, next: &Self) -> bool {
        self.counter != next.counter
    }

    fn sink(&self, context: SinkContext) -> Result<Box<dyn Sink>, OpenError> {
        Ok(Box::new(Counter { reporter: context.reporter, step: self.step }))
    }
}

struct Counter {
    reporter: Arc<dyn SinkReporter>,
    step: u32,
}

impl Sink for Counter {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        let count = u32::try_from(batch.len()).expect("few") * self.step;
        self.reporter.add(&COUNTED, u64::from(count));
        Outcome::delivered(batch.len())
    }
}

struct OneSecret;

impl Sources for OneSecret {
    fn env(&self, _: &str) -> Option<OsString> {
        Some("some-good-secret".into())
    }

    fn file(&self, _: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn types() -> SinkTypes {
    sink_types().with::<CounterConfig>()
}

fn read(sink: &str) -> Result<Config, ConfigError> {
    let text = format!(
        "[[connector]]\nname = 'a'\nsecrets = [{{ env = 'S' }}]\n[[sink]]\nname = 'out'\ntype = {sink}\n"
    );
    Config::from_toml(&text, &OneSecret, &types())
}

#[test]
fn its_settings_are_read_and_make_the_sink() {
    let config = read("'counter'\ncounter = 'x'\nstep = 3").expect("a good configuration");
    let settings = &config.sinks[0].settings;
    let counter = settings.get::<CounterConfig>().expect("its settings");
    assert_eq!((&*counter.counter, counter.step), ("x", 3));
    let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
    let context = SinkContext::new(Format::Body, telemetry.sink_reporter("out", settings.metrics()));
    assert_eq!(settings.probe(context.clone()), None, "`check --connect` leaves it out");
    let mut sink = settings.sink(context.clone()).expect("made");
    assert_eq!(sink.deliver(&[record(0), record(1)]), Outcome::delivered(2));
    assert!(telemetry.render().contains("dt_receiver_counted_total{sink=\"out\"} 6\n"));
    assert!(settings.open_dead_letters("x", context).is_err());
}

#[test]
fn its_mistakes_are_reported_like_all_others() {
    let names = types().names().join(", ");
    for (sink, says) in [
        ("'counter'", "line 4: sink.out.counter: is missing; name the counter".to_owned()),
        (
            "'counter'\ncounter = 'x'\nstep = 0",
            "line 8: sink.out.step: found 0 (integer); expected a number from 1 to 100".to_owned(),
        ),
        (
            "'counter'\ncounter = 'x'\nstp = 0",
            "line 8: sink.out.stp: unknown key; did you mean \"step\"?".to_owned(),
        ),
        (
            "'conter'\ncounter = 'x'",
            format!("line 6: sink.out.type: found \"conter\"; did you mean \"counter\"? expected {names}"),
        ),
    ] {
        let error = read(sink).expect_err("a mistake").to_string();
        assert!(error.starts_with(&says) && error.lines().count() == 1, "{sink}: {error}");
    }
}

#[test]
fn its_differences_are_found() {
    let read = |sink: &str| read(sink).expect("a good configuration");
    let (one, two) = (read("'counter'\ncounter = 'x'"), read("'counter'\ncounter = 'x'\nstep = 2"));
    let (other, stdout) = (read("'counter'\ncounter = 'y'"), read("'stdout'"));
    let changes = |before: &Config, after: &Config| -> Vec<String> {
        before.changes_to(after).iter().map(ToString::to_string).collect()
    };
    assert_eq!(changes(&one, &one), [] as [&str; 0]);
    assert_eq!(changes(&one, &two), ["sink.out.step: 1 -> 2"]);
    assert_eq!(changes(&one, &stdout), ["sink.out.type changed"]);
    let [one, two, other, stdout] = [one, two, other, stdout].map(|config| config.sinks[0].settings.clone());
    assert!(!one.needs_new_sink(&two) && one.needs_new_sink(&other) && one.needs_new_sink(&stdout));
    assert!(one != two && one == one.clone());
}

#[test]
fn the_command_line_and_the_reference_know_it() {
    let sink = SinkConfig::parse("counter:x", &types()).expect("a sink");
    assert_eq!((&*sink.name, sink.settings.type_name()), ("counter", "counter"));
    for (text, says) in [
        ("counter:none", "counter:none: there is no such counter"),
        ("counter", "\"counter\" is no sink; expected stdout, file:PATH, "),
        ("counter:", "\"counter:\" is no sink; expected stdout, file:PATH, "),
        ("stdout:x", "\"stdout:x\" is no sink"),
        ("nothing:x", "\"nothing:x\" is no sink"),
    ] {
        let error = SinkConfig::parse(text, &types()).expect_err("no sink").to_string();
        assert!(error.starts_with(says), "{error}");
    }
    let page = reference_markdown(&types());
    assert!(page.contains("## `[[sink]]` with `type = \"counter\"`\n\nA counter of this test.\n"), "{page}");
    assert!(page.contains("| `step` | number, 1 to 100 | `1` | How much a record counts. | yes |"), "{page}");
    assert!(
        sample_file(&types())
            .contains("#type = \"counter\"\n# The name of the counter.\n#counter = \"events\"")
    );
}

#[test]
fn a_type_that_is_left_out_says_which_feature_adds_it() {
    let kafka = MissingType {
        name: "kafka",
        title: "Kafka",
        feature: "kafka",
        place: Some("HOST:PORT/TOPIC"),
        dead_letters: Some("TOPIC"),
    };
    let types = SinkTypes::default().or_left_out(kafka);
    let says = "this build has no Kafka; build with the feature `kafka`";
    assert_eq!(SinkConfig::parse("kafka:x:1/y", &types).expect_err("left out").to_string(), says);
    let text = "[[connector]]\nname = 'a'\nsecrets = [{ env = 'S' }]\n[[sink]]\nname = 'out'\ntype = 'kafka'\n\
                brokers = ['x:1']\n";
    let error = Config::from_toml(text, &OneSecret, &types).expect_err("left out").to_string();
    assert_eq!(error, format!("line 6: sink.out.type: {says}"));
    let known = types.with::<CounterConfig>().or_left_out(MissingType { name: "counter", ..kafka });
    assert_eq!(known.names(), ["counter", "kafka"]);
}
