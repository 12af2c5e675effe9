//! The listeners: accepting within limits, and stopping without dropping what is in flight.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::endpoint::Endpoint;
use super::listener::Listener;
use super::stream::Stream;
use super::{admin, arrival, connection};
use crate::config::Limits;
use crate::telemetry::{AcceptFailed, ConnectionRefused, Telemetry};

/// How many connections beyond the limit are told so; the rest are closed without a word.
const MAX_TURNED_AWAY: usize = 64;

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
        let places = Arc::new(Semaphore::new(endpoint.limits.max_connections));
        let turned_away = Arc::new(Semaphore::new(MAX_TURNED_AWAY));
        let mut connections = JoinSet::new();
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_ended) = connections.join_next(), if !connections.is_empty() => {
                    endpoint.telemetry.connections(connections.len());
                    continue;
                }
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Some((stream, peer)) = usable(accepted, &mut failing, &endpoint.telemetry).await else {
                continue;
            };
            let (telemetry, endpoint, stop) =
                (Arc::clone(&endpoint.telemetry), Arc::clone(&endpoint), stop.clone());
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                connections.spawn(async move {
                    let mut stop = stop;
                    if let Some((stream, client)) = arrival::open(stream, peer, &endpoint, &mut stop).await {
                        connection::serve_connection(stream, client, endpoint, stop).await;
                    }
                    drop(place);
                });
            } else {
                telemetry.emit(&ConnectionRefused { peer });
                if let Ok(place) = Arc::clone(&turned_away).try_acquire_owned() {
                    connections.spawn(async move {
                        let mut stop = stop;
                        if let Some((stream, client)) =
                            arrival::open(stream, peer, &endpoint, &mut stop).await
                        {
                            connection::turn_away(stream, client, endpoint, stop).await;
                        }
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
        // What is left is closed by dropping the set.
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
                    let answer = move |request| std::future::ready(admin::answer(&endpoint, &request));
                    connection::serve_with(stream, &Limits::default(), stop, answer).await;
                    drop(place);
                });
            }
        }
    }
}
