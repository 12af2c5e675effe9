//! What a real cloud may do and the emulator does not: answers that are lost, and settings that are merged.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::cloud::Cloud;
use super::ended;

/// What the proxy does with the first request that creates a connector.
#[derive(Clone, Copy)]
pub enum First {
    /// DT answers it.
    Answered,
    /// DT carries it out, but its answer is lost.
    AnswerLost,
    /// The same, and DT stores another name than was sent.
    AnswerLostAndRenamed,
    /// DT never sees it.
    RequestLost,
}

/// The requests that a proxy has seen: their methods with their paths.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    /// Returns the requests that may change something.
    pub fn writes(&self) -> Vec<String> {
        let seen = self.0.lock().expect("not poisoned");
        seen.iter().filter(|request| !request.starts_with("GET ")).cloned().collect()
    }

    /// Adds a request, and returns whether it is the first of its kind.
    fn add(&self, request: &str) -> bool {
        let mut seen = self.0.lock().expect("not poisoned");
        let line = request.split(" HTTP/").next().unwrap_or_default().to_owned();
        let is_first = !seen.contains(&line);
        seen.push(line);
        is_first
    }
}

/// Starts a proxy to a cloud, and returns its URL and what it has seen. Its thread ends with the test's process.
pub fn proxy(cloud: &Cloud, first: First) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (to, seen) = (cloud.address().to_owned(), Seen::default());
    let adds = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let request = read_request(&mut stream);
            let is_create = request.starts_with("POST ") && request.contains("/dataconnectors HTTP");
            let is_first = adds.add(&request) && is_create;
            if is_first && matches!(first, First::RequestLost) {
                continue;
            }
            let mut upstream = TcpStream::connect(&to).expect("connected");
            // One request for each connection, so that the end of the answer is that of the connection.
            let mut request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
            if is_first && matches!(first, First::AnswerLostAndRenamed) {
                request = request.replace("receiver", "RECEIVER");
            }
            upstream.write_all(request.as_bytes()).expect("sent");
            let mut answer = Vec::new();
            upstream.read_to_end(&mut answer).expect("an answer");
            if !is_first || matches!(first, First::Answered) {
                stream.write_all(&answer).expect("answered");
            }
        }
    });
    (url, seen)
}

/// Reads a request with its body; what there is of it if the connection ends before.
fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).unwrap_or(0);
        bytes.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let length = text.to_lowercase().lines().find_map(|line| {
            line.strip_prefix("content-length:").and_then(|length| length.trim().parse::<usize>().ok())
        });
        let is_complete =
            text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.len() >= length.unwrap_or_default());
        if count == 0 || is_complete {
            return text;
        }
    }
}

#[test]
fn a_create_whose_answer_is_lost_is_found_and_not_repeated() {
    for (first, requests, name, code) in [
        (First::AnswerLost, 1, "receiver", 0),
        (First::AnswerLostAndRenamed, 1, "RECEIVER", 1),
        (First::RequestLost, 2, "receiver", 0),
    ] {
        let cloud = Cloud::start(&[]);
        let (url, seen) = proxy(&cloud, first);
        let command = cloud
            .command_at(&url, &["create", "--url", "https://example.com/", "--name", "receiver", "--json"]);
        let created = ended(command);
        assert_eq!((created.code(), &created.json()["displayName"]), (code, &json!(name)), "{created:?}");
        assert!(created.stderr.contains("looking whether it was created"), "{created:?}");
        assert_eq!(seen.writes(), vec!["POST /v2/projects/p/dataconnectors"; requests]);
        let all = cloud.read("dataconnectors");
        assert_eq!(all["dataConnectors"].as_array().expect("a list").len(), 1, "{all}");
    }
}

/// Starts an API that answers each request with the same connector, and returns its URL. Its thread ends with the test's process.
pub fn stubborn_api(connector: &serde_json::Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let body = connector.to_string();
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            read_request(&mut stream);
            stream.write_all(format!("{head}{body}").as_bytes()).expect("answered");
        }
    });
    url
}

#[test]
fn a_setting_that_dt_merges_or_ignores_is_named() {
    let connector = json!({
        "name": "projects/p/dataconnectors/c", "displayName": "old", "type": "HTTP_PUSH", "status": "SYSTEM_DISABLED",
        "events": ["touch"], "labels": [],
        "httpConfig": {"url": "https://h/", "signatureSecret": "hunter2-signature", "headers": {"X-A": "hunter2-header"}},
    });
    let url = stubborn_api(&connector);
    let cloud = Cloud::start(&[]);
    for (arguments, missing) in [
        (&["update", "c", "--no-headers", "--name", "new"][..], Some("name, headers;")),
        (
            &["update", "c", "--no-secret", "--url", "https://other/", "--all-events"],
            Some("events, url, signature secret;"),
        ),
        (&["update", "c", "--header", "x-a:env=HEADER", "--event", "touch", "--no-labels"], None),
        (&["enable", "c"], Some("status;")),
    ] {
        let mut command = cloud.command_at(&url, arguments);
        command.args(["--basic-auth", "--json"]).env("HEADER", "hunter2-header");
        let updated = ended(command);
        assert_eq!(
            (updated.code(), &updated.json()["displayName"]),
            (i32::from(missing.is_some()), &json!("old"))
        );
        assert!(updated.stderr.contains(missing.unwrap_or_default()), "{updated:?}");
        assert_eq!(updated.stderr.is_empty(), missing.is_none(), "{updated:?}");
    }
}
