//! Runs the limiter in thousands of thread schedules with shuttle.

use std::net::IpAddr;

use shuttle::future::block_on;

use super::*;
use dt_log::sync::{in_many_orders, thread};
use dt_sink::clock::SystemClock;

fn limiter(max: usize, max_per_peer: usize) -> Arc<ConnectionLimiter> {
    ConnectionLimiter::new(max, max_per_peer, Arc::new(Telemetry::new(Arc::new(SystemClock))))
}

fn new_connection(peer: u8) -> NewConnection {
    NewConnection {
        address: None,
        peer: Some(Peer::from(IpAddr::from([192, 0, 2, peer]))),
        is_over_budget: false,
    }
}

fn assert_empty(limiter: &ConnectionLimiter) {
    let state = limiter.state.lock();
    assert_eq!((state.open, state.leaving), (0, 0));
    assert!(state.unauthenticated.is_empty() && state.of_holders.is_empty() && state.by_count.is_empty());
}

/// Connections come from one acceptor, and show a signature or end while others come.
#[test]
fn an_authenticated_connection_stays_and_all_slots_come_back() {
    in_many_orders(4000, || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let limiter = limiter(2, 2);
        let mut connections = Vec::new();
        for number in 0..4 {
            block_on(limiter.may_enter());
            let Some(slot) = limiter.enter(new_connection(number % 3)) else { continue };
            let open = limiter.state.lock().open;
            assert!(open <= 2, "{open} are open");
            let task = runtime.spawn(std::future::pending::<()>()).abort_handle();
            limiter.served_by(slot.number(), task.clone());
            let shows_signature = number != 1;
            let served = thread::spawn(move || {
                if shows_signature {
                    slot.authenticated();
                    slot.authenticated();
                }
                slot.is_authenticated.load(Ordering::Relaxed)
            });
            connections.push((served, task));
        }
        let served: Vec<_> =
            connections.into_iter().map(|(served, task)| (served.join().expect("no panic"), task)).collect();
        runtime.block_on(tokio::task::yield_now());
        for (is_authenticated, task) in served {
            assert!(!(is_authenticated && task.is_finished()), "one that had shown a signature was closed");
        }
        assert_empty(&limiter);
    });
}

/// As many are being closed as may be; the acceptor goes on once one of them has ended, and is never left waiting.
#[test]
fn the_acceptor_goes_on_when_one_has_ended() {
    in_many_orders(2000, || {
        let limiter = limiter(1, 1);
        let mut slots: Vec<_> =
            (0..=MAX_LEAVING).map(|_| limiter.enter(new_connection(1)).expect("a slot")).collect();
        let ending = [slots.remove(0), slots.remove(0)].map(|slot| thread::spawn(move || drop(slot)));
        block_on(limiter.may_enter());
        assert!(limiter.state.lock().leaving < MAX_LEAVING);
        // One more is closed, since the system has run out of something, and the acceptor waits for it or for another.
        assert!(limiter.evict_one());
        let last = thread::spawn(move || drop(slots));
        block_on(limiter.one_has_ended());
        ending.into_iter().chain([last]).for_each(|thread| thread.join().expect("no panic"));
        assert_empty(&limiter);
    });
}
