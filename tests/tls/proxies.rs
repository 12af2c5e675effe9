//! Behind proxies: who a request is from, told by PROXY headers and by `X-Forwarded-For` or `Forwarded`, and by nobody
//! else than the proxies that are trusted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::client::{Client, trusting};
use crate::place::{Place, TLS, refused_headers, refused_peers, until};

const REFUSED: &str =
    "POST / HTTP/1.1\r\nHost: localhost\r\nX-Dt-Signature: x\r\nConnection: close\r\nContent-Length: 0\r\n";

/// What is answered, to the end of the connection.
fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    // It may be closed before all of it is sent, and reset then.
    let _sent = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _read = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn v2(source: [u8; 4], port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &source, &[10, 0, 0, 1], &port, &[1, 0xbb]].concat()
}

#[test]
fn only_a_trusted_proxy_says_who_the_client_is() {
    let forged = "X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.8\r\n\r\n";
    for (root, expected) in [
        ("", "127.0.0.1"),
        ("trusted_proxies = ['10.0.0.0/8', '::1', 'unix']", "127.0.0.1"),
        ("trusted_proxies = ['127.0.0.0/8']", "192.0.2.7"),
        ("trusted_proxies = ['127.0.0.1']\nclient_header = 'Forwarded'", "192.0.2.8"),
    ] {
        let place = Place::new();
        let receiver = place.start(root, "");
        let answer = exchange(receiver.listen, format!("{REFUSED}{forged}").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        let peers = refused_peers(&receiver.stop().stderr);
        let hosts: Vec<_> = peers.iter().map(|peer| peer.rsplit_once(':').expect("a port").0).collect();
        assert_eq!(hosts, [expected], "{root}");
    }
}

#[test]
fn allow_cidrs_holds_for_the_client_that_a_proxy_names() {
    let place = Place::new();
    let limits = "[limits]\nallow_cidrs = ['192.0.2.0/24']";
    let receiver = place.start("trusted_proxies = ['127.0.0.1']", limits);
    for (client, status, code) in
        [("192.0.2.7", 401, "signature_malformed"), ("198.51.100.7", 403, "address_not_allowed")]
    {
        let request = format!("{REFUSED}X-Forwarded-For: {client}\r\n\r\n");
        let answer = exchange(receiver.listen, request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code), "{answer}");
    }
    receiver.stop();
    // Nobody speaks for a stranger.
    let receiver = place.start("", limits);
    assert_eq!(exchange(receiver.listen, format!("{REFUSED}\r\n").as_bytes()), "");
    receiver.stop();
}

#[test]
fn allow_cidrs_refuses_a_request_whose_client_is_not_known() {
    let place = Place::new();
    // The proxy's own address is in the list: it says nothing about the client.
    let limits = "[limits]\nallow_cidrs = ['127.0.0.0/8', '192.0.2.0/24']";
    let receiver = place.start("trusted_proxies = ['127.0.0.1']", limits);
    let forwarded = |value: &str| format!("X-Forwarded-For: {value}\r\n");
    for (header, status, code) in [
        (forwarded("192.0.2.7"), 401, "signature_malformed"),
        (String::new(), 403, "address_not_allowed"),
        (forwarded("unknown"), 403, "address_not_allowed"),
        (forwarded("192.0.2.7, x"), 403, "address_not_allowed"),
    ] {
        let answer = exchange(receiver.listen, format!("{REFUSED}{header}\r\n").as_bytes());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code),
            "{header}: {answer}"
        );
    }
    receiver.stop();
}

#[test]
fn a_proxy_header_names_the_client_before_http_and_before_tls() {
    let (place, authority) = Place::with_certificate();
    let root = "trusted_proxies = ['127.0.0.1', '10.0.0.0/8']\nproxy_protocol = true";
    let receiver = place.start(root, "");
    let request = format!("{REFUSED}\r\n");
    let forwarded = format!("{REFUSED}X-Forwarded-For: 192.0.2.9\r\n\r\n");
    for (header, request) in [
        (v2([192, 0, 2, 7], 4711), &request),
        (b"PROXY TCP4 192.0.2.8 10.0.0.1 4712 443\r\n".to_vec(), &request),
        (b"PROXY TCP6 2001:db8::7 ::1 4713 443\r\n".to_vec(), &request),
        // The client of one proxy is another one of ours, and it has a header.
        (v2([10, 0, 0, 9], 1), &forwarded),
        // The client is not, so its header is its own.
        (v2([192, 0, 2, 7], 4714), &forwarded),
    ] {
        let answer = exchange(receiver.listen, &[&header, request.as_bytes()].concat());
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    let peers = refused_peers(&receiver.stop().stderr);
    let expected =
        ["192.0.2.7:4711", "192.0.2.8:4712", "[2001:db8::7]:4713", "192.0.2.9:0", "192.0.2.7:4714"];
    assert_eq!(peers, expected);

    let receiver = place.start(root, TLS);
    let config = trusting(&authority, None);
    let mut client =
        Client::connect_after(receiver.listen, &config, &v2([192, 0, 2, 7], 4711)).expect("a handshake");
    assert_eq!(client.send(1, 1), Ok(200));
    assert_eq!(client.request(&request), Ok(401));
    assert_eq!(refused_peers(&receiver.stop().stderr), ["192.0.2.7:4711"]);
}

#[test]
fn a_proxy_header_is_needed_from_proxies_and_refused_from_others() {
    let place = Place::new();
    let limits = "[limits]\nhandshake_timeout = '300ms'\n";
    let request = format!("{REFUSED}\r\n");
    let strange = place.start("trusted_proxies = ['192.0.2.0/24']\nproxy_protocol = true", limits);
    let answer = exchange(strange.listen, &[&v2([192, 0, 2, 7], 4711), request.as_bytes()].concat());
    assert_eq!(answer, "");
    until("it is counted", || refused_headers(&strange, "untrusted") == 1.0);
    assert_eq!(strange.stop().code(), 0);

    let receiver = place.start("trusted_proxies = ['127.0.0.1']\nproxy_protocol = true", limits);
    for (bytes, reason) in [
        (request.as_bytes(), "missing"),
        (b"PROXY TCP4 192.0.2.8 10.0.0.1 99999 443\r\n", "malformed"),
        // A header that never ends.
        (&v2([192, 0, 2, 7], 4711)[..20], "timeout"),
        (b"", "timeout"),
    ] {
        let before = refused_headers(&receiver, reason);
        assert_eq!(exchange(receiver.listen, bytes), "");
        until("it is counted", || refused_headers(&receiver, reason) > before);
    }
    let ended = receiver.stop();
    assert_eq!(ended.code(), 0);
    assert!(refused_peers(&ended.stderr).is_empty(), "{}", ended.stderr);
}
