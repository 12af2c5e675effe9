//! A receiver with a sink `kafka`, as a child process with a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{self, Ended};
use crate::sender::{Sender, readiness};

/// How long anything may take before a test has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The variable with the password for Kafka.
const PASSWORD: &str = "DT_RECEIVER_TEST_KAFKA_PASSWORD";

/// The folder and the configuration of a receiver.
pub(crate) struct Setup {
    folder: TempDir,
    password: String,
}

impl Setup {
    /// `top` stands before the sections; `sink` is the rest of the sink's.
    pub(crate) fn new(top: &str, brokers: &str, sink: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!(
            "data = '{}'\n{top}\n\
             [[connector]]\nname = 'default'\nsecrets = [{{ env = '{}' }}]\n\
             [[sink]]\nname = 'kafka'\ntype = 'kafka'\nbrokers = '{brokers}'\n{sink}\n",
            folder.path().join("data").display(),
            common::SECRET_VARIABLE,
        );
        fs::write(folder.path().join("dt-receiver.toml"), text).expect("written");
        Self { folder, password: String::new() }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("dt-receiver.toml")
    }

    /// The folder with everything.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Receiver {
        self.start_with(&[])
    }

    /// Starts it with more arguments.
    pub(crate) fn start_with(&self, arguments: &[&str]) -> Receiver {
        let config = self.config();
        let config = config.to_str().expect("text");
        let arguments = ["--config", config].into_iter().chain(arguments.iter().copied());
        Receiver(common::Receiver::start(arguments, &[(PASSWORD, &self.password)]))
    }

    /// What a command about this receiver prints, as JSON.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Value {
        let mut command = common::program();
        command
            .args(arguments)
            .arg("--json")
            .arg("--config")
            .arg(self.config())
            .env(PASSWORD, &self.password);
        let ended = common::run_command(command, b"");
        assert_eq!(ended.code(), 0, "{ended:?}");
        ended.json()
    }

    /// Its dead letters.
    pub(crate) fn dead_letters(&self) -> Vec<Value> {
        self.ask(&["dead", "list"])["letters"].as_array().expect("a list").clone()
    }
}

#[cfg(feature = "kafka-tls")]
impl Setup {
    /// The same as a user with a password.
    pub(crate) fn with_password(top: &str, brokers: &str, sink: &str, user: [&str; 2]) -> Self {
        let [username, password] = user;
        let sasl = format!("[sink.sasl]\nusername = '{username}'\npassword = {{ env = '{PASSWORD}' }}");
        let mut setup = Self::new(top, brokers, &format!("{sink}\n{sasl}"));
        setup.password = password.to_owned();
        setup
    }

    /// Another password from the next start on.
    pub(crate) fn set_password(&mut self, password: &str) {
        password.clone_into(&mut self.password);
    }
}

/// A receiver that runs.
pub(crate) struct Receiver(common::Receiver);

impl Receiver {
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.listen
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.0.admin
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// What `/readyz` says.
    pub(crate) fn readiness(&self) -> String {
        readiness(self.0.admin)
    }

    /// Waits until `/readyz` says all of this.
    pub(crate) fn wait_for_reason(&self, parts: &[&str], patience: Duration) -> String {
        let mut said = String::new();
        let is_said = |said: &str| parts.iter().all(|part| said.contains(part));
        let begun = std::time::Instant::now();
        while !is_said(&said) {
            assert!(begun.elapsed() < patience, "not {parts:?} within {patience:?}, but {said}");
            std::thread::sleep(Duration::from_millis(50));
            said = self.readiness();
        }
        said
    }

    /// Waits until nothing is wrong.
    pub(crate) fn wait_until_ready(&self) {
        let begun = std::time::Instant::now();
        loop {
            let said = self.readiness();
            if !said.contains("sink kafka") {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "not ready within {PATIENCE:?}: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The sum of a metric that counts, over its labels, among those that have this one.
    pub(crate) fn count(&self, name: &str, label: &str) -> u64 {
        let text = Sender::connect(self.0.admin).and_then(|mut sender| sender.get("/metrics"));
        let text = text.expect("/metrics answers").body;
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
        });
        lines.map(|line| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number")).sum()
    }

    /// How often the producer was made anew.
    pub(crate) fn renewals(&self) -> u64 {
        self.count("dt_receiver_kafka_producers_renewed_total", "sink=\"kafka\"")
    }

    /// How many records wait in the spool, for all sinks together.
    pub(crate) fn backlog(&self) -> u64 {
        self.count("dt_receiver_spool_sink_backlog_records", "")
    }

    /// Waits until all that was accepted is delivered.
    pub(crate) fn drain(&self, patience: Duration) {
        let begun = std::time::Instant::now();
        loop {
            let left = self.backlog();
            if left == 0 {
                return;
            }
            assert!(begun.elapsed() < patience, "{left} records left: {}", self.readiness());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Resident memory, in KiB.
    pub(crate) fn rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("in every status");
        line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
    }

    /// The time that it has spent on processors.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("it runs");
        // After the name, which may hold blanks: utime and stime are the 12th and 13th, in hundredths of a second.
        let fields = stat.rsplit(") ").next().expect("a name").split(' ').skip(11).take(2);
        let ticks: u64 = fields.map(|field| field.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Stops it as an operator would.
    pub(crate) fn stop(self) -> Ended {
        let ended = self.0.stop();
        assert_eq!(ended.code(), 0, "{ended:?}");
        ended
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(self) {
        self.0.kill();
    }
}
