//! `spool` and `dead` against the real program: beside a running server, and with the spool's own lock when there is
//! none.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "helpers of tests may fail loudly"
)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::Receiver;
use dt_receiver::clock::SystemClock;
use dt_receiver::log::dead::{DeadLetters, DeadOptions, Expect};
use dt_receiver::record::{DeadLetter, Reason, Routing};
use dt_receiver::verify::VerifiedBy;
use dt_receiver::verify::{Secret, Signer, xid};
use serde_json::Value;

const SECRET: &str = "some-good-secret";
const OTHER: &str = "some-other-secret";

/// A folder with a configuration, its data and its file.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(more_secrets: &str, more: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        place.configure(more_secrets, more);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> String {
        self.path("dt-receiver.toml").to_str().expect("text").to_owned()
    }

    fn configure(&self, more_secrets: &str, more: &str) {
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

    fn configure_direct(&self) {
        self.configure("", "");
        let text = fs::read_to_string(self.config()).expect("read");
        fs::write(self.config(), format!("mode = 'direct'\n{text}")).expect("written");
    }

    fn serve(&self) -> Receiver {
        Receiver::start(["--config", &self.config()], &[("DT_OTHER", OTHER)])
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_dt-receiver"))
            .args(arguments)
            .args(["--config", &self.config()])
            .env("DT_SIGNATURE_SECRET", SECRET)
            .env("DT_OTHER", OTHER)
            .output()
            .expect("runs")
    }

    /// Runs without the environment of the service, as an operator's shell is.
    fn run_bare(&self, arguments: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_dt-receiver"));
        program.args(arguments).args(["--config", &self.config()]).env_clear().output().expect("runs")
    }

    /// Runs with `--json`, and gives the exit code and the object.
    fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let output = self.run(&[arguments, &["--json"]].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let object = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (output.status.code().expect("ended"), object)
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("events.ndjson")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn wait_for_lines(&self, count: usize) {
        let started = Instant::now();
        while self.lines().len() < count {
            assert!(started.elapsed() < Duration::from_secs(20), "{:?}", self.lines());
            std::thread::yield_now();
        }
        assert_eq!(self.lines().len(), count);
    }

    /// Adds dead letters while no server runs.
    fn dead_letter(&self, letters: Vec<DeadLetter>) {
        let options = DeadOptions::new(Expect::Anything);
        let dead = DeadLetters::open(self.path("data/spool/dead.db"), options, Arc::new(SystemClock));
        dead.expect("opens").add_blocking(letters).expect("stored");
    }

    /// The files of the segments, oldest first.
    fn segments(&self) -> Vec<PathBuf> {
        let names = fs::read_dir(self.path("data/spool"))
            .expect("listed")
            .map(|entry| entry.expect("an entry").path());
        let mut paths: Vec<_> =
            names.filter(|path| path.extension().is_some_and(|ending| ending == "log")).collect();
        paths.sort();
        paths
    }

    /// Starts a server that must not start, and returns what it says.
    fn refuses_to_serve(&self) -> String {
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

fn event(id: &str) -> String {
    format!(r#"{{"event":{{"eventId":"{id}","eventType":"touch","data":{{"touch":{{}}}}}}}}"#)
}

/// A letter that a sink rejected.
fn rejected(sink: &str, id: &str) -> DeadLetter {
    let reason = Reason::Rejected { sink: Arc::from(sink) };
    let letter = unreadable(event(id));
    let routing = Routing {
        verified_by: VerifiedBy::Secret { label: Arc::from("a") },
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

fn unreadable(body: String) -> DeadLetter {
    let (nobody, error) = (Arc::from("nobody"), "odd".to_owned());
    DeadLetter::of_request(nobody, Reason::Unreadable, error, 1, &http::HeaderMap::new(), Bytes::from(body))
}

/// Sends a body that was signed some time ago, and gives the status.
fn send(address: SocketAddr, secret: &str, body: &str, age: i64) -> u16 {
    send_with(address, secret, body, age, &format!("X-Mine: {SECRET}\r\n"))
}

fn send_with(address: SocketAddr, secret: &str, body: &str, age: i64, headers: &str) -> u16 {
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

fn metrics(receiver: &Receiver) -> String {
    let mut stream = TcpStream::connect(receiver.admin).expect("connects");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

/// Three events, and one letter of each kind that comes from a request.
fn fill(place: &Place, receiver: &Receiver) {
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

fn letters(place: &Place) -> Value {
    place.json(&["spool", "status"]).1["deadLetters"].clone()
}

#[test]
fn a_running_server_is_looked_at_and_repaired() {
    let place = Place::new("", "");
    let receiver = place.serve();
    fill(&place, &receiver);

    let (code, status) = place.json(&["spool", "status"]);
    assert_eq!(code, 0);
    assert_eq!((&status["records"], &status["lastSeq"]), (&3.into(), &3.into()), "{status}");
    let sink = &status["sinks"][0];
    assert_eq!((sink["name"].as_str(), &sink["backlog"]), (Some("file"), &0.into()), "{status}");
    let kinds = serde_json::json!({"damaged": 0, "expired": 1, "refused": 1, "rejected": 0, "unreadable": 1});
    assert_eq!(status["deadLetters"], kinds);
    let said = place.run(&["spool", "status"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("dead letters  1 expired, 1 refused"), "{said:?}");
    assert_eq!(place.json(&["spool", "check"]), (0, serde_json::json!({"ok": true, "findings": []})));
    let exported = place.run(&["spool", "export", "--format", "body", "--since", "1h"]);
    assert_eq!(String::from_utf8_lossy(&exported.stdout).lines().count(), 3, "{exported:?}");
    let exported = place.run(&["spool", "export", "--sink", "file"]);
    assert_eq!((exported.status.code(), exported.stdout.len()), (Some(0), 0), "{exported:?}");

    let shown = place.run(&["spool", "show", "2"]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("an object");
    assert_eq!(
        (&shown["seq"], &shown["envelope"]["event"]["eventId"]),
        (&2.into(), &"two".into()),
        "{shown}"
    );
    assert_eq!(shown["sinks"], serde_json::json!([{"name": "file", "delivered": true}]));
    assert!(
        shown["headerNames"].as_array().is_some_and(|names| names.iter().any(|name| name == "x-mine")),
        "{shown}"
    );
    assert_eq!(place.run(&["spool", "show", "99"]).status.code(), Some(1));

    let (code, shown) = place.json(&["dead", "show", "--reason", "unreadable"]);
    assert_eq!((code, shown["letters"][0]["body"].as_str()), (0, Some("not JSON")), "{shown}");
    let (_, listed) = place.json(&["dead", "list", "--limit", "2"]);
    assert_eq!(listed["letters"].as_array().map(Vec::len), Some(2));
    assert_eq!(listed["next"], listed["letters"][1]["id"]);
    let id = listed["letters"][0]["id"].to_string();
    assert_eq!(place.run(&["dead", "show", "--id", &id]).status.code(), Some(0));
    assert_eq!(place.run(&["dead", "show", "--id", "999"]).status.code(), Some(1));
    assert_eq!(place.run(&["dead", "list", "--reason", "nonsense"]).status.code(), Some(2));

    // An expired one comes in as if it had come in time, the required header or not; a second time it is gone.
    let (code, report) = place.json(&["dead", "replay", "--reason", "expired"]);
    assert_eq!((code, &report["accepted"]), (0, &1.into()), "{report}");
    place.wait_for_lines(4);
    assert_eq!(place.lines()[3], event("late"));
    // What fails again stays, and is counted.
    let (code, report) = place.json(&["dead", "replay", "--reason", "unreadable"]);
    assert_eq!((code, &report["failed"]), (1, &1.into()), "{report}");
    let (code, report) = place.json(&["dead", "replay", "--reason", "refused"]);
    assert_eq!((code, &report["skipped"]), (1, &1.into()), "{report}");
    let (code, report) = place.json(&["dead", "replay", "--reason", "refused", "--reverify"]);
    assert_eq!((code, &report["failed"]), (1, &1.into()), "{report}");
    let (_, listed) = place.json(&["dead", "list", "--reason", "refused"]);
    assert_eq!(listed["letters"][0]["replays"], 1, "{listed}");
    assert!(listed["letters"][0]["error"].as_str().is_some_and(|text| text.contains("signature_mismatch")));

    // Dropping everything has to be said in so many words.
    assert_eq!(place.run(&["dead", "drop"]).status.code(), Some(2));
    let (code, report) = place.json(&["dead", "drop", "--reason", "unreadable"]);
    assert_eq!((code, &report["dropped"]), (0, &1.into()), "{report}");

    let (code, report) = place.json(&["spool", "replay", "--since", "1h", "--sink", "file"]);
    assert_eq!((code, &report["records"]), (0, &4.into()), "{report}");
    place.wait_for_lines(8);
    assert_eq!(place.lines()[4..], place.lines()[..4]);
    assert_eq!(place.run(&["spool", "replay", "--since", "1h", "--sink", "nobody"]).status.code(), Some(2));
    let refused = place.run(&["spool", "forget", "file", "--yes"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let refused = place.run(&["spool", "repair"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another process"), "{refused:?}");

    let text = metrics(&receiver);
    for line in [
        "dt_receiver_spool_sink_backlog_records{sink=\"file\"} 0",
        "dt_receiver_spool_sink_oldest_seconds{sink=\"file\"} 0",
        "dt_receiver_spool_dead_letters{reason=\"refused\"} 1",
        "dt_receiver_clock_skew_seconds{connector=\"default\"} ",
        "dt_receiver_spool_commit_duration_seconds_count ",
        "dt_receiver_spool_used_bytes ",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    let socket = place.path("data/spool/control.sock");
    assert_eq!(fs::metadata(&socket).expect("there").permissions().mode() & 0o777, 0o600);

    // The secret was wrong here, and is corrected: what was refused comes in.
    receiver.stop();
    assert!(!socket.exists());
    place.configure(", { label = 'b', env = 'DT_OTHER' }", "");
    let receiver = place.serve();
    let (code, report) = place.json(&["dead", "replay", "--reverify"]);
    assert_eq!((code, &report["accepted"]), (0, &1.into()), "{report}");
    place.wait_for_lines(9);
    assert_eq!(place.lines()[8], event("other"));
    assert!(letters(&place).as_object().is_some_and(|kinds| kinds.values().all(|count| *count == 0)));
    assert!(receiver.stop().status.success());
}

#[test]
fn a_spool_without_a_server_is_repaired_and_the_next_start_goes_on() {
    let place = Place::new("", "[[sink]]\nname = 'old'\ntype = 'stdout'\n");
    let receiver = place.serve();
    fill(&place, &receiver);
    receiver.kill();
    let socket = place.path("data/spool/control.sock");
    assert!(socket.exists(), "a killed server leaves it");
    place.configure("", "");

    let (code, status) = place.json(&["spool", "status"]);
    assert_eq!((code, &status["records"]), (0, &3.into()), "{status}");
    let configured = |sink: &Value| (sink["name"].clone(), sink["configured"].clone());
    let sinks: Vec<_> = status["sinks"].as_array().into_iter().flatten().map(configured).collect();
    assert_eq!(sinks, [("file".into(), true.into()), ("old".into(), false.into())]);
    let told = place.run(&["spool", "forget", "old"]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains("say --yes"), "{told:?}");
    let (code, _) = place.json(&["spool", "forget", "old", "--yes"]);
    assert_eq!(code, 0);
    assert_eq!(place.run(&["spool", "forget", "old", "--yes"]).status.code(), Some(2));

    place.dead_letter(vec![rejected("file", "odd"), rejected("gone", "strange")]);
    let (code, report) = place.json(&["dead", "replay", "--reason", "rejected"]);
    assert_eq!((code, &report["queued"], &report["skipped"]), (1, &1.into(), &1.into()), "{report}");
    let (code, report) = place.json(&["dead", "replay", "--reason", "expired"]);
    assert_eq!((code, &report["accepted"]), (0, &1.into()), "{report}");
    let (_, report) = place.json(&["spool", "replay", "--since", "1970-01-01T00:00:00Z", "--sink", "file"]);
    assert_eq!(report["records"], 3, "{report}");
    assert_eq!(place.json(&["spool", "check"]), (0, serde_json::json!({"ok": true, "findings": []})));

    let receiver = place.serve();
    place.wait_for_lines(3 + 3 + 1 + 1);
    let lines = place.lines();
    assert_eq!(lines.iter().filter(|line| **line == event("late")).count(), 1, "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains("odd")).count(), 1, "{lines:?}");
    // The letter left for the log, from which its sink gets it until it takes it; the other one stays.
    let (_, left) = place.json(&["dead", "list", "--reason", "rejected"]);
    assert_eq!(left["letters"].as_array().map(Vec::len), Some(1), "{left}");
    assert_eq!(left["letters"][0]["sink"], "gone", "{left}");
    // The server has replaced the socket.
    assert_eq!(place.run(&["dead", "drop", "--sink", "gone"]).status.code(), Some(0));
    assert!(receiver.stop().status.success());
}

#[test]
fn many_letters_are_done_in_steps_with_a_server_and_without() {
    let place = Place::new("", "");
    let fill = || place.dead_letter((0..600).map(|number| unreadable(format!("{{{number}}}"))).collect());
    place.serve().stop();
    fill();
    let (code, listed) = place.json(&["dead", "list", "--limit", "250"]);
    assert_eq!((code, &listed["next"]), (0, &250.into()), "{listed}");
    let replay_and_drop = || {
        let (code, report) = place.json(&["dead", "replay"]);
        assert_eq!((code, &report["skipped"]), (1, &600.into()), "{report}");
        assert!(
            report["notes"][0].as_str().is_some_and(|note| note.contains("no connector nobody")),
            "{report}"
        );
        let (code, report) = place.json(&["dead", "drop", "--reason", "unreadable"]);
        assert_eq!((code, &report["dropped"]), (0, &600.into()), "{report}");
    };
    replay_and_drop();
    fill();
    let receiver = place.serve();
    replay_and_drop();
    assert_eq!(place.json(&["spool", "check"]).0, 0);
    assert!(receiver.stop().status.success());
}

#[test]
fn in_mode_direct_dead_letters_are_listed_and_dropped_and_mode_spool_replays_them() {
    let place = Place::new("", "");
    place.configure_direct();
    let receiver = place.serve();
    assert!(place.refuses_to_serve().contains("another process uses this spool"));
    assert_eq!(send(receiver.listen, SECRET, "no JSON", 0), 200);
    assert_eq!(send(receiver.listen, SECRET, &event("late"), 9000), 401);
    assert_eq!(send(receiver.listen, OTHER, &event("refused"), 0), 401);
    let reasons = || {
        let listed = place.json(&["dead", "list"]).1["letters"].clone();
        let reasons = listed.as_array().into_iter().flatten().map(|letter| letter["reason"].clone());
        reasons.collect::<Vec<_>>()
    };
    assert_eq!(reasons(), ["unreadable", "expired", "refused"]);
    assert!(metrics(&receiver).contains("dt_receiver_spool_dead_letters{reason=\"refused\"} 1"));
    let shown = place.run(&["dead", "show", "--id", "1"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("no JSON"), "{shown:?}");
    let refused = |arguments: &[&str]| {
        let refused = place.run(arguments);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("mode `direct` has no log") && said.contains("dead replay"), "{said}");
    };
    refused(&["dead", "replay", "--reason", "expired"]);
    refused(&["spool", "status"]);
    let (code, report) = place.json(&["dead", "drop", "--reason", "unreadable"]);
    assert_eq!((code, &report["dropped"]), (0, &1.into()), "{report}");
    assert_eq!(send(receiver.listen, SECRET, "no JSON either", 0), 200);
    receiver.kill();
    refused(&["dead", "replay"]);
    assert_eq!(reasons(), ["expired", "refused", "unreadable"]);
    let (code, report) = place.json(&["dead", "drop", "--id", "4"]);
    assert_eq!((code, &report["dropped"]), (0, &1.into()), "{report}");
    let names = || fs::read_dir(place.path("data/spool")).expect("listed").count();
    assert!(place.segments().is_empty() && names() <= 4, "no tool makes a log");

    place.configure(", { label = 'b', env = 'DT_OTHER' }", "");
    let receiver = place.serve();
    let (code, report) = place.json(&["dead", "replay", "--reverify"]);
    assert_eq!((code, &report["accepted"]), (0, &2.into()), "{report}");
    place.wait_for_lines(2);
    assert_eq!(place.lines(), [event("late"), event("refused")]);
    assert_eq!(send(receiver.listen, SECRET, "no JSON", 0), 200);
    assert!(receiver.stop().status.success());

    // The log that is there now knows of the dead letters.
    place.configure_direct();
    fs::rename(place.path("data/spool/dead.db"), place.path("dead.db")).expect("moved");
    let said = place.refuses_to_serve();
    assert!(said.contains("dead.db: missing, though the log knows of dead letters"), "{said}");
    fs::rename(place.path("dead.db"), place.path("data/spool/dead.db")).expect("moved");
    assert!(place.serve().stop().status.success());
}

/// Of a request that was refused for a required header, the header's value was not kept: only an operator can say that the
/// signature is enough.
#[test]
fn what_lacked_a_required_header_comes_in_only_where_that_is_said() {
    let place = Place::new("", "");
    let receiver = place.serve();
    assert_eq!(send_with(receiver.listen, SECRET, &event("bare"), 0, ""), 401);
    let (code, report) = place.json(&["dead", "replay", "--reverify"]);
    assert_eq!((code, &report["accepted"], &report["skipped"]), (1, &0.into(), &1.into()), "{report}");
    assert!(report["notes"].to_string().contains("--ignore-required-headers"), "{report}");
    assert_eq!(place.run(&["dead", "replay", "--ignore-required-headers"]).status.code(), Some(2));
    let (code, report) = place.json(&["dead", "replay", "--reverify", "--ignore-required-headers"]);
    assert_eq!((code, &report["accepted"]), (0, &1.into()), "{report}");
    place.wait_for_lines(1);
    assert!(receiver.stop().status.success());
}

#[test]
fn mode_direct_tells_of_events_that_the_spool_still_owes() {
    let place = Place::new("", "");
    let behind = format!(
        "[[sink]]\nname = 'behind'\ntype = 'file'\npath = '{}/{{connector}}'\nformat = 'body'\n",
        place.path("out").display()
    );
    place.configure("", &behind);
    // A folder in the place of its file: the event stays in the spool.
    fs::create_dir_all(place.path("out/default")).expect("made");
    let receiver = place.serve();
    assert_eq!(send(receiver.listen, SECRET, &event("one"), 0), 200);
    place.wait_for_lines(1);
    assert!(receiver.stop().status.success());

    let told = "the spool has events that are not delivered, and mode `direct` does not deliver them";
    place.configure_direct();
    let said = place.serve().stop().stderr;
    assert!(said.contains(told) && said.contains("\"behind\"") && !said.contains("\"file\""), "{said}");
    place.configure("", &behind);
    fs::remove_dir(place.path("out/default")).expect("removed");
    let receiver = place.serve();
    let started = Instant::now();
    while !fs::read_to_string(place.path("out/default")).is_ok_and(|text| text.ends_with('\n')) {
        assert!(started.elapsed() < Duration::from_secs(20), "the event is not delivered");
        std::thread::yield_now();
    }
    assert!(receiver.stop().status.success());
    place.configure_direct();
    let said = place.serve().stop().stderr;
    assert!(!said.contains(told), "{said}");
}

#[test]
fn trouble_is_told_with_the_path_and_the_cure() {
    let place = Place::new("", "");
    let nothing = place.run(&["spool", "status"]);
    assert_eq!(nothing.status.code(), Some(2));
    let said = String::from_utf8_lossy(&nothing.stderr);
    assert!(said.contains("data/spool") && said.contains("--data"), "{said}");

    let receiver = place.serve();
    assert_eq!(send(receiver.listen, SECRET, &event("one"), 0), 200);
    place.wait_for_lines(1);
    // A server whose socket somebody removed still has the lock.
    fs::remove_file(place.path("data/spool/control.sock")).expect("removed");
    let locked = place.run(&["dead", "drop", "--reason", "expired"]);
    assert_eq!(locked.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&locked.stderr).contains("another process"), "{locked:?}");
    receiver.kill();

    // An event that the disk damaged, before others.
    let receiver = place.serve();
    for id in ["two", "spoilt", "three"] {
        assert_eq!(send(receiver.listen, SECRET, &event(id), 0), 200);
    }
    place.wait_for_lines(4);
    receiver.kill();
    for path in place.segments() {
        let mut bytes = fs::read(&path).expect("read");
        if let Some(at) = bytes.windows(6).position(|found| found == b"spoilt") {
            bytes[at] ^= 1;
            fs::write(&path, bytes).expect("written");
        }
    }
    let (code, checked) = place.json(&["spool", "check"]);
    assert_eq!(code, 1);
    let is_named =
        |finding: &Value| finding.as_str().is_some_and(|text| text.contains("event 3 cannot be read"));
    assert!(checked["findings"].as_array().is_some_and(|found| found.iter().any(is_named)), "{checked}");
    for finding in checked["findings"].as_array().expect("a list") {
        let text = finding.as_str().expect("text");
        assert!(text.contains("dead list --reason damaged") && text.contains("event history"), "{text}");
    }
    let exported = place.run(&["spool", "export", "--format", "body"]);
    assert_eq!(exported.status.code(), Some(1), "{exported:?}");
    assert_eq!(String::from_utf8_lossy(&exported.stdout).lines().count(), 3, "{exported:?}");

    fs::write(place.path("data/spool/spool.db"), "").expect("written");
    let said = place.refuses_to_serve();
    assert!(said.contains("spool.db") && said.contains("unreleased edition"), "{said}");
    fs::remove_file(place.path("data/spool/spool.lock")).expect("removed");
    let status = place.run(&["spool", "status"]);
    assert!(String::from_utf8_lossy(&status.stderr).contains("unreleased edition"), "{status:?}");
}

#[test]
fn a_spool_that_does_not_open_is_repaired_and_nothing_is_removed() {
    let place = Place::new("", "");
    for id in ["one", "two"] {
        let receiver = place.serve();
        assert_eq!(send(receiver.listen, SECRET, &event(id), 0), 200);
        receiver.stop();
    }
    place.wait_for_lines(2);
    assert_eq!(place.json(&["spool", "repair"]).0, 0, "no repair is necessary");
    let segments = place.segments();
    assert!(segments.len() >= 2, "{segments:?}");
    fs::rename(&segments[0], place.path("lost")).expect("moved");
    fs::write(place.path("data/spool/dead.db"), "no database").expect("written");

    let said = place.refuses_to_serve();
    assert!(said.contains("segments 1 to 1 are missing") && said.contains("spool repair"), "{said}");
    let status = place.run(&["spool", "status"]);
    assert_eq!(status.status.code(), Some(2), "{status:?}");
    let (code, proposed) = place.json(&["spool", "repair"]);
    assert_eq!((code, &proposed["done"]), (1, &false.into()), "{proposed}");
    assert_eq!(place.segments(), segments[1..], "nothing was done");
    let told = place.run(&["spool", "repair"]);
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(text.contains("go on without the oldest segments, 1 to 1"), "{text}");
    let (code, done) = place.json(&["spool", "repair", "--yes"]);
    assert_eq!((code, &done["done"]), (0, &true.into()), "{done}");
    assert_eq!(done["steps"], proposed["steps"]);
    assert_eq!(fs::read(place.path("data/spool/dead.db.set-aside-1")).expect("kept"), b"no database");

    let receiver = place.serve();
    assert_eq!(send(receiver.listen, SECRET, &event("three"), 0), 200);
    place.wait_for_lines(3);
    assert!(receiver.stop().status.success());
    assert_eq!(place.lines(), [event("one"), event("two"), event("three")]);
    assert_eq!(place.json(&["spool", "check"]).0, 0);
}

#[test]
fn a_spool_is_looked_at_without_the_secrets_of_the_configuration() {
    let place = Place::new(", { label = 'b', file = '/not/there' }", "");
    place.configure("", "");
    let receiver = place.serve();
    assert_eq!(send(receiver.listen, SECRET, &event("one"), 0), 200);
    place.wait_for_lines(1);
    let config = fs::read_to_string(place.config()).expect("read");
    let config = config.replace("admin = '127.0.0.1:0'", &format!("admin = '{}'", receiver.admin));
    // A file that only the service can read.
    let config = config.replace("}]\nheaders", "}, { label = 'b', file = '/not/there' }]\nheaders");
    fs::write(place.config(), config).expect("written");
    let commands: [&[&str]; 5] =
        [&["health"], &["spool", "status"], &["spool", "check"], &["spool", "export"], &["dead", "list"]];
    for command in commands {
        let output = place.run_bare(command);
        assert_eq!(output.status.code(), Some(0), "{command:?}: {output:?}");
    }
    receiver.kill();
    // What verifies again without a server needs them.
    let output = place.run_bare(&["dead", "replay", "--reason", "refused", "--reverify"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("DT_SIGNATURE_SECRET is not set") && said.contains("/not/there"), "{said}");
    // Other mistakes are still told.
    let config = fs::read_to_string(place.config()).expect("read");
    fs::write(place.config(), format!("lisen = 1\n{config}")).expect("written");
    let output = place.run_bare(&["spool", "status"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("lisen"), "{output:?}");
}

/// Runs the program as a user who may not read a folder, and gives what it complains of; `None` where there is no such user.
fn run_as_another(arguments: &[&str]) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permitted");
    // Where the build is, others may not be able to look.
    let copy = folder.path().join("dt-receiver");
    fs::copy(env!("CARGO_BIN_EXE_dt-receiver"), &copy).expect("copied");
    let mut program = if reads_everything() {
        let is_there =
            Command::new("setpriv").arg("--version").output().is_ok_and(|run| run.status.success());
        if !is_there {
            eprintln!("left out for want of setpriv: a spool of another user");
            return None;
        }
        let mut program = Command::new("setpriv");
        program.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
        program
    } else {
        Command::new(&copy)
    };
    let output = program.args(arguments).current_dir("/").output().expect("runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    Some(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Whether this process may read everything: it owns a folder of its own that nobody may.
fn reads_everything() -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o000)).expect("forbidden");
    let is_root = fs::read_dir(folder.path()).is_ok();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("permitted");
    is_root
}

#[test]
fn a_spool_that_may_not_be_looked_at_is_not_taken_for_none() {
    let place = Place::new("", "");
    place.serve().stop();
    fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o755)).expect("permitted");
    let data = place.path("data");
    let text = data.to_str().expect("text");
    for forbidden in [data.clone(), data.join("spool")] {
        fs::set_permissions(&forbidden, fs::Permissions::from_mode(0o000)).expect("forbidden");
        for command in ["status", "check"] {
            let Some(said) = run_as_another(&["spool", command, "--data", text]) else { return };
            assert!(said.to_lowercase().contains("permission denied"), "{said}");
            assert!(
                !said.contains("there is no spool") && said.contains("run the command as the owner"),
                "{said}"
            );
        }
        fs::set_permissions(&forbidden, fs::Permissions::from_mode(0o755)).expect("permitted");
    }
}
