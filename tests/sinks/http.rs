//! The sink `http` under the contract that all sinks keep, with a small HTTP server as its target.

use crate::contract::UnderTest;
use dt_receiver::record::Format;

#[cfg(not(feature = "http"))]
pub(crate) fn under_test(_: Format) -> Option<UnderTest> {
    None
}

#[cfg(feature = "http")]
pub(crate) fn under_test(format: Format) -> Option<UnderTest> {
    use std::sync::Arc;

    use dt_receiver::clock::SystemClock;
    use dt_receiver::sink::SinkContext;
    use dt_receiver::sink_types;
    use dt_receiver::telemetry::Telemetry;

    let target = Arc::new(Target::start());
    let settings = sink_types().parse(&format!("http:http://{}/", target.address)).expect("a sink");
    let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
    let reporter = telemetry.sink_reporter("http", settings.metrics());
    let sink = settings.sink(SinkContext::new(format, reporter)).expect("made");
    let lines = Arc::clone(&target);
    Some(UnderTest {
        name: "http",
        sink,
        lines: Box::new(move || lines.bodies.lock().clone()),
        set_broken: Box::new(move |is_broken| {
            target.is_broken.store(is_broken, std::sync::atomic::Ordering::SeqCst)
        }),
        is_lines: false,
    })
}

/// A server that keeps the bodies of requests, and answers 500 while it is broken.
#[cfg(feature = "http")]
struct Target {
    address: std::net::SocketAddr,
    bodies: std::sync::Arc<parking_lot::Mutex<Vec<String>>>,
    is_broken: std::sync::Arc<std::sync::atomic::AtomicBool>,
    _runtime: tokio::runtime::Runtime,
}

#[cfg(feature = "http")]
impl Target {
    fn start() -> Self {
        use std::sync::Arc;
        use std::sync::atomic::Ordering;

        use http_body_util::{BodyExt, Empty};
        use hyper::body::{Bytes, Incoming};
        use hyper::{Request, Response, StatusCode};
        use hyper_util::rt::TokioIo;

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("listens");
        let address = listener.local_addr().expect("an address");
        let (bodies, is_broken) = (Arc::default(), Arc::default());
        let parts: (Arc<parking_lot::Mutex<Vec<String>>>, Arc<std::sync::atomic::AtomicBool>) =
            (Arc::clone(&bodies), Arc::clone(&is_broken));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (bodies, is_broken) = parts.clone();
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (bodies, is_broken) = (Arc::clone(&bodies), Arc::clone(&is_broken));
                    async move {
                        let body = request.into_body().collect().await?.to_bytes();
                        let mut response = Response::new(Empty::<Bytes>::new());
                        if is_broken.load(Ordering::SeqCst) {
                            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                        } else {
                            bodies.lock().push(String::from_utf8(body.to_vec()).expect("text"));
                        }
                        Ok::<_, hyper::Error>(response)
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, bodies, is_broken, _runtime: runtime }
    }
}
