//! The listeners: accepting within limits, and stopping without dropping what is in flight.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::crowd::Crowd;
use super::endpoint::Endpoint;
use super::peer::Peer;
use super::{admin, connection};
use crate::config::Limits;
use crate::telemetry::{ConnectionRefused, RefusedConnection};

/// How many connections beyond the limit are told so; the rest are closed without a word.
const MAX_TURNED_AWAY: usize = 64;

/// How often the log is told how many lines were held back, if any were.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// How long to wait after accepting failed, which means that the system has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections may wait to be accepted. Where the queue is full, the system drops the next, and DT's attempt with
/// it, which is made again a second later.
const BACKLOG: u32 = 4096;

/// Begins to listen at an address.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // After a restart, what is left of old connections is not in the way.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The public listener: the Endpoint URL.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    endpoint: Arc<Endpoint>,
}

impl Server {
    /// Serves `endpoint` on a listener that is bound already.
    #[must_use]
    pub const fn new(listener: TcpListener, endpoint: Arc<Endpoint>) -> Self {
        Self { listener, endpoint }
    }

    /// Serves until `stop` becomes true, then accepts no more, finishes what is in flight, and at the latest returns
    /// after `drain_timeout`.
    pub async fn run(self, mut stop: watch::Receiver<bool>, drain_timeout: Duration) {
        let Self { listener, endpoint } = self;
        let crowd = Crowd::new(endpoint.limits.max_connections, endpoint.limits.max_connections_per_peer);
        let mut report = tokio::time::interval(REPORT_EVERY);
        report.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let turned_away = Arc::new(Semaphore::new(MAX_TURNED_AWAY));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_ended) = connections.join_next(), if !connections.is_empty() => {
                    endpoint.telemetry.connections(connections.len());
                    continue;
                }
                _ = report.tick() => {
                    endpoint.telemetry.tell_suppressed();
                    continue;
                }
                _ = stop.wait_for(|stop| *stop) => break,
            };
            if let Err(error) = &accepted
                && is_out_of_files(error)
                && crowd.make_room()
            {
                // Whoever was sent away closes as soon as others run.
                tokio::task::yield_now().await;
                continue;
            }
            let Some((stream, peer)) = usable(accepted).await else { continue };
            let is_proxy = is_proxy(&endpoint, peer.ip());
            if !is_proxy && !endpoint.limits.allows(Some(peer.ip())) {
                endpoint.telemetry.emit(&ConnectionRefused { peer, reason: RefusedConnection::NotAllowed });
                continue;
            }
            let counted = (!is_proxy).then(|| Peer::from(peer.ip()));
            let is_in_disgrace = endpoint.refusals.is_in_disgrace(peer.ip(), endpoint.clock.unix_millis());
            let (telemetry, endpoint, stop) =
                (Arc::clone(&endpoint.telemetry), Arc::clone(&endpoint), stop.clone());
            if let Some(place) = crowd.enter(counted, is_in_disgrace) {
                connections.spawn(connection::serve_at(Some(place), stream, Some(peer), endpoint, stop));
            } else {
                telemetry.emit(&ConnectionRefused { peer, reason: RefusedConnection::TooMany });
                if let Ok(place) = Arc::clone(&turned_away).try_acquire_owned() {
                    connections.spawn(async move {
                        connection::turn_away(stream, peer, endpoint, stop).await;
                        drop(place);
                    });
                }
            }
            telemetry.connections(connections.len());
        }
        drop(listener);
        endpoint.stop();
        let drained = async { while connections.join_next().await.is_some() {} };
        let _late = tokio::time::timeout(drain_timeout, drained).await;
        endpoint.telemetry.tell_suppressed();
        // What is left is closed by dropping the set.
    }
}

/// Whether a peer comes on behalf of many, whose requests say who they are. Nobody does until proxies can be configured.
const fn is_proxy(_endpoint: &Endpoint, _peer: IpAddr) -> bool {
    false
}

/// Whether there is no file descriptor for one more connection.
fn is_out_of_files(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::MFILE | Errno::NFILE))
}

/// Makes an accepted stream ready; `None` when there is none.
async fn usable(
    accepted: io::Result<(TcpStream, std::net::SocketAddr)>,
) -> Option<(TcpStream, std::net::SocketAddr)> {
    match accepted {
        Ok((stream, peer)) => {
            // Answers are small; waiting to fill a segment would only delay them. A socket without it works too.
            let _delayed = stream.set_nodelay(true);
            Some((stream, peer))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// The listener for operators: `/healthz`, `/readyz`, `/metrics`.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    endpoint: Arc<Endpoint>,
}

impl AdminServer {
    /// How many connections operators may have open.
    const MAX_CONNECTIONS: usize = 64;

    /// Tells about `endpoint` on a listener that is bound already.
    #[must_use]
    pub const fn new(listener: TcpListener, endpoint: Arc<Endpoint>) -> Self {
        Self { listener, endpoint }
    }

    /// Serves until `stop` becomes true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let Self { listener, endpoint } = self;
        let places = Arc::new(Semaphore::new(Self::MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_ended) = connections.join_next(), if !connections.is_empty() => continue,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let Some((stream, _)) = usable(accepted).await else { continue };
            let (endpoint, stop) = (Arc::clone(&endpoint), stop.clone());
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                connections.spawn(async move {
                    let answer = move |request| std::future::ready(admin::answer(&endpoint, &request));
                    connection::serve_with(stream, &Limits::default(), stop, answer).await;
                    drop(place);
                });
            }
        }
    }
}
