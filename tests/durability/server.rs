//! The real program as a child process, bare or under `strace`, with its file of events.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use crate::events::{SECRET, body, parse_id};
use crate::sender::Sender;

/// The folder of a run: configuration, data, and the file of the file sink.
pub(crate) struct Place {
    pub(crate) config: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) file: PathBuf,
    pub(crate) trace: PathBuf,
}

/// The sinks of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sinks {
    /// Only the file.
    File,
    /// Only standard output, which leads to a full device: a sink that is down.
    Down,
}

impl Place {
    /// Writes a configuration. `more` is TOML for its top.
    pub(crate) fn new(folder: &Path, sinks: Sinks, more: &str) -> Self {
        Self::with(folder, &folder.join("data"), &folder.join("events.ndjson"), sinks, more)
    }

    /// The same with data and file elsewhere.
    pub(crate) fn with(folder: &Path, data: &Path, file: &Path, sinks: Sinks, more: &str) -> Self {
        let sink = match sinks {
            Sinks::File => {
                format!("name = 'file'\ntype = 'file'\nformat = 'body'\npath = '{}'", file.display())
            }
            Sinks::Down => "name = 'stdout'\ntype = 'stdout'\nformat = 'body'".to_owned(),
        };
        let text = format!(
            "listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\ndata = '{}'\n{more}\n\
             [[connector]]\nname = 'default'\nsecrets = [{{ env = 'DT_SIGNATURE_SECRET' }}]\n\
             [[sink]]\n{sink}\n",
            data.display(),
        );
        let config = folder.join("dt-receiver.toml");
        fs::write(&config, text).expect("written");
        Self { config, data: data.to_owned(), file: file.to_owned(), trace: folder.join("trace.txt") }
    }

    /// A place whose sink `file` was down while device 1 sent so many events: it has none of them, and is up from now on.
    pub(crate) fn with_backlog(folder: &Path, events: u64) -> Self {
        let place = Self::new(folder, Sinks::Down, "");
        let down = fs::read_to_string(&place.config).expect("read");
        fs::write(&place.config, down.replace("name = 'stdout'", "name = 'file'")).expect("written");
        let full = Stdio::from(fs::File::options().write(true).open("/dev/full").expect("there"));
        let server = Server::start(place.serve(), full).expect("it starts");
        let mut sender = Sender::connect(server.listen).expect("connected");
        for number in 0..events {
            assert_eq!(sender.send(1, number).expect("an answer").status, 200);
        }
        server.stop();
        Self::new(folder, Sinks::File, "")
    }

    /// The folder of the spool.
    pub(crate) fn spool(&self) -> PathBuf {
        self.data.join("spool")
    }

    /// A file of the spool.
    pub(crate) fn spool_file(&self, name: &str) -> PathBuf {
        self.spool().join(name)
    }

    /// A segment of the spool, by its number.
    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.spool_file(&format!("segment-{number:010}.log"))
    }

    /// The numbers of the segments that are there.
    pub(crate) fn segments(&self) -> Vec<u64> {
        let entries = fs::read_dir(self.spool()).into_iter().flatten().filter_map(Result::ok);
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let number = |name: String| name.strip_prefix("segment-")?.strip_suffix(".log")?.parse().ok();
        let mut numbers: Vec<u64> = names.filter_map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Every file that the spool of a short run can have, its folder included: what a fault is injected into.
    pub(crate) fn spool_paths(&self) -> Vec<PathBuf> {
        let named = ["spool.lock", "dead.db", "dead.db-wal", "dead.db-shm", "ids.db", "ids.db-journal"];
        let named = named.iter().map(|name| self.spool_file(name));
        let numbered = (1..=8)
            .flat_map(|number| [self.segment(number), self.spool_file(&format!("spare-{number}.tmp"))]);
        named.chain(numbered).chain([self.spool()]).collect()
    }

    /// The command that serves.
    pub(crate) fn serve(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dt-receiver"));
        command.arg("serve").arg("--config").arg(&self.config);
        command
    }

    /// The same under `strace`, which writes to `trace`. The tracer is the grandchild, so that the child is the
    /// program itself.
    pub(crate) fn serve_under_strace(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("strace");
        command.args(["-D", "-f", "-y", "-o"]).arg(&self.trace).args(arguments).arg("--");
        command.arg(env!("CARGO_BIN_EXE_dt-receiver")).arg("serve").arg("--config").arg(&self.config);
        command
    }

    /// The same for a program that runs; once every thread of it is traced.
    pub(crate) fn attach_strace(&self, pid: u32, arguments: &[&str]) -> Child {
        let mut command = Command::new("strace");
        command
            .args(["-q", "-f", "-y", "-o"])
            .arg(&self.trace)
            .args(arguments)
            .args(["-p", &pid.to_string()]);
        let mut tracer = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace runs");
        let is_traced = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            !status.lines().any(|line| line == "TracerPid:\t0")
        };
        while !fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten().all(is_traced) {
            assert!(tracer.try_wait().expect("a status").is_none(), "strace cannot attach");
            std::thread::yield_now();
        }
        tracer
    }

    /// How often each event is in the file. Every line must be exactly what was sent, and each device's in order.
    pub(crate) fn events_in_file(&self) -> BTreeMap<(u64, u64), u64> {
        let content = fs::read_to_string(&self.file).unwrap_or_default();
        assert!(content.is_empty() || content.ends_with('\n'), "a torn last line");
        let mut events = BTreeMap::new();
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for line in content.lines() {
            let (device, number) = parse_id(line).unwrap_or_else(|| panic!("not a line of ours: {line}"));
            assert_eq!(line, body(device, number), "not exactly as sent");
            let before = last.insert(device, number);
            assert!(before.is_none_or(|before| before < number), "dev{device}: {number} after {before:?}");
            *events.entry((device, number)).or_default() += 1;
        }
        events
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    child: Child,
    stderr: Option<JoinHandle<String>>,
}

/// What is left of one.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: String,
}

impl Server {
    /// Starts it and waits until it listens; `Err` when it ended before.
    pub(crate) fn start(mut command: Command, stdout: Stdio) -> Result<Self, Ended> {
        let child = command
            .env("DT_SIGNATURE_SECRET", SECRET)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        Self::listening(child)
    }

    fn listening(mut child: Child) -> Result<Self, Ended> {
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        let line = loop {
            let before = said.len();
            if stderr.read_line(&mut said).expect("text") == 0 {
                return Err(Ended { status: child.wait().expect("it ends"), stderr: said });
            }
            let line: serde_json::Value = serde_json::from_str(&said[before..]).unwrap_or_default();
            if line["message"] == "listening" {
                break line;
            }
        };
        let address = |key: &str| line[key].as_str().and_then(|text| text.parse().ok()).expect("an address");
        let (listen, admin) = (address("listen"), address("admin"));
        let stderr = std::thread::spawn(move || {
            stderr.read_to_string(&mut said).expect("text");
            said
        });
        Ok(Self { listen, admin, child, stderr: Some(stderr) })
    }

    /// Starts it bare; it has to listen.
    pub(crate) fn bare(place: &Place) -> Self {
        Self::start(place.serve(), Stdio::null())
            .unwrap_or_else(|ended| panic!("it did not start: {ended:?}"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(&self) {
        self.signal("KILL");
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs").success());
    }

    /// Stops it as an operator would: what is there is delivered first.
    pub(crate) fn stop(self) -> Ended {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for its end, and for that of its tracer, which holds the same standard error.
    pub(crate) fn wait(mut self) -> Ended {
        let status = self.child.wait().expect("it ends");
        let stderr = self.stderr.take().expect("once").join().expect("collected");
        Ended { status, stderr }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a failed test; otherwise it has ended.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
