//! A receiver with a sink `http`, as a child process with a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{self, Ended, SECRET};
use crate::sender::{Sender, readiness};

/// How long anything may take before a test has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// The folder and the configuration of a receiver.
pub(crate) struct Setup {
    folder: TempDir,
}

impl Setup {
    /// `url` is that of the target; `sink` are the other keys of the sink.
    pub(crate) fn new(url: &str, sink: &str) -> Self {
        Self::with_sinks(&format!("[[sink]]\nname = 'http'\ntype = 'http'\nurl = '{url}'\n{sink}\n"))
    }

    /// `sinks` are the sections of all sinks, and may name files in the folder by `FOLDER`.
    pub(crate) fn with_sinks(sinks: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().display().to_string();
        let text = format!(
            "data = '{path}/data'\n\
             [[connector]]\nname = 'default'\nsecrets = [{{ label = 'dt', file = '{path}/dt' }}, {{ label = 'ours', file = '{path}/ours' }}]\n{}\n",
            sinks.replace("FOLDER", &path)
        );
        fs::write(folder.path().join("dt"), SECRET).expect("written");
        fs::write(folder.path().join("ours"), "a-secret-of-our-own").expect("written");
        fs::write(folder.path().join("dt-receiver.toml"), text).expect("written");
        Self { folder }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("dt-receiver.toml")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn start(&self) -> Receiver {
        self.start_with(&[])
    }

    /// Starts it with more arguments.
    pub(crate) fn start_with(&self, arguments: &[&str]) -> Receiver {
        let config = self.config();
        let config = config.to_str().expect("text");
        Receiver(common::Receiver::start(
            ["--config", config].into_iter().chain(arguments.iter().copied()),
            &[],
        ))
    }

    /// Its dead letters.
    pub(crate) fn dead_letters(&self) -> Vec<Value> {
        let config = self.config();
        let arguments = ["dead", "list", "--json", "--config", config.to_str().expect("text")];
        let ended = common::run(arguments, b"");
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

    /// Waits until `/readyz` says this, or with `None` that nothing is wrong with the sink.
    pub(crate) fn wait_for_reason(&self, part: Option<&str>) -> String {
        let begun = Instant::now();
        loop {
            let said = readiness(self.0.admin);
            if part.map_or_else(|| !said.contains("sink http"), |part| said.contains(part)) {
                return said;
            }
            assert!(begun.elapsed() < PATIENCE, "not {part:?}, but {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The sum of a metric that counts, over its labels.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let text = Sender::connect(self.0.admin).and_then(|mut sender| sender.get("/metrics"));
        let text = text.expect("/metrics answers").body;
        let lines = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        lines.map(|line| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number")).sum()
    }

    /// Waits until all that was accepted is delivered.
    pub(crate) fn drain(&self) {
        let begun = Instant::now();
        loop {
            let left = self.count("dt_receiver_spool_sink_backlog_records");
            if left == 0 {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{left} records left: {}", readiness(self.0.admin));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn backlog(&self) -> u64 {
        self.count("dt_receiver_spool_sink_backlog_records")
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
