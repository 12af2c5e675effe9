//! The listeners: accepting within limits, and stopping without dropping what is in flight.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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

/// How often the log is told how many lines were held back, if any were.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// How long to wait after accepting failed, which means that the system has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The public listener: the Endpoint URL.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    endpoint: Arc<Endpoint>,
}

impl Server {
    /// Serves `endpoint` on a listener that is bound already.
    #[must_use]
    pub fn new(listener: impl Into<Listener>, endpoint: Arc<Endpoint>) -> Self {
        Self { listener: listener.into(), endpoint }
    }

    /// Serves until `stop` becomes true, then accepts no more, finishes what is in flight, and at the latest returns
    /// after `drain_timeout`.
    pub async fn run(self, mut stop: watch::Receiver<bool>, drain_timeout: Duration) {
        let Self { listener, endpoint } = self;
        let Limits { max_connections, max_connections_per_peer, .. } = endpoint.limits;
        let telemetry = Arc::clone(&endpoint.telemetry);
        let limiter = ConnectionLimiter::new(max_connections, max_connections_per_peer, telemetry);
        let mut report = tokio::time::interval(REPORT_EVERY);
        report.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let turned_away = Arc::new(Semaphore::new(MAX_TURNED_AWAY));
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
                && limiter.make_room()
            {
                // An aborted task ends when it runs, which may not be at once.
                let _late = tokio::time::timeout(ACCEPT_PAUSE, limiter.one_has_ended()).await;
                continue;
            }
            let Some((stream, peer)) = usable(accepted, &mut failing, &endpoint.telemetry).await else {
                continue;
            };
            let address = peer.map(|peer| peer.ip());
            // A proxy comes on behalf of many, whose requests say who they are.
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
                if let Ok(permit) = Arc::clone(&turned_away).try_acquire_owned() {
                    connections.spawn(async move {
                        let mut stop = stop;
                        if let Some((stream, client)) =
                            handshake::open(stream, peer, &endpoint, &mut stop).await
                        {
                            connection::turn_away(stream, client, endpoint, stop).await;
                        }
                        drop(permit);
                    });
                }
            }
            // What has ended is joined at least as fast as others come: until then its task is kept.
            while connections.try_join_next().is_some() {}
            telemetry.metrics.connections.set(connections.len() as f64);
        }
        drop(listener);
        endpoint.stop();
        let drained = async { while connections.join_next().await.is_some() {} };
        let _late = tokio::time::timeout(drain_timeout, drained).await;
        endpoint.telemetry.report_suppressed_lines();
        // What is left is closed by dropping the set.
    }
}

/// Whether there is no file descriptor for one more connection.
fn is_out_of_files(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE))
}

/// Makes a connection ready and serves it.
async fn serve(
    mut slot: ConnectionSlot,
    stream: Stream,
    peer: Option<SocketAddr>,
    endpoint: Arc<Endpoint>,
    mut stop: watch::Receiver<bool>,
) {
    // On the heap while it lasts: what a handshake needs would stay with the connection until its end.
    let opened = Box::pin(handshake::open(stream, peer, &endpoint, &mut stop)).await;
    if let Some((stream, client)) = opened {
        let handshake_of = client.filter(|_| endpoint.tls.is_some());
        slot.is_of(client.filter(|_| client != peer), handshake_of);
        connection::serve_in_slot(Some(slot), stream, client, endpoint, stop).await;
    }
}

/// An accepted connection; `None` when there is none. A pause keeps a system that has run out of something from being
/// asked all the time.
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

/// The listener for operators: `/healthz`, `/readyz`, `/metrics`.
#[derive(Debug)]
pub struct AdminServer {
    listener: Listener,
    endpoint: Arc<Endpoint>,
}

impl AdminServer {
    /// How many connections operators may have open.
    const MAX_CONNECTIONS: usize = 64;

    /// Tells about `endpoint` on a listener that is bound already.
    #[must_use]
    pub fn new(listener: impl Into<Listener>, endpoint: Arc<Endpoint>) -> Self {
        Self { listener: listener.into(), endpoint }
    }

    /// Serves until `stop` becomes true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let Self { listener, endpoint } = self;
        let local = listener.is_loopback();
        let places = Arc::new(Semaphore::new(Self::MAX_CONNECTIONS));
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
            let (endpoint, stop) = (Arc::clone(&endpoint), stop.clone());
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                connections.spawn(async move {
                    let answer = move |request, _guard| {
                        std::future::ready(Ok(admin::answer(&endpoint, &request, local)))
                    };
                    connection::serve_with(stream, &Limits::default(), stop, answer).await;
                    drop(place);
                });
            }
        }
    }
}
