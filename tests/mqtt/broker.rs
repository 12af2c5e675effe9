//! Mosquitto, started in a folder of its own on a free port, and a subscriber that is an independent client.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;

use crate::events::is_there;

/// How long anything may take before a test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker of our own. It ends when it is dropped.
pub(crate) struct Broker {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

impl Broker {
    /// Starts a broker that anyone may use; `None`, and one line that says so, where that is not possible.
    pub(crate) fn start(left_out: &str) -> Option<Self> {
        Self::start_with(left_out, |_| "allow_anonymous true\n".to_owned())
    }

    /// Starts a broker with more options, which may name files in its folder.
    pub(crate) fn start_with(left_out: &str, options: impl FnOnce(&Path) -> String) -> Option<Self> {
        let mut broker = Self::prepare(left_out, options)?;
        broker.start_again();
        Some(broker)
    }

    /// Everything but the process.
    pub(crate) fn prepare(left_out: &str, options: impl FnOnce(&Path) -> String) -> Option<Self> {
        let probe = Command::new("mosquitto").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !is_there(probe.is_ok(), "mosquitto", left_out) {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let text = format!(
            "listener {port} 127.0.0.1\nuser root\npersistence true\npersistence_location {}/\nmax_queued_messages 1000000\n\
             log_dest file {}\n{}",
            folder.path().display(),
            folder.path().join("log").display(),
            options(folder.path()),
        );
        fs::write(folder.path().join("mosquitto.conf"), text).expect("written");
        Some(Self { folder, port, child: None })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens, as a sink names it.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it, and waits until it listens.
    pub(crate) fn start_again(&mut self) {
        let config = self.folder.path().join("mosquitto.conf");
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = self.child.insert(command.spawn().expect("it starts"));
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = child.try_wait().expect("a child");
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "no broker: {ended:?}\n{}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends it a signal by name, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Stops it in the middle of what it does, and waits until it stands still.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
        let path = format!("/proc/{}/stat", self.child.as_ref().expect("it runs").id());
        let is_stopped = || fs::read_to_string(&path).expect("it runs").contains(") T ");
        while !is_stopped() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops it as a service manager does. It stores its sessions and retained messages.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        let ended = self.child.take().expect("it runs").wait().expect("a child");
        assert!(ended.success(), "{ended}");
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("a child");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill().and_then(|()| child.wait());
        }
    }
}

/// A port on which nothing listens.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A message as the independent client read it.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) is_retained: bool,
    /// Whether the broker sent it before, and did not get the subscriber's acknowledgement.
    pub(crate) is_again: bool,
    pub(crate) payload: Vec<u8>,
    pub(crate) content_type: Option<String>,
    pub(crate) properties: Vec<(String, String)>,
}

impl Message {
    fn read(line: &Value) -> Self {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let properties = line["properties"].as_array().expect("a list").iter();
        Self {
            topic: text(&line["topic"]),
            is_retained: line["retain"].as_bool().expect("a flag"),
            is_again: line["dup"].as_bool().expect("a flag"),
            payload: STANDARD.decode(text(&line["payload_base64"])).expect("base64"),
            content_type: line["content_type"].as_str().map(str::to_owned),
            properties: properties.map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
        }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("text")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).expect("JSON")
    }

    /// The value of a user property, which must be there once.
    pub(crate) fn property(&self, name: &str) -> &str {
        let mut found = self.properties.iter().filter(|property| property.0 == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => value,
            _ => panic!("not one property {name}: {:?}", self.properties),
        }
    }
}

/// What a subscriber has read.
#[derive(Default)]
struct Heard {
    messages: Vec<Message>,
    /// How often it has subscribed.
    subscribed: u64,
}

/// paho, with a session that outlives restarts of the broker.
pub(crate) struct Subscriber {
    port: u16,
    child: Child,
    heard: Arc<(Mutex<Heard>, Condvar)>,
}

/// Python with paho; `None`, and one line that says so, without it.
pub(crate) fn python(left_out: &str) -> Option<PathBuf> {
    let python = std::env::var_os("DT_RECEIVER_TEST_PYTHON").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci-tools/venv/bin/python"),
        PathBuf::from,
    );
    let probe = Command::new(&python).arg(script("subscribe.py")).arg("--help").output();
    let has_packages = probe.is_ok_and(|output| output.status.success());
    is_there(has_packages, "Python with the packages of tests/mqtt/requirements.txt", left_out)
        .then_some(python)
}

pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mqtt").join(name)
}

impl Subscriber {
    /// Subscribes; `None`, and one line that says so, without Python and paho.
    pub(crate) fn start(broker: &Broker, topic: &str, left_out: &str) -> Option<Self> {
        let python = python(left_out)?;
        // A client id of its own for each topic.
        let mut child = Command::new(python)
            .arg(script("subscribe.py"))
            .args([
                "--port",
                &broker.port().to_string(),
                "--client-id",
                &format!("independent {topic}"),
                topic,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let heard = Arc::new((Mutex::new(Heard::default()), Condvar::new()));
        let subscriber = Self { port: broker.port(), child, heard: Arc::clone(&heard) };
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).expect("a line of JSON");
                let mut now = heard.0.lock().unwrap_or_else(PoisonError::into_inner);
                if line.get("subscribed").is_some() {
                    now.subscribed += 1;
                } else {
                    now.messages.push(Message::read(&line));
                }
                heard.1.notify_all();
            }
        });
        subscriber.wait("it subscribes", |heard| heard.subscribed > 0);
        Some(subscriber)
    }

    /// Waits until what was heard is enough.
    fn wait(&self, what: &str, is_enough: impl Fn(&Heard) -> bool) {
        let heard = self.heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (heard, waited) = self
            .heard
            .1
            .wait_timeout_while(heard, PATIENCE, |heard| !is_enough(heard))
            .unwrap_or_else(PoisonError::into_inner);
        let last: Vec<_> = heard.messages.iter().rev().take(3).collect();
        assert!(!waited.timed_out(), "{what}: {} messages, the last {last:?}", heard.messages.len());
    }

    /// Publishes a message to the topic `dt/end`, by Mosquitto's own client.
    pub(crate) fn send(&self, payload: &str) {
        let mut command = Command::new("mosquitto_pub");
        command.args([
            "-h",
            "127.0.0.1",
            "-q",
            "1",
            "-p",
            &self.port.to_string(),
            "-t",
            "dt/end",
            "-m",
            payload,
        ]);
        assert!(command.status().expect("mosquitto-clients is there with mosquitto").success());
    }

    /// Waits until it has subscribed so many times.
    pub(crate) fn wait_until_subscribed(&self, times: u64) {
        self.wait("it subscribes again", |heard| heard.subscribed >= times);
    }

    /// Waits until the messages are enough, and returns them.
    pub(crate) fn wait_for(&self, what: &str, is_enough: impl Fn(&[Message]) -> bool) -> Vec<Message> {
        self.wait(what, |heard| is_enough(&heard.messages));
        self.messages()
    }

    /// The messages so far.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.heard.0.lock().unwrap_or_else(PoisonError::into_inner).messages.clone()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Publishes a retained message by Mosquitto's own client. An empty payload removes it.
pub(crate) fn retain(broker: &Broker, topic: &str, payload: &str) {
    let port = broker.port().to_string();
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-q", "1", "-r", "-p", &port, "-t", topic, "-m", payload]);
    assert!(command.status().expect("mosquitto-clients is there with mosquitto").success());
}

/// The retained messages that a new client gets of a topic, read by Mosquitto's own client: topic and payload, in the order
/// of their topics.
pub(crate) fn retained(broker: &Broker, topic: &str) -> Vec<(String, String)> {
    let output = Command::new("mosquitto_sub")
        .args(["-p", &broker.port().to_string(), "-h", "127.0.0.1", "-q", "1", "-t", topic])
        // Ends at the first message that is not retained, and at the latest after a second.
        .args(["--retained-only", "-W", "1", "-F", "%t %p"])
        .output()
        .expect("mosquitto-clients is there with mosquitto");
    let text = String::from_utf8(output.stdout).expect("text");
    let pair =
        |line: &str| line.split_once(' ').map(|(topic, payload)| (topic.to_owned(), payload.to_owned()));
    let mut pairs: Vec<_> = text.lines().map(|line| pair(line).expect("a pair")).collect();
    pairs.sort();
    pairs
}
