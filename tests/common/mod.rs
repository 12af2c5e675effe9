//! Helpers for tests that run the real program: a receiver of their own, and the program run to its end. Each test has
//! its own folder and ports, so all can run at once. Nothing here sleeps: it waits for what the program says or does, and
//! the only clock is the patience after which a test gives up.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::expect_used, clippy::panic, reason = "a helper of tests may fail loudly")]

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

/// The signature secret of every receiver that is not given another.
pub(crate) const SECRET: &str = "some-good-secret";

/// The environment variable it is in.
pub(crate) const SECRET_VARIABLE: &str = "DT_SIGNATURE_SECRET";

/// How long to wait for the program: far longer than it takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, with nothing of our own environment that could change what it does, and with [`SECRET`].
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dt-receiver"));
    // A backtrace brings the debug information of the program into its memory, some 70 MB of it: h2 has an assertion of debug
    // builds that fails where a connection is dropped with its streams.
    command.env_remove("RUST_LOG").env("RUST_BACKTRACE", "0").env(SECRET_VARIABLE, SECRET);
    command
}

/// What the program did.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// The exit code; a signal is a failed test.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by a signal: {self:?}"))
    }

    /// Standard output as one JSON value and nothing else.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs the program to its end, with `input` on its standard input.
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, input: &[u8]) -> Ended {
    let mut command = program();
    command.args(args);
    run_command(command, input)
}

/// The same for a command that was prepared elsewhere.
pub(crate) fn run_command(mut command: Command, input: &[u8]) -> Ended {
    let mut running = Running::spawn(command.stdin(Stdio::piped()), |_| ());
    let mut stdin = running.child.stdin.take().expect("standard input is a pipe");
    // A program that does not read its input closes it, which is no mistake.
    let _written = stdin.write_all(input);
    drop(stdin);
    running.wait()
}

/// A running `dt-receiver serve`. It is killed when dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// Where it listens for events; 0.0.0.0:0 if that is no address.
    pub(crate) listen: SocketAddr,
    /// Where it has `/healthz`, `/readyz` and `/metrics`.
    pub(crate) admin: SocketAddr,
    running: Running,
}

impl Receiver {
    /// Starts `serve` with these arguments and environment variables, and waits until it listens.
    ///
    /// It listens on free ports unless `--listen` or `--admin` are among the arguments, and its secret is [`SECRET`]
    /// unless the environment says otherwise. Give it `--data` with a folder of your own.
    pub(crate) fn start<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, envs: &[(&str, &str)]) -> Self {
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let mut command = program();
        command.arg("serve").envs(envs.iter().copied()).stdin(Stdio::null());
        for address in ["--listen", "--admin"] {
            if !args.iter().any(|arg| arg == address) {
                command.args([address, "127.0.0.1:0"]);
            }
        }
        command.args(args);
        let (tell, told) = mpsc::channel();
        let running = Running::spawn(&mut command, move |line| {
            // The receiver's end is gone once it has heard what it waited for.
            let _heard = listening(line).is_some_and(|addresses| tell.send(addresses).is_ok());
        });
        match told.recv_timeout(PATIENCE) {
            Ok((listen, admin)) => Self { listen, admin, running },
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("does not listen: {:?}", running.kill()),
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("does not start: {:?}", running.wait()),
        }
    }

    /// The URL of a path, such as `/`, for events.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// Sends it a signal by name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        self.running.signal(name);
    }

    /// Stops it as a service manager would, and waits for its end, which must be in order.
    pub(crate) fn stop(self) -> Ended {
        self.running.signal("TERM");
        let ended = self.running.wait();
        assert_eq!(ended.code(), 0, "{ended:?}");
        ended
    }

    /// Kills it as a crash would, and waits for its end.
    pub(crate) fn kill(self) -> Ended {
        self.running.kill()
    }

    /// Waits for it to end by itself.
    pub(crate) fn wait(self) -> Ended {
        self.running.wait()
    }
}

/// The addresses in the line of the log that tells them.
fn listening(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    // A Unix socket has none.
    let none = SocketAddr::from(([0, 0, 0, 0], 0));
    let address = |name: &str| Some(line.get(name)?.as_str()?.parse().unwrap_or(none));
    if line.get("message")? != "listening" {
        return None;
    }
    Some((address("listen")?, address("admin")?))
}

/// A child whose output is read all the time, so that it never waits for us.
#[derive(Debug)]
struct Running {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    /// Starts a command. Each line of its standard error is shown to `see`, which is dropped at the end of them.
    fn spawn(command: &mut Command, mut see: impl FnMut(&str) + Send + 'static) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut stdout = child.stdout.take().expect("standard output is a pipe");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let stdout = thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).expect("standard output is readable");
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let stderr = thread::spawn(move || {
            let mut lines = String::new();
            for line in BufReader::new(stderr).lines() {
                let line = line.expect("standard error is readable text");
                see(&line);
                lines.push_str(&line);
                lines.push('\n');
            }
            lines
        });
        Self { child, stdout: Some(stdout), stderr: Some(stderr) }
    }

    fn signal(&self, name: &str) {
        // The standard library only knows SIGKILL.
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("there is a kill command").success(), "SIG{name} was sent");
    }

    fn kill(mut self) -> Ended {
        self.child.kill().expect("SIGKILL was sent");
        self.wait()
    }

    /// Waits for the end; a program that does not end is killed, and the test fails.
    fn wait(mut self) -> Ended {
        let (ended, told) = mpsc::channel();
        let pid = self.child.id();
        let watchdog = thread::spawn(move || {
            let hangs = told.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout);
            if hangs {
                let _killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
            }
            hangs
        });
        let text = |reader: &mut Option<JoinHandle<String>>| {
            reader.take().and_then(|reader| reader.join().ok()).expect("the output was read")
        };
        // The output ends when the program does, and only then can it be reaped: until then its id stays its own.
        let (stdout, stderr) = (text(&mut self.stdout), text(&mut self.stderr));
        let _told = ended.send(());
        let hangs = watchdog.join().expect("the watchdog ends");
        let status = self.child.wait().expect("the program can be waited for");
        let ended = Ended { status, stdout, stderr };
        assert!(!hangs, "did not end and was killed: {ended:?}");
        ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either fails only if it has ended and was reaped already.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
