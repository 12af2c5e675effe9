//! Connections that do nothing, or almost nothing: more than there are places, and as many as there are.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::events::setting;
use crate::siege::{besiege, connect_from};

/// Opens so many, keeps as many as there may be files, and goes on until it is told to stop.
fn fill(to: SocketAddr, count: u64, stop: &AtomicBool) {
    let limit = rlimit::increase_nofile_limit(u64::MAX).expect("the limit of open files");
    let kept = usize::try_from(count.min(limit.saturating_sub(1000))).expect("small");
    let mut connections: VecDeque<TcpStream> = VecDeque::new();
    for attacker in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if connections.len() >= kept {
            if attacker > 2 * count {
                std::thread::sleep(std::time::Duration::from_millis(10));
                continue;
            }
            connections.pop_front();
        }
        let Some(mut connection) = connect_from(attacker, to) else { continue };
        if attacker % 2 == 0 {
            // Half of them begin to speak HTTP/2, which gives them more time.
            let _written = connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        }
        connections.push_back(connection);
    }
}

/// What the figures of the others are to be measured by.
#[test]
fn nobody_else() {
    besiege(
        "nobody else",
        "",
        |_| {},
        |_, stop| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        },
    );
}

#[test]
fn more_idle_connections_than_places() {
    let count = setting("DT_RECEIVER_TEST_HOSTILE_IDLE", 3000);
    let places = usize::try_from(count / 3).expect("small");
    let limits = format!("max_connections = {places}");
    let set = |limits: &mut dt_receiver::config::Limits| limits.max_connections = places;
    besiege("more idle connections than places", &limits, set, |to, stop| fill(to, count, stop));
}

#[test]
fn idle_connections_that_all_stay() {
    let count = setting("DT_RECEIVER_TEST_HOSTILE_IDLE", 3000);
    let places = usize::try_from(count).expect("small") + 100;
    let limits = format!("max_connections = {places}");
    let set = |limits: &mut dt_receiver::config::Limits| limits.max_connections = places;
    besiege("idle connections that all stay", &limits, set, |to, stop| fill(to, count, stop));
}
