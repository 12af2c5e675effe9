//! Unix sockets, sockets that systemd passes, and what the service manager is told.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::{Receiver, program, run};
use crate::events::{body, has_tool, now, token};
use crate::place::{Place, refused_peers, until};
use crate::sender::Sender;

/// Asks over a Unix socket.
fn exchange(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).expect("connected");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    // It may be closed without an answer, and reset then.
    let _read = stream.read_to_string(&mut answer);
    answer
}

fn event(number: u64) -> String {
    let body = body(1, number);
    let (token, length) = (token(&body, now()), body.len());
    format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nX-Dt-Signature: {token}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[test]
fn events_come_in_by_a_unix_socket() {
    let place = Place::new();
    let (socket, admin) = (place.path("in.sock"), place.path("admin.sock"));
    // What a killed process leaves is no obstacle.
    drop(UnixListener::bind(&socket).expect("bound"));
    let config = place.configure("socket_mode = '0600'\ntrusted_proxies = ['unix']", "");
    let (listen, admin_listen) = (format!("unix:{}", socket.display()), format!("unix:{}", admin.display()));
    let config = config.to_str().expect("text");
    let args = ["--config", config, "--listen", &listen, "--admin", &admin_listen];
    let receiver = Receiver::start(args, &[]);
    for path in [&socket, &admin] {
        assert_eq!(fs::metadata(path).expect("there").permissions().mode() & 0o777, 0o600);
    }
    assert!(exchange(&socket, &event(1)).starts_with("HTTP/1.1 200"));
    assert!(
        exchange(&admin, "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .ends_with("ready\n")
    );
    let forwarded = "X-Forwarded-For: 192.0.2.7\r\n\r\n";
    let refused = "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n";
    assert!(exchange(&socket, &format!("{refused}{forwarded}")).starts_with("HTTP/1.1 401"));
    if has_tool("curl", "an event sent with curl to a Unix socket") {
        let body = body(1, 2);
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "60", "--unix-socket"])
            .arg(&socket)
            .args(["-H", &format!("X-Dt-Signature: {}", token(&body, now())), "--data-binary", &body])
            .arg("http://localhost/")
            .output()
            .expect("curl runs");
        assert!(String::from_utf8_lossy(&output.stdout).contains("\"accepted\""), "{output:?}");
    }
    // Another one does not take the place of one that runs.
    let other = place.text("other-data");
    let second = run(["serve", "--listen", &listen, "--admin", "127.0.0.1:0", "--data", &other], b"");
    assert_eq!(second.code(), 2, "{second:?}");
    assert!(second.stderr.contains("another process listens there"), "{second:?}");
    assert!(exchange(&socket, &event(3)).starts_with("HTTP/1.1 200"));
    let ended = receiver.stop();
    assert_eq!(ended.code(), 0);
    assert_eq!(refused_peers(&ended.stderr), ["192.0.2.7:0"]);
    assert!(!socket.exists() && !admin.exists(), "the files go with the sockets");
}

#[test]
fn allow_cidrs_refuses_who_comes_by_a_unix_socket_without_an_address() {
    let place = Place::new();
    let socket = place.path("in.sock");
    let listen = format!("unix:{}", socket.display());
    let limits = "[limits]\nallow_cidrs = ['192.0.2.0/24']";
    for (root, header, expected) in [
        ("", "X-Forwarded-For: 192.0.2.7\r\n", ""),
        ("trusted_proxies = ['unix']", "", "HTTP/1.1 403"),
        ("trusted_proxies = ['unix']", "X-Forwarded-For: 198.51.100.7\r\n", "HTTP/1.1 403"),
        ("trusted_proxies = ['unix']", "X-Forwarded-For: 192.0.2.7\r\n", "HTTP/1.1 401"),
    ] {
        let config = place.configure(root, limits);
        let config = config.to_str().expect("text");
        let receiver = Receiver::start(["--config", config, "--listen", &listen], &[]);
        let request =
            format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n{header}\r\n");
        let answer = exchange(&socket, &request);
        assert!(
            answer.starts_with(expected) && answer.is_empty() == expected.is_empty(),
            "{root} {header}: {answer}"
        );
        receiver.stop();
    }
}

/// A process that is killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Process {
    fn terminate(&mut self) -> bool {
        let sent =
            Command::new("kill").arg(self.0.id().to_string()).status().expect("there is a kill command");
        assert!(sent.success());
        self.0.wait().expect("it ends").success()
    }
}

/// Starts `serve` with these sockets as systemd would pass them, by the hand of a shell.
fn with_socket(socket: OwnedFd, names: &str, args: &[&str]) -> Command {
    let script = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\"";
    let program = program();
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(program.get_program()).arg("serve").args(args);
    command.env_remove("RUST_LOG").env(crate::common::SECRET_VARIABLE, crate::common::SECRET);
    command.env("LISTEN_FDNAMES", names).stdin(Stdio::from(socket));
    command
}

#[test]
fn a_socket_that_is_passed_is_listened_on() {
    let place = Place::new();
    let data = place.text("data");
    for (names, listen) in [("unknown", "systemd"), ("dt-http", "systemd:dt-http")] {
        let socket = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = socket.local_addr().expect("an address");
        // A connection of before the start waits in the socket, and is served.
        let mut early = Sender::connect(address).expect("connected");
        let mut command = with_socket(
            socket.into(),
            names,
            &["--listen", listen, "--admin", "127.0.0.1:0", "--data", &data],
        );
        let mut process =
            Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started"));
        assert_eq!(early.send(1, u64::from(process.0.id())).expect("an answer").status, 200);
        assert!(process.terminate());
    }
}

#[test]
fn a_socket_that_is_not_passed_is_missed() {
    let place = Place::new();
    let data = place.text("data");
    let ended = run(["serve", "--listen", "systemd", "--admin", "127.0.0.1:0", "--data", &data], b"");
    assert_eq!(ended.code(), 2, "{ended:?}");
    assert!(ended.stderr.contains("listen = \"systemd\": systemd has passed no socket"), "{ended:?}");
    let socket = TcpListener::bind("127.0.0.1:0").expect("bound");
    let args = ["--listen", "systemd:other", "--admin", "127.0.0.1:0", "--data", &data];
    let output = with_socket(socket.into(), "one", &args).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("no socket of the name \\\"other\\\"")
            || said.contains("no socket of the name \"other\""),
        "{said}"
    );
}

#[test]
fn systemd_itself_passes_a_socket() {
    if !has_tool("systemd-socket-activate", "socket activation by systemd's own tool") {
        return;
    }
    let place = Place::new();
    let socket = place.path("in.sock");
    let secret = format!("{}={}", crate::common::SECRET_VARIABLE, crate::common::SECRET);
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--listen").arg(&socket).args(["--fdname=dt-http", "--setenv", &secret]);
    command.arg(program().get_program());
    command.args([
        "serve",
        "--listen",
        "systemd:dt-http",
        "--admin",
        "127.0.0.1:0",
        "--data",
        &place.text("data"),
    ]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    let mut process = Process(child);
    // The file is there a little before anybody listens.
    until("it listens", || UnixStream::connect(&socket).is_ok());
    assert!(exchange(&socket, &event(1)).starts_with("HTTP/1.1 200"));
    assert!(process.terminate());
    assert!(socket.exists(), "the file is not ours");
}

#[test]
fn the_service_manager_is_told() {
    let place = Place::new();
    let manager = UnixDatagram::bind(place.path("notify")).expect("bound");
    manager.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let told = || {
        let mut bytes = [0; 4096];
        let length = manager.recv(&mut bytes).expect("something is told");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let (socket, data) = (place.text("notify"), place.text("data"));
    let envs = [("NOTIFY_SOCKET", &*socket), ("WATCHDOG_USEC", "100000")];
    let receiver = Receiver::start(["--data", &data], &envs);
    let ready = told();
    assert!(
        ready.contains("READY=1\n") && ready.contains("STATUS=receiving events on 127.0.0.1:"),
        "{ready}"
    );
    assert_eq!(
        Sender::connect(receiver.listen).and_then(|mut to| to.send(1, 1)).expect("an answer").status,
        200
    );
    for _ in 0..3 {
        assert_eq!(told(), "WATCHDOG=1\n");
    }
    receiver.signal("TERM");
    let mut last = told();
    while last == "WATCHDOG=1\n" {
        last = told();
    }
    assert!(last.starts_with("STOPPING=1\n"), "{last}");
    assert_eq!(receiver.wait().code(), 0);
    // Who is told nothing, and cannot tell, runs all the same.
    let receiver = Receiver::start(["--data", &data], &[("NOTIFY_SOCKET", "/nowhere/at/all")]);
    assert_eq!(receiver.stop().code(), 0);
}
