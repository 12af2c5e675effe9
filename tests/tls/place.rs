//! A folder of a test's own with a receiver's configuration and certificate, and how to wait for what it does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::authority::{Authority, Pair};
use crate::common::Receiver;
use crate::sender::Sender;

/// How long to wait for something: far longer than it takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The configuration of a certificate that is looked at often.
pub(crate) const TLS: &str = "[tls]\ncertificate = 'cert.pem'\nkey = 'key.pem'\ncheck_interval = '10ms'\n";

/// A folder.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    /// With a good certificate, and what signed it.
    pub(crate) fn with_certificate() -> (Self, Authority) {
        let (place, authority) = (Self::new(), Authority::new());
        place.install(&authority.good(1));
        place.write("ca.pem", &authority.pem);
        (place, authority)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("text").to_owned()
    }

    /// Writes a file in one step, as tools do that know that somebody is reading.
    pub(crate) fn write(&self, name: &str, content: &str) {
        write_at(&self.path(name), content);
    }

    /// Writes a pair: the certificate first, so that for a moment the two do not match.
    pub(crate) fn install(&self, pair: &Pair) {
        self.write("cert.pem", &pair.certificate);
        self.write("key.pem", &pair.key);
    }

    /// Writes a configuration; its paths begin here.
    pub(crate) fn configure(&self, root: &str, tables: &str) -> PathBuf {
        let here = |text: &str| {
            let mut text = text.to_owned();
            for name in ["cert.pem", "key.pem", "ca.pem", "clients.pem", "live/cert.pem", "live/key.pem"] {
                text = text.replace(&format!("'{name}'"), &format!("'{}'", self.text(name)));
            }
            text
        };
        let config = format!(
            "data = '{}'\n{}\n{}\n[[connector]]\nname = 'main'\nsecrets = [{{ env = 'DT_SIGNATURE_SECRET' }}]\n",
            self.text("data"),
            here(root),
            here(tables)
        );
        self.write("dt-receiver.toml", &config);
        self.path("dt-receiver.toml")
    }

    /// Starts a receiver with such a configuration, on free ports.
    pub(crate) fn start(&self, root: &str, tables: &str) -> Receiver {
        let config = self.configure(root, tables);
        Receiver::start(["--config".as_ref(), config.as_os_str()], &[])
    }
}

pub(crate) fn write_at(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).expect("written");
    fs::rename(&new, path).expect("renamed");
}

/// Waits until something holds, by asking again and again.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "this never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn metrics(receiver: &Receiver) -> String {
    Sender::connect(receiver.admin)
        .and_then(|mut sender| sender.get("/metrics"))
        .expect("/metrics answers")
        .body
}

/// The value of a metric, with its labels; 0 if it is not there.
pub(crate) fn metric(receiver: &Receiver, name: &str) -> f64 {
    let metrics = metrics(receiver);
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}

/// How many handshakes failed for a reason.
pub(crate) fn failed_handshakes(receiver: &Receiver, reason: &str) -> f64 {
    metric(receiver, &format!("dt_receiver_tls_handshakes_failed_total{{reason=\"{reason}\"}}"))
}

/// How many connections were closed for their PROXY header.
pub(crate) fn refused_headers(receiver: &Receiver, reason: &str) -> f64 {
    metric(receiver, &format!("dt_receiver_proxy_headers_refused_total{{reason=\"{reason}\"}}"))
}

/// The clients that a receiver's log names for refused requests.
pub(crate) fn refused_peers(log: &str) -> Vec<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let refused = lines.filter(|line| line["message"] == "refused");
    refused.map(|line| line["peer"].as_str().unwrap_or("none").to_owned()).collect()
}
