//! Copies of an event: delivered once, answered 200 each time, for as long as the window holds. It holds for 72 h at least,
//! by the time of the events. Ids are forgotten by periods of six hours, so it can hold for six hours more, until the ids of
//! a later event are stored.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use dt_receiver::clock::ManualClock;
use dt_receiver::config::{Config, Sources};
use dt_receiver::record::Record;
use dt_receiver::service::Service;
use dt_receiver::sink::{OpenError, Outcome, Sink};
use parking_lot::Mutex;

use crate::events::{SECRET, body, id, token};
use crate::sender::Sender;

const HOUR: i64 = 3600;
/// When it begins, in Unix seconds.
const BEGIN: i64 = 1_700_000_000;

/// What was delivered: connector and event id.
type Delivered = Arc<Mutex<Vec<(String, String)>>>;

struct Collect(Delivered);

impl Sink for Collect {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        let line = |record: &Arc<Record>| (record.connector.to_string(), record.event_id.to_string());
        self.0.lock().extend(batch.iter().map(line));
        Outcome::delivered(batch.len())
    }
}

struct Fixed;

impl Sources for Fixed {
    fn env(&self, _name: &str) -> Option<OsString> {
        Some(OsString::from(SECRET))
    }

    fn file(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A receiver that can be restarted, at a time that is set.
struct Rig {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    delivered: Delivered,
    more: &'static str,
}

impl Rig {
    fn new(more: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, clock: Arc::new(ManualClock::at(0)), delivered: Delivered::default(), more }
    }

    /// One life of the receiver, at this many seconds after the beginning; its stop delivers what there is.
    fn live(&self, seconds: i64, use_it: impl FnOnce(SocketAddr, i64) + Send + 'static) {
        self.clock.set((BEGIN + seconds) * 1000);
        let text = format!(
            "listen = '127.0.0.1:0'\nadmin = 'off'\n{}\n\
             [[connector]]\nname = 'one'\npath = '/one'\nsecrets = [{{ env = 'S' }}]\n\
             [[connector]]\nname = 'two'\npath = '/two'\nsecrets = [{{ env = 'S' }}]\n\
             [[connector]]\nname = 'sync'\npath = '/sync'\ndedup_window = 0\nsecrets = [{{ env = 'S' }}]\n",
            self.more
        );
        let mut config =
            Config::from_toml(&text, &Fixed, &dt_receiver::sink_types()).expect("a configuration");
        config.data = self.folder.path().join("data");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let clock: Arc<ManualClock> = Arc::clone(&self.clock);
            let builder = Service::builder(config).sink("collect", Collect(Arc::clone(&self.delivered)));
            let service = builder.clock(clock).start().await.expect("it starts");
            let address = service.address().expect("bound");
            let used = tokio::task::spawn_blocking(move || use_it(address, BEGIN + seconds));
            service.run_until(async { used.await.expect("no panic") }).await;
        });
    }

    /// How often the event came from the connector to the sink.
    fn count(&self, connector: &str, number: u64) -> usize {
        let id = id(1, number);
        self.delivered.lock().iter().filter(|line| line.0 == connector && line.1 == id).count()
    }
}

/// Sends an event of device 1; gives the status in the answer, which has to be a 200.
fn send(address: SocketAddr, path: &str, number: u64, at: i64) -> String {
    let body = body(1, number);
    let answer = Sender::connect(address).and_then(|mut sender| sender.post(path, &body, &token(&body, at)));
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let reply: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    reply["status"].as_str().expect("a status").to_owned()
}

#[test]
fn three_copies_at_once_a_restart_and_71_hours_make_one_event() {
    let rig = Rig::new("");
    rig.live(0, |address, at| {
        let mut said: Vec<String> = std::thread::scope(|scope| {
            let senders: Vec<_> = (0..3).map(|_| scope.spawn(|| send(address, "/one", 7, at))).collect();
            senders.into_iter().map(|sender| sender.join().expect("sent")).collect()
        });
        said.sort();
        assert_eq!(said, ["accepted", "duplicate", "duplicate"]);
    });
    rig.live(60, |address, at| assert_eq!(send(address, "/one", 7, at), "duplicate", "after a restart"));
    rig.live(71 * HOUR, |address, at| assert_eq!(send(address, "/one", 7, at), "duplicate", "after 71 h"));
    assert_eq!(rig.count("one", 7), 1);
    // A later event than 78 h, once its id is stored, ends the window.
    rig.live(79 * HOUR, |address, at| assert_eq!(send(address, "/one", 8, at), "accepted"));
    rig.live(80 * HOUR, |address, at| {
        assert_eq!(send(address, "/one", 7, at), "accepted", "after 80 h");
        assert_eq!(send(address, "/one", 7, at), "duplicate", "and that begins a new window");
    });
    assert_eq!(rig.count("one", 7), 2);
}

#[test]
fn two_connectors_with_the_same_event_both_get_it() {
    let rig = Rig::new("");
    rig.live(0, |address, at| {
        for path in ["/one", "/two"] {
            assert_eq!(send(address, path, 7, at), "accepted");
            assert_eq!(send(address, path, 7, at), "duplicate");
        }
    });
    assert_eq!((rig.count("one", 7), rig.count("two", 7)), (1, 1));
}

#[test]
fn without_a_window_every_copy_is_an_event() {
    let rig = Rig::new("");
    rig.live(0, |address, at| {
        for _ in 0..3 {
            assert_eq!(send(address, "/sync", 7, at), "accepted");
        }
    });
    assert_eq!(rig.count("sync", 7), 3);
    let rig = Rig::new("dedup_window = 0");
    rig.live(0, |address, at| {
        for _ in 0..2 {
            assert_eq!(send(address, "/one", 7, at), "accepted");
        }
    });
    assert_eq!(rig.count("one", 7), 2);
}

#[test]
fn when_there_are_too_many_ids_the_oldest_are_forgotten() {
    let rig = Rig::new("dedup_max = 10");
    rig.live(0, |address, at| {
        for number in 0..20 {
            assert_eq!(send(address, "/one", number, at), "accepted");
        }
        assert_eq!(send(address, "/one", 19, at), "duplicate", "the newest is known");
    });
    // The stop has stored them, and has kept the newest.
    rig.live(60, |address, at| {
        assert_eq!(send(address, "/one", 100, at), "accepted");
        for number in 200..209 {
            assert_eq!(send(address, "/one", number, at), "accepted");
        }
        assert_eq!(send(address, "/one", 100, at), "duplicate");
        assert_eq!(send(address, "/one", 0, at), "accepted", "it is long forgotten");
    });
}
