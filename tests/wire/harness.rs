//! A service of a test's own: ports of its own, a data folder of its own, a clock that stands still.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dt_receiver::clock::ManualClock;
use dt_receiver::config::{Config, ConnectorConfig, Limits, Sources};
use dt_receiver::event::{EventType, Sample};
use dt_receiver::log::dead::{Filter, ReadOnly};
use dt_receiver::record::DeadLetter;
use dt_receiver::service::{Service, StartError};
use dt_receiver::sink::Sink;
use dt_receiver::verify::{Secret, Verifier};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::within;
use crate::fake_sink::{FakeSink, Seen};

pub(crate) const SECRET: &str = "test-only-7Jq3vX0cK9wPz2LrT5mYbN8s";
pub(crate) const ORGANIZATION: &str = "c0ngtest0rg0vd5c9a1g";
/// The id of the key whose private half is `vectors/keys/es256.pk8.der`.
pub(crate) const KEY_ID: &str = "test-es256-1";
pub(crate) const PROJECT: &str = "bhmh0143iktucae701vg";
/// What sinks say when they fail.
pub(crate) const SINK_ERROR: &str = "the disk /srv/sensors is on fire";
/// Where the clocks stand, in Unix seconds.
pub(crate) const NOW: i64 = 1_736_000_000;

/// The outside world of a configuration: one environment variable.
struct TestSources;

impl Sources for TestSources {
    fn env(&self, name: &str) -> Option<OsString> {
        (name == "DT_SECRET").then(|| SECRET.into())
    }

    fn file(&self, _path: &Path) -> std::io::Result<Vec<u8>> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// A service in the making: one connector `main` at `/` with [`SECRET`], and no sink yet.
pub(crate) struct Setup {
    config: Config,
    data: TempDir,
    sinks: Vec<(String, Box<dyn Sink>)>,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let text = format!(
            "listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\nmode = 'direct'\ndata = '{}'\n\
             [[connector]]\nname = 'main'\nsecrets = [{{ env = 'DT_SECRET' }}]\n",
            data.path().display()
        );
        let config =
            Config::from_toml(&text, &TestSources, &dt_receiver::sink_types()).expect("a configuration");
        Self { config, data, sinks: Vec::new() }
    }

    /// With the sink that most tests want: it works, and remembers.
    pub(crate) fn working() -> (Self, Seen) {
        let (sink, seen) = FakeSink::working();
        (Self::new().sink("test", sink), seen)
    }

    pub(crate) fn sink(mut self, name: &str, sink: impl Sink + 'static) -> Self {
        self.sinks.push((name.to_owned(), Box::new(sink)));
        self
    }

    pub(crate) fn limits(mut self, set: impl FnOnce(&mut Limits)) -> Self {
        set(&mut self.config.limits);
        self
    }

    pub(crate) fn config(mut self, set: impl FnOnce(&mut Config)) -> Self {
        set(&mut self.config);
        self
    }

    /// Changes the connector `main`.
    pub(crate) fn main(self, set: impl FnOnce(&mut ConnectorConfig)) -> Self {
        self.config(|config| set(&mut config.connectors[0]))
    }

    /// Adds a connector with [`SECRET`].
    pub(crate) fn connector(self, name: &str, path: &str, set: impl FnOnce(&mut ConnectorConfig)) -> Self {
        let secret = Secret::new(SECRET).expect("not empty");
        let verifier = Verifier::builder().secret("default", secret).build().expect("a verifier");
        let mut connector = ConnectorConfig::new(name, path, verifier);
        set(&mut connector);
        self.config(|config| config.connectors.push(connector))
    }

    pub(crate) async fn try_start(self) -> Result<Receiver, StartError> {
        let Self { config, data, sinks } = self;
        let dead_letters = config.spool_folder().join("dead.db");
        let clock = Arc::new(ManualClock::at(NOW * 1000));
        let as_clock: Arc<dyn dt_receiver::clock::Clock> = Arc::clone(&clock) as _;
        let mut builder = Service::builder(config).clock(as_clock);
        for (name, sink) in sinks {
            builder = builder.sink(name, BoxedSink(sink));
        }
        let service = builder.start().await?;
        let address = service.address().expect("an address");
        let admin = service.admin_address().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(service.run_until(async {
            let _gone = stopped.await;
        }));
        Ok(Receiver { address, admin, clock, dead_letters, stop: Some(stop), running, _data: data })
    }

    pub(crate) async fn start(self) -> Receiver {
        self.try_start().await.expect("it starts")
    }
}

struct BoxedSink(Box<dyn Sink>);

impl Sink for BoxedSink {
    fn open(&mut self, checkpoint: Option<&[u8]>) -> Result<(), dt_receiver::sink::OpenError> {
        self.0.open(checkpoint)
    }

    fn deliver(&mut self, batch: &[Arc<dt_receiver::record::Record>]) -> dt_receiver::sink::Outcome {
        self.0.deliver(batch)
    }

    fn close(&mut self) {
        self.0.close();
    }
}

/// A running service. It stops with the test's runtime, or when told to.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) dead_letters: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
    _data: TempDir,
}

impl Receiver {
    /// Tells it to stop, and does not wait.
    pub(crate) fn tell_to_stop(&mut self) {
        let _told = self.stop.take().expect("told once").send(());
    }

    /// Drops the service's future, as an embedder may.
    pub(crate) fn abandon(self) {
        self.running.abort();
    }

    /// Waits until it has stopped, after it was told to.
    pub(crate) async fn stopped(self) {
        assert!(self.stop.is_none(), "nobody told it to stop");
        within(self.running).await.expect("it does not panic");
    }

    /// All dead letters, oldest first.
    pub(crate) fn letters(&self) -> Vec<DeadLetter> {
        let reader = ReadOnly::open(&self.dead_letters).expect("dead letters");
        let letters = reader.list(&Filter::default(), 0, 1000, true).expect("listed");
        letters.into_iter().map(|stored| stored.dead_letter).collect()
    }

    /// Moves the dead letters away.
    pub(crate) fn break_dead_letters(&self) {
        std::fs::rename(&self.dead_letters, self.dead_letters.with_extension("away")).expect("moved");
    }

    /// Moves them back.
    pub(crate) fn mend_dead_letters(&self) {
        std::fs::rename(self.dead_letters.with_extension("away"), &self.dead_letters).expect("moved");
    }
}

/// The id of the `n`th event of a test.
pub(crate) fn event_id(n: u64) -> String {
    dt_receiver::verify::xid(NOW, n.to_be_bytes())
}

/// The body of the `n`th event of a test.
pub(crate) fn event(n: u64) -> String {
    event_of(EventType::Touch, PROJECT, n)
}

pub(crate) fn event_of(event_type: EventType, project: &str, n: u64) -> String {
    let event_id = event_id(n);
    let (device, unix_millis) = ("bvj2geoul7hg008c0ab0", NOW * 1000);
    Sample { event_type, event_id: &event_id, project, device, unix_millis, seed: n }.body()
}

/// The body of the `n`th event, padded with white space to exactly `len` bytes.
pub(crate) fn event_of_len(n: u64, len: usize) -> String {
    let mut body = event(n);
    body.push_str(&" ".repeat(len - body.len()));
    body
}

pub(crate) const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}
