//! A PostgreSQL server of our own, from Debian's package `postgresql-15`, in a folder of its own, as a user without privileges.
//! It ends when its handle is dropped, and when this process does, however that comes about.

#![allow(dead_code, reason = "each test uses a part")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::events::is_there;

/// The superuser's password over TCP. Over the socket, where `psql` connects, there is none.
pub(crate) const PASSWORD: &str = "pa55-0f-the-test";
/// How long the server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// A server does not run as root: the user `nobody`, and its group in Debian.
const NOBODY: (u32, u32) = (65534, 65534);

/// A running server.
pub(crate) struct Server {
    folder: TempDir,
    bin: PathBuf,
    port: u16,
    options: Vec<String>,
    postmaster: Option<Child>,
    /// Stops the server once its standard input ends.
    watchdog: Child,
}

/// The server that tests share, each with a database of its own; `None` where there can be none.
pub(crate) fn shared(left_out: &str) -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(left_out)).as_ref()
}

/// Whether the tests run as root, who becomes another user for the server.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command that runs as the server's user.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    if is_root() {
        command.uid(NOBODY.0).gid(NOBODY.1);
    }
    command.stdin(Stdio::null());
    command
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{:?}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

impl Server {
    /// Starts a server; `None`, and one line that says so, where that is not possible.
    pub(crate) fn start(left_out: &str) -> Option<Self> {
        Self::start_with(&[], &[], left_out)
    }

    /// Starts a server with settings beside its own, and with files in its folder that only it can read.
    pub(crate) fn start_with(options: &[&str], files: &[(&str, &str)], left_out: &str) -> Option<Self> {
        let bin = Path::new("/usr/lib/postgresql/15/bin");
        if !is_there(bin.join("postgres").exists(), "PostgreSQL 15 (Debian: postgresql-15)", left_out) {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("dt-receiver-pg").tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("set");
        if is_root() {
            chown(folder.path(), Some(NOBODY.0), Some(NOBODY.1)).expect("given away");
        }
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).expect("written");
        let mut initdb = command(&bin.join("initdb"));
        initdb.arg("-D").arg(folder.path().join("data")).args(["-U", "postgres", "-E", "UTF8", "--no-sync"]);
        initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256", "--no-locale"]);
        initdb.arg("--pwfile").arg(&password).env("TZ", "UTC");
        succeeded(&initdb.output().expect("initdb runs"));
        for (name, content) in files {
            let path = folder.path().join("data").join(name);
            fs::write(&path, content).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
            if is_root() {
                chown(&path, Some(NOBODY.0), Some(NOBODY.1)).expect("given away");
            }
        }
        let watchdog = Command::new("sh")
            .args([
                "-c",
                "cat >/dev/null; kill -QUIT \"$(head -n 1 \"$0\" 2>/dev/null)\" 2>/dev/null; rm -rf \"$1\"",
            ])
            .arg(folder.path().join("data/postmaster.pid"))
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What interrupts the tests from the keyboard must not end it as well.
            .process_group(0)
            .spawn()
            .expect("there is a shell");
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { folder, bin: bin.to_owned(), port, options, postmaster: None, watchdog };
        server.start_again();
        Some(server)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it after [`kill`](Self::kill) or [`stop`](Self::stop), and waits until it answers.
    pub(crate) fn start_again(&mut self) {
        let begun = Instant::now();
        while !self.answers() {
            let has_ended =
                self.postmaster.as_mut().is_none_or(|child| child.try_wait().expect("known").is_some());
            if has_ended {
                // Also where what a killed server left is in the way for a moment.
                let log = fs::File::options().create(true).append(true).open(self.folder().join("log"));
                let log = log.expect("a log");
                let mut postgres = command(&self.bin.join("postgres"));
                postgres.arg("-D").arg(self.folder().join("data")).arg("-k").arg(self.folder());
                postgres.args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
                for option in &self.options {
                    postgres.args(["-c", option]);
                }
                postgres.stdout(log.try_clone().expect("a log")).stderr(log);
                self.postmaster = Some(postgres.spawn().expect("it starts"));
            }
            let log = || fs::read_to_string(self.folder().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "the server does not start: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn answers(&self) -> bool {
        let mut command = Command::new(self.bin.join("pg_isready"));
        command.arg("-h").arg(self.folder()).args(["-p", &self.port.to_string(), "-q"]);
        command.status().expect("it runs").success()
    }

    fn postmaster_pid(&self) -> i32 {
        i32::try_from(self.postmaster.as_ref().expect("it runs").id()).expect("an id")
    }

    /// SIGKILL to all of its processes.
    pub(crate) fn kill(&mut self) {
        let pid = self.postmaster_pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().map(|id| id.parse().expect("an id"));
        for process in std::iter::once(pid).chain(children) {
            if let Some(process) = rustix::process::Pid::from_raw(process) {
                // A child may have ended with its parent.
                let _ended = rustix::process::kill_process(process, rustix::process::Signal::KILL);
            }
        }
        self.wait();
    }

    /// Stops it as `pg_ctl stop -m immediate` does.
    pub(crate) fn stop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.postmaster_pid()).expect("an id");
        rustix::process::kill_process(pid, rustix::process::Signal::QUIT).expect("it runs");
        self.wait();
    }

    fn wait(&mut self) {
        self.postmaster.take().expect("it runs").wait().expect("it ends");
    }

    /// The processor time of the server and of all its processes so far.
    pub(crate) fn cpu(&self) -> Duration {
        let pid = self.postmaster_pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let of = |pid: &str| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<u64> = stat
                .rsplit(") ")
                .next()
                .unwrap_or_default()
                .split(' ')
                .skip(11)
                .take(4)
                .flat_map(str::parse)
                .collect();
            fields
        };
        // The postmaster's own time, and that of its children that have ended; then of those that run.
        let ended: u64 = of(&pid.to_string()).iter().sum();
        let running: u64 = children.split_whitespace().map(|pid| of(pid).iter().take(2).sum::<u64>()).sum();
        Duration::from_millis((ended + running) * 10)
    }

    /// A new database, with a name of its own.
    pub(crate) fn database(&self) -> String {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", LAST.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// The URL of a database for the superuser.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_of("postgres", PASSWORD, database)
    }

    /// The same for another user.
    pub(crate) fn url_of(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// What `psql`, a client that is not ours, prints for a statement: a line for each row, with `|` between columns.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        succeeded(&self.try_psql(database, sql)).trim_end_matches('\n').to_owned()
    }

    /// The lines of the same.
    pub(crate) fn rows(&self, database: &str, sql: &str) -> Vec<String> {
        self.psql(database, sql).lines().map(str::to_owned).collect()
    }

    /// One number.
    pub(crate) fn count(&self, database: &str, sql: &str) -> u64 {
        let said = self.psql(database, sql);
        said.parse().unwrap_or_else(|_| panic!("no number: {said}"))
    }

    /// The same where the server may be down.
    pub(crate) fn try_psql(&self, database: &str, sql: &str) -> Output {
        let mut command = Command::new(self.bin.join("psql"));
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-p", &self.port.to_string()]);
        command.arg("-h").arg(self.folder()).args(["-d", database, "-c", sql]).stdin(Stdio::null());
        command.env("PGTZ", "UTC").output().expect("psql runs")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.postmaster.is_some() {
            self.stop();
        }
        drop(self.watchdog.stdin.take());
        let _ended = self.watchdog.wait();
    }
}
