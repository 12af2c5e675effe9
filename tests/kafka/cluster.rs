//! A running cluster: `tests/kafka/cluster` and the Python beside it, driven from tests. It ends when its handle is
//! dropped and when this process does, however that comes about.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::events::is_there;

/// What the scripts say when something that they need is not there.
const MISSING: i32 = 3;

/// A record as the independent client read it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) partition: i64,
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) value: Vec<u8>,
    /// What the SDK of CloudEvents made of it, if it was asked to.
    pub(crate) event: Option<Value>,
}

impl Message {
    fn read(line: &str) -> Self {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let headers = line["headers"].as_array().expect("a list").iter();
        Self {
            partition: line["partition"].as_i64().expect("a number"),
            offset: line["offset"].as_i64().expect("a number"),
            timestamp: line["timestamp"].as_i64().expect("a number"),
            key: line["key"].as_str().map(str::to_owned),
            headers: headers.map(|header| (text(&header[0]), text(&header[1]))).collect(),
            value: STANDARD.decode(text(&line["value_base64"])).expect("base64"),
            event: line.get("event").cloned(),
        }
    }

    /// The value of a header, which must be there once.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|header| header.0 == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => value,
            _ => panic!("not one header {name}: {:?}", self.headers),
        }
    }
}

/// A cluster of our own.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: PathBuf,
    python: PathBuf,
    /// What `cluster info` tells.
    info: Value,
    /// The brokers that were killed and not started again.
    down: BTreeSet<u32>,
    /// Stops the cluster once its standard input ends.
    watchdog: Child,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka").join(name)
}

/// A cluster that the tests share.
type Shared = OnceLock<Option<RwLock<Cluster>>>;

static ONE: Shared = OnceLock::new();
static THREE: Shared = OnceLock::new();

/// The shared cluster of one broker, which other tests use at the same time; `None` where there can be none.
pub(crate) fn one_broker(left_out: &str) -> Option<RwLockReadGuard<'static, Cluster>> {
    Some(running(cluster(&ONE, 1, left_out)?))
}

/// The same, for a test that kills the broker: no other test uses it until the guard is dropped.
pub(crate) fn one_broker_alone(left_out: &str) -> Option<RwLockWriteGuard<'static, Cluster>> {
    Some(alone(cluster(&ONE, 1, left_out)?))
}

/// The shared cluster of three brokers.
#[cfg(feature = "kafka-tls")]
pub(crate) fn three_brokers(left_out: &str) -> Option<RwLockReadGuard<'static, Cluster>> {
    Some(running(cluster(&THREE, 3, left_out)?))
}

/// The same, for a test that kills some of them.
pub(crate) fn three_brokers_alone(left_out: &str) -> Option<RwLockWriteGuard<'static, Cluster>> {
    Some(alone(cluster(&THREE, 3, left_out)?))
}

fn cluster(shared: &'static Shared, brokers: u32, left_out: &str) -> Option<&'static RwLock<Cluster>> {
    shared.get_or_init(|| Cluster::start(brokers, "valid", left_out).map(RwLock::new)).as_ref()
}

/// The cluster with all of its brokers. A test that failed leaves it to the next one; what it killed is started again.
fn alone(cluster: &'static RwLock<Cluster>) -> RwLockWriteGuard<'static, Cluster> {
    let mut cluster = cluster.write().unwrap_or_else(PoisonError::into_inner);
    cluster.start_all();
    cluster
}

fn running(cluster: &'static RwLock<Cluster>) -> RwLockReadGuard<'static, Cluster> {
    let shared = cluster.read().unwrap_or_else(PoisonError::into_inner);
    if shared.down.is_empty() {
        return shared;
    }
    drop(shared);
    RwLockWriteGuard::downgrade(alone(cluster))
}

impl Cluster {
    /// Starts 1 or 3 brokers with this certificate; `None`, and one line that says so, where that is not possible.
    pub(crate) fn start(brokers: u32, certificate: &str, left_out: &str) -> Option<Self> {
        let python = std::env::var_os("DT_RECEIVER_TEST_PYTHON").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci-tools/venv/bin/python"),
            PathBuf::from,
        );
        let probe = Command::new(&python).arg(script("consume.py")).arg("--help").output();
        let has_packages = probe.is_ok_and(|output| output.status.success());
        if !is_there(has_packages, "Python with the packages of tests/kafka/requirements.txt", left_out) {
            return None;
        }
        let folder = std::env::temp_dir()
            .join(format!("dt-receiver-test-kafka-{}-{brokers}-{certificate}", std::process::id()));
        // It also ends what is half started.
        let watchdog = Command::new("sh")
            .args(["-c", "cat >/dev/null; exec \"$0\" stop"])
            .arg(script("cluster"))
            .env("DT_RECEIVER_TEST_KAFKA_DIR", &folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What interrupts the tests from the keyboard must not end it as well.
            .process_group(0)
            .spawn()
            .expect("there is a shell");
        let mut cluster = Self { folder, python, info: Value::Null, down: BTreeSet::new(), watchdog };
        let started = cluster
            .command(["start", &brokers.to_string()])
            .env("DT_RECEIVER_TEST_KAFKA_CERT", certificate)
            .output();
        let started = started.expect("the script runs");
        if !is_there(started.status.code() != Some(MISSING), &said(&started), left_out) {
            return None;
        }
        assert!(started.status.success(), "no cluster: {}", said(&started));
        let info = cluster.run(["info"]);
        cluster.info = serde_json::from_str(&info).expect("JSON");
        Some(cluster)
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(script("cluster"));
        command.args(arguments).env("DT_RECEIVER_TEST_KAFKA_DIR", &self.folder).stdin(Stdio::null());
        command
    }

    fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        succeeded(&self.command(arguments).output().expect("the script runs"))
    }

    fn told(&self, key: &str) -> &str {
        self.info[key].as_str().unwrap_or_else(|| panic!("there is no {key}: {}", self.info))
    }

    /// Where the brokers listen, in plain text.
    pub(crate) fn bootstrap(&self) -> &str {
        self.told("bootstrap")
    }

    /// SIGKILL to a broker.
    pub(crate) fn kill(&mut self, broker: u32) {
        self.down.insert(broker);
        self.run(["kill", &broker.to_string()]);
    }

    /// Starts a broker that was killed.
    pub(crate) fn start_broker(&mut self, broker: u32) {
        self.run(["start-broker", &broker.to_string()]);
        self.down.remove(&broker);
    }

    /// Starts whatever was killed.
    pub(crate) fn start_all(&mut self) {
        while let Some(broker) = self.down.first().copied() {
            self.start_broker(broker);
        }
    }

    /// Runs `admin.py` as the user who may do everything.
    pub(crate) fn admin<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let mut command = Command::new(&self.python);
        command.arg(script("admin.py")).args(["--bootstrap", self.bootstrap()]).args(arguments);
        succeeded(&command.stdin(Stdio::null()).output().expect("Python runs"))
    }

    /// Creates a topic of so many partitions, on all brokers.
    pub(crate) fn create_topic(&self, topic: &str, partitions: u32) {
        self.admin(["create", topic, "--partitions", &partitions.to_string()]);
    }

    /// Partitions and their replicas, as the brokers tell.
    pub(crate) fn describe(&self, topic: &str) -> Value {
        serde_json::from_str(&self.admin(["describe", topic])).expect("JSON")
    }

    /// The leader of a topic's first partition, once there is one.
    pub(crate) fn leader(&self, topic: &str) -> u32 {
        let mut leader = None;
        wait_until("there is a leader", Duration::from_secs(60), || {
            leader = self.describe(topic)["0"]["leader"].as_i64().and_then(|id| u32::try_from(id).ok());
            leader.is_some()
        });
        leader.expect("waited for")
    }

    /// Waits until each partition of a topic is on all three brokers.
    pub(crate) fn wait_in_sync(&self, topic: &str) {
        wait_until("all replicas are in sync", Duration::from_secs(60), || {
            let partitions = self.describe(topic);
            let mut partitions = partitions.as_object().expect("an object").values();
            partitions.all(|partition| partition["isr"].as_array().is_some_and(|isr| isr.len() == 3))
        });
    }

    /// All that is in a topic now, partition by partition, in order.
    pub(crate) fn read(&self, topic: &str) -> Vec<Message> {
        self.consume(topic, &[])
    }

    /// The same, read by the SDK of CloudEvents as well.
    pub(crate) fn read_cloudevents(&self, topic: &str) -> Vec<Message> {
        self.consume(topic, &["--cloudevents"])
    }

    /// How many records are in a topic.
    pub(crate) fn count(&self, topic: &str) -> u64 {
        let mut command = self.consumer(topic, &[]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("Python runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let count = lines.fold(0, |count, line| line.map(|_| count + 1).expect("readable"));
        assert!(child.wait().expect("it ends").success());
        count
    }

    fn consumer(&self, topic: &str, options: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(script("consume.py")).args(["--bootstrap", self.bootstrap(), "--timeout", "300"]);
        command.args(options).arg(topic).stdin(Stdio::null());
        command
    }

    fn consume(&self, topic: &str, options: &[&str]) -> Vec<Message> {
        let read = succeeded(&self.consumer(topic, options).output().expect("Python runs"));
        let mut messages: Vec<Message> = read.lines().map(Message::read).collect();
        messages.sort_by_key(|message| (message.partition, message.offset));
        messages
    }
}

#[cfg(feature = "kafka-tls")]
impl Cluster {
    /// Where they listen for SASL_SSL.
    pub(crate) fn sasl_bootstrap(&self) -> &str {
        self.told("sasl_bootstrap")
    }

    /// The certificate of the authority.
    pub(crate) fn ca(&self) -> &str {
        self.told("ca")
    }

    pub(crate) fn username(&self) -> &str {
        self.told("username")
    }

    pub(crate) fn password(&self) -> &str {
        self.told("password")
    }

    /// The password of the user `$ConnectionString`.
    pub(crate) fn connection_string(&self) -> &str {
        self.told("connection_string")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The end of its input is its order to stop; it then takes a second.
        drop(self.watchdog.stdin.take());
        let _stopped = self.watchdog.wait();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{:?}: {}", output.status, said(output));
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// Waits for a condition; fails when it does not come about in time.
pub(crate) fn wait_until(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < patience, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
