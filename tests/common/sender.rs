//! A sender that stands in for DT: one connection, one request at a time, and nothing hidden.

#![allow(dead_code, reason = "each test uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::events::{body, now, token};

/// A connection to a receiver.
pub(crate) struct Sender {
    stream: BufReader<TcpStream>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Sender {
    /// Connects; `None` when nobody listens.
    pub(crate) fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_nodelay(true).ok()?;
        // DT gives up at 10 s; a test that waits for longer has failed.
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        Some(Self { stream: BufReader::new(stream) })
    }

    /// Sends an event, signed now; `None` when the connection broke before the answer was whole.
    pub(crate) fn send(&mut self, device: u64, number: u64) -> Option<Answer> {
        let body = body(device, number);
        self.post("/", &body, &token(&body, now()))
    }

    /// Sends a body with its token.
    pub(crate) fn post(&mut self, path: &str, body: &str, token: &str) -> Option<Answer> {
        self.request(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Dt-Signature: {token}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    pub(crate) fn get(&mut self, path: &str) -> Option<Answer> {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    fn request(&mut self, request: &str) -> Option<Answer> {
        self.stream.get_mut().write_all(request.as_bytes()).ok()?;
        let mut line = String::new();
        self.stream.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut length = 0;
        loop {
            line.clear();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let header = line.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        Some(Answer { status, body: String::from_utf8(body).ok()? })
    }
}

/// What `/readyz` says.
pub(crate) fn readiness(admin: SocketAddr) -> String {
    Sender::connect(admin).and_then(|mut sender| sender.get("/readyz")).expect("/readyz answers").body
}

/// The sum of a metric that counts, over its labels, among the series with this text.
pub(crate) fn count(admin: SocketAddr, name: &str, label: &str) -> u64 {
    let text = Sender::connect(admin).and_then(|mut sender| sender.get("/metrics"));
    let text = text.expect("/metrics answers").body;
    let lines = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
    });
    lines.map(|line| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number")).sum()
}
