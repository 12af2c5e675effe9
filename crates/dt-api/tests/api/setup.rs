//! Clients, and a server on this machine that gives prepared answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dt_api::{Client, ClientBuilder, Credentials};
use dt_emulator::Emulator;
use dt_verify::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A secret that no output may contain.
pub const SECRET: &str = "hunter2-of-the-key";

pub fn oauth() -> Credentials {
    Credentials::service_account("key", Secret::new(SECRET).unwrap(), "me@example.com")
}

pub fn basic() -> Credentials {
    Credentials::basic("key", Secret::new(SECRET).unwrap())
}

/// Returns a client of an emulator, with OAuth2.
pub fn client_of(cloud: &Emulator) -> Client {
    builder_of(cloud, oauth()).build().unwrap()
}

pub fn builder_of(cloud: &Emulator, credentials: Credentials) -> ClientBuilder {
    Client::builder(credentials).api_url(cloud.api_url()).token_endpoint(cloud.token_endpoint())
}

/// What the server does with a request.
pub enum Reply {
    /// Answers with this status line, headers and body, and closes the connection.
    Send(Vec<u8>),
    /// Sends this, and keeps the connection open; nothing for a server that never answers.
    Open(Vec<u8>),
}

/// Returns an answer with a JSON body.
pub fn json(status: &str, headers: &str, body: &str) -> Reply {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    Reply::Send([head.as_bytes(), body.as_bytes()].concat())
}

pub fn ok(body: &str) -> Reply {
    json("200 OK", "", body)
}

pub fn raw(bytes: impl Into<Vec<u8>>) -> Reply {
    Reply::Send(bytes.into())
}

/// Returns an answer that stays incomplete.
pub fn raw_open(bytes: impl Into<Vec<u8>>) -> Reply {
    Reply::Open(bytes.into())
}

/// Returns no answer at all.
pub fn hang() -> Reply {
    raw_open([])
}

/// A server that gives each request the next prepared answer. It ends when it is dropped.
pub struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let mut replies: VecDeque<Reply> = replies.into_iter().collect();
        let seen = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some(request) = read_request(&mut stream).await else { continue };
                seen.lock().unwrap().push(request);
                match replies.pop_front() {
                    Some(Reply::Send(bytes)) => {
                        let _broken = stream.write_all(&bytes).await;
                        let _closed = stream.shutdown().await;
                    }
                    Some(Reply::Open(bytes)) => {
                        let _broken = stream.write_all(&bytes).await;
                        silent.push(stream);
                    }
                    // Without a prepared answer, the connection closes.
                    None => {}
                }
            }
        });
        Self { url, requests, task }
    }

    /// Returns a client of basic auth, which needs no token, with short time limits.
    pub fn client(&self) -> Client {
        self.builder(basic()).build().unwrap()
    }

    pub fn builder(&self, credentials: Credentials) -> ClientBuilder {
        Client::builder(credentials)
            .api_url(format!("{}/v2", self.url))
            .token_endpoint(format!("{}/oauth2/token", self.url))
            .request_timeout(Duration::from_millis(500))
            .total_timeout(Duration::from_secs(20))
            .attempts(2)
            .seed(7)
    }

    /// Returns the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads a request with its body; `None` if the connection ends before.
pub async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.to_lowercase().lines().find_map(|line| {
            line.strip_prefix("content-length:").and_then(|length| length.trim().parse::<usize>().ok())
        });
        if body.len() >= length.unwrap_or_default() {
            return Some(text);
        }
    }
}
