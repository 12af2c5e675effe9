//! Connects the command line to a running server: a Unix socket in the spool's folder that only its owner may open.
//!
//! A connection carries one request: a line of JSON, answered by a line of JSON, `{"ok":…}` or `{"error":…}`. The server
//! handles one connection at a time, each within a few seconds. The process that holds the spool's lock replaces a socket
//! that a killed process left behind.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::repair::{Repair, RepairReport, RepairRequest};

const NAME: &str = "control.sock";
/// The largest size of a request and of an answer, in bytes.
const MAX_LINE: usize = 1 << 20;
/// The time limit for reading a request, and for writing an answer.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// The time limit for an answer on the client's side. The answer waits for a commit, which is slow on a slow disk.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// The largest length of a socket's path that every supported system accepts, in bytes.
const MAX_PATH: usize = 100;

/// Why a running server did not carry out a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No server runs on this spool.
    #[error("no server runs there")]
    NoServer,
    /// The server refused the request. Contains its reason.
    #[error("{0}")]
    Refused(String),
    /// The server cannot be reached, or did not answer.
    #[error("{path}: the running server does not answer: {source}")]
    Unanswered {
        /// The path of the server's socket for spool administration.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Ok(RepairReport),
    Error(String),
}

/// Returns a path of the socket that is short enough. On Linux, a long path is replaced by one through the open folder, which
/// must stay open while the path is used.
fn address(folder: &Path, name: &str) -> io::Result<(PathBuf, Option<File>)> {
    let path = folder.join(name);
    if path.as_os_str().len() <= MAX_PATH || !cfg!(target_os = "linux") {
        return Ok((path, None));
    }
    let folder = File::open(folder)?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd())), Some(folder)))
}

/// Sends a request to the server that runs on the spool in `folder`. Blocks, for at most 65 s.
///
/// # Errors
///
/// [`ControlError::NoServer`] if no server runs, so that the caller can lock the spool itself; another variant if the server
/// refuses the request or does not answer.
pub fn ask(folder: &Path, request: &RepairRequest) -> Result<RepairReport, ControlError> {
    let unanswered = |source| ControlError::Unanswered { path: folder.join(NAME), source };
    let connected = address(folder, NAME).and_then(|(path, _folder)| UnixStream::connect(path));
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Err(ControlError::NoServer);
        }
        Err(error) => return Err(unanswered(error)),
    };
    let answer = serde_json::to_vec(request).map_err(io::Error::from).and_then(|mut line| {
        line.push(b'\n');
        stream.set_write_timeout(Some(REQUEST_TIME))?;
        stream.write_all(&line)?;
        let line = read_line(&mut stream, ANSWER_TIME)?;
        serde_json::from_slice(&line).map_err(io::Error::from)
    });
    match answer.map_err(unanswered)? {
        Answer::Ok(report) => Ok(report),
        Answer::Error(text) => Err(ControlError::Refused(text)),
    }
}

/// Reads up to and including a line feed, at most [`MAX_LINE`] bytes.
///
/// # Errors
///
/// Returns an error if the line is not complete within `time`, or is longer.
fn read_line(stream: &mut UnixStream, time: Duration) -> io::Result<Vec<u8>> {
    let started = Instant::now();
    let mut line = Vec::new();
    let mut piece = [0_u8; 4096];
    loop {
        let left = time.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let read = stream.read(&mut piece)?;
        let piece = piece.get(..read).unwrap_or_default();
        if let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            line.extend_from_slice(piece.get(..end).unwrap_or_default());
            return Ok(line);
        }
        line.extend_from_slice(piece);
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if line.len() > MAX_LINE {
            return Err(ErrorKind::FileTooLarge.into());
        }
    }
}

/// The server's side of the socket.
#[derive(Debug)]
pub struct Control {
    folder: PathBuf,
    stopping: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Control {
    /// Starts to serve requests for a spool that this process has locked.
    pub fn start(folder: &Path, repair: Arc<Repair>) -> io::Result<Self> {
        let listener = listen(folder)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let is_stopping = Arc::clone(&stopping);
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                if is_stopping.load(Ordering::SeqCst) {
                    break;
                }
                // An error concerns this client only, which notices the closed connection.
                match stream {
                    Ok(stream) => drop(serve(stream, &repair)),
                    // The system lacks a resource, such as file descriptors: a pause prevents a busy loop.
                    Err(_) => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        })?;
        Ok(Self { folder: folder.to_owned(), stopping, thread: Mutex::new(Some(thread)) })
    }

    /// Stops serving requests and removes the socket.
    pub fn stop(&self) {
        let Some(thread) = self.thread.lock().take() else { return };
        self.stopping.store(true, Ordering::SeqCst);
        // A connection of our own wakes the thread.
        let woken = address(&self.folder, NAME).and_then(|(path, _folder)| UnixStream::connect(path));
        if woken.is_ok() {
            // A thread that panicked has ended as well.
            let _panicked = thread.join();
        }
        // It fails only if the socket was removed before.
        let _removed = std::fs::remove_file(self.folder.join(NAME));
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Binds the socket under a temporary name and renames it, so that it never has wider permissions under its own name.
fn listen(folder: &Path) -> io::Result<UnixListener> {
    const NEW: &str = ".control.new";
    let new = folder.join(NEW);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (path, _folder) = address(folder, NEW)?;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, folder.join(NAME))?;
    Ok(listener)
}

fn serve(mut stream: UnixStream, repair: &Repair) -> io::Result<()> {
    let line = read_line(&mut stream, REQUEST_TIME)?;
    let answer = match serde_json::from_slice(&line) {
        Ok(request) => {
            match &request {
                // Its events are not logged.
                RepairRequest::Fill(fill) => {
                    tracing::debug!(events = fill.deliveries.len(), "fetched events to store")
                }
                _ => tracing::info!(request = %String::from_utf8_lossy(&line), "asked for by an operator"),
            }
            repair.handle(&request).map_or_else(|error| Answer::Error(error.to_string()), Answer::Ok)
        }
        Err(error) => Answer::Error(format!("not a request that this version knows: {error}")),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.set_write_timeout(Some(REQUEST_TIME))?;
    stream.write_all(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use crate::config::Config;
    use dt_log::dead::Filter;
    use dt_log::{Bounds, Log, LogOptions};
    use dt_sink::clock::SystemClock;

    fn control(folder: &Path) -> Control {
        let defaults = LogOptions::default();
        let bounds = Bounds { min_free: 0, ..defaults.bounds.clone() };
        let log = Log::open(folder, LogOptions { bounds, ..defaults }, Arc::new(SystemClock)).expect("opens");
        let running = BTreeSet::from([Arc::from("file")]);
        let repair = Arc::new(Repair::new(Arc::new(log), &Config::empty(), running));
        Control::start(folder, repair).expect("listens")
    }

    fn drop_all() -> RepairRequest {
        RepairRequest::DropDead { filter: Filter::default(), after: 0 }
    }

    fn forget(sink: &str) -> RepairRequest {
        RepairRequest::Forget { sink: sink.to_owned() }
    }

    #[test]
    fn a_server_answers_and_leaves_no_socket() {
        let folder = tempfile::tempdir().expect("a folder");
        let control = control(folder.path());
        assert_eq!(ask(folder.path(), &drop_all()).expect("done").dropped, 0);
        let refused = ask(folder.path(), &forget("file")).expect_err("it runs").to_string();
        assert!(refused.contains("in the configuration; stop the server"), "{refused}");
        let unknown = ask(folder.path(), &forget("gone")).expect_err("unknown").to_string();
        assert!(unknown.contains("no sink gone"), "{unknown}");
        control.stop();
        assert!(matches!(ask(folder.path(), &drop_all()), Err(ControlError::NoServer)));
        assert!(!folder.path().join(NAME).exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_long_path_works() {
        let folder = tempfile::tempdir().expect("a folder");
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).expect("made");
        for folder in [folder.path(), &deep] {
            // As a killed process leaves it.
            drop(listen(folder).expect("bound"));
            assert!(folder.join(NAME).exists());
            assert!(matches!(ask(folder, &drop_all()), Err(ControlError::NoServer)));
            let control = control(folder);
            assert_eq!(ask(folder, &drop_all()).expect("done"), RepairReport::default());
            control.stop();
        }
    }

    #[test]
    fn an_invalid_request_gets_an_error_or_is_cut_off_and_the_next_one_is_served() {
        let folder = tempfile::tempdir().expect("a folder");
        let control = control(folder.path());
        let path = folder.path().join(NAME);
        for bad in ["{}\n", "not JSON\n", "{\"do\":\"forget\",\"sink\":\"x\",\"stray\":1}\n"] {
            let mut stream = UnixStream::connect(&path).expect("connects");
            stream.write_all(bad.as_bytes()).expect("written");
            let line = read_line(&mut stream, REQUEST_TIME).expect("answered");
            assert!(line.starts_with(br#"{"error":"not a request"#), "{}", String::from_utf8_lossy(&line));
        }
        let mut endless = UnixStream::connect(&path).expect("connects");
        let mut sent = 0_usize;
        while sent < 100 * MAX_LINE && endless.write_all(&[b'x'; 4096]).is_ok() {
            sent += 4096;
        }
        assert!(sent < 100 * MAX_LINE, "it was not cut off");
        drop(UnixStream::connect(&path).expect("one that says nothing"));
        assert!(ask(folder.path(), &drop_all()).is_ok());
        control.stop();
    }
}
