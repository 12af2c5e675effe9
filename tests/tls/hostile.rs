//! Peers that never finish their handshake, or send garbage: they cost a place for a bounded time, and nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::client::{Client, trusting};
use crate::events::Random;
use crate::place::{Place, TLS, failed_handshakes, metric, until};

/// Reads until the server closes.
fn closes(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
    }
}

#[test]
fn silent_and_slow_peers_are_closed_and_their_places_come_back() {
    let (place, authority) = Place::with_certificate();
    let limits = "[limits]\nhandshake_timeout = '300ms'\nmax_connections = 4\n";
    let receiver = place.start("", &format!("{TLS}{limits}"));
    // More than there are places, and than are told that there is none.
    let peers: Vec<_> = (0..100).map(|_| TcpStream::connect(receiver.listen).expect("connected")).collect();
    for (number, mut peer) in peers.iter().enumerate() {
        // Some begin a handshake that goes on for ever.
        if number % 2 == 0 {
            let _sent = peer.write_all(&[0x16, 3, 1, 2, 0, 1]);
        }
    }
    assert!(peers.iter().all(closes));
    // Counted a moment after they are closed.
    until("those that had a place are counted", || failed_handshakes(&receiver, "timeout") >= 4.0);
    let config = trusting(&authority, None);
    let mut number = 0;
    until("there is room again", || {
        number += 1;
        Client::connect(receiver.listen, &config).and_then(|mut client| client.send(1, number)) == Ok(200)
    });
    let ended = receiver.stop();
    assert_eq!(ended.code(), 0);
    assert!(ended.stderr.matches("a TLS handshake failed").count() <= 40, "the log is bounded");
}

fn byte(random: &mut Random) -> u8 {
    u8::try_from(random.below(256)).expect("a byte")
}

#[test]
fn garbage_does_no_harm() {
    let (place, authority) = Place::with_certificate();
    let receiver = place.start("", TLS);
    let mut random = Random::new(crate::events::seed());
    let mut good = Client::connect(receiver.listen, &trusting(&authority, None)).expect("a handshake");
    for number in 0..60 {
        let garbage: Vec<u8> = match number % 4 {
            0 => b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            1 => (0..random.below(4000)).map(|_| byte(&mut random)).collect(),
            // The head of a record, then anything.
            2 => [22, 3, 1, 0, 200].into_iter().chain((0..200).map(|_| byte(&mut random))).collect(),
            _ => Vec::new(),
        };
        let mut peer = TcpStream::connect(receiver.listen).expect("connected");
        // It may be closed before all of it is sent.
        let _sent = peer.write_all(&garbage).and_then(|()| peer.shutdown(std::net::Shutdown::Write));
        assert!(closes(&peer));
        assert_eq!(good.send(1, number), Ok(200));
    }
    until("it is counted", || failed_handshakes(&receiver, "protocol") >= 15.0);
    until("nobody else is left", || metric(&receiver, "dt_receiver_connections") <= 1.0);
    assert_eq!(receiver.stop().code(), 0);
}
