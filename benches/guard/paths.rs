//! The paths that are guarded. Each makes the same inputs however many events it does, so that these cancel out.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use dt_receiver::clock::ManualClock;
use dt_receiver::config::{Config, SystemSources};
use dt_receiver::http::serve_connection;
use dt_receiver::record::{Format, Record};
use dt_receiver::service::Service;
use dt_receiver::sink::{Fate, FileSink, Sink};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use crate::{inputs, spool};

/// How many events go together where they go in batches. All counts are multiples of it.
pub(crate) const BATCH: usize = 32;
/// The events of the shorter run.
pub(crate) const FEW: usize = 10 * BATCH;
/// The events of the longer run.
pub(crate) const MANY: usize = FEW + 40 * BATCH;
/// The events that there is input for: a tenth more than are counted.
pub(crate) const MOST: usize = MANY + 4 * BATCH;

pub(crate) struct GuardedPath {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Puts into an empty folder what is needed there. Not counted.
    pub(crate) prepare: fn(&Path),
    /// Does so many events, at most [`MOST`], with that folder.
    pub(crate) run: fn(usize, &Path),
}

const fn guarded(name: &'static str, run: fn(usize, &Path), what: &'static str) -> GuardedPath {
    GuardedPath { name, what, prepare: |_| {}, run }
}

pub(crate) const PATHS: [GuardedPath; 8] = [
    guarded("verify", verify, "authenticate and verify_body, HS256"),
    guarded("record", record, "Record::read, and the line of its envelope"),
    guarded("answer", answer, "Endpoint::answer with an intake that accepts at once"),
    guarded("request", request, "the same from end to end of a stream, HTTP/1.1 kept alive"),
    guarded(
        "append",
        spool::append,
        "Log::append, 32 a group, for a sink, and the ids into the index in the end",
    ),
    GuardedPath {
        prepare: spool::fill,
        ..guarded("drain", spool::drain, "Source::read from the segments, 32 at once")
    },
    guarded("file", file, "the sink file, 32 a batch"),
    guarded(
        "service",
        service,
        "all of it: a service in mode spool with the sink file, 32 connections, its runtime and threads, and the clients",
    ),
];

fn verify(count: usize, _folder: &Path) {
    let (verifier, deliveries) = (inputs::verifier(), inputs::deliveries(64));
    for delivery in deliveries.iter().cycle().take(count) {
        black_box(delivery.verify(&verifier));
    }
}

fn record(count: usize, _folder: &Path) {
    let verifier = inputs::verifier();
    let verified: Vec<_> = inputs::deliveries(64).iter().map(|one| one.verify(&verifier)).collect();
    let (name, mut line): (Arc<str>, _) = ("default".into(), Vec::new());
    for verified in verified.iter().cycle().take(count) {
        let record = Record::read(verified, Arc::clone(&name), inputs::NOW * 1000).expect("a delivery");
        line.clear();
        Format::Envelope.write_line(&record, &mut line);
        black_box(&line);
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn answer(count: usize, _folder: &Path) {
    let (endpoint, deliveries) = (inputs::endpoint(), inputs::deliveries(64));
    let requests: Vec<_> = deliveries.iter().cycle().take(MOST).map(inputs::Delivered::request).collect();
    runtime().block_on(async {
        for request in requests.into_iter().take(count) {
            let response = endpoint.answer(None, request).await;
            assert_eq!(response.status(), 200);
        }
    });
}

fn request(count: usize, _folder: &Path) {
    let requests: Vec<_> = inputs::deliveries(64).iter().map(inputs::Delivered::http1).collect();
    runtime().block_on(async {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let (_go_on, stop) = watch::channel(false);
        let serving = tokio::spawn(serve_connection(server, None, Arc::new(inputs::endpoint()), stop));
        let mut answer = [0; 4096];
        for request in requests.iter().cycle().take(count) {
            client.write_all(request).await.expect("sent");
            // Answers are short, and are written at once.
            let len = client.read(&mut answer).await.expect("answered");
            assert!(answer[..len].starts_with(b"HTTP/1.1 200") && answer[..len].ends_with(b"}"));
        }
        drop(client);
        serving.await.expect("served");
    });
}

/// Each client sends one request, then each gets its answer: what waits for the log together differs little.
fn service(count: usize, folder: &Path) {
    let requests: Vec<_> = inputs::deliveries(MOST).iter().map(inputs::Delivered::http1).collect();
    std::fs::write(folder.join("secret"), inputs::SECRET).expect("written");
    let at = folder.display();
    let config = format!(
        "data = '{at}/data'\nlisten = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\n\
         [[connector]]\nname = 'default'\npath = '/'\nsecrets = [{{ label = 'a', file = '{at}/secret' }}]\n\
         [[sink]]\nname = 'file'\ntype = 'file'\npath = '{at}/events.ndjson'\n"
    );
    let config =
        Config::from_toml(&config, &SystemSources, &dt_receiver::sink_types()).expect("a configuration");
    runtime().block_on(async {
        let clock = Arc::new(ManualClock::at(inputs::NOW * 1000));
        let service = Service::builder(config).clock(clock).start().await.expect("started");
        let address = service.address().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(service.run_until(async { drop(stopped.await) }));
        let mut clients = Vec::new();
        for _ in 0..BATCH {
            clients.push(TcpStream::connect(address).await.expect("connected"));
        }
        let mut answer = [0; 4096];
        for batch in requests[..count].chunks(BATCH) {
            for (client, request) in clients.iter_mut().zip(batch) {
                client.write_all(request).await.expect("sent");
            }
            for client in &mut clients {
                let len = client.read(&mut answer).await.expect("answered");
                assert!(answer[..len].starts_with(b"HTTP/1.1 200") && answer[..len].ends_with(b"}"));
            }
        }
        drop((clients, stop));
        serving.await.expect("served");
    });
    let lines = std::fs::read(folder.join("events.ndjson")).expect("a file");
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), count);
}

fn file(count: usize, folder: &Path) {
    let records = inputs::records(MOST);
    let mut sink = FileSink::new(folder.join("events.ndjson"), Format::Envelope);
    sink.open(None).expect("opened");
    black_box(sink.begin());
    for batch in records[..count].chunks(BATCH) {
        let outcome = sink.deliver(batch);
        assert!(outcome.fates.iter().all(|fate| *fate == Fate::Delivered));
    }
    sink.close();
}
