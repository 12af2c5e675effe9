//! Limits the effort for requests that are not authentic: a budget of rejections for each peer and for all peers together, and
//! of the unverified bytes that are held for each peer.
//!
//! The budget never decides whether a request is rejected: every request is verified first, and an authentic one is accepted
//! whatever else its peer sent. It decides how a request is rejected. Within the budget, the body is read to its end, so that
//! the connection can stay open. Over the budget, the answer is sent at once and the connection is closed.
//!
//! The table of peers has a fixed maximum. Peers with a full budget are removed to make room. While all of them are active, a
//! new peer has only the shared budget.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

use super::peer::Peer;
use crate::config::Limits;
use crate::token_bucket::TokenBucket;

/// The largest number of peers in the table. It contains the peers that recently had a request rejected, and takes about 1 MB.
const MAX_PEERS: usize = 8192;
/// The shortest time between two searches of a full table for peers to remove, in milliseconds.
const SWEEP_INTERVAL_MS: i64 = 1000;

/// The rejection budgets of all peers.
#[derive(Debug)]
pub(super) struct RejectionBudget {
    per_peer: u32,
    bytes_per_peer: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    all: TokenBucket,
    peers: HashMap<Peer, Account>,
    swept_at: i64,
}

/// The rejection budget of one peer.
#[derive(Debug)]
struct Account {
    bucket: TokenBucket,
    /// The number of unverified bytes that are held in memory for the peer.
    held: usize,
}

/// Unverified bytes that are held in memory for a peer. They are released on drop.
#[derive(Debug)]
pub(super) struct Held<'a> {
    budget: &'a RejectionBudget,
    peer: Option<Peer>,
    bytes: usize,
}

impl RejectionBudget {
    pub(super) fn new(limits: &Limits) -> Self {
        let all = TokenBucket::new(limits.max_refused, limits.max_refused);
        let state = State { all, peers: HashMap::new(), swept_at: i64::MIN };
        Self {
            per_peer: limits.max_refused_per_peer,
            bytes_per_peer: limits.max_unverified_bytes_per_peer,
            state: Mutex::new(state),
        }
    }

    /// Takes a rejection from the budgets of the peer and of all peers. Returns whether both had one left. `now_ms` is in Unix
    /// milliseconds.
    pub(super) fn take(&self, address: Option<IpAddr>, now_ms: i64) -> bool {
        let mut state = self.state.lock();
        let is_within = match address.map(Peer::from) {
            Some(peer) => state.account(peer, self.per_peer, now_ms).is_none_or(|a| a.bucket.take(now_ms)),
            None => true,
        };
        // A peer over its own budget does not use the shared one.
        is_within && state.all.take(now_ms)
    }

    /// Undoes a [`take`](Self::take) for a request that proved to be authentic.
    pub(super) fn give_back(&self, address: IpAddr) {
        let mut state = self.state.lock();
        state.all.give_back();
        if let Some(account) = state.peers.get_mut(&Peer::from(address)) {
            account.bucket.give_back();
        }
    }

    /// Returns whether a peer has used up its budget. `now_ms` is in Unix milliseconds.
    pub(super) fn is_over(&self, address: IpAddr, now_ms: i64) -> bool {
        let mut state = self.state.lock();
        state.peers.get_mut(&Peer::from(address)).is_some_and(|account| !account.bucket.has_any(now_ms))
    }

    /// Reserves unverified bytes for a peer; `None` if the peer's limit would be exceeded. `now_ms` is in Unix milliseconds.
    pub(super) fn hold(&self, address: Option<IpAddr>, bytes: usize, now_ms: i64) -> Option<Held<'_>> {
        let peer = address.map(Peer::from);
        if let Some(peer) = peer {
            let mut state = self.state.lock();
            let account = state.account(peer, self.per_peer, now_ms)?;
            let held = account.held.saturating_add(bytes);
            if held > self.bytes_per_peer {
                return None;
            }
            account.held = held;
        }
        Some(Held { budget: self, peer, bytes })
    }
}

impl State {
    /// Returns the account of a peer; `None` if the table is full.
    fn account(&mut self, peer: Peer, per_peer: u32, now_ms: i64) -> Option<&mut Account> {
        if !self.peers.contains_key(&peer) && self.peers.len() >= MAX_PEERS {
            if now_ms.saturating_sub(self.swept_at).unsigned_abs() < SWEEP_INTERVAL_MS.unsigned_abs() {
                return None;
            }
            self.swept_at = now_ms;
            self.peers.retain(|_, account| account.held > 0 || !account.bucket.is_full(now_ms));
            if self.peers.len() >= MAX_PEERS {
                return None;
            }
        }
        let new = || Account { bucket: TokenBucket::new(per_peer, per_peer), held: 0 };
        Some(self.peers.entry(peer).or_insert_with(new))
    }
}

impl Drop for Held<'_> {
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "`hold` has added these bytes, and an account with bytes stays"
    )]
    fn drop(&mut self) {
        if let Some(peer) = self.peer
            && let Some(account) = self.budget.state.lock().peers.get_mut(&peer)
        {
            account.held -= self.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> RejectionBudget {
        let limits = Limits {
            max_refused: 10,
            max_refused_per_peer: 3,
            max_unverified_bytes_per_peer: 100,
            ..Limits::default()
        };
        RejectionBudget::new(&limits)
    }

    fn address(n: u32) -> Option<IpAddr> {
        Some(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn each_peer_has_its_budget_and_all_have_one() {
        let budget = budget();
        let taken = |n: u32, now: i64| (0..20).filter(|_| budget.take(address(n), now)).count();
        assert!(!budget.is_over(address(1).unwrap(), 0), "nothing is known of it");
        assert_eq!(taken(1, 0), 3);
        assert!(budget.is_over(address(1).unwrap(), 0));
        assert!(!budget.is_over(address(1).unwrap(), 1000));
        assert_eq!((taken(2, 0), taken(3, 0), taken(4, 0)), (3, 3, 1), "10 of all");
        assert_eq!(taken(5, 1000), 3, "a second later");
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_is_never_more_than_there_was() {
        let (budget, peer) = (budget(), address(1).unwrap());
        budget.give_back(peer);
        assert_eq!((0..20).filter(|_| budget.take(Some(peer), 0)).count(), 3);
        budget.give_back(peer);
        assert!(!budget.is_over(peer, 0));
        assert!(budget.take(Some(peer), 0) && !budget.take(Some(peer), 0));
    }

    #[test]
    fn the_table_is_bounded_and_takes_new_peers_when_old_ones_are_quiet() {
        let limits = Limits { max_refused: u32::MAX, max_refused_per_peer: 3, ..Limits::default() };
        let budget = RejectionBudget::new(&limits);
        let peers = u32::try_from(MAX_PEERS).unwrap();
        for n in 0..peers {
            assert!(budget.take(address(n), 0));
        }
        assert!(budget.take(address(peers), 0), "the budget of all is left");
        assert_eq!(budget.state.lock().peers.len(), MAX_PEERS);
        assert!(budget.take(address(peers), 1000));
        assert_eq!(budget.state.lock().peers.len(), 1);
    }

    #[test]
    fn of_each_peer_so_many_bytes_are_held() {
        let budget = budget();
        let first = budget.hold(address(1), 60, 0).expect("there is room");
        assert!(budget.hold(address(1), 41, 0).is_none());
        let _second = budget.hold(address(1), 40, 0).expect("there is room");
        assert!(budget.hold(address(2), 100, 0).is_some());
        drop(first);
        assert!(budget.hold(address(1), 61, 0).is_none());
        assert!(budget.hold(address(1), 60, 0).is_some());
    }
}
