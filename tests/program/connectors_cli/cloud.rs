//! A running `dt-receiver emulate` with a service account.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::common;

/// The secret of the service account's key.
pub const KEY_SECRET: &str = "hunter2-key";

/// A running emulator; it is killed when dropped.
pub struct Cloud {
    child: Child,
    /// The root URL, such as `http://127.0.0.1:8081`.
    pub url: String,
}

impl Cloud {
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = common::program();
        command.args([
            "emulate",
            "--listen",
            "127.0.0.1:0",
            "--service-account",
            "key:env=KEY:me@example.com",
        ]);
        command.args(arguments).env("KEY", KEY_SECRET).env("READER", "reader-secret");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let url = line.split_whitespace().last().and_then(|url| url.strip_suffix("/v2")).expect("a URL");
        Self { url: url.to_owned(), child }
    }

    /// Returns `dt-receiver connectors` with the credentials in the environment, for the project `p`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_at(&self.url, arguments)
    }

    /// The same, with the API at another root URL.
    pub fn command_at(&self, root: &str, arguments: &[&str]) -> Command {
        let mut command = common::program();
        command.arg("connectors").args(arguments).args(["--project", "p"]);
        command
            .env_remove("DT_CREDENTIALS_FILE")
            .env("DT_SERVICE_ACCOUNT_KEY_ID", "key")
            .env("DT_SERVICE_ACCOUNT_SECRET", KEY_SECRET)
            .env("DT_SERVICE_ACCOUNT_EMAIL", "me@example.com")
            .env("DT_API_URL", root)
            .env("DT_OIDC_TOKEN_ENDPOINT", format!("{}/oauth2/token", self.url))
            .env("READER", "reader-secret");
        command
    }

    /// Returns `host:port`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Reads a resource of the project `p`.
    pub fn read(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(self.address()).expect("connected");
        let credentials = STANDARD.encode(format!("key:{KEY_SECRET}"));
        let request = format!(
            "GET /v2/projects/p/{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: Basic {credentials}\r\n\r\n",
            self.address()
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
