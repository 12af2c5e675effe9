//! InfluxDB 1 from Debian's package `influxdb`, in a folder of its own, on a free port, with passwords. Its service is not used.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::events::has_tool_with;

/// How long the server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// The user who may do everything, and the password of all users.
const ADMIN: (&str, &str) = ("admin", PASSWORD);
pub(crate) const PASSWORD: &str = "pa55-0f-the-test";

/// A server of our own. It is killed when it is dropped.
pub(crate) struct Server {
    folder: TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

fn succeeded(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

impl Server {
    /// Starts a server with an administrator; `None`, and one line that says so, where that is not possible.
    pub(crate) fn start(left_out: &str) -> Option<Self> {
        if !has_tool_with("influxd", "version", left_out) || !has_tool_with("curl", "--version", left_out) {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let address =
            TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
        let path = folder.path().display();
        let config = format!(
            "reporting-disabled = true\nbind-address = '127.0.0.1:0'\n\
             [meta]\ndir = '{path}/meta'\n[data]\ndir = '{path}/data'\nwal-dir = '{path}/wal'\nquery-log-enabled = false\n\
             [monitor]\nstore-enabled = false\n[subscriber]\nenabled = false\n[continuous_queries]\nenabled = false\n\
             [http]\nbind-address = '{address}'\nauth-enabled = true\nlog-enabled = false\n"
        );
        fs::write(folder.path().join("influxdb.conf"), config).expect("written");
        let mut server = Self { folder, address, child: None };
        server.start_again();
        // The first user needs none.
        let (name, password) = ADMIN;
        server.query(&format!("CREATE USER {name} WITH PASSWORD '{password}' WITH ALL PRIVILEGES"));
        Some(server)
    }

    /// The URL without a path.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn start_again(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.log()).expect("a log");
        let mut command = Command::new("influxd");
        command.arg("-config").arg(self.folder.path().join("influxdb.conf")).stdin(Stdio::null());
        // It would look for a configuration there.
        command.env("HOME", self.folder.path());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.child = Some(command.spawn().expect("it starts"));
        let begun = Instant::now();
        while !self.answers() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child"));
            let log = || fs::read_to_string(self.log()).unwrap_or_default();
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "no server: {ended:?}\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("a child");
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn answers(&self) -> bool {
        let mut command = Command::new("curl");
        command.args(["-sf", "-o", "/dev/null", &format!("{}/ping", self.url())]);
        command.status().expect("curl runs").success()
    }

    /// Runs a statement as the administrator, and returns the result.
    pub(crate) fn query(&self, statement: &str) -> Value {
        let mut command = Command::new("curl");
        command.args(["-sS", "-u", &format!("{}:{}", ADMIN.0, ADMIN.1), &format!("{}/query", self.url())]);
        command.args(["--data-urlencode", &format!("q={statement}"), "-d", "db=sensors", "-d", "epoch=ns"]);
        let answer = succeeded(&command.output().expect("curl runs"));
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        let result = answer["results"][0].clone();
        assert!(result.is_object() && result["error"].is_null(), "{statement}: {answer}");
        result
    }

    /// Runs a script of this project's tests that is a client of its own, with the URL of the administrator.
    pub(crate) fn run(&self, python: &Path, arguments: &[&str]) -> String {
        let url = format!("{}?u={}&p={}", self.url(), ADMIN.0, ADMIN.1);
        let mut command = Command::new(python);
        command.args(arguments.iter().map(|argument| argument.replace("URL", &url)));
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        succeeded(&command.output().expect("Python runs"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Either fails only if it has ended.
            let _killed = child.kill();
            let _reaped = child.wait();
        }
    }
}
