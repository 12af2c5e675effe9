//! A receiver with sinks of a test's own, as a child process that can be killed: this test binary, started again.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use dt_receiver::config::{Config, SystemSources};
use dt_receiver::record::Record;
use dt_receiver::service::Service;
use dt_receiver::sink::{Fate, OpenError, Outcome, Sink};

use crate::events::Random;
use crate::server::{Place, Server};

const FLAKY: &str = "DT_RECEIVER_TEST_CHILD_FLAKY";
const OUTAGE: &str = "DT_RECEIVER_TEST_CHILD_OUTAGE";

/// A sink that writes the id of each record to a file, and fails now and then, in the middle of a batch as well. While
/// there is a file `OUTAGE`, it is down.
struct TestSink {
    path: PathBuf,
    out: Option<File>,
    /// One try in so many fails; 0 for none.
    flaky: u64,
    outage: PathBuf,
    random: Random,
}

impl Sink for TestSink {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        let opened = OpenOptions::new().append(true).create(true).open(&self.path);
        self.out = Some(opened.map_err(|error| OpenError::Down(error.to_string()))?);
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        let Some(out) = &mut self.out else { return Outcome::retry(batch.len(), "not open") };
        if self.outage.exists() {
            return Outcome::retry(batch.len(), "down");
        }
        if self.flaky > 0 && self.random.below(self.flaky) == 0 {
            return Outcome::retry(batch.len(), "all of it failed");
        }
        // Once a record has failed, the later ones of its device must not overtake it.
        let mut failed = BTreeSet::new();
        let (mut fates, mut lines) = (Vec::new(), String::new());
        for record in batch {
            let device = record.device.as_deref().unwrap_or_default();
            let fails = self.flaky > 0 && self.random.below(self.flaky * 20) == 0;
            if fails || failed.contains(device) {
                failed.insert(device);
                fates.push(Fate::Retry { error: "this one failed".to_owned() });
            } else {
                lines.push_str(&record.event_id);
                lines.push('\n');
                fates.push(Fate::Delivered);
            }
        }
        match out.write_all(lines.as_bytes()) {
            Ok(()) => Outcome { fates, ..Outcome::default() },
            Err(error) => Outcome::retry(batch.len(), &error.to_string()),
        }
    }
}

/// Starts a receiver with the sinks of `place` and a test sink that writes ids to `path`.
pub(crate) fn start(place: &Place, path: &Path, flaky: u64, outage: &Path) -> Server {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(["--exact", "child::serve", "--nocapture", "--test-threads", "1"]);
    command.env("DT_RECEIVER_TEST_CHILD_CONFIG", &place.config);
    command.env("DT_RECEIVER_TEST_CHILD_PATH", path).env(FLAKY, flaky.to_string()).env(OUTAGE, outage);
    Server::start(command, Stdio::null()).unwrap_or_else(|ended| panic!("it did not start: {ended:?}"))
}

/// The receiver that other tests start as a child process; without a configuration there is nothing to do.
#[test]
fn serve() {
    let Some(config) = std::env::var_os("DT_RECEIVER_TEST_CHILD_CONFIG") else { return };
    let value = |name: &str| PathBuf::from(std::env::var_os(name).expect("set"));
    let flaky = crate::events::setting(FLAKY, 0);
    let config = Config::from_file(Path::new(&config), &SystemSources, &dt_receiver::sink_types())
        .expect("a configuration");
    let sink = TestSink {
        path: value("DT_RECEIVER_TEST_CHILD_PATH"),
        out: None,
        flaky,
        outage: value(OUTAGE),
        random: Random::new(u64::from(std::process::id())),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let kind = tokio::signal::unix::SignalKind::terminate();
        let mut terminate = tokio::signal::unix::signal(kind).expect("heard");
        let service = Service::builder(config).sink("test", sink).start().await.expect("it starts");
        let (listen, admin) = (service.address().expect("bound"), service.admin_address().expect("bound"));
        let line = format!("{{\"message\":\"listening\",\"listen\":\"{listen}\",\"admin\":\"{admin}\"}}\n");
        std::io::stderr().write_all(line.as_bytes()).expect("said");
        service.run_until(async move { terminate.recv().await.unwrap_or(()) }).await;
    });
}
