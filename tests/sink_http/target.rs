//! The target: a bare hyper server, in threads of this process, that keeps what it received when it is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::events::{body, id, parse_id};
use crate::load::Ledger;

/// What a target received, over all its lives.
#[derive(Debug)]
pub(crate) struct Received {
    bodies: Mutex<Vec<Bytes>>,
    /// The requests that were received.
    count: AtomicU64,
    /// The status of the next answers.
    status: AtomicU16,
    /// Whether the bodies are kept, and not only counted.
    keeps: bool,
}

impl Received {
    fn nothing(keeps: bool) -> Self {
        let (count, status) = (AtomicU64::new(0), AtomicU16::new(200));
        Self { bodies: Mutex::default(), count, status, keeps }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    pub(crate) fn set_status(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// The bodies that were received; of a batch, its lines.
    pub(crate) fn texts(&self) -> Vec<String> {
        let text = |body: &Bytes| String::from_utf8(body.to_vec()).expect("text");
        self.bodies.lock().iter().map(text).collect()
    }

    /// What a sink of another type has written, one body a line.
    pub(crate) fn of_lines(text: &str) -> Self {
        let received = Self::nothing(true);
        received.bodies.lock().extend(text.lines().map(|line| Bytes::copy_from_slice(line.as_bytes())));
        received
    }

    /// Nothing that was acknowledged is missing or changed, and the events of a device are in order, by first copies.
    /// Returns how many copies there are too many.
    pub(crate) fn assert_complete(&self, ledger: &Ledger) -> u64 {
        let mut first: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut seen: BTreeSet<(u64, u64)> = BTreeSet::new();
        let mut copies = 0;
        for line in self.bodies.lock().iter() {
            let text = std::str::from_utf8(line).expect("text");
            let (device, number) = parse_id(text).unwrap_or_else(|| panic!("no event of ours: {text}"));
            assert_eq!(text, body(device, number), "{}", id(device, number));
            if seen.insert((device, number)) {
                first.entry(device).or_default().push(number);
            } else {
                copies += 1;
            }
        }
        let missing: Vec<_> = ledger.accepted.difference(&seen).collect();
        assert!(missing.is_empty(), "{} acknowledged events are lost: {missing:?}", missing.len());
        for (device, numbers) in &first {
            let odd = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
            assert_eq!(odd, None, "dev{device} is out of order");
        }
        copies
    }
}

/// A running target. It is killed when it is dropped: no connection is shut down in an orderly way.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) received: Arc<Received>,
    _runtime: Runtime,
}

impl Target {
    /// Starts a target on a free port, which answers 200.
    pub(crate) fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), Self::nothing(true))
    }

    /// Nothing received yet.
    pub(crate) fn nothing(keeps: bool) -> Arc<Received> {
        Arc::new(Received::nothing(keeps))
    }

    /// Starts a target at an address, which adds to what was received before.
    pub(crate) fn start_at(address: SocketAddr, received: Arc<Received>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind(address)).expect("listens");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(accept(listener, Arc::clone(&received)));
        Self { address, received, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }
}

async fn accept(listener: TcpListener, received: Arc<Received>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("set");
        let received = Arc::clone(&received);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&received)));
            // It fails when the receiver goes away, which is what some tests are about.
            let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    received: Arc<Received>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let is_batch = request.headers().get("content-type").is_some_and(|value| value == "application/x-ndjson");
    let mut response = Response::new(Empty::new());
    let Ok(body) = request.into_body().collect().await else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    };
    let body = body.to_bytes();
    let status = received.status.load(Ordering::SeqCst);
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    if status == 200 {
        if received.keeps {
            let mut bodies = received.bodies.lock();
            if is_batch {
                let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                bodies.extend(lines.map(|line| body.slice_ref(line)));
            } else {
                bodies.push(body);
            }
        }
        received.count.fetch_add(1, Ordering::SeqCst);
    }
    Ok(response)
}
