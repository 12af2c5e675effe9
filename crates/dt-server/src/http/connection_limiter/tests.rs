//! Tests which connections the limiter closes for others.

use std::task::{Context, Waker};

use super::*;
use dt_sink::clock::SystemClock;

/// A connection as the server serves it: a slot, and a task that holds it until it is aborted.
struct Connection {
    slot: Arc<ConnectionSlot>,
    task: tokio::task::JoinHandle<()>,
}

impl Connection {
    /// Returns whether the connection was closed.
    async fn is_closed(&self) -> bool {
        tokio::task::yield_now().await;
        self.task.is_finished()
    }
}

struct Fixture(Arc<ConnectionLimiter>);

impl Fixture {
    fn new(max: usize, max_per_peer: usize) -> Self {
        let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
        Self(ConnectionLimiter::new(max, max_per_peer, telemetry))
    }

    fn enter(&self, peer: Option<u8>) -> Connection {
        self.try_enter(peer, false).expect("a slot")
    }

    fn try_enter(&self, peer: Option<u8>, is_over_budget: bool) -> Option<Connection> {
        let peer = peer.map(|last| Peer::from(IpAddr::from([192, 0, 2, last])));
        let slot = Arc::new(self.0.enter(NewConnection { address: None, peer, is_over_budget })?);
        let task = tokio::spawn(std::future::pending());
        self.0.served_by(slot.number(), task.abort_handle());
        Some(Connection { slot, task })
    }
}

async fn closed(connections: &[Connection]) -> Vec<bool> {
    let mut closed = Vec::new();
    for connection in connections {
        closed.push(connection.is_closed().await);
    }
    closed
}

#[tokio::test]
async fn the_oldest_makes_room_and_an_authenticated_one_stays() {
    let limiter = Fixture::new(3, 3);
    let connections: Vec<_> = (0..3).map(|n| limiter.enter(Some(n))).collect();
    connections[0].slot.authenticated();
    let fourth = limiter.enter(Some(3));
    assert_eq!(closed(&connections).await, [false, true, false]);
    fourth.slot.authenticated();
    connections[2].slot.authenticated();
    connections[1].slot.authenticated();
    assert!(limiter.try_enter(Some(4), false).is_none(), "all are authenticated");
    drop(connections);
    assert_eq!(limiter.0.state.lock().open, 1, "one that was closed is not counted twice");
    drop(fourth);
    let state = limiter.0.state.lock();
    assert!(state.open == 0 && state.leaving == 0);
    assert!(state.unauthenticated.is_empty() && state.of_holders.is_empty() && state.by_count.is_empty());
}

#[tokio::test]
async fn the_peer_that_has_most_makes_room() {
    let limiter = Fixture::new(6, 6);
    let one = limiter.enter(Some(1));
    let mut many: Vec<_> = (0..4).map(|_| limiter.enter(Some(2))).collect();
    let proxied = limiter.enter(None);
    // Those of one address go, although others are older, until it has no more than they have.
    let newer: Vec<_> = (3..6).map(|n| limiter.enter(Some(n))).collect();
    assert_eq!(closed(&many).await, [true, true, true, false]);
    assert!(!one.is_closed().await && !proxied.is_closed().await);
    // All have one: the oldest goes.
    let _last = limiter.enter(Some(7));
    assert!(one.is_closed().await && !proxied.is_closed().await);
    many.remove(3).slot.authenticated();
    let _last = (limiter.enter(Some(8)), limiter.enter(Some(9)));
    assert!(proxied.is_closed().await);
    assert_eq!(closed(&newer).await, [false, false, false]);
}

#[tokio::test]
async fn a_peer_has_so_many_unauthenticated_and_any_number_of_others() {
    let limiter = Fixture::new(100, 2);
    let other = limiter.enter(Some(1));
    let proxy: Vec<_> = (0..5).map(|_| limiter.enter(None)).collect();
    let mut authenticated = Vec::new();
    for _ in 0..5 {
        let connection = limiter.enter(Some(2));
        connection.slot.authenticated();
        authenticated.push(connection);
    }
    let three: Vec<_> = (0..3).map(|_| limiter.enter(Some(2))).collect();
    assert_eq!(closed(&three).await, [true, false, false]);
    for connection in authenticated.iter().chain(&proxy).chain([&other]) {
        assert!(!connection.is_closed().await);
    }
}

#[tokio::test]
async fn connections_of_a_proxy_are_their_clients_once_those_are_known() {
    let limiter = Fixture::new(100, 2);
    let client = Some(SocketAddr::from(([192, 0, 2, 7], 1)));
    let enter = || {
        let NewConnection { address, peer, is_over_budget } = NewConnection::default();
        let mut slot = limiter.0.enter(NewConnection { address, peer, is_over_budget }).expect("a slot");
        let task = tokio::spawn(std::future::pending());
        limiter.0.served_by(slot.number(), task.abort_handle());
        slot.set_client(client, client);
        Connection { slot: Arc::new(slot), task }
    };
    let three: Vec<_> = (0..3).map(|_| enter()).collect();
    assert_eq!(closed(&three).await, [true, false, false]);
    let paid = client.map(|client| client.ip());
    assert_eq!((three[1].slot.authenticated(), three[1].slot.authenticated()), (paid, None));
    assert_eq!(three[0].slot.authenticated(), None, "it was closed");
    drop(three);
    let state = limiter.0.state.lock();
    assert!(state.open == 0 && state.leaving == 0 && state.of_holders.is_empty());
}

#[tokio::test]
async fn a_peer_over_its_budget_takes_the_slot_of_no_other() {
    let limiter = Fixture::new(2, 2);
    let other = limiter.enter(Some(1));
    let own = limiter.enter(Some(2));
    let next = limiter.try_enter(Some(2), true).expect("a slot");
    assert_eq!((other.is_closed().await, own.is_closed().await), (false, true));
    next.slot.authenticated();
    assert!(limiter.try_enter(Some(2), true).is_none());
    assert!(!other.is_closed().await);
    drop(own);
    assert!(limiter.0.evict_one());
    assert!(other.is_closed().await);
    drop(other);
    assert!(!limiter.0.evict_one(), "an authenticated one stays");
}

#[tokio::test]
async fn few_are_closed_at_once() {
    let limiter = Fixture::new(1, 1);
    let may_enter = || {
        let mut may_enter = std::pin::pin!(limiter.0.may_enter());
        may_enter.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    };
    let mut connections = Vec::new();
    while may_enter() {
        connections.push(limiter.enter(None));
        assert!(connections.len() <= MAX_LEAVING + 1, "there is no bound");
    }
    assert_eq!(closed(&connections).await.iter().filter(|closed| **closed).count(), MAX_LEAVING);
    let mut waiting = std::pin::pin!(limiter.0.may_enter());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    drop(connections.remove(0));
    assert!(waiting.as_mut().poll(&mut cx).is_ready(), "one has ended");
    drop(connections);
    let state = limiter.0.state.lock();
    assert_eq!((state.open, state.leaving), (0, 0));
}

#[tokio::test]
async fn out_of_files_one_is_closed_at_a_time() {
    let limiter = Fixture::new(10, 10);
    let connections: Vec<_> = (0..3).map(|_| limiter.enter(None)).collect();
    for _ in 0..5 {
        assert!(limiter.0.evict_one());
    }
    assert_eq!(closed(&connections).await, [true, false, false]);
}
