//! A client that says exactly what a test wants said, byte for byte, and reads replies without help from hyper.

use std::net::SocketAddr;
use std::time::Duration;

use dt_receiver::verify::{DT_ISSUER, Signer};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{KEY_ID, NOW, ORGANIZATION, SECRET, SINK_ERROR};

/// When a test counts as hanging. Nothing that a test expects comes anywhere near it.
const HANGING: Duration = Duration::from_secs(30);

/// Ends a test that would hang.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANGING, future).await.expect("it hangs")
}

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within(TcpStream::connect(address)).await.expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.stream.write_all(bytes.as_ref())).await.expect("it takes what is sent");
    }

    /// Sends what the peer may well refuse to read; gives whether it took all.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within(self.stream.write_all(bytes.as_ref())).await.is_ok()
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("an open socket");
    }

    /// Goes away without a goodbye: the peer sees a reset.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("a socket");
    }

    /// Reads one reply.
    pub(crate) async fn reply(&mut self) -> Reply {
        self.try_reply(true).await.expect("a reply, not the connection's end")
    }

    /// Reads one reply to a HEAD: it has no body, whatever its length says.
    pub(crate) async fn reply_to_head(&mut self) -> Reply {
        self.try_reply(false).await.expect("a reply, not the connection's end")
    }

    /// Sends a request and reads its reply.
    pub(crate) async fn ask(&mut self, request: impl AsRef<[u8]>) -> Reply {
        self.send(request).await;
        self.reply().await
    }

    /// Reads one reply; `None` when the connection ended before its first byte.
    pub(crate) async fn maybe_reply(&mut self) -> Option<Reply> {
        self.try_reply(true).await
    }

    /// Reads to the end of the connection, orderly or not, and gives what came before it.
    pub(crate) async fn rest(mut self) -> Vec<u8> {
        while self.more().await {}
        self.read
    }

    async fn try_reply(&mut self, has_body: bool) -> Option<Reply> {
        let end = loop {
            match find(&self.read, b"\r\n\r\n") {
                Some(end) => break end + 4,
                None if self.more().await => {}
                None if self.read.is_empty() => return None,
                None => panic!("half a reply: {}", String::from_utf8_lossy(&self.read)),
            }
        };
        let mut reply = Reply::of_head(&self.read[..end]);
        let informational = (100..200).contains(&reply.status);
        let length = match reply.header("content-length") {
            Some(length) if has_body && !informational => length.parse().expect("a length"),
            _ => 0,
        };
        while self.read.len() < end + length {
            assert!(self.more().await, "half a body: {}", String::from_utf8_lossy(&self.read));
        }
        reply.body = self.read[end..end + length].to_vec();
        self.read.drain(..end + length);
        reply.must_tell_nothing();
        Some(reply)
    }

    /// Reads what has come; false at the connection's end.
    async fn more(&mut self) -> bool {
        match within(self.stream.read_buf(&mut self.read)).await {
            Ok(0) | Err(_) => false,
            Ok(_) => true,
        }
    }
}

/// Opens a connection for one request.
pub(crate) async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Reply {
    Client::connect(address).await.ask(request).await
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    fn of_head(head: &[u8]) -> Self {
        let head = String::from_utf8(head.to_vec()).expect("a head in ASCII");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        Self { status, head, body: Vec::new() }
    }

    /// The value of a header; none may come twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim());
        let value = values.next();
        assert!(values.next().is_none(), "two headers {name}: {}", self.head);
        value
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {} {}", self.head, String::from_utf8_lossy(&self.body)))
    }

    /// The outcome's stable name.
    pub(crate) fn code(&self) -> String {
        let json = self.json();
        let member = if self.status == 200 { "status" } else { "code" };
        json[member].as_str().expect("a code").to_owned()
    }

    pub(crate) fn is(&self, status: u16, code: &str) -> bool {
        self.status == status && self.code() == code
    }

    /// Holds the reply against the status table: the status, the code, and the headers that go with them.
    #[track_caller]
    pub(crate) fn must_be(&self, status: u16, code: &str) -> &Self {
        assert!(self.is(status, code), "not {status} {code} but {} {}", self.head, self.json());
        let media_type = if status == 200 { "application/json" } else { "application/problem+json" };
        assert_eq!(self.header("content-type"), Some(media_type), "{}", self.head);
        if status != 200 {
            assert_eq!(self.json()["status"], status, "the body's status is that of the reply");
            assert!(self.json()["title"].is_string(), "a title for humans");
        }
        let retry_after = self.header("retry-after").map(|seconds| seconds.parse::<u32>().expect("seconds"));
        assert_eq!(retry_after.is_some(), status == 503, "Retry-After goes with 503: {}", self.head);
        assert!(retry_after.is_none_or(|seconds| (1..=60).contains(&seconds)), "{}", self.head);
        assert_eq!(self.header("allow"), (status == 405).then_some("POST"), "{}", self.head);
        self
    }

    pub(crate) fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    fn must_tell_nothing(&self) {
        let text = format!("{}{}", self.head, String::from_utf8_lossy(&self.body));
        if let Some(told) = what_is_told(&text) {
            panic!("a reply tells {told:?}: {text}");
        }
        // hyper's own have neither.
        assert_eq!(self.header("x-request-id").is_some(), self.header("content-type").is_some(), "{text}");
    }
}

/// What a text shows of things that no sender needs to know: secrets, paths, our organization and issuer, what a sink
/// or a library says.
fn what_is_told(text: &str) -> Option<&'static str> {
    const NEVER: [&str; 34] = [
        SECRET,
        ORGANIZATION,
        DT_ISSUER,
        KEY_ID,
        SINK_ERROR,
        // The secrets and the required values of the vectors.
        "test-only",
        "blåbærsyltetøy",
        "0123456789abcdef0123456789abcdef",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ_",
        "dGVzdC1vbmx5",
        "my-value",
        "Blue Team",
        "data-connector",
        "test-es256",
        // Paths and names of ours.
        "/tmp",
        "/work",
        "src/",
        "dead.db",
        "sqlite",
        // What libraries and the system say.
        "os error",
        "No such file",
        "Not a directory",
        "Permission",
        "line 1",
        "column",
        "expected value",
        "serde",
        "hyper",
        "tokio",
        "jsonwebtoken",
        "InvalidSignature",
        "Base64",
        "panicked",
        "dt-receiver",
    ];
    NEVER.into_iter().find(|never| text.contains(never))
}

/// A request with these headers, and a length.
pub(crate) fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = head(method, target, headers, &format!("Content-Length: {}", body.len()));
    bytes.extend_from_slice(body);
    bytes
}

/// The same with a body in chunks.
pub(crate) fn chunked<'a>(
    target: &str,
    headers: &[(&str, &str)],
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut bytes = head("POST", target, headers, "Transfer-Encoding: chunked");
    for chunk in chunks {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// A head, with one more line for the framing.
pub(crate) fn head(method: &str, target: &str, headers: &[(&str, &str)], framing: &str) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(framing);
    head.push_str("\r\n\r\n");
    head.into_bytes()
}

/// The token that DT would send with a body now.
pub(crate) fn token(body: impl AsRef<[u8]>) -> String {
    token_at(body, NOW)
}

/// The same at another time, in Unix seconds.
pub(crate) fn token_at(body: impl AsRef<[u8]>, issued_at: i64) -> String {
    let secret = dt_receiver::verify::Secret::new(SECRET).expect("not empty");
    Signer::secret(secret).sign(body.as_ref(), issued_at, "c82gg99hga35jc2afkeg").expect("a token")
}

/// What DT would send to a path now.
pub(crate) fn push_to(path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let token = token(body.as_ref());
    request("POST", path, &[("X-Dt-Signature", &token), ("Content-Type", "application/json")], body)
}

/// What DT would send now.
pub(crate) fn push(body: impl AsRef<[u8]>) -> Vec<u8> {
    push_to("/", body)
}

#[test]
fn a_reply_that_tells_too_much_is_noticed() {
    for told in [SECRET, ORGANIZATION, "/tmp/x", "No such file or directory (os error 2)"] {
        let mut reply = Reply::of_head(b"HTTP/1.1 401 Unauthorized\r\n\r\n");
        reply.body = format!(r#"{{"code":"expired","detail":"{told}"}}"#).into_bytes();
        assert!(std::panic::catch_unwind(|| reply.must_tell_nothing()).is_err(), "{told} went unnoticed");
    }
}
