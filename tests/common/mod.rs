//! The real program, started for a test: on free ports, with its output collected, and stopped by its own pid.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

/// A running `dt-receiver serve`.
pub(crate) struct Receiver {
    /// Where it takes DT's requests.
    pub(crate) listen: SocketAddr,
    /// Where its metrics are.
    pub(crate) admin: SocketAddr,
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// What a receiver left behind.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Receiver {
    /// Starts `serve` with these arguments, on free ports unless there is a `--config`, and waits until it listens.
    /// The secret is `some-good-secret` in `DT_SIGNATURE_SECRET`, unless `envs` says otherwise.
    pub(crate) fn start(arguments: &[&str], envs: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dt-receiver"));
        command.arg("serve").args(arguments);
        if !arguments.contains(&"--config") {
            command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        }
        let mut child = command
            .env("DT_SIGNATURE_SECRET", "some-good-secret")
            .env_remove("RUST_LOG")
            .envs(envs.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdout = child.stdout.take().expect("piped");
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).expect("text");
            text
        });
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        let listening = loop {
            let before = said.len();
            if stderr.read_line(&mut said).expect("text") == 0 {
                panic!("it ended with {:?}: {said}", child.wait());
            }
            let line: serde_json::Value = serde_json::from_str(&said[before..]).unwrap_or_default();
            if line["message"] == "listening" {
                break line;
            }
        };
        let address =
            |key: &str| listening[key].as_str().and_then(|text| text.parse().ok()).expect("an address");
        let stderr = std::thread::spawn(move || {
            stderr.read_to_string(&mut said).expect("text");
            said
        });
        let (listen, admin) = (address("listen"), address("admin"));
        Self { listen, admin, child, stdout: Some(stdout), stderr: Some(stderr) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().expect("kill runs");
        assert!(sent.success(), "SIG{name} was not sent");
    }

    /// Stops it as an operator would.
    pub(crate) fn stop(self) -> Stopped {
        self.signal("TERM");
        self.wait()
    }

    /// Ends it without a warning, as `kill -9` does.
    pub(crate) fn kill(mut self) -> Stopped {
        self.child.kill().expect("killed");
        self.wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Stopped {
        let status = self.child.wait().expect("it ends");
        let collected = |thread: Option<JoinHandle<String>>| thread.expect("once").join().expect("collected");
        Stopped { status, stdout: collected(self.stdout.take()), stderr: collected(self.stderr.take()) }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // After a failed test; otherwise it has ended.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
