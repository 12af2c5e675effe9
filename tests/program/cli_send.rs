//! `dt-receiver send` against a real `dt-receiver serve`: what goes over the wire, what is told, and the exit codes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Ended, Receiver, SECRET_VARIABLE, program, run, run_command};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// A receiver that writes to a file in a folder of its own.
struct Setup {
    receiver: Receiver,
    folder: TempDir,
}

impl Setup {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sink = format!("file:{}", events(folder.path()).display());
        let data = folder.path().join("data").display().to_string();
        let receiver = Receiver::start(["--data", &data, "--sink", &sink], &[]);
        Self { receiver, folder }
    }

    fn send(&self, args: &[&str]) -> Ended {
        self.send_input(args, b"")
    }

    fn send_input(&self, args: &[&str], input: &[u8]) -> Ended {
        run(["send", "--url", &self.receiver.url("/")].iter().chain(args), input)
    }

    /// Stops the receiver and gives what it has written.
    fn finish(self) -> Vec<Value> {
        let Self { receiver, folder } = self;
        let ended = receiver.stop();
        assert_eq!(ended.code(), 0, "{ended:?}");
        let lines = fs::read_to_string(events(folder.path())).unwrap_or_default();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn events(folder: &Path) -> PathBuf {
    folder.join("events.ndjson")
}

#[test]
fn one_event_is_told_by_its_answer() {
    let setup = Setup::new();
    let ended = setup.send(&["--event", "temperature"]);
    assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""));
    let id = ended.stdout.strip_prefix("200 accepted eventId=").unwrap().trim_end();
    let written = setup.finish();
    assert_eq!(written.len(), 1);
    assert_eq!(written[0]["event"]["eventId"], id);
    assert_eq!(written[0]["event"]["eventType"], "temperature");
}

#[test]
fn each_fault_gets_the_answer_it_asks_for() {
    let setup = Setup::new();
    for (fault, expected) in [
        ("none", "200 accepted eventId="),
        ("tampered", "401 checksum_mismatch\n"),
        ("wrong-secret", "401 signature_mismatch\n"),
        ("expired", "401 expired\n"),
        ("unsigned", "401 signature_missing\n"),
        ("garbage", "401 signature_malformed\n"),
    ] {
        let ended = setup.send(&["--fault", fault]);
        assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""), "{fault}");
        assert!(ended.stdout.starts_with(expected), "{fault}: {}", ended.stdout);
    }
    let ended = setup.send(&["--fault", "duplicate"]);
    assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""));
    let lines: Vec<_> = ended.stdout.lines().map(|line| line.split_once(" eventId=").unwrap()).collect();
    assert_eq!([lines[0].0, lines[1].0], ["200 accepted", "200 duplicate"]);
    assert_eq!(lines[0].1, lines[1].1);
    assert_eq!(setup.finish().len(), 2, "of `none` and `duplicate`");
}

#[test]
fn an_answer_that_is_not_the_right_one_is_exit_code_1() {
    let setup = Setup::new();
    let path = setup.receiver.url("/nowhere");
    let ended = run(["send", "--url", &path], b"");
    assert_eq!((ended.code(), ended.stdout.as_str()), (1, "404 not_found\n"));
    assert!(ended.stderr.contains("expected 2xx"), "{}", ended.stderr);
    // A receiver that took it would be broken; this one refuses it for another reason, which is just as unexpected.
    let ended = run(["send", "--url", &path, "--fault", "garbage", "--json"], b"");
    assert_eq!((ended.code(), &ended.json()["expected"]), (1, &json!(false)));
    assert!(ended.stderr.contains("expected 401"), "{}", ended.stderr);
    assert_eq!(setup.finish().len(), 0);
}

#[test]
fn the_counts_agree_with_what_was_written() {
    let setup = Setup::new();
    let ended = setup.send(&["--count", "200", "--concurrency", "8", "--json"]);
    assert_eq!((ended.code(), ended.stderr.as_str()), (0, ""));
    let report = ended.json();
    assert_eq!(report["sent"], 200);
    assert_eq!(report["answers"], json!({"200 accepted": 200}));
    assert_eq!((&report["errors"], &report["expected"]), (&json!({}), &json!(true)));
    assert!(report["seconds"].as_f64().unwrap() > 0.0 && report["perSecond"].as_f64().unwrap() > 0.0);
    let latency =
        ["p50", "p90", "p99", "p999", "max"].map(|name| report["latencyMs"][name].as_f64().unwrap());
    assert!(latency.is_sorted(), "{report}");

    let ended = setup.send(&["--count", "20", "--concurrency", "4", "--fault", "duplicate", "--json"]);
    assert_eq!(ended.json()["answers"], json!({"200 accepted": 20, "200 duplicate": 20}));
    assert_eq!(ended.json()["sent"], 40);

    let written = setup.finish();
    assert_eq!(written.len(), 220);
    let all =
        |name: &str| -> BTreeSet<_> { written.iter().map(|line| line["event"][name].to_string()).collect() };
    assert_eq!(all("eventId").len(), 220, "every id is another");
    assert_eq!(all("eventType").len(), 19, "types take turns");
}

#[test]
fn a_given_body_is_sent_byte_for_byte() {
    let setup = Setup::new();
    let body = br#"{ "event" : {"eventId":"my-id", "eventType":"smell"}, "labels" : {"n":1.50} }"#;
    let file = setup.folder.path().join("body.json");
    fs::write(&file, body).unwrap();
    let ended = setup.send(&["--body", &file.display().to_string()]);
    assert_eq!((ended.code(), ended.stdout.as_str()), (0, "200 accepted eventId=my-id\n"));
    let ended = setup.send_input(&["--body", "-", "--count", "3", "--json"], body);
    assert_eq!(ended.json()["answers"], json!({"200 duplicate": 3}));
    let path = events(setup.folder.path());
    let written = fs::read_to_string(path).unwrap();
    assert!(written.contains(r#""labels" : {"n":1.50}"#), "{written}");
    assert_eq!(setup.finish().len(), 1);
}

#[test]
fn an_unknown_type_is_sent_with_a_note() {
    let setup = Setup::new();
    let ended = setup.send(&["--event", "smell", "--project", "my-project"]);
    assert_eq!(ended.code(), 0);
    assert!(ended.stderr.contains("note: --event \"smell\""), "{}", ended.stderr);
    let written = setup.finish();
    assert_eq!(written[0]["event"]["eventType"], "smell");
    let target = written[0]["event"]["targetName"].as_str().unwrap();
    assert!(target.starts_with("projects/my-project/devices/emu"), "{target}");
}

#[test]
fn a_rate_keeps_to_its_planned_times() {
    let setup = Setup::new();
    let began = Instant::now();
    let ended = setup.send(&["--count", "21", "--rate", "50", "--concurrency", "4", "--json"]);
    assert_eq!(ended.code(), 0, "{ended:?}");
    // The last of 21 is planned 20/50 s after the first.
    assert!(began.elapsed().as_millis() >= 400);
    assert!(ended.json()["seconds"].as_f64().unwrap() >= 0.4);
    assert_eq!(setup.finish().len(), 21);
}

#[test]
fn a_stalled_receiver_shows_in_the_latencies_of_an_open_loop() {
    // Ten planned within 9 ms, and one connection on which each answer takes 20 ms: the last waits for all before it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for _ in 0..10 {
            read_request(&mut stream);
            thread::sleep(Duration::from_millis(20));
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        }
    });
    let ended = run(["send", "--url", &url, "--count", "10", "--rate", "1000", "--json"], b"");
    server.join().unwrap();
    let report = ended.json();
    assert_eq!((ended.code(), &report["answers"]), (0, &json!({"204": 10})));
    assert!(report["latencyMs"]["max"].as_f64().unwrap() >= 180.0, "{report}");
    assert!(report["latencyMs"]["p50"].as_f64().unwrap() >= 90.0, "{report}");
}

/// Reads the head of a request and as much of a body as it announces.
fn read_request(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

#[test]
fn requests_look_like_those_of_dt() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK").unwrap();
        request
    });
    let url = format!("http://{address}/dt?key=1");
    let ended = run(["send", "--url", &url, "--header", "X-Token=a=b", "--header", "X-Other=c"], b"");
    assert_eq!((ended.code(), ended.stdout.as_str()), (0, "200\n"));
    let (head, body) = server.join().unwrap();
    assert!(head.starts_with("POST /dt?key=1 HTTP/1.1\r\n"), "{head}");
    let host = format!("Host: {address}");
    for line in [&host, "Content-Type: application/json", "X-Token: a=b", "X-Other: c"] {
        assert!(head.lines().any(|header| header == line), "{line} in {head}");
    }
    assert!(head.contains("\r\nX-Dt-Signature: eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."), "{head}");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["event"]["eventType"], "touch");
}

#[test]
fn a_kept_connection_that_was_closed_is_opened_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().unwrap();
            read_request(&mut stream);
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
        }
    });
    let ended = run(["send", "--url", &url, "--count", "3", "--json"], b"");
    server.join().unwrap();
    assert_eq!((ended.code(), &ended.json()["answers"]), (0, &json!({"204": 3})));
}

#[test]
fn where_no_one_listens_it_says_so() {
    // Bound, so that no one else is given the port meanwhile, but not listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let url = format!("http://{address}/");
    for args in [&[] as &[&str], &["--count", "1000"], &["--json"], &["--rate", "5"]] {
        let ended = run(["send", "--url", &url].iter().chain(args), b"");
        assert_eq!(ended.code(), 1, "{ended:?}");
        assert!(ended.stderr.contains(&format!("no process listens at {address}")), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        if args == ["--json"] {
            assert_eq!(ended.json()["errors"], json!({"connection_refused": 1}));
            assert_eq!(ended.json()["latencyMs"], Value::Null);
        }
    }
}

#[test]
fn a_receiver_that_hangs_up_or_talks_nonsense_is_told() {
    for (answer, kind) in [(&b""[..], "connection_lost"), (b"\x15\x03\x01\x00\x02\x02\x28", "not_http")] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            read_request(&mut stream);
            stream.write_all(answer).unwrap();
        });
        let ended = run(["send", "--url", &url, "--json"], b"");
        server.join().unwrap();
        assert_eq!((ended.code(), &ended.json()["errors"]), (1, &json!({kind: 1})), "{}", ended.stderr);
    }
}

#[test]
fn wrong_usage_names_the_flag() {
    for (args, flag, expected) in [
        (&["--url", "ftp://example.com/"] as &[&str], "--url", "http:// or https://"),
        (&["--url", "127.0.0.1:8080"], "--url", "expected http://"),
        (&["--count", "0"], "--count", "whole number from 1"),
        (&["--count", "-1"], "--count", "whole number from 1"),
        (&["--concurrency", "0"], "--concurrency", "from 1 to"),
        (&["--concurrency", "many"], "--concurrency", "from 1 to"),
        (&["--rate", "0"], "--rate", "a number from"),
        (&["--rate", "-1.5"], "--rate", "a number from"),
        (&["--rate", "NaN"], "--rate", "a number from"),
        (&["--rate", "inf"], "--rate", "a number from"),
        (&["--fault", "other"], "--fault", "wrong-secret"),
        (&["--event", ""], "--event", "expected"),
        (&["--project", "a/b"], "--project", "expected letters"),
        (&["--event", "touch", "--body", "-"], "--body", "cannot be used with"),
        (&["--body", "/does/not/exist"], "/does/not/exist", "No such file"),
        (&["--header", "nothing"], "--header", "NAME=VALUE"),
        (&["--header", "X-Dt-Signature=a"], "--header", "--fault"),
        (&["--body", "-", "--fault", "tampered"], "--fault", "is empty"),
        (&["--secret-env", "DT_NO_SUCH_SECRET"], "DT_NO_SUCH_SECRET", "not set"),
    ] {
        let ended = run(["send"].iter().chain(args), b"");
        assert_eq!((ended.code(), ended.stdout.as_str()), (2, ""), "{args:?}");
        assert!(ended.stderr.contains(flag) && ended.stderr.contains(expected), "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn a_secret_is_asked_for_only_where_it_is_needed() {
    let setup = Setup::new();
    let send = |fault: &str| {
        let mut command = program();
        command.env_remove(SECRET_VARIABLE).args([
            "send",
            "--fault",
            fault,
            "--url",
            &setup.receiver.url("/"),
        ]);
        run_command(command, b"")
    };
    let ended = send("none");
    assert_eq!(ended.code(), 2);
    assert!(ended.stderr.contains(SECRET_VARIABLE), "{}", ended.stderr);
    for fault in ["wrong-secret", "unsigned", "garbage"] {
        assert_eq!(send(fault).code(), 0, "{fault}");
    }
}

#[test]
fn help_has_examples_that_name_real_options() {
    let ended = run(["send", "--help"], b"");
    assert_eq!(ended.code(), 0);
    let (options, examples) = ended.stdout.split_once("Examples:").unwrap();
    for word in examples.split_whitespace().filter(|word| word.starts_with("--")) {
        assert!(options.contains(word.trim_end_matches(',')), "{word}");
    }
}
