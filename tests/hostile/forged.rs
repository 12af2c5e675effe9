//! Forged tokens: on connections that stay, and on a new connection for each.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dt_receiver::verify::{Secret, Signer};

use crate::events::{body, now, setting};
use crate::siege::{besiege, connect_from};

/// How many attackers there are.
const ATTACKERS: u64 = 4;

/// A request that is right in everything but its secret.
fn forged(number: u64) -> Vec<u8> {
    let body = body(9, number);
    let signer = Signer::secret(Secret::new("guess-number-17").expect("not empty"));
    let token = signer.sign(body.as_bytes(), now(), "c82gg99hga35jc2afkeg").expect("signed");
    let length = body.len();
    format!("POST / HTTP/1.1\r\nHost: localhost\r\nX-Dt-Signature: {token}\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Sends them at a rate, all attackers together, and wants each refused.
fn guess(to: SocketAddr, rate: u64, per_connection: u64, stop: &AtomicBool) {
    let refused = AtomicU64::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for attacker in 0..ATTACKERS {
            let refused = &refused;
            scope.spawn(move || {
                let request = forged(attacker);
                let (mut connection, mut answer) = (None, vec![0; 4096]);
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let planned = started
                        + Duration::from_secs(1) * u32::try_from(number * ATTACKERS).expect("few")
                            / u32::try_from(rate).expect("few");
                    std::thread::sleep(planned.saturating_duration_since(Instant::now()));
                    if number % per_connection == 0 {
                        connection = None;
                    }
                    let Some(stream) = connection.as_mut() else {
                        connection = connect_from(attacker, to);
                        continue;
                    };
                    let read = stream.write_all(&request).and_then(|()| stream.read(&mut answer));
                    match read {
                        Ok(length) if length > 0 => {
                            assert!(
                                answer.starts_with(b"HTTP/1.1 401 "),
                                "{}",
                                String::from_utf8_lossy(&answer[..length])
                            );
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => connection = None,
                    }
                }
            });
        }
    });
    let count = refused.load(Ordering::Relaxed);
    println!("{count} forged tokens refused, {:.0} a second", count as f64 / started.elapsed().as_secs_f64());
    assert!(count > 0);
}

#[test]
fn forged_tokens_on_connections_that_stay() {
    let rate = setting("DT_RECEIVER_TEST_HOSTILE_FORGED", 5000);
    besiege("forged tokens", "", |_| {}, |to, stop| guess(to, rate, u64::MAX, stop));
}

#[test]
fn forged_tokens_each_on_its_connection() {
    let rate = setting("DT_RECEIVER_TEST_HOSTILE_FORGED", 5000);
    besiege("forged tokens, each on its connection", "", |_| {}, |to, stop| guess(to, rate, 2, stop));
}
