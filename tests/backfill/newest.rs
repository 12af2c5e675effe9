//! The internal sink of the newest events, in a service within this process.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use dt_receiver::clock::SystemClock;
use dt_receiver::cloud::newest::{NEWEST_SINK, NewestSink};
use dt_receiver::cloud::store::CloudStore;
use dt_receiver::config::{Config, Sources};
use dt_receiver::log::{Log, LogOptions};
use dt_receiver::service::Service;
use tokio::sync::oneshot;

use crate::common::SECRET;
use crate::events::{now, token};
use crate::sender::Sender;
use crate::until;

struct OneSecret;

impl Sources for OneSecret {
    fn env(&self, _name: &str) -> Option<OsString> {
        Some(OsString::from(SECRET))
    }

    fn file(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn body(id: &str, device: &str, time: &str) -> String {
    format!(
        r#"{{"event":{{"eventId":"{id}","eventType":"touch","targetName":"projects/p/devices/{device}","timestamp":"{time}","data":{{"touch":{{}}}}}},"labels":{{}}}}"#
    )
}

/// Runs a service with the sink or without it while `test` runs.
async fn with_service(
    folder: &Path,
    store: Option<Arc<CloudStore>>,
    sends: Vec<String>,
    test: impl AsyncFn(),
) {
    let text = format!(
        "listen = '127.0.0.1:0'\ndata = '{0}/data'\n[[connector]]\nname = 'plant'\nsecrets = [{{ env = 'S' }}]\nsinks = ['out']\n\
         [[sink]]\nname = 'out'\ntype = 'file'\npath = '{0}/out.ndjson'\n",
        folder.display()
    );
    let config = Config::from_toml(&text, &OneSecret, &dt_receiver::sink_types()).expect("a configuration");
    let mut builder = Service::builder(config);
    if let Some(store) = store {
        builder = builder.sink(NEWEST_SINK, NewestSink::new(store, Arc::new(SystemClock)));
    }
    let service = builder.start().await.expect("it starts");
    let listen = service.address().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(service.run_until(async { drop(stopped.await) }));
    tokio::task::spawn_blocking(move || {
        let mut sender = Sender::connect(listen).expect("it listens");
        for body in sends {
            assert_eq!(sender.post("/", &body, &token(&body, now())).expect("an answer").status, 200);
        }
    })
    .await
    .expect("sent");
    test().await;
    stop.send(()).expect("it runs");
    running.await.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_events_follow_what_is_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("data")).expect("made");
    let store = Arc::new(CloudStore::open(&folder.path().join("data")).expect("opened"));
    let newest = |device: &str| {
        store.newest("p", device, "touch").expect("read").map(|event| event.event_id).unwrap_or_default()
    };
    let sends = vec![
        body("e1", "a", "2026-01-01T00:00:01Z"),
        body("e2", "b", "2026-01-01T00:00:02Z"),
        body("e3", "a", "2026-01-01T00:00:03Z"),
        // Late.
        body("e4", "a", "2026-01-01T00:00:02Z"),
    ];
    with_service(folder.path(), Some(Arc::clone(&store)), sends, async || {
        until("the newest events", || newest("a") == "e3" && newest("b") == "e2").await;
    })
    .await;
    // Without the sink, it is forgotten, although it has not received an event.
    let sends = || vec![body("e5", "a", "2026-01-01T00:00:05Z")];
    with_service(folder.path(), None, sends(), async || {}).await;
    let log = Log::open(&folder.path().join("data/spool"), LogOptions::for_repair(), Arc::new(SystemClock));
    let log = log.expect("opened");
    assert!(log.sink(NEWEST_SINK).is_none() && log.sink("out").is_some());
    log.close();
    drop(log);
    assert_eq!(newest("a"), "e3");
    // It starts again with what is accepted from then on.
    let sends = vec![body("e6", "b", "2026-01-01T00:00:06Z")];
    with_service(folder.path(), Some(Arc::clone(&store)), sends, async || {
        until("the newest event", || newest("b") == "e6").await;
    })
    .await;
    assert_eq!(newest("a"), "e3");
}
