//! A receiver with a sink `mqtt`, as a child process with a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{self, Ended};
use crate::events::{now, token};
use crate::sender::{Sender, readiness};

/// How long anything may take before a test has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The variable with the password for the broker.
const PASSWORD: &str = "DT_RECEIVER_TEST_MQTT_PASSWORD";

/// The folder and the configuration of a receiver.
pub(crate) struct Setup {
    folder: TempDir,
    password: String,
}

impl Setup {
    /// `sink` is the rest of the sink's table.
    pub(crate) fn new(broker: &str, sink: &str) -> Self {
        let setup = Self { folder: tempfile::tempdir().expect("a folder"), password: String::new() };
        setup.configure(broker, sink);
        setup
    }

    /// Writes the configuration.
    pub(crate) fn configure(&self, broker: &str, sink: &str) {
        let text = format!(
            "data = '{}'\n\
             [[connector]]\nname = 'default'\nsecrets = [{{ env = '{}' }}]\n\
             [[sink]]\nname = 'mqtt'\ntype = 'mqtt'\nbroker = '{broker}'\n{sink}\n",
            self.folder.path().join("data").display(),
            common::SECRET_VARIABLE,
        );
        fs::write(self.config(), text).expect("written");
    }

    /// The same as a user with a password.
    pub(crate) fn with_password(broker: &str, sink: &str, [username, password]: [&str; 2]) -> Self {
        let login = format!("username = '{username}'\npassword = {{ env = '{PASSWORD}' }}\n{sink}");
        let mut setup = Self::new(broker, &login);
        setup.set_password(password);
        setup
    }

    /// Another password from the next start on.
    pub(crate) fn set_password(&mut self, password: &str) {
        password.clone_into(&mut self.password);
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
        let config = self.config();
        let arguments = ["--config", config.to_str().expect("text")];
        Receiver(common::Receiver::start(arguments, &[(PASSWORD, &self.password)]))
    }

    /// Runs a command about this receiver.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = common::program();
        command.args(arguments).arg("--config").arg(self.config()).env(PASSWORD, &self.password);
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

    /// Sends a body, which must be accepted.
    pub(crate) fn accept(&self, body: &str) {
        let answer = Sender::connect(self.address())
            .and_then(|mut sender| sender.post("/", body, &token(body, now())));
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Waits until `/readyz` says all of this.
    pub(crate) fn wait_for_reason(&self, parts: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let said = readiness(self.0.admin);
            if parts.iter().all(|part| said.contains(part)) {
                return said;
            }
            assert!(begun.elapsed() < PATIENCE, "not {parts:?} within {PATIENCE:?}, but {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until nothing is wrong.
    pub(crate) fn wait_until_ready(&self) {
        let begun = Instant::now();
        while readiness(self.0.admin).contains("sink mqtt") {
            assert!(begun.elapsed() < PATIENCE, "not ready: {}", readiness(self.0.admin));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The sum of a metric over its labels.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let text = Sender::connect(self.0.admin).and_then(|mut sender| sender.get("/metrics"));
        let text = text.expect("/metrics answers").body;
        let is_metric =
            |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let value =
            |line: &str| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number");
        text.lines().filter(is_metric).map(value).sum()
    }

    /// How many records wait in the spool.
    pub(crate) fn backlog(&self) -> u64 {
        self.count("dt_receiver_spool_sink_backlog_records")
    }

    /// Waits until all that was accepted is delivered.
    pub(crate) fn drain(&self) {
        let begun = Instant::now();
        loop {
            let left = self.backlog();
            if left == 0 {
                return;
            }
            assert!(begun.elapsed() < PATIENCE * 5, "{left} records left: {}", readiness(self.0.admin));
            std::thread::sleep(Duration::from_millis(20));
        }
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
