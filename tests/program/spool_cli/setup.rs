//! What the tests of `spool` and `dead` share: an installation in a temporary folder, and requests to its server.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::Receiver;
use bytes::Bytes;
use dt_receiver::clock::SystemClock;
use dt_receiver::log::dead::{DeadLetters, DeadOptions, Expect};
use dt_receiver::record::{DeadLetter, Reason, Routing};
use dt_receiver::verify::VerifiedBy;
use dt_receiver::verify::{Secret, Signer, xid};
use serde_json::Value;

pub(crate) const SECRET: &str = "some-good-secret";
pub(crate) const OTHER: &str = "some-other-secret";

/// A folder with a configuration, its data and its file.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new(more_secrets: &str, more: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        place.configure(more_secrets, more);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn config(&self) -> String {
        self.path("dt-receiver.toml").to_str().expect("text").to_owned()
    }

    pub(crate) fn configure(&self, more_secrets: &str, more: &str) {
        let text = format!(
            "listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\ndata = '{}'\nquarantine_refused = true\n\
             [spool]\nretain = '1h'\nmin_free = 0\n\
             [[connector]]\nname = 'default'\n\
             secrets = [{{ label = 'a', env = 'DT_SIGNATURE_SECRET' }}{more_secrets}]\n\
             headers = {{ x-mine = {{ env = 'DT_SIGNATURE_SECRET' }} }}\n\
             [[sink]]\nname = 'file'\ntype = 'file'\npath = '{}'\nformat = 'body'\n{more}",
            self.path("data").display(),
            self.path("events.ndjson").display()
        );
        fs::write(self.config(), text).expect("written");
    }

    pub(crate) fn configure_direct(&self) {
        self.configure("", "");
        let text = fs::read_to_string(self.config()).expect("read");
        fs::write(self.config(), format!("mode = 'direct'\n{text}")).expect("written");
    }

    pub(crate) fn serve(&self) -> Receiver {
        Receiver::start(["--config", &self.config()], &[("DT_OTHER", OTHER)])
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_dt-receiver"))
            .args(arguments)
            .args(["--config", &self.config()])
            .env("DT_SIGNATURE_SECRET", SECRET)
            .env("DT_OTHER", OTHER)
            .output()
            .expect("runs")
    }

    /// Runs without the environment of the service, as an operator's shell is.
    pub(crate) fn run_bare(&self, arguments: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_dt-receiver"));
        program.args(arguments).args(["--config", &self.config()]).env_clear().output().expect("runs")
    }

    /// Runs with `--json`, and gives the exit code and the object.
    pub(crate) fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.run(&[arguments, &["--json"]].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let object = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (output.status.code().expect("ended"), object)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("events.ndjson")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn wait_for_lines(&self, count: usize) {
        let started = Instant::now();
        while self.lines().len() < count {
            assert!(started.elapsed() < Duration::from_secs(20), "{:?}", self.lines());
            std::thread::yield_now();
        }
        assert_eq!(self.lines().len(), count);
    }

    /// Adds dead letters while no server runs.
    pub(crate) fn dead_letter(&self, letters: Vec<DeadLetter>) {
        let options = DeadOptions::new(Expect::Anything);
        let dead = DeadLetters::open(self.path("data/spool/dead.db"), options, Arc::new(SystemClock));
        dead.expect("opens").add_blocking(letters).expect("stored");
    }

    /// The files of the segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let names = fs::read_dir(self.path("data/spool"))
            .expect("listed")
            .map(|entry| entry.expect("an entry").path());
        let mut paths: Vec<_> =
            names.filter(|path| path.extension().is_some_and(|ending| ending == "log")).collect();
        paths.sort();
        paths
    }

    /// Starts a server that must not start, and returns what it says.
    pub(crate) fn refuses_to_serve(&self) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_dt-receiver"))
            .args(["serve", "--config", &self.config()])
            .env("DT_SIGNATURE_SECRET", SECRET)
            .env("DT_OTHER", OTHER)
            .output()
            .expect("ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        said
    }
}

pub(crate) fn event(id: &str) -> String {
    format!(r#"{{"event":{{"eventId":"{id}","eventType":"touch","data":{{"touch":{{}}}}}}}}"#)
}

/// A letter that a sink rejected.
pub(crate) fn rejected(sink: &str, id: &str) -> DeadLetter {
    let reason = Reason::Rejected { sink: Arc::from(sink) };
    let letter = unreadable(event(id));
    let routing = Routing {
        provenance: VerifiedBy::Secret { label: Arc::from("a") }.into(),
        event_type: "touch".into(),
        project: None,
        device: None,
    };
    DeadLetter {
        reason,
        connector: Arc::from("default"),
        event_id: Some(id.into()),
        routing: Some(routing),
        ..letter
    }
}

pub(crate) fn unreadable(body: String) -> DeadLetter {
    let (nobody, error) = (Arc::from("nobody"), "odd".to_owned());
    DeadLetter::of_request(nobody, Reason::Unreadable, error, 1, Bytes::from(body))
}

/// Sends a body that was signed some time ago, and gives the status.
pub(crate) fn send(address: SocketAddr, secret: &str, body: &str, age: i64) -> u16 {
    send_with(address, secret, body, age, &format!("X-Mine: {SECRET}\r\n"))
}

pub(crate) fn send_with(address: SocketAddr, secret: &str, body: &str, age: i64, headers: &str) -> u16 {
    let now = jiff::Timestamp::now().as_second() - age;
    let signer = Signer::secret(Secret::new(secret).expect("not empty"));
    let token = signer.sign(body.as_bytes(), now, &xid(now, [7; 8])).expect("signed");
    let mut stream = TcpStream::connect(address).expect("connects");
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: localhost\r\n{headers}X-Dt-Signature: {token}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

pub(crate) fn metrics(receiver: &Receiver) -> String {
    let mut stream = TcpStream::connect(receiver.admin).expect("connects");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

/// Three events, and one letter of each kind that comes from a request.
pub(crate) fn fill(place: &Place, receiver: &Receiver) {
    for id in ["one", "two", "three"] {
        assert_eq!(send(receiver.listen, SECRET, &event(id), 0), 200);
    }
    assert_eq!(send(receiver.listen, SECRET, &event("late"), 9000), 401);
    assert_eq!(send(receiver.listen, OTHER, &event("other"), 0), 401);
    assert_eq!(send(receiver.listen, SECRET, "not JSON", 0), 200);
    place.wait_for_lines(3);
    // The lines are there a moment before the sinks' cursors are.
    let started = Instant::now();
    let is_behind = |status: &Value| {
        status["sinks"].as_array().is_none_or(|sinks| sinks.iter().any(|sink| sink["backlog"] != 0))
    };
    loop {
        let (_, status) = place.json(&["spool", "status"]);
        if !is_behind(&status) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{status}");
    }
}

pub(crate) fn letters(place: &Place) -> Value {
    place.json(&["spool", "status"]).1["deadLetters"].clone()
}
