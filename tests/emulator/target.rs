//! A receiver of a test's own: it remembers every request, and answers as it is told.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use dt_receiver::emulator::{AttemptRequest, Emulator, Transport, TransportFuture};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, LOCATION};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::wait::until;

/// One request, as it came.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

/// The receiver. It ends with the test's runtime.
pub(crate) struct Target {
    pub(crate) url: String,
    got: Arc<Mutex<Vec<Got>>>,
    status: Arc<AtomicU16>,
}

impl Target {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/dt?a=b", listener.local_addr().expect("an address"));
        let (got, status) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU16::new(200)));
        let (seen, answer) = (Arc::clone(&got), Arc::clone(&status));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                    async move { Ok::<_, Infallible>(respond(request, &seen, &answer).await) }
                });
                tokio::spawn(async move {
                    // The emulator may cut it.
                    let _ended = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, got, status }
    }

    /// From now on every request is answered with this status.
    pub(crate) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().clone()
    }

    /// Waits until there are so many requests, and gives them.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Got> {
        until(|| Some(self.got()).filter(|got| got.len() >= count)).await
    }

    /// The types of the events that came, sorted.
    pub(crate) fn types(&self) -> Vec<String> {
        let mut types: Vec<String> = self
            .got()
            .iter()
            .map(|got| got.json()["event"]["eventType"].as_str().expect("a type").to_owned())
            .collect();
        types.sort();
        types
    }
}

async fn respond(
    request: Request<Incoming>,
    seen: &Mutex<Vec<Got>>,
    answer: &AtomicU16,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let status = answer.load(Ordering::SeqCst);
    // A body that was cut is no request.
    if let Ok(body) = body.collect().await {
        seen.lock().push(Got {
            method: head.method.to_string(),
            path: head.uri.to_string(),
            headers: head.headers,
            body: body.to_bytes().to_vec(),
        });
    }
    let mut response = Response::new(Full::new(Bytes::from_static(b"anything")));
    *response.status_mut() = status.try_into().expect("a status");
    response.headers_mut().insert(LOCATION, "http://127.0.0.1:1/".parse().expect("a URL"));
    response
}

/// A network in which every attempt waits to be told how it ends.
#[derive(Debug)]
pub(crate) struct Slow(Mutex<Vec<(String, oneshot::Sender<u16>)>>);

impl Slow {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().len()
    }

    /// Answers the attempt at a URL that ends so.
    pub(crate) fn answer(&self, end: &str, status: u16) {
        let mut waiting = self.0.lock();
        let place = waiting.iter().position(|(url, _)| url.ends_with(end)).expect("an attempt");
        waiting.remove(place).1.send(status).expect("it waits");
    }
}

impl Transport for Slow {
    fn post(&self, request: AttemptRequest) -> TransportFuture<'_> {
        let (told, tell) = oneshot::channel();
        self.0.lock().push((request.url.to_string(), told));
        Box::pin(async move { tell.await.map_err(|_| "gone") })
    }
}

/// Makes a connector in project `p`, and gives its path below `/v2`.
pub(crate) fn connect(emulator: &Emulator, url: &str, more: &Value) -> String {
    let mut body =
        json!({"type": "HTTP_PUSH", "httpConfig": {"url": url, "signatureSecret": "some-good-secret"}});
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    let made = emulator.call("POST", "/v2/projects/p/dataconnectors", &body).expect("made");
    format!("/v2/{}", made["name"].as_str().expect("a name"))
}

/// Makes a device in project `p`, and gives its path below `/v2`.
pub(crate) fn device(emulator: &Emulator, kind: &str, labels: &Value) -> String {
    let body = json!({"type": kind, "labels": labels});
    let made = emulator.call("POST", "/v2/projects/p/devices", &body).expect("made");
    format!("/v2/{}", made["name"].as_str().expect("a name"))
}

/// Publishes an event.
pub(crate) fn publish(emulator: &Emulator, device: &str, event: &Value) {
    emulator.call("POST", &format!("{device}:publish"), event).expect("published");
}
