//! The servers of the Endpoint URL and of the operators. They accept connections within limits, and finish the requests in
//! flight before they stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use rustix::io::Errno;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::connection_limiter::{ConnectionLimiter, ConnectionSlot, NewConnection};
use super::endpoint::Endpoint;
use super::listener::Listener;
use super::peer::Peer;
use super::stream::Stream;
use super::{admin, connection, handshake};
use crate::config::{Limits, MAX_TURNED_AWAY};
use crate::telemetry::{AcceptFailed, ConnectionRefused, ConnectionRefusedReason, Telemetry};

/// The time between two reports of suppressed log lines.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// The pause after a failed accept, which usually means that a resource of the system is exhausted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The server of the public listener, for the Endpoint URL.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    endpoint: Arc<Endpoint>,
}

impl Server {
    /// Creates a server for `endpoint` on this listener.
    #[must_use]
    pub fn new(listener: impl Into<Listener>, endpoint: Arc<Endpoint>) -> Self {
        Self { listener: listener.into(), endpoint }
    }

    /// Serves until `stop` becomes `true`. Then accepts no more connections, finishes the requests in flight, and returns after
    /// at most `drain_timeout`.
    pub async fn run(self, mut stop: watch::Receiver<bool>, drain_timeout: Duration) {
        let Self { listener, endpoint } = self;
        let Limits { max_connections, max_connections_per_peer, .. } = endpoint.limits;
        let telemetry = Arc::clone(&endpoint.telemetry);
        let limiter = ConnectionLimiter::new(max_connections, max_connections_per_peer, telemetry);
        let mut report = tokio::time::interval(REPORT_EVERY);
        report.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let overloaded = Arc::new(Semaphore::new(MAX_TURNED_AWAY));
        let mut connections = JoinSet::new();
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                accepted = async {
                    limiter.may_enter().await;
                    listener.accept().await
                } => accepted,
                Some(_ended) = connections.join_next(), if !connections.is_empty() => {
                    endpoint.telemetry.metrics.connections.set(connections.len() as f64);
                    continue;
                }
                _ = report.tick() => {
                    endpoint.telemetry.report_suppressed_lines();
                    continue;
                }
                _ = stop.wait_for(|stop| *stop) => break,
            };
            if let Err(error) = &accepted
                && is_out_of_files(error)
                && limiter.evict_one()
            {
                // An aborted task ends when the runtime has run it once more.
                let _late = tokio::time::timeout(ACCEPT_PAUSE, limiter.one_has_ended()).await;
                continue;
            }
            let Some((stream, peer)) = usable(accepted, &mut failing, &endpoint.telemetry).await else {
                continue;
            };
            let address = peer.map(|peer| peer.ip());
            // A trusted proxy forwards for many clients, which its headers name.
            let is_proxy = endpoint.routing().proxies.trusts(address);
            if !is_proxy && !endpoint.routing().limits.allows(address) {
                endpoint
                    .telemetry
                    .emit(&ConnectionRefused { peer, reason: ConnectionRefusedReason::NotAllowed });
                continue;
            }
            let counted = address.filter(|_| !is_proxy);
            let is_over_budget = counted
                .is_some_and(|address| endpoint.rejections.is_over(address, endpoint.clock.unix_millis()));
            let new_connection =
                NewConnection { address: peer, peer: counted.map(Peer::from), is_over_budget };
            let (endpoint, stop) = (Arc::clone(&endpoint), stop.clone());
            let telemetry = Arc::clone(&endpoint.telemetry);
            if let Some(slot) = limiter.enter(new_connection) {
                let number = slot.number();
                limiter.served_by(number, connections.spawn(serve(slot, stream, peer, endpoint, stop)));
            } else {
                telemetry.emit(&ConnectionRefused { peer, reason: ConnectionRefusedReason::TooMany });
                if let Ok(permit) = Arc::clone(&overloaded).try_acquire_owned() {
                    connections.spawn(async move {
                        let mut stop = stop;
                        if let Some((stream, client)) =
                            handshake::open(stream, peer, &endpoint, &mut stop).await
                        {
                            connection::serve_overloaded(stream, client, endpoint, stop).await;
                        }
                        drop(permit);
                    });
                }
            }
            // Frees the memory of the tasks that have ended, at least as fast as new ones start.
            while connections.try_join_next().is_some() {}
            telemetry.metrics.connections.set(connections.len() as f64);
        }
        drop(listener);
        endpoint.stop();
        let drained = async { while connections.join_next().await.is_some() {} };
        let _late = tokio::time::timeout(drain_timeout, drained).await;
        endpoint.telemetry.report_suppressed_lines();
        // Dropping the set closes the connections that are left.
    }
}

/// Returns whether an error says that the process or the system has no free file descriptor.
fn is_out_of_files(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE))
}

/// Prepares a connection and serves it.
async fn serve(
    mut slot: ConnectionSlot,
    stream: Stream,
    peer: Option<SocketAddr>,
    endpoint: Arc<Endpoint>,
    mut stop: watch::Receiver<bool>,
) {
    // Boxed, so that the memory of the handshake is freed before the connection is served.
    let opened = Box::pin(handshake::open(stream, peer, &endpoint, &mut stop)).await;
    if let Some((stream, client)) = opened {
        let handshake_of = client.filter(|_| endpoint.tls.is_some());
        slot.set_client(client.filter(|_| client != peer), handshake_of);
        connection::serve_in_slot(Some(slot), stream, client, endpoint, stop).await;
    }
}

/// Returns the accepted connection. After an error, logs it, waits for [`ACCEPT_PAUSE`] and returns `None`.
async fn usable(
    accepted: io::Result<(Stream, Option<SocketAddr>)>,
    failing: &mut bool,
    telemetry: &Telemetry,
) -> Option<(Stream, Option<SocketAddr>)> {
    match accepted {
        Ok(accepted) => {
            if std::mem::take(failing) {
                tracing::info!("connections are accepted again");
            }
            Some(accepted)
        }
        Err(error) => {
            telemetry.emit(&AcceptFailed { error: &error, is_first: !std::mem::replace(failing, true) });
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// The server of the listener for operators: `/healthz`, `/readyz`, `/metrics`.
#[derive(Debug)]
pub struct AdminServer {
    listener: Listener,
    endpoint: Arc<Endpoint>,
}

impl AdminServer {
    /// The largest number of open connections of operators.
    const MAX_CONNECTIONS: usize = 64;

    /// Creates a server that reports on `endpoint`, on this listener.
    #[must_use]
    pub fn new(listener: impl Into<Listener>, endpoint: Arc<Endpoint>) -> Self {
        Self { listener: listener.into(), endpoint }
    }

    /// Serves until `stop` becomes true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let Self { listener, endpoint } = self;
        let local = listener.is_loopback();
        let permits = Arc::new(Semaphore::new(Self::MAX_CONNECTIONS));
        let measuring = Arc::new(Semaphore::new(1));
        let mut connections = JoinSet::new();
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let Some((stream, _)) = usable(accepted, &mut failing, &endpoint.telemetry).await else {
                continue;
            };
            let (endpoint, measuring, stop) = (Arc::clone(&endpoint), Arc::clone(&measuring), stop.clone());
            if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                connections.spawn(async move {
                    let answer = move |request: Request<Incoming>, guard| {
                        let (endpoint, measuring) = (Arc::clone(&endpoint), Arc::clone(&measuring));
                        async move {
                            let answer = admin::answer(endpoint, measuring, request.map(drop), local).await;
                            drop(guard);
                            Ok(answer)
                        }
                    };
                    connection::serve_with(stream, &Limits::default(), stop, answer).await;
                    drop(permit);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::http::Routing;
    use crate::http::intake::{Accepted, Intake, IntakeFuture, Readiness};
    use dt_sink::clock::SystemClock;
    use dt_sink::record::{DeadLetter, Record};

    /// Its disk hangs while it is measured.
    struct Hanging {
        entered: tokio::sync::mpsc::UnboundedSender<()>,
        released: Mutex<mpsc::Receiver<()>>,
    }

    impl Intake for Hanging {
        fn accept(&self, _connector: usize, _record: Record) -> IntakeFuture<'_, Accepted> {
            IntakeFuture::Ready(Ok(Accepted::New))
        }

        fn dead_letter(&self, _dead_letter: DeadLetter) -> IntakeFuture<'_, ()> {
            IntakeFuture::Ready(Ok(()))
        }

        fn readiness(&self) -> Readiness {
            Readiness { ready: true, problems: Vec::new() }
        }

        fn measure(&self) {
            let _ended = self.entered.send(());
            let released = self.released.lock().recv_timeout(Duration::from_secs(30));
            assert!(released.is_ok(), "nothing was answered while the disk was hanging");
        }
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    /// An endpoint whose disk hangs, with what says that it is measured, and what lets one measurement end.
    fn hanging() -> (Arc<Endpoint>, tokio::sync::mpsc::UnboundedReceiver<()>, mpsc::Sender<()>) {
        let (entered, is_entered) = tokio::sync::mpsc::unbounded_channel();
        let (release, released) = mpsc::channel();
        let intake = Arc::new(Hanging { entered, released: Mutex::new(released) });
        let clock: Arc<dyn dt_sink::clock::Clock> = Arc::new(SystemClock);
        let routing = Routing::new(&[], Limits::default(), intake);
        let telemetry = Arc::new(Telemetry::new(Arc::clone(&clock)));
        (Arc::new(Endpoint::new(routing, telemetry, clock)), is_entered, release)
    }

    /// The one thread of this runtime answers all requests.
    #[tokio::test]
    async fn a_hanging_disk_holds_up_only_the_request_for_the_metrics() {
        let (endpoint, mut is_entered, release) = hanging();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let (stop, is_stopped) = watch::channel(false);
        let server = tokio::spawn(AdminServer::new(listener, endpoint).run(is_stopped));
        let first = tokio::spawn(get(address, "/metrics"));
        is_entered.recv().await.expect("it is measured");
        let healthz = get(address, "/healthz").await;
        assert!(healthz.starts_with("HTTP/1.1 200"), "{healthz}");
        release.send(()).expect("waited for");
        let metrics = first.await.expect("answered");
        assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("dt_receiver_ready 1"), "{metrics}");
        stop.send(true).expect("running");
        server.await.expect("stopped");
    }

    #[tokio::test]
    async fn metrics_that_cannot_be_measured_in_time_are_503_also_for_the_next_request() {
        let (endpoint, mut is_entered, release) = hanging();
        let measuring = Arc::new(Semaphore::new(1));
        let ask = || {
            let request = Request::get("/metrics").body(()).expect("good");
            Box::pin(admin::answer(Arc::clone(&endpoint), Arc::clone(&measuring), request, false))
        };
        let first = tokio::spawn(ask());
        is_entered.recv().await.expect("it is measured");
        let mut second = ask();
        tokio::select! {
            biased;
            answer = &mut second => panic!("{answer:?}"),
            () = std::future::ready(()) => {}
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(first.await.expect("answered").status(), 503);
        assert_eq!(second.await.status(), 503);
        tokio::time::resume();
        release.send(()).expect("waited for");
        release.send(()).expect("waited for");
        assert_eq!(ask().await.status(), 200);
        is_entered.recv().await.expect("it is measured again");
        assert!(is_entered.try_recv().is_err(), "the second one was never measured");
    }
}
