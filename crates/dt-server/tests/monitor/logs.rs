//! The log lines of all tests of this process. Each test has a project of its own, which its lines name.

use std::io;
use std::sync::{Mutex, Once};

use tracing_subscriber::fmt::MakeWriter;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Writer;

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Writers;

impl MakeWriter<'_> for Writers {
    type Writer = Writer;

    fn make_writer(&self) -> Writer {
        Writer
    }
}

/// Starts the log, with the lines of all levels of this crate's code.
pub(crate) fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let log = tracing_subscriber::fmt().json().with_env_filter("info,dt_server=trace,dt_api=trace");
        log.with_writer(Writers).init();
    });
}

/// Returns all lines so far.
pub(crate) fn text() -> String {
    String::from_utf8_lossy(&LINES.lock().expect("not poisoned")).into_owned()
}

/// Returns the lines that contain all of these texts.
pub(crate) fn lines_with(parts: &[&str]) -> Vec<String> {
    let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
    text().lines().filter(has_all).map(str::to_owned).collect()
}
