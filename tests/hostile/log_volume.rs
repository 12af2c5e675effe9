//! The log under attack: few lines, short ones, nothing in them that a terminal obeys, and a line that says how many were
//! left out.

use std::io::{Read, Write};

use serde_json::Value;

use crate::common::Ended;
use crate::events::setting;
use crate::siege::{connect_from, start};

/// A line is never longer.
const LINE: usize = 2048;

fn lines(ended: &Ended) -> Vec<Value> {
    for line in ended.stderr.lines() {
        assert!(line.len() <= LINE, "{} bytes: {line}", line.len());
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
    ended.stderr.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// How many events the lines tell of: themselves, and those that they say were left out.
fn told(lines: &[Value], message: &str) -> u64 {
    let of_kind = lines.iter().filter(|line| line["message"] == message).count();
    let suppressed: u64 = lines.iter().filter_map(|line| line["suppressed"].as_u64()).sum();
    u64::try_from(of_kind).expect("few") + suppressed
}

#[test]
fn refused_requests_make_few_lines() {
    let count = setting("DT_RECEIVER_TEST_HOSTILE_REFUSED", 5000);
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = start(folder.path(), "");
    // Long, with line feeds, escapes and quotes wherever a client can put them.
    // U+009B begins a terminal's commands as ESC does, which hyper takes in no header.
    let odd = "a\u{9b}31m\"\\%0a";
    let token = format!("ey\u{9b}31m\t{}", "x".repeat(6000));
    let request = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {odd}\r\nUser-Agent: {odd}\r\nX-Dt-Signature: {token}\r\nContent-Length: 1\r\n\r\nx"
    );
    let started = std::time::Instant::now();
    let mut connection = connect_from(0, receiver.listen).expect("connected");
    let mut answer = vec![0; 4096];
    let mut refused = 0;
    while refused < count {
        connection.write_all(request.as_bytes()).expect("it reads");
        let length = connection.read(&mut answer).expect("it answers");
        let text = String::from_utf8_lossy(&answer[..length]);
        assert!(text.starts_with("HTTP/1.1 401"), "{text}");
        refused += 1;
    }
    let allowed = 50 + 10 * (started.elapsed().as_secs() + 1) + 10;
    let lines = lines(&receiver.stop());
    assert!(u64::try_from(lines.len()).expect("few") <= allowed, "{} lines, {allowed} allowed", lines.len());
    assert_eq!(told(&lines, "refused"), count, "each is told, by itself or as left out");
    println!("{count} refused requests, {} lines", lines.len());
}

#[test]
fn bad_connections_make_few_lines() {
    let count = setting("DT_RECEIVER_TEST_HOSTILE_CONNECTIONS", 5000);
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = start(folder.path(), "max_connections = 10");
    let started = std::time::Instant::now();
    let mut open = std::collections::VecDeque::new();
    for attacker in 0..count {
        if let Some(mut connection) = connect_from(attacker, receiver.listen) {
            let _written =
                connection.write_all(if attacker % 2 == 0 { b"\x16\x03\x01\x00\x1b[31m" } else { b"G" });
            open.push_back(connection);
        }
        if open.len() > 50 {
            open.pop_front();
        }
    }
    let allowed = 10 + (started.elapsed().as_secs() + 1) + 10;
    let lines = lines(&receiver.stop());
    assert!(u64::try_from(lines.len()).expect("few") <= allowed, "{} lines, {allowed} allowed", lines.len());
    let evicted = told(&lines, "there are many connections; an unused one was closed");
    assert!(evicted > count / 4, "only {evicted} are told");
    println!("{count} bad connections, {} lines", lines.len());
}
