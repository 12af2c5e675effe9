//! Bodies that are too large, endless, or not what their length says; with a token that holds, and without.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;

use crate::events::{body, now, token};
use crate::siege::{besiege, connect_from};

/// The framing that a head announces, and what follows it.
fn lies() -> Vec<(&'static str, String)> {
    let megabyte = "x".repeat(1 << 20);
    vec![
        ("Content-Length: 10000000", megabyte.clone()),
        ("Content-Length: 18446744073709551615", megabyte.clone()),
        ("Content-Length: 65536", "x".to_owned()),
        ("Content-Length: 1", megabyte.clone()),
        ("Content-Length: 5\r\nContent-Length: 6", "xxxxxx".to_owned()),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n".to_owned()),
        ("Transfer-Encoding: chunked", "FFFFFFFFFFFFFFFF\r\nx".to_owned()),
        ("Transfer-Encoding: chunked", format!("100000\r\n{megabyte}\r\n100000\r\n{megabyte}")),
        ("Transfer-Encoding: chunked", "1\r\nx\r\n".repeat(100_000)),
        ("Transfer-Encoding: chunked", format!("1;{megabyte}\r\nx\r\n0\r\n\r\n")),
        ("Transfer-Encoding: chunked", format!("0\r\nx: {megabyte}\r\n\r\n")),
    ]
}

#[test]
fn bodies_that_lie() {
    let small = body(9, 1);
    let signature = token(&small, now());
    let lies = lies();
    besiege(
        "bodies that lie",
        "",
        |_| {},
        |to, stop| {
            std::thread::scope(|scope| {
                for attacker in 0..4 {
                    let (lies, signature) = (&lies, &signature);
                    scope.spawn(move || {
                        for (framing, rest) in lies.iter().cycle().skip(attacker) {
                            if stop.load(Ordering::Relaxed) {
                                return;
                            }
                            let signed = if attacker % 2 == 0 {
                                format!("X-Dt-Signature: {signature}\r\n")
                            } else {
                                String::new()
                            };
                            let head =
                                format!("POST / HTTP/1.1\r\nHost: localhost\r\n{signed}{framing}\r\n\r\n");
                            let Some(mut connection) =
                                connect_from(u64::try_from(attacker).expect("few"), to)
                            else {
                                continue;
                            };
                            let _written = connection
                                .write_all(head.as_bytes())
                                .and_then(|()| connection.write_all(rest.as_bytes()));
                            let _half = connection.shutdown(std::net::Shutdown::Write);
                            // About the megabytes of a line of 800 Mbit/s.
                            std::thread::sleep(std::time::Duration::from_millis(20));
                            let mut answer = [0; 12];
                            if connection.read_exact(&mut answer).is_ok() {
                                assert_ne!(&answer, b"HTTP/1.1 200", "{framing}");
                            }
                        }
                    });
                }
            });
        },
    );
}
