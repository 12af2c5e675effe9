//! `/metrics` passes `promtool check metrics`. The tool is part of Prometheus; without it (or
//! `DT_RECEIVER_TEST_PROMTOOL`), the test says in one line what it leaves out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use crate::common::Receiver;

fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

#[test]
fn promtool_has_nothing_against_the_metrics() {
    let named = std::env::var("DT_RECEIVER_TEST_PROMTOOL").ok();
    let promtool = named.clone().unwrap_or_else(|| "promtool".to_owned());
    if Command::new(&promtool).arg("--version").output().is_err() {
        assert!(named.is_none(), "{promtool} does not run");
        // Not a print macro: this line is to be seen although the test passes.
        let _said = std::io::stderr()
            .write_all(b"tests/program/promtool.rs leaves out the check of /metrics: needs promtool\n");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = Receiver::start(["--data", folder.path().to_str().expect("text")], &[]);
    // So that there is something in every metric of the way in.
    for fault in ["none", "tampered", "duplicate", "expired"] {
        let url = format!("http://{}/", receiver.listen);
        let sent = Command::new(env!("CARGO_BIN_EXE_dt-receiver"))
            .args(["send", "--url", &url, "--count", "3", "--fault", fault])
            .env("DT_SIGNATURE_SECRET", "some-good-secret")
            .output()
            .expect("send runs");
        assert!(sent.status.success(), "{sent:?}");
    }
    let metrics = get(receiver.admin, "/metrics");
    assert!(metrics.contains(r#"code="200",connector="default",reason="accepted"} 6"#), "{metrics}");
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    check.stdin.take().expect("piped").write_all(metrics.as_bytes()).expect("promtool reads");
    let output = check.wait_with_output().expect("promtool ends");
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{metrics}");
}
