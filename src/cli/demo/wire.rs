//! HTTP between the local cloud and the receiver: sends the requests and records the answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{RwLock, RwLockWriteGuard, watch};

use super::sinks::ReceivedIds;
use dt_emulator::{AttemptRequest, Transport, TransportFuture};

/// The time limit of a response: that of DT.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest size of a response that is read, in bytes. The receiver's responses are far smaller.
const MAX_ANSWER: usize = 64 * 1024;

/// A response: the HTTP status and the receiver's code, such as `accepted` or `checksum_mismatch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub code: String,
    pub event_id: Option<String>,
}

impl Answer {
    fn read(status: u16, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |member: &str| body.get(member).and_then(Value::as_str).map(str::to_owned);
        let code = text("code").or_else(|| text("status")).unwrap_or_default();
        Self { status, code, event_id: text("eventId") }
    }
}

/// Sends requests to the receiver, and records the accepted events.
#[derive(Debug)]
pub struct Wire {
    client: Client<HttpConnector, Full<Bytes>>,
    /// The events that were answered 2xx.
    pub acknowledged: ReceivedIds,
    /// The times until the responses of the acknowledged requests.
    took: Mutex<Vec<Duration>>,
    /// The latest accepted request with a temperature; `None` before the first.
    temperature: watch::Sender<Option<AttemptRequest>>,
    /// A lock that each request of the cloud holds for reading until its response.
    sending: RwLock<()>,
}

impl Wire {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            client: Client::builder(TokioExecutor::new()).http1_title_case_headers(true).build_http(),
            acknowledged: ReceivedIds::default(),
            took: Mutex::default(),
            temperature: watch::Sender::default(),
            sending: RwLock::default(),
        })
    }

    /// Waits until the cloud has received all responses. It sends no further requests as long as the guard exists.
    pub async fn pause(&self) -> RwLockWriteGuard<'_, ()> {
        self.sending.write().await
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    ///
    /// A short stable code of the failure, such as `connection_failed` or `timeout`.
    pub async fn send(&self, request: AttemptRequest) -> Result<Answer, &'static str> {
        let AttemptRequest { url, headers, body, .. } = request;
        let uri: Uri = url.parse().map_err(|_| "url_unusable")?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|_| "connection_failed")?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            Ok(Answer::read(status, &body.map_err(|_| "connection_lost")?.to_bytes()))
        };
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or(Err("timeout"))
    }

    /// Waits for an accepted request with a temperature, and returns it.
    pub async fn temperature(&self) -> Option<AttemptRequest> {
        self.temperature.subscribe().wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Returns the median time from a request to its 200; `None` if there was none.
    pub fn median(&self) -> Option<Duration> {
        let mut took = self.took.lock().clone();
        took.sort_unstable();
        took.get(took.len() / 2).copied()
    }
}

impl Transport for Wire {
    fn post(&self, request: AttemptRequest) -> TransportFuture<'_> {
        Box::pin(async move {
            let _sending = self.sending.read().await;
            let began = Instant::now();
            let answer = self.send(request.clone()).await?;
            if let (200, Some(id)) = (answer.status, &answer.event_id) {
                self.took.lock().push(began.elapsed());
                self.acknowledged.add(id);
                if is_temperature(&request.body) {
                    self.temperature.send_replace(Some(request));
                }
            }
            Ok(answer.status)
        })
    }
}

fn is_temperature(body: &[u8]) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    body.pointer("/event/eventType").is_some_and(|event_type| event_type == "temperature")
}
