//! A service within another program: its clock, a sink of its own, and its handle for reloads.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use dt_receiver::clock::ManualClock;
use dt_receiver::config::{Config, Sources};
use dt_receiver::record::Record;
use dt_receiver::service::{ReloadError, ReloadHandle, Service};
use dt_receiver::sink::{OpenError, Outcome, Sink};

use crate::events::{SECRET, body, parse_id, token};
use crate::place::until;
use crate::sender::Sender;

/// When it is, in Unix seconds.
pub(crate) const NOW: i64 = 1_700_000_000;

#[derive(Clone, Default)]
struct Collect(Arc<Mutex<Vec<u64>>>);

impl Sink for Collect {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        let number = |record: &Arc<Record>| parse_id(&record.event_id).expect("an id of ours").1;
        self.0.lock().expect("nobody panicked").extend(batch.iter().map(number));
        Outcome::delivered(batch.len())
    }
}

struct OneSecret;

impl Sources for OneSecret {
    fn env(&self, _name: &str) -> Option<OsString> {
        Some(OsString::from(SECRET))
    }

    fn file(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A place for services, one after another.
pub(crate) struct Embedded {
    folder: tempfile::TempDir,
    top: String,
    collect: Collect,
    clock: Arc<ManualClock>,
}

/// One that runs.
pub(crate) struct Running {
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) clock: Arc<ManualClock>,
    handle: ReloadHandle,
    runtime: tokio::runtime::Handle,
}

impl Embedded {
    pub(crate) fn new(mode: &str, top: &str) -> Self {
        let top = format!("listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\nmode = '{mode}'\n{top}\n");
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, top, collect: Collect::default(), clock: Arc::new(ManualClock::at(NOW * 1000)) }
    }

    /// A configuration with these connectors, by name.
    fn config(&self, connectors: &[&str]) -> Config {
        let section = |name: &&str| {
            let path = if *name == "default" { String::new() } else { (*name).to_owned() };
            format!("[[connector]]\nname = '{name}'\npath = '/{path}'\nsecrets = [{{ env = 'S' }}]\n")
        };
        let text = self.top.clone() + &connectors.iter().map(section).collect::<String>();
        let mut config =
            Config::from_toml(&text, &OneSecret, &dt_receiver::sink_types()).expect("a configuration");
        config.data = self.folder.path().join("data");
        config
    }

    /// One life of a service; its stop delivers what there is.
    pub(crate) fn live(&self, use_it: impl FnOnce(&Running)) {
        self.live_with(&["default"], use_it);
    }

    fn live_with(&self, connectors: &[&str], use_it: impl FnOnce(&Running)) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let clock: Arc<ManualClock> = Arc::clone(&self.clock);
        let builder =
            Service::builder(self.config(connectors)).sink("collect", self.collect.clone()).clock(clock);
        let service = runtime.block_on(builder.start()).expect("it starts");
        let running = Running {
            listen: service.address().expect("bound"),
            admin: service.admin_address().expect("bound"),
            clock: Arc::clone(&self.clock),
            handle: service.reload_handle(),
            runtime: runtime.handle().clone(),
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = runtime.spawn(service.run_until(async {
            let _gone = stopped.await;
        }));
        use_it(&running);
        drop(stop);
        runtime.block_on(serving).expect("no panic");
    }

    /// The numbers of the events that the sink has, as they came.
    pub(crate) fn delivered(&self) -> Vec<u64> {
        self.collect.0.lock().expect("nobody panicked").clone()
    }
}

impl Running {
    /// Sends an event whose token is of that time. Gives status and code.
    pub(crate) fn send(&self, path: &str, number: u64, at: i64) -> (u16, String) {
        let body = body(1, number);
        let sender = Sender::connect(self.listen);
        let answer =
            sender.and_then(|mut sender| sender.post(path, &body, &token(&body, at))).expect("an answer");
        let reply: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        let code = reply["status"].as_str().or(reply["code"].as_str()).expect("a code");
        (answer.status, code.to_owned())
    }

    pub(crate) fn metrics(&self) -> String {
        Sender::connect(self.admin).and_then(|mut admin| admin.get("/metrics")).expect("metrics").body
    }

    fn reload(&self, config: Config) -> Result<usize, ReloadError> {
        let reload = self.handle.reload("a test", move || Ok(config));
        self.runtime.block_on(reload).map(|changes| changes.len())
    }
}

#[test]
fn an_embedder_reloads_and_its_own_sinks_stay() {
    for mode in ["spool", "direct"] {
        let embedded = Embedded::new(mode, "");
        embedded.live_with(&["default", "old"], |running| {
            assert_eq!(running.reload(embedded.config(&["default", "old"])).expect("taken"), 0);
            assert_eq!(running.reload(embedded.config(&["default", "old", "new"])).expect("taken"), 1);
            assert_eq!(running.send("/new", 0, NOW).0, 200);
            assert_eq!(running.send("/old", 1, NOW).0, 200);
            let removed = running.reload(embedded.config(&["default", "new"])).expect_err("it is in use");
            assert!(matches!(removed, ReloadError::ConnectorInUse { .. }), "{removed}");
            assert_eq!(removed.outcome(), "refused");
            let mut none = embedded.config(&["default"]);
            none.connectors.clear();
            let none = running.reload(none).expect_err("there is nothing to do");
            assert!(matches!(none, ReloadError::Start(_)), "{none}");
            until("the sink has it", || embedded.delivered().len() == 2);
            // DT has given up by then. The spool notes a moment later how far the sink is.
            running.clock.set((NOW + 13 * 3600) * 1000);
            until("it can be removed", || running.reload(embedded.config(&["default", "new"])).is_ok());
            assert_eq!(running.send("/old", 2, NOW + 13 * 3600).0, 404);
            assert_eq!(running.send("/", 2, NOW + 13 * 3600).0, 200);
            assert!(!running.metrics().contains("connector=\"old\""), "its metrics went with it");
        });
        assert_eq!(embedded.delivered(), [0, 1, 2], "{mode}");
    }
}

#[test]
fn after_the_stop_nothing_is_reloaded() {
    let embedded = Embedded::new("spool", "");
    let mut handle = None;
    embedded.live_with(&["default"], |running| handle = Some(running.handle.clone()));
    let config = embedded.config(&["default", "new"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let late = runtime.block_on(handle.expect("it ran").reload("a test", move || Ok(config)));
    assert!(matches!(late, Err(ReloadError::Stopping)), "{late:?}");
}
