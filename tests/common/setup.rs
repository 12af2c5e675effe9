//! A receiver with a configuration in a folder of its own, and what a running one reports. The tests of each type of sink add
//! their own section.

#![allow(dead_code, reason = "each test uses a part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{self, Ended, Receiver};
use crate::events::{now, token};
use crate::sender::{self, Sender};

/// How long anything may take before a test has failed. The full counts need minutes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// The variable with the secret of the sink: its password or its URL.
pub(crate) const SINK_SECRET: &str = "DT_RECEIVER_TEST_SINK_SECRET";

/// The folder and the configuration of a receiver.
pub(crate) struct Setup {
    folder: TempDir,
    sink_secret: String,
}

impl Setup {
    /// Writes a configuration. In its text, `FOLDER` is the folder of the receiver.
    pub(crate) fn of_text(text: &str) -> Self {
        let setup = Self { folder: tempfile::tempdir().expect("a folder"), sink_secret: String::new() };
        setup.write_config(text);
        setup
    }

    /// Writes a configuration with one connector. `top` stands before the sections, and `sinks` are the sections of the sinks.
    pub(crate) fn with_sinks(top: &str, sinks: &str) -> Self {
        Self::of_text(&with_connector(top, sinks))
    }

    /// The same with a secret of the sink, which its section names by [`SINK_SECRET`].
    pub(crate) fn with_sink_secret(top: &str, sinks: &str, secret: &str) -> Self {
        let mut setup = Self::with_sinks(top, sinks);
        setup.set_sink_secret(secret);
        setup
    }

    /// Another secret of the sink from the next start on.
    pub(crate) fn set_sink_secret(&mut self, secret: &str) {
        secret.clone_into(&mut self.sink_secret);
    }

    /// Writes another text of the configuration.
    pub(crate) fn write_config(&self, text: &str) {
        let folder = self.folder().to_str().expect("text");
        fs::write(self.config(), text.replace("FOLDER", folder)).expect("written");
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder().join("dt-receiver.toml")
    }

    /// The folder with everything.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn start(&self) -> Receiver {
        self.start_with(&[])
    }

    /// Starts it with more arguments.
    pub(crate) fn start_with(&self, arguments: &[&str]) -> Receiver {
        let config = self.config();
        let config = ["--config", config.to_str().expect("text")];
        Receiver::start(config.iter().chain(arguments), &[(SINK_SECRET, &self.sink_secret)])
    }

    /// Runs a command about this receiver.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = common::program();
        command.args(arguments).arg("--config").arg(self.config()).env(SINK_SECRET, &self.sink_secret);
        common::run_command(command, b"")
    }

    /// What a command about this receiver prints as JSON.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Value {
        let ended = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(ended.code(), 0, "{ended:?}");
        ended.json()
    }

    /// Its dead letters.
    pub(crate) fn dead_letters(&self) -> Vec<Value> {
        self.ask(&["dead", "list"])["letters"].as_array().expect("a list").clone()
    }
}

/// The text of a configuration with one connector.
pub(crate) fn with_connector(top: &str, sinks: &str) -> String {
    let secret = common::SECRET_VARIABLE;
    format!(
        "data = 'FOLDER/data'\n{top}\n[[connector]]\nname = 'default'\nsecrets = [{{ env = '{secret}' }}]\n{sinks}\n"
    )
}

/// Waits until something holds; `state` is shown when it never does.
fn wait_until(patience: Duration, mut holds: impl FnMut() -> bool, state: impl Fn() -> String) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < patience, "in vain for {patience:?}: {}", state());
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Receiver {
    /// Sends a body, which must be accepted.
    pub(crate) fn accept(&self, body: &str) {
        let mut sender = Sender::connect(self.listen).expect("it listens");
        let answer = sender.post("/", body, &token(body, now())).expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// What `/readyz` says.
    pub(crate) fn readiness(&self) -> String {
        sender::readiness(self.admin)
    }

    /// Waits until `/readyz` says all of this, and returns what it says.
    pub(crate) fn wait_for_reason(&self, parts: &[&str]) -> String {
        self.wait_for_reason_within(parts, PATIENCE)
    }

    /// The same in a shorter time.
    pub(crate) fn wait_for_reason_within(&self, parts: &[&str], patience: Duration) -> String {
        let mut said = String::new();
        let is_said = || {
            said = self.readiness();
            parts.iter().all(|part| said.contains(part))
        };
        wait_until(patience, is_said, || format!("{parts:?} in {}", self.readiness()));
        said
    }

    /// Waits until `/readyz` names no sink.
    pub(crate) fn wait_until_ready(&self) {
        wait_until(PATIENCE, || !self.readiness().contains("sink "), || self.readiness());
    }

    /// The sum of a metric that counts, over its labels, among the series with this text.
    pub(crate) fn count(&self, name: &str, label: &str) -> u64 {
        sender::count(self.admin, name, label)
    }

    /// How many records the sinks have delivered.
    pub(crate) fn delivered(&self) -> u64 {
        self.count("dt_receiver_sink_records_total", "outcome=\"delivered\"")
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
        let is_drained = || self.backlog() == rest;
        wait_until(PATIENCE, is_drained, || {
            format!("{} records are left: {}", self.backlog(), self.readiness())
        });
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
}
