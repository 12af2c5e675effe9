//! Who may stay connected when there are more connections than places.
//!
//! A connection is a stranger until a signature on it has held that is not out of date. Only strangers are in the way of
//! others:
//!
//! | when | what goes |
//! |---|---|
//! | a peer opens one more than `max_connections_per_peer` strangers | its oldest stranger |
//! | there are `max_connections`, and the peer has not used up what may be refused of it | the oldest stranger of all |
//! | the same, and the peer has | its own oldest stranger, else the new connection |
//! | there are `max_connections`, and no strangers | the new connection |
//!
//! So idle connections, however many, push each other out and never keep a sender of signed events from a place, even where
//! all come through one proxy; and what has shown a signature is never closed for another. A newcomer has at least the time
//! in which an attacker can open as many connections as there are places.
//!
//! Who is told to leave has gone when its task has run, and until then holds what it held. There are [`MAX_LEAVING`] such
//! at most: no further connection is accepted meanwhile, so that none of it has to be given up while processors are short.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::known_waker::KnownWaker;
use super::peer::Peer;
use crate::config::MAX_LEAVING;

/// All open connections.
#[derive(Debug)]
pub(super) struct Crowd {
    max: usize,
    max_per_peer: usize,
    members: Mutex<Members>,
    /// One of those that were told to leave has gone.
    has_left: Notify,
}

#[derive(Debug, Default)]
struct Members {
    next: u64,
    /// Without those that were told to leave.
    open: usize,
    /// Those that were told to leave and have not gone yet.
    leaving: usize,
    /// By number, so oldest first.
    strangers: BTreeMap<u64, Stranger>,
    /// The strangers of each peer.
    of_peers: HashMap<Peer, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Stranger {
    peer: Option<Peer>,
    signals: Arc<Signals>,
}

/// What a connection is told from outside.
#[derive(Debug, Default)]
struct Signals {
    must_leave: AtomicBool,
    changed: Notify,
}

/// A connection's place. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    crowd: Arc<Crowd>,
    is_known: AtomicBool,
    signals: Arc<Signals>,
}

impl Crowd {
    pub(super) fn new(max: usize, max_per_peer: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_peer, members: Mutex::default(), has_left: Notify::new() })
    }

    /// Gives a new connection a place, and takes it from another where that is needed; `None` when there is none to take.
    /// A peer of `None` is not counted by itself: a proxy comes on behalf of many. `is_in_disgrace` is whether no more may
    /// be refused of the peer.
    pub(super) fn enter(self: &Arc<Self>, peer: Option<Peer>, is_in_disgrace: bool) -> Option<Place> {
        let mut members = self.members.lock();
        if let Some(peer) = peer
            && members.of_peers.get(&peer).is_some_and(|strangers| strangers.len() >= self.max_per_peer)
        {
            members.send_away_of(peer);
        }
        if members.open >= self.max {
            let has_room = match peer {
                Some(peer) if is_in_disgrace => members.send_away_of(peer),
                _ => members.send_away_oldest(),
            };
            if !has_room {
                return None;
            }
        }
        let number = members.next;
        members.next = members.next.saturating_add(1);
        members.open = members.open.saturating_add(1);
        let signals = Arc::new(Signals::default());
        members.strangers.insert(number, Stranger { peer, signals: Arc::clone(&signals) });
        if let Some(peer) = peer {
            members.of_peers.entry(peer).or_default().insert(number);
        }
        Some(Place { number, crowd: Arc::clone(self), is_known: AtomicBool::new(false), signals })
    }

    /// Sends the oldest stranger away, since the system has run out of something; only one at a time, since the first that
    /// goes may be enough. Gives whether there was one, or still is.
    pub(super) fn make_room(&self) -> bool {
        let mut members = self.members.lock();
        members.leaving > 0 || members.send_away_oldest()
    }

    /// Waits until one more may be told to leave.
    pub(super) async fn may_enter(&self) {
        while self.members.lock().leaving >= MAX_LEAVING {
            self.has_left.notified().await;
        }
    }

    /// Waits until one of those that were told to leave has gone, if it has not been waited for yet.
    pub(super) async fn one_has_left(&self) {
        self.has_left.notified().await;
    }
}

impl Members {
    fn send_away_oldest(&mut self) -> bool {
        match self.strangers.keys().next().copied() {
            Some(number) => self.send_away(number),
            None => false,
        }
    }

    fn send_away_of(&mut self, peer: Peer) -> bool {
        match self.of_peers.get(&peer).and_then(|strangers| strangers.first()).copied() {
            Some(number) => self.send_away(number),
            None => false,
        }
    }

    fn send_away(&mut self, number: u64) -> bool {
        let Some(stranger) = self.forget(number) else { return false };
        // Its place counts as free from now on; it closes as soon as its tasks run.
        self.open = self.open.saturating_sub(1);
        self.leaving = self.leaving.saturating_add(1);
        stranger.signals.must_leave.store(true, Ordering::Release);
        stranger.signals.changed.notify_waiters();
        true
    }

    /// Takes a stranger off the lists.
    fn forget(&mut self, number: u64) -> Option<Stranger> {
        let stranger = self.strangers.remove(&number)?;
        if let Some(peer) = stranger.peer
            && let Some(strangers) = self.of_peers.get_mut(&peer)
        {
            strangers.remove(&number);
            if strangers.is_empty() {
                self.of_peers.remove(&peer);
            }
        }
        Some(stranger)
    }
}

impl Place {
    /// A signature held on this connection: it is no stranger any more.
    pub(super) fn is_authentic(&self) {
        // Looked at first: each request says it, and the first one is enough.
        if !self.is_known.load(Ordering::Relaxed) && !self.is_known.swap(true, Ordering::Relaxed) {
            let _stranger = self.crowd.members.lock().forget(self.number);
        }
    }

    /// Goes on with a future until the connection has to make room for another: then there is nothing to give.
    pub(super) async fn while_it_stays<F: Future>(&self, mut future: Pin<&mut F>) -> Option<F::Output> {
        let mut is_sent_away = pin!(self.is_sent_away());
        let mut waker = KnownWaker::default();
        std::future::poll_fn(|cx| {
            // Set before anybody is woken.
            let must_leave = self.signals.must_leave.load(Ordering::Acquire);
            if must_leave || waker.is_new(cx.waker()) && is_sent_away.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Waits until the connection has to make room for another. Any number of tasks may.
    async fn is_sent_away(&self) {
        loop {
            // Made before the look, it misses nothing that comes after it.
            let changed = self.signals.changed.notified();
            if self.signals.must_leave.load(Ordering::Acquire) {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut members = self.crowd.members.lock();
        // It is set within the same lock.
        if self.signals.must_leave.load(Ordering::Acquire) {
            members.leaving = members.leaving.saturating_sub(1);
            drop(members);
            self.crowd.has_left.notify_one();
        } else {
            members.open = members.open.saturating_sub(1);
            let _stranger = members.forget(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::task::{Context, Waker};

    use super::*;

    fn is_ready(future: impl Future<Output = ()>) -> bool {
        std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn must_leave(place: &Place) -> bool {
        is_ready(place.is_sent_away())
    }

    fn peer(last: u8) -> Option<Peer> {
        Some(Peer::from(IpAddr::from([192, 0, 2, last])))
    }

    #[test]
    fn the_oldest_stranger_makes_room_and_who_is_known_stays() {
        let crowd = Crowd::new(3, 3);
        let places: Vec<_> = (0..3).map(|n| crowd.enter(peer(n), false).unwrap()).collect();
        places[0].is_authentic();
        let fourth = crowd.enter(peer(3), false).unwrap();
        assert_eq!(places.iter().map(must_leave).collect::<Vec<_>>(), [false, true, false]);
        fourth.is_authentic();
        places[2].is_authentic();
        assert!(crowd.enter(peer(4), false).is_none(), "all are known");
        drop(places);
        assert_eq!(crowd.members.lock().open, 1, "one that was sent away is not counted twice");
        drop(fourth);
        let members = crowd.members.lock();
        assert!(members.open == 0 && members.strangers.is_empty() && members.of_peers.is_empty());
    }

    #[test]
    fn a_peer_has_so_many_strangers_and_any_number_of_known() {
        let crowd = Crowd::new(100, 2);
        let other = crowd.enter(peer(1), false).unwrap();
        let proxy: Vec<_> = (0..5).map(|_| crowd.enter(None, false).unwrap()).collect();
        let mut known = Vec::new();
        for _ in 0..5 {
            let place = crowd.enter(peer(2), false).unwrap();
            place.is_authentic();
            known.push(place);
        }
        let strangers: Vec<_> = (0..3).map(|_| crowd.enter(peer(2), false).unwrap()).collect();
        assert_eq!(strangers.iter().map(must_leave).collect::<Vec<_>>(), [true, false, false]);
        assert!(known.iter().chain(&proxy).chain([&other]).all(|place| !must_leave(place)));
    }

    #[test]
    fn a_peer_in_disgrace_takes_the_place_of_no_other() {
        let crowd = Crowd::new(2, 2);
        let other = crowd.enter(peer(1), false).unwrap();
        let own = crowd.enter(peer(2), false).unwrap();
        let next = crowd.enter(peer(2), true).unwrap();
        assert_eq!((must_leave(&other), must_leave(&own)), (false, true));
        next.is_authentic();
        assert!(crowd.enter(peer(2), true).is_none());
        assert!(!must_leave(&other));
        drop(own);
        assert!(crowd.make_room());
        assert!(must_leave(&other));
        drop(other);
        assert!(!crowd.make_room(), "who is known stays");
    }

    #[test]
    fn those_that_are_leaving_are_few() {
        let crowd = Crowd::new(1, 1);
        let mut places = Vec::new();
        while is_ready(crowd.may_enter()) {
            places.push(crowd.enter(None, false).unwrap());
            assert!(places.len() <= MAX_LEAVING + 1, "there is no bound");
        }
        assert_eq!(places.iter().filter(|place| must_leave(place)).count(), MAX_LEAVING);
        let waiting = crowd.may_enter();
        let mut waiting = std::pin::pin!(waiting);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drop(places.remove(0));
        assert!(waiting.as_mut().poll(&mut cx).is_ready(), "one has gone");
        drop(places);
        let members = crowd.members.lock();
        assert_eq!((members.open, members.leaving), (0, 0));
    }

    #[test]
    fn out_of_files_one_goes_at_a_time() {
        let crowd = Crowd::new(10, 10);
        let places: Vec<_> = (0..3).map(|_| crowd.enter(None, false).unwrap()).collect();
        for _ in 0..5 {
            assert!(crowd.make_room());
        }
        assert_eq!(places.iter().map(must_leave).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn all_tasks_of_a_connection_are_told() {
        let crowd = Crowd::new(1, 1);
        let place = crowd.enter(None, false).unwrap();
        let mut tasks: Vec<_> = (0..3).map(|_| Box::pin(place.is_sent_away())).collect();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(tasks.iter_mut().all(|task| task.as_mut().poll(&mut cx).is_pending()));
        let _next = crowd.enter(None, false).unwrap();
        assert!(tasks.iter_mut().all(|task| task.as_mut().poll(&mut cx).is_ready()));
    }
}
