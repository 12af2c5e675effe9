//! A receiver with a sink `postgres`, as a child process with a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{self, Ended};
use crate::events::{now, token};
use crate::sender::{Sender, readiness};

/// How long anything may take before a test has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The variable with the URL.
const URL: &str = "DT_RECEIVER_TEST_POSTGRES_URL";

/// The folder and the configuration of a receiver.
pub(crate) struct Setup {
    folder: TempDir,
    url: String,
}

impl Setup {
    /// `top` stands before the sections; `sink` is the rest of the sink's.
    pub(crate) fn new(top: &str, url: &str, sink: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!(
            "data = '{}'\n{top}\n\
             [[connector]]\nname = 'default'\nsecrets = [{{ env = '{}' }}]\n\
             [[sink]]\nname = 'pg'\ntype = 'postgres'\nurl = {{ env = '{URL}' }}\n{sink}\n",
            folder.path().join("data").display(),
            common::SECRET_VARIABLE,
        );
        fs::write(folder.path().join("dt-receiver.toml"), text).expect("written");
        Self { folder, url: url.to_owned() }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("dt-receiver.toml")
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Receiver {
        let config = self.config();
        let arguments = ["--config", config.to_str().expect("text")];
        Receiver(common::Receiver::start(arguments, &[(URL, &self.url)]))
    }

    /// Runs a command about this receiver.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = common::program();
        command.args(arguments).arg("--config").arg(self.config()).env(URL, &self.url);
        common::run_command(command, b"")
    }

    /// Its dead letters.
    pub(crate) fn dead_letters(&self) -> Vec<Value> {
        let ended = self.run(&["dead", "list", "--json"]);
        assert_eq!(ended.code(), 0, "{ended:?}");
        ended.json()["letters"].as_array().expect("a list").clone()
    }
}

/// A receiver that runs.
pub(crate) struct Receiver(common::Receiver);

impl Receiver {
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.listen
    }

    /// What `/readyz` says.
    pub(crate) fn readiness(&self) -> String {
        readiness(self.0.admin)
    }

    /// Sends a body, which must be accepted.
    pub(crate) fn send(&self, body: &str) {
        let mut sender = Sender::connect(self.address()).expect("it listens");
        let answer = sender.post("/", body, &token(body, now())).expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Waits until `/readyz` says all of this.
    pub(crate) fn wait_for_reason(&self, parts: &[&str]) -> String {
        let mut said = String::new();
        let begun = Instant::now();
        while !parts.iter().all(|part| said.contains(part)) {
            assert!(begun.elapsed() < PATIENCE, "not {parts:?} within {PATIENCE:?}, but {said}");
            std::thread::sleep(Duration::from_millis(20));
            said = self.readiness();
        }
        said
    }

    /// How many records the sink `pg` has delivered.
    pub(crate) fn delivered(&self) -> u64 {
        self.count("dt_receiver_sink_records_total", "sink=\"pg\",outcome=\"delivered\"")
            + self.count("dt_receiver_sink_records_total", "outcome=\"delivered\",sink=\"pg\"")
    }

    /// How many events the sinks found to be there already.
    pub(crate) fn duplicates(&self) -> u64 {
        self.count("dt_receiver_postgres_duplicates_total", "")
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

    /// How many records wait in the spool, for all sinks together.
    pub(crate) fn backlog(&self) -> u64 {
        self.count("dt_receiver_spool_sink_backlog_records", "")
    }

    /// Waits until all that was accepted is delivered or a dead letter.
    pub(crate) fn drain(&self) {
        self.drain_to(0);
    }

    /// Waits until so many records are left.
    pub(crate) fn drain_to(&self, rest: u64) {
        let begun = Instant::now();
        loop {
            let left = self.backlog();
            if left == rest {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{left} records left: {}", self.readiness());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The time that it has spent on processors.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.pid())).expect("it runs");
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
}
