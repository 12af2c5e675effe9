//! Requests whose bodies do not come, from many addresses at once: of strangers, and of somebody who got hold of a token
//! that DT once signed. They hold whatever a body may hold until `limits.deadline`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dt_receiver::verify::{Secret, Signer};

use crate::events::{body, now, token};
use crate::siege::{besiege, connect_from};

/// Attackers' addresses, and how many connections each has.
const ADDRESSES: u64 = 128;
const CONNECTIONS: u64 = 16;
/// How many threads play them.
const THREADS: u64 = 4;
/// The body that is announced: the largest that is allowed.
const BYTES: usize = 65_536;

/// A connection, as long as it is open.
type Attacker = Option<TcpStream>;

/// Keeps all connections open, each with a request that waits for its body.
fn stall(to: SocketAddr, token: &str, stop: &AtomicBool) {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nX-Dt-Signature: {token}\r\nContent-Length: {BYTES}\r\n\r\n{{"
    );
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let head = head.as_bytes();
            scope.spawn(move || {
                let addresses = (0..ADDRESSES).filter(|address| address % THREADS == thread);
                let mut attackers: Vec<(u64, Attacker)> =
                    addresses.flat_map(|address| (0..CONNECTIONS).map(move |_| (address, None))).collect();
                while !stop.load(Ordering::Relaxed) {
                    for (address, attacker) in &mut attackers {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        if attacker.as_mut().is_none_or(has_ended) {
                            *attacker = connect_from(*address, to).and_then(|mut stream| {
                                stream.write_all(head).ok()?;
                                stream.set_nonblocking(true).ok()?;
                                Some(stream)
                            });
                        }
                    }
                    // It is about what they hold; floods of connections are in `idle` and `forged`.
                    std::thread::sleep(Duration::from_secs(1));
                }
            });
        }
    });
}

/// Whether it was answered, or closed.
fn has_ended(stream: &mut TcpStream) -> bool {
    !matches!(stream.read(&mut [0; 64]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn stalled_bodies_with_forged_tokens() {
    let signer = Signer::secret(Secret::new("guess-number-17").expect("not empty"));
    let forged = signer.sign(body(9, 1).as_bytes(), now(), "c82gg99hga35jc2afkeg").expect("signed");
    besiege("stalled bodies with forged tokens", "", |_| {}, |to, stop| stall(to, &forged, stop));
}

#[test]
fn stalled_bodies_with_a_leaked_token_that_has_expired() {
    let leaked = token(&body(9, 1), now() - 7200);
    besiege("stalled bodies with an old token", "", |_| {}, |to, stop| stall(to, &leaked, stop));
}
