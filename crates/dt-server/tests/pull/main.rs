//! Pull mode: the emulator and a real receiver in this process, whose only input is the stream of a project.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may fail loudly"
)]

#[allow(dead_code, reason = "some of it is for other tests")]
#[path = "../monitor/clock.rs"]
mod clock;
mod proxy;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dt_emulator::{Emulator, HistoryEvent, Role, ServiceAccount};
use dt_server::config::{Config, Sources};
use dt_server::service::Service;
use dt_server::sink::standard_types;
use dt_sink::clock::Clock as _;
use dt_verify::Secret;
use dt_verify::event::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use clock::FastClock;
use proxy::Proxy;

const SECRET: &str = "some-good-secret";
const PROJECT: &str = "pullproject";
/// How many times as fast as the machine's the clock is.
const SCALE: u32 = 60;
/// The longest time to wait for a state, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(90);

struct OneSecret;

impl Sources for OneSecret {
    fn env(&self, _name: &str) -> Option<OsString> {
        Some(OsString::from(SECRET))
    }

    fn file(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// An event in a line of the sink's file.
#[derive(Debug)]
struct Line {
    event_id: String,
    device: String,
    /// `event.timestamp` in Unix microseconds.
    micros: i64,
    source: String,
}

/// The file of the sink, and its lines as far as they are read.
struct SinkFile {
    path: PathBuf,
    lines: Vec<Line>,
}

impl SinkFile {
    fn read(&mut self) {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        for line in complete.lines().skip(self.lines.len()) {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{line}")).to_owned();
            let event = &line["event"];
            self.lines.push(Line {
                event_id: text(&event["eventId"]),
                device: text(&line["metadata"]["deviceId"]),
                micros: Timestamp::new(text(&event["timestamp"])).instant().expect("a time").as_microsecond(),
                source: text(&line["source"]),
            });
        }
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).expect("it runs");
        tokio::time::timeout(TIMEOUT, self.ended).await.expect("in time").expect("no panic");
    }
}

struct World {
    clock: FastClock,
    emulator: Emulator,
    proxy: Proxy,
    sink: SinkFile,
    folder: TempDir,
}

impl World {
    /// Starts a cloud whose devices send an event every 20 s of the clock, and a proxy in front of it.
    async fn start() -> Self {
        let clock = FastClock::new(SCALE);
        let account = ServiceAccount::new(
            "key",
            Secret::new(SECRET).expect("a secret"),
            "me@example.com",
            Role::Developer,
        );
        let emulator = Emulator::builder()
            .clock(move || clock.unix_millis())
            .time_scale(SCALE)
            .service_account(account)
            .devices(
                PROJECT,
                "temperature:6,touch:2,humidity:2".parse().expect("devices"),
                Duration::from_secs(20),
            )
            .start()
            .await
            .expect("it starts");
        let proxy = Proxy::start(emulator.address()).await;
        let folder = tempfile::tempdir().expect("a folder");
        let sink = SinkFile { path: folder.path().join("events.ndjson"), lines: Vec::new() };
        Self { clock, emulator, proxy, sink, folder }
    }

    async fn start_receiver(&self) -> Running {
        let (folder, proxy) = (self.folder.path().display(), self.proxy.address());
        let tokens = self.emulator.token_endpoint();
        let text = format!(
            "admin = 'off'\ndata = '{folder}/data'\n[spool]\nmin_free = 0\n\
             [api]\nkey_id = 'key'\nemail = 'me@example.com'\nsecret = {{ env = 'S' }}\nurl = 'http://{proxy}/v2'\n\
             token_endpoint = '{tokens}'\nrequests_per_second = 1000\n\
             [[source]]\nname = 'plant'\ntype = 'stream'\nproject = '{PROJECT}'\n\
             [[sink]]\nname = 'file'\ntype = 'file'\npath = '{folder}/events.ndjson'\n"
        );
        let config = Config::from_toml(&text, &OneSecret, &standard_types());
        let config = config.unwrap_or_else(|error| panic!("{error}\n{text}"));
        let builder = Service::builder(config).clock(Arc::new(self.clock)).time_scale(SCALE);
        let service = builder.start().await.expect("it starts");
        assert!(service.listener().is_none() && service.address().is_none(), "no port is open");
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(service.run_until(async {
            let _stopped = stopped.await;
        }));
        Running { stop, ended }
    }

    /// Waits until the sink has a line that it did not have, and returns the time then, in Unix microseconds.
    async fn next_line(&mut self) -> i64 {
        let (began, before) = (Instant::now(), self.sink.lines.len());
        while self.sink.lines.len() == before {
            assert!(began.elapsed() < TIMEOUT, "no event arrives after {before}");
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.sink.read();
        }
        self.emulator.now_millis() * 1000
    }

    /// Waits for a real time.
    async fn wait(&self, millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Returns the events that DT has had since `since`, in Unix microseconds.
    fn expected(&self, since: i64) -> Vec<HistoryEvent> {
        let until = self.emulator.now_millis() * 1000;
        let history = self.emulator.history().into_iter();
        history.filter(|event| (since..until).contains(&event.timestamp_micros)).collect()
    }

    /// Waits until the sink has these events, stops the receiver, and checks that it has each once.
    async fn end(&mut self, expected: &[HistoryEvent], running: Running) {
        let began = Instant::now();
        loop {
            self.sink.read();
            let have: BTreeSet<&str> = self.sink.lines.iter().map(|line| &*line.event_id).collect();
            let missing = expected.iter().filter(|event| !have.contains(&*event.event_id)).count();
            if missing == 0 {
                break;
            }
            assert!(began.elapsed() < TIMEOUT, "{missing} of {} are missing", expected.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        running.stop().await;
        self.sink.read();
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for line in &self.sink.lines {
            *counts.entry(&line.event_id).or_default() += 1;
        }
        let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
        let all: BTreeSet<String> =
            self.emulator.history().iter().map(|event| event.event_id.to_string()).collect();
        assert!(counts.keys().all(|id| all.contains(*id)), "an event that DT never had");
    }

    fn of_source(&self, source: &str) -> Vec<&Line> {
        self.sink.lines.iter().filter(|line| line.source == source).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_the_stream_arrive_once_and_in_the_order_of_their_devices() {
    let mut world = World::start().await;
    let running = world.start_receiver().await;
    let since = world.next_line().await;
    // The labels of deliveries are those of the device.
    let list =
        world.emulator.call("GET", &format!("/v2/projects/{PROJECT}/devices"), &Value::Null).expect("a list");
    let name = list["devices"][0]["name"].as_str().expect("a name").to_owned();
    let label = json!({"devices": [name], "addLabels": {"room": "kitchen"}});
    world
        .emulator
        .call("POST", &format!("/v2/projects/{PROJECT}/devices:batchUpdate"), &label)
        .expect("changed");
    world.wait(2000).await;
    let expected = world.expected(since);
    assert!(expected.len() > 20, "{} events", expected.len());
    world.end(&expected, running).await;
    let streamed = world.of_source("stream");
    assert!(streamed.len() > 20, "{} of {}", streamed.len(), world.sink.lines.len());
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    for line in streamed {
        let before = newest.insert(&line.device, line.micros);
        assert!(before.is_none_or(|before| before <= line.micros), "{line:?} is after {before:?}");
    }
    let text = std::fs::read_to_string(world.folder.path().join("events.ndjson")).expect("a file");
    let last = text.lines().rfind(|line| line.contains(&format!("\"{name}\""))).expect("an event");
    let line: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!((line["verifiedBy"].as_str(), line["connector"].as_str()), (Some("api"), Some("plant")));
    assert_eq!(line["labels"]["room"], "kitchen");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_broken_connections_and_a_restart_lose_nothing() {
    let mut world = World::start().await;
    let mut running = world.start_receiver().await;
    let since = world.next_line().await;
    let (began, mut was_restarted) = (Instant::now(), false);
    while world.proxy.broken() < 20 {
        assert!(began.elapsed() < TIMEOUT, "only {} connections broke", world.proxy.broken());
        world.proxy.cut(Duration::from_millis(200));
        world.next_line().await;
        if !was_restarted && world.proxy.broken() >= 10 {
            was_restarted = true;
            running.stop().await;
            world.wait(500).await;
            running = world.start_receiver().await;
        }
    }
    let expected = world.expected(since);
    world.end(&expected, running).await;
    let (streamed, filled) = (world.of_source("stream").len(), world.of_source("backfill").len());
    assert!(streamed > 20 && filled > 20, "{streamed} of the stream, {filled} of the history");
}
