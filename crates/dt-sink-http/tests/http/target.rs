//! A target: an HTTP server in this process, whose answers a test decides.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) path: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Arrived {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

/// What the target answers.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Status(u16),
    /// With a header and a body.
    With(u16, Option<(&'static str, String)>, String),
    /// After this time.
    Late(Duration, u16),
    /// Once the test lets it, by [`Target::release`].
    Held(u16),
    /// Never.
    Never,
    /// With a body that never ends.
    EndlessBody(u16),
}

type Handler = Box<dyn FnMut(&Arrived) -> Reply + Send>;

#[derive(Default)]
struct State {
    arrived: Vec<Arrived>,
    connections: usize,
    in_flight: usize,
    most_in_flight: usize,
}

struct Shared {
    handler: Mutex<Handler>,
    state: Mutex<State>,
    released: watch::Sender<bool>,
}

/// A server on a free port of this machine. It ends when it is dropped.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    // Dropped last, it ends the server.
    _runtime: Runtime,
}

impl Target {
    /// Starts a server without TLS.
    pub(crate) fn start(handler: impl FnMut(&Arrived) -> Reply + Send + 'static) -> Self {
        Self::start_with(None, SocketAddr::from(([127, 0, 0, 1], 0)), handler)
    }

    /// Starts a server with TLS.
    pub(crate) fn start_tls(
        tls: ServerConfig,
        handler: impl FnMut(&Arrived) -> Reply + Send + 'static,
    ) -> Self {
        Self::start_with(Some(tls), SocketAddr::from(([127, 0, 0, 1], 0)), handler)
    }

    /// Starts a server without TLS at an address, which must be free.
    pub(crate) fn start_at(
        address: SocketAddr,
        handler: impl FnMut(&Arrived) -> Reply + Send + 'static,
    ) -> Self {
        Self::start_with(None, address, handler)
    }

    fn start_with(
        tls: Option<ServerConfig>,
        address: SocketAddr,
        handler: impl FnMut(&Arrived) -> Reply + Send + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind(address)).expect("listens");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            handler: Mutex::new(Box::new(handler)),
            state: Mutex::default(),
            released: watch::Sender::new(false),
        });
        let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
        runtime.spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self { address, shared, _runtime: runtime }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// Changes the answers.
    pub(crate) fn set(&self, handler: impl FnMut(&Arrived) -> Reply + Send + 'static) {
        *self.shared.handler.lock().unwrap() = Box::new(handler);
    }

    /// Answers what is [`Reply::Held`], now and later.
    pub(crate) fn release(&self) {
        self.shared.released.send_replace(true);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// Takes the requests that arrived since the last call.
    pub(crate) fn take(&self) -> Vec<Arrived> {
        std::mem::take(&mut self.state().arrived)
    }

    /// The bodies of the requests that arrived since the last call.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.take().into_iter().map(|arrived| arrived.body).collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state().connections
    }

    pub(crate) fn most_in_flight(&self) -> usize {
        self.state().most_in_flight
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        shared.state.lock().unwrap().connections += 1;
        tokio::spawn(serve(stream, tls, shared));
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    stream.set_nodelay(true).expect("set");
    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
    let server = auto::Builder::new(TokioExecutor::new());
    // A client that does not trust the certificate goes away, which is what some tests are about.
    let _ended = match tls {
        None => server.serve_connection(TokioIo::new(stream), service).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => server.serve_connection(TokioIo::new(stream), service).await,
            Err(_) => return,
        },
    };
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { std::future::pending().await };
    let body = String::from_utf8(body.to_bytes().to_vec()).expect("text");
    assert_eq!(parts.method, "POST");
    let path = parts.uri.path().to_owned();
    let arrived = Arrived { path, version: parts.version, headers: parts.headers, body };
    let reply = (shared.handler.lock().unwrap())(&arrived);
    {
        let mut state = shared.state.lock().unwrap();
        state.arrived.push(arrived);
        state.in_flight += 1;
        state.most_in_flight = state.most_in_flight.max(state.in_flight);
    }
    let response = |status: u16, body: Body| {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        response
    };
    let text = |text: String| Full::new(Bytes::from(text)).boxed();
    let response = match reply {
        Reply::Status(status) => response(status, text(String::new())),
        Reply::With(status, header, body) => {
            let mut response = response(status, text(body));
            if let Some((name, value)) = header {
                let value = HeaderValue::from_str(&value).expect("a value");
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
            response
        }
        Reply::Late(time, status) => {
            tokio::time::sleep(time).await;
            response(status, text(String::new()))
        }
        Reply::Held(status) => {
            let mut released = shared.released.subscribe();
            released.wait_for(|released| *released).await.expect("the test goes on");
            response(status, text(String::new()))
        }
        Reply::Never => std::future::pending().await,
        Reply::EndlessBody(status) => response(status, BodyExt::boxed(Endless)),
    };
    shared.state.lock().unwrap().in_flight -= 1;
    Ok(response)
}

/// A body that begins and never goes on.
struct Endless;

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Pending
    }
}
