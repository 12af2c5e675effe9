//! A receiver with a configuration that a test rewrites, and how the test learns what became of that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::Receiver;
use crate::events::{body, now};
use crate::sender::{Answer, Sender, readiness};
use dt_receiver::verify::{Secret, Signer, xid};

/// When something that has to happen counts as not happening: far longer than it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The secret of every connector that is not given another.
pub(crate) const SECRET: &str = "first-good-secret";

/// Waits until something holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A folder with a configuration, secrets, data and the sinks' files.
pub(crate) struct Place {
    folder: TempDir,
    mode: &'static str,
}

impl Place {
    pub(crate) fn new(mode: &'static str) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder"), mode };
        place.write("secret-a", SECRET);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    /// The text of a configuration: the top, then sections.
    pub(crate) fn text(&self, top: &str, sections: &[String]) -> String {
        let data = self.path("data");
        format!("mode = '{}'\ndata = '{}'\n{top}\n{}", self.mode, data.display(), sections.join("\n"))
    }

    /// A connector's section.
    pub(crate) fn connector(&self, name: &str, path: &str, more: &str) -> String {
        let secret = self.path("secret-a");
        let secrets = format!("secrets = [{{ label = 'a', file = '{}' }}]", secret.display());
        let secrets = if more.contains("secrets") { String::new() } else { secrets };
        format!("[[connector]]\nname = '{name}'\npath = '{path}'\n{secrets}\n{more}")
    }

    /// A section of a sink that writes the received bytes to a file.
    pub(crate) fn sink(&self, name: &str, file: &str) -> String {
        let path = self.path(file);
        format!("[[sink]]\nname = '{name}'\ntype = 'file'\nformat = 'body'\npath = '{}'", path.display())
    }

    /// One connector at `/`, one file.
    pub(crate) fn plain(&self) -> String {
        self.text("", &[self.connector("default", "/", ""), self.sink("file", "events.ndjson")])
    }

    /// Writes the configuration and starts a receiver that only looks at it when it is told to.
    pub(crate) fn serve(&self, text: &str) -> Served {
        self.serve_watching(text, "0")
    }

    pub(crate) fn serve_watching(&self, text: &str, every: &str) -> Served {
        self.write("dt-receiver.toml", text);
        let config = self.path("dt-receiver.toml");
        Served::start(&config, every)
    }

    /// The ids in files of a sink, in their order.
    pub(crate) fn ids(&self, files: &[&str]) -> Vec<(u64, u64)> {
        let mut ids = Vec::new();
        for file in files {
            let content = fs::read_to_string(self.path(file)).unwrap_or_default();
            assert!(content.is_empty() || content.ends_with('\n'), "{file}: a torn last line");
            ids.extend(content.lines().map(|line| crate::events::parse_id(line).expect("a line of ours")));
        }
        ids
    }
}

/// A running receiver, and how it is asked.
pub(crate) struct Served {
    pub(crate) receiver: Receiver,
}

impl Served {
    pub(crate) fn start(config: &Path, every: &str) -> Self {
        let config = config.to_str().expect("text");
        Self { receiver: Receiver::start(["--config", config, "--watch", every], &[]) }
    }

    /// The value of a metric's only series, or of one with labels as they are printed.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.scrape();
        let line =
            text.lines().find(|line| line.starts_with(series) && line[series.len()..].starts_with(' '));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    pub(crate) fn scrape(&self) -> String {
        let mut admin = Sender::connect(self.receiver.admin).expect("the admin port answers");
        admin.get("/metrics").expect("metrics").body
    }

    pub(crate) fn reloads(&self, outcome: &str) -> u64 {
        let value = self.metric(&format!("dt_receiver_config_reloads_total{{outcome=\"{outcome}\"}}"));
        format!("{value}").parse().expect("a count")
    }

    pub(crate) fn readiness(&self) -> String {
        readiness(self.receiver.admin)
    }

    /// Puts another configuration in the file, tells the receiver, and waits until the outcome was counted.
    pub(crate) fn reload(&self, place: &Place, text: &str, outcome: &str) {
        let counts =
            || ["applied", "unchanged", "invalid", "needs_restart", "refused"].map(|o| self.reloads(o));
        let before = counts();
        place.write("dt-receiver.toml", text);
        let done = self.reloads(outcome);
        self.receiver.signal("HUP");
        until("the reload is counted", || counts() != before);
        assert_eq!(self.reloads(outcome), done + 1, "{outcome}: {} for {text}", self.readiness());
        let successful = if outcome == "applied" || outcome == "unchanged" { 1.0 } else { 0.0 };
        assert_eq!(self.metric("dt_receiver_config_last_reload_successful"), successful);
    }

    /// Takes a configuration that must be taken.
    pub(crate) fn apply(&self, place: &Place, text: &str) {
        self.reload(place, text, "applied");
        assert!(!self.readiness().contains("was not taken"), "{}", self.readiness());
    }

    /// Posts one event.
    pub(crate) fn post(&self, path: &str, device: u64, number: u64, secret: &str) -> Answer {
        let body = body(device, number);
        let mut sender = Sender::connect(self.receiver.listen).expect("it listens");
        sender.post(path, &body, &token(&body, secret)).expect("an answer")
    }
}

/// A token by this secret, of now.
pub(crate) fn token(body: &str, secret: &str) -> String {
    let signer = Signer::secret(Secret::new(secret).expect("not empty"));
    signer.sign(body.as_bytes(), now(), &xid(now(), *b"reloaded")).expect("signed")
}

/// Sends a process one signal many times.
pub(crate) fn signal_often(pid: u32, name: &str, times: u32) {
    let script = format!("i=0; while [ $i -lt {times} ]; do kill -{name} {pid} || exit 1; i=$((i+1)); done");
    assert!(Command::new("sh").args(["-c", &script]).status().expect("a shell").success());
}
