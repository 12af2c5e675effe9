//! Decides which connections stay open when there are more of them than slots.
//!
//! A connection is unauthenticated until a request on it has verified. Only unauthenticated connections are closed for
//! others:
//!
//! | when | which connection is closed |
//! |---|---|
//! | a peer opens one more than `max_connections_per_peer` unauthenticated connections | its oldest |
//! | there are `max_connections`, and the new peer is within its rejection budget | the oldest of the peer that has most |
//! | there are `max_connections`, and the new peer exceeds its rejection budget | its own oldest, else the new connection |
//! | there are `max_connections`, and none is unauthenticated | the new connection |
//!
//! So idle connections only replace each other. They never keep a sender of signed events from a slot, even if all
//! connections come through one proxy, and an authenticated connection is never closed for another. Among peers with equally
//! many connections the oldest one is closed, so a new one stays for as long as an attacker needs to open one for each slot.
//!
//! A connection is closed by aborting its task. The task keeps its memory until the runtime has run it once more. While
//! [`MAX_LEAVING`] connections are being closed, no further one is accepted, so that their memory is limited under load.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::peer::Peer;
use crate::config::MAX_LEAVING;
use crate::telemetry::{ConnectionEvicted, Telemetry};
use dt_log::sync::Mutex;
use dt_log::sync::atomic::{AtomicBool, Ordering};

/// Limits the number of open connections, and closes unauthenticated ones so that others get their slots.
#[derive(Debug)]
pub struct ConnectionLimiter {
    max: usize,
    max_per_peer: usize,
    state: Mutex<State>,
    /// Notified when a connection that was being closed has ended.
    has_ended: Notify,
    telemetry: Arc<Telemetry>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next connection.
    next: u64,
    /// The number of open connections, without those that are being closed.
    open: usize,
    /// The number of connections that are being closed and have not ended yet.
    leaving: usize,
    /// The unauthenticated connections by number.
    unauthenticated: HashMap<u64, Candidate>,
    /// The numbers of the unauthenticated connections of each holder, the oldest first.
    of_holders: BTreeMap<Holder, BTreeSet<u64>>,
    /// The holders by the number of their connections; among equals, the one with the oldest connection comes last.
    by_count: BTreeSet<(usize, Reverse<u64>, Holder)>,
}

/// The holder of connections that are counted together: a peer. A connection without a peer, such as one of a proxy, is counted
/// alone until a PROXY header names the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Peer(Peer),
    Connection(u64),
}

/// An unauthenticated connection, which may be closed so that a new connection gets its slot.
#[derive(Debug)]
struct Candidate {
    holder: Holder,
    address: Option<SocketAddr>,
    task: Option<AbortHandle>,
}

/// The slot of a connection. Dropping it frees the slot.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    number: u64,
    limiter: Arc<ConnectionLimiter>,
    is_authenticated: AtomicBool,
    /// The client whose rejection budget was charged for the TLS handshake; `None` if none was charged. The charge is undone when
    /// the connection is authenticated.
    handshake_of: Option<IpAddr>,
}

/// A new connection that needs a slot.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewConnection {
    /// The address of the peer, for the log; `None` for a Unix socket.
    pub address: Option<SocketAddr>,
    /// The peer with whose connections this one is counted; `None` for a proxy, which forwards for many clients.
    pub peer: Option<Peer>,
    /// Whether the peer has used up its rejection budget.
    pub is_over_budget: bool,
}

impl ConnectionLimiter {
    pub fn new(max: usize, max_per_peer: usize, telemetry: Arc<Telemetry>) -> Arc<Self> {
        let (state, has_ended) = (Mutex::default(), Notify::new());
        Arc::new(Self { max, max_per_peer, state, has_ended, telemetry })
    }

    /// Returns a slot for a new connection, and closes another connection if necessary. Returns `None` if none can be closed. The
    /// caller must then set the task that serves the connection with [`served_by`](Self::served_by).
    #[expect(clippy::arithmetic_side_effects, reason = "no process ever opens 2^64 connections")]
    pub fn enter(self: &Arc<Self>, new_connection: NewConnection) -> Option<ConnectionSlot> {
        let NewConnection { address, peer, is_over_budget } = new_connection;
        let mut state = self.state.lock();
        let own = peer.map(Holder::Peer);
        let held = own.and_then(|own| state.of_holders.get(&own)).map_or(0, BTreeSet::len);
        if held >= self.max_per_peer {
            self.evict(&mut state, own);
        }
        if state.open >= self.max {
            let victim = if is_over_budget { own } else { state.largest_holder() };
            if !self.evict(&mut state, victim) {
                return None;
            }
        }
        let number = state.next;
        state.next += 1;
        state.open += 1;
        let holder = own.unwrap_or(Holder::Connection(number));
        state.unauthenticated.insert(number, Candidate { holder, address, task: None });
        state.change(holder, |connections| connections.insert(number));
        let (limiter, is_authenticated) = (Arc::clone(self), AtomicBool::new(false));
        Some(ConnectionSlot { number, limiter, is_authenticated, handshake_of: None })
    }

    /// Sets the task that serves the connection in this slot. It must be called before the next [`enter`](Self::enter).
    pub fn served_by(&self, slot: u64, task: AbortHandle) {
        if let Some(candidate) = self.state.lock().unauthenticated.get_mut(&slot) {
            candidate.task = Some(task);
        }
    }

    /// Closes a connection, since the system has no free file descriptor, unless one is already being closed. Returns whether a
    /// connection is being closed.
    pub fn evict_one(&self) -> bool {
        let mut state = self.state.lock();
        let victim = state.largest_holder();
        state.leaving > 0 || self.evict(&mut state, victim)
    }

    /// Waits until fewer than [`MAX_LEAVING`] connections are being closed.
    pub async fn may_enter(&self) {
        while self.state.lock().leaving >= MAX_LEAVING {
            self.has_ended.notified().await;
        }
    }

    /// Waits until a connection that is being closed has ended.
    pub async fn one_has_ended(&self) {
        self.has_ended.notified().await;
    }

    /// Closes the oldest unauthenticated connection of a holder. Returns whether a connection was closed.
    #[expect(clippy::arithmetic_side_effects, reason = "an unauthenticated connection is counted in `open`")]
    fn evict(&self, state: &mut State, holder: Option<Holder>) -> bool {
        let oldest = holder.and_then(|holder| state.of_holders.get(&holder)?.first().copied());
        let Some(candidate) = oldest.and_then(|number| state.forget(number)) else { return false };
        // The slot is free from now on.
        state.open -= 1;
        state.leaving += 1;
        if let Some(task) = candidate.task {
            task.abort();
        }
        self.telemetry.emit(&ConnectionEvicted { peer: candidate.address });
        true
    }
}

impl State {
    /// Returns the holder with the largest number of unauthenticated connections; `None` if there are none.
    fn largest_holder(&self) -> Option<Holder> {
        self.by_count.last().map(|(_, _, holder)| *holder)
    }

    /// Changes the set of connections of a holder, and updates the holder's position in `by_count`.
    fn change(&mut self, holder: Holder, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let position = |connections: &BTreeSet<u64>| {
            connections.first().map(|oldest| (connections.len(), Reverse(*oldest), holder))
        };
        let connections = self.of_holders.entry(holder).or_default();
        if let Some(position) = position(connections) {
            self.by_count.remove(&position);
        }
        change(connections);
        match position(connections) {
            Some(position) => {
                self.by_count.insert(position);
            }
            None => {
                self.of_holders.remove(&holder);
            }
        }
    }

    /// Moves a connection to another holder. Returns the number of connections that this holder then has.
    fn move_to(&mut self, number: u64, holder: Holder) -> usize {
        let Some(candidate) = self.unauthenticated.get_mut(&number) else { return 0 };
        let before = std::mem::replace(&mut candidate.holder, holder);
        self.change(before, |connections| connections.remove(&number));
        self.change(holder, |connections| connections.insert(number));
        self.of_holders.get(&holder).map_or(0, BTreeSet::len)
    }

    /// Removes a connection from the unauthenticated ones, and returns it; `None` if it is not unauthenticated.
    fn forget(&mut self, number: u64) -> Option<Candidate> {
        let candidate = self.unauthenticated.remove(&number)?;
        self.change(candidate.holder, |connections| connections.remove(&number));
        Some(candidate)
    }
}

impl ConnectionSlot {
    /// Returns the number of the connection, for [`ConnectionLimiter::served_by`].
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Sets the client that a PROXY header names, with whose peer the connection is counted from now on, and the client that was
    /// charged for the TLS handshake.
    pub(super) fn set_client(&mut self, behind_proxy: Option<SocketAddr>, handshake_of: Option<SocketAddr>) {
        self.handshake_of = handshake_of.map(|address| address.ip());
        let Some(client) = behind_proxy else { return };
        let holder = Holder::Peer(Peer::from(client.ip()));
        let mut state = self.limiter.state.lock();
        if state.move_to(self.number, holder) > self.limiter.max_per_peer {
            self.limiter.evict(&mut state, Some(holder));
        }
    }

    /// Marks the connection as authenticated, since a request on it was verified. From then on, it is never closed for another
    /// connection. The first call returns the client whose budget was charged for the TLS handshake; later calls return `None`.
    pub(super) fn authenticated(&self) -> Option<IpAddr> {
        // Without the lock, since every verified request calls this.
        if self.is_authenticated.load(Ordering::Relaxed) {
            return None;
        }
        let was_open = self.limiter.state.lock().forget(self.number).is_some();
        self.is_authenticated.fetch_or(was_open, Ordering::Relaxed);
        self.handshake_of.filter(|_| was_open)
    }
}

impl Drop for ConnectionSlot {
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "each slot is counted once, in `open` or in `leaving`"
    )]
    fn drop(&mut self) {
        let mut state = self.limiter.state.lock();
        if *self.is_authenticated.get_mut() || state.forget(self.number).is_some() {
            state.open -= 1;
        } else {
            state.leaving -= 1;
            drop(state);
            self.limiter.has_ended.notify_one();
        }
    }
}

#[cfg(all(test, feature = "_shuttle"))]
mod schedules;

#[cfg(test)]
mod tests;
