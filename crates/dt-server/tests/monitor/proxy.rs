//! A proxy in front of the REST API, which records each request, and can answer in its place.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use dt_sink::clock::Clock;
use http::{Method, StatusCode, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::clock::FastClock;

/// A request of the receiver.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// The path with the query, without `/v2`.
    pub(crate) path: String,
    pub(crate) body: String,
    /// When it was received, in Unix milliseconds.
    pub(crate) at: i64,
}

/// Answers a request in place of the API, or does something before it is forwarded.
type Rule = Box<dyn FnMut(&Call) -> Option<(StatusCode, String)> + Send>;

#[derive(Default)]
struct Shared {
    calls: Vec<Call>,
    rule: Option<Rule>,
}

/// The proxy. It ends with the runtime of its test.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Clone)]
struct Forwarding {
    to: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    shared: Arc<Mutex<Shared>>,
    clock: FastClock,
}

impl Proxy {
    /// Starts the proxy in front of the emulator at an address.
    pub(crate) async fn start(to: SocketAddr, clock: FastClock) -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        let state = Forwarding { to, client, shared: Arc::clone(&shared), clock };
        let app = Router::new().fallback(forward).with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, shared }
    }

    /// Sets what happens with requests from now on.
    pub(crate) fn rule(&self, rule: impl FnMut(&Call) -> Option<(StatusCode, String)> + Send + 'static) {
        self.shared.lock().expect("not poisoned").rule = Some(Box::new(rule));
    }

    /// Forwards all requests from now on.
    pub(crate) fn forward_all(&self) {
        self.shared.lock().expect("not poisoned").rule = None;
    }

    /// Returns all requests so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.lock().expect("not poisoned").calls.clone()
    }

    /// Returns the requests so far that can change something.
    pub(crate) fn changes(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.method != Method::GET).collect()
    }

    /// Returns how often the connectors were listed.
    pub(crate) fn checks(&self) -> usize {
        let is_list =
            |call: &&Call| call.path.split('?').next().is_some_and(|path| path.ends_with("/dataconnectors"));
        self.calls().iter().filter(is_list).count()
    }
}

async fn forward(State(state): State<Forwarding>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.expect("a body");
    let path = head.uri.path_and_query().expect("a path").as_str().to_owned();
    let call = Call {
        method: head.method.clone(),
        path: path.trim_start_matches("/v2").to_owned(),
        body: String::from_utf8_lossy(&body).into_owned(),
        at: state.clock.unix_millis(),
    };
    let answer = {
        let mut shared = state.shared.lock().expect("not poisoned");
        shared.calls.push(call.clone());
        shared.rule.as_mut().and_then(|rule| rule(&call))
    };
    if let Some((status, body)) = answer {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        return response;
    }
    let mut request = http::Request::new(Full::new(body));
    *request.method_mut() = head.method;
    *request.uri_mut() = format!("http://{}{path}", state.to).parse::<Uri>().expect("a URL");
    *request.headers_mut() = head.headers;
    request.headers_mut().remove(http::header::HOST);
    let (head, body) = state.client.request(request).await.expect("an answer").into_parts();
    Response::from_parts(head, Body::new(body))
}
