//! Versions and protocols, with other people's clients; and how a connection ends.

use std::process::{Command, Stdio};

use crate::client::{Client, trusting};
use crate::common::Receiver;
use crate::events::{body, has_tool, has_tool_with, now, token};
use crate::place::{Place, TLS, failed_handshakes, until};

/// Sends an event with curl. What it prints: status, HTTP version.
fn curl(place: &Place, receiver: &Receiver, number: u64, options: &[&str]) -> Result<String, String> {
    let body = body(1, number);
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "60", "-o", "/dev/null", "-w", "%{http_code} %{http_version}"])
        .args(["--cacert", &place.text("ca.pem"), "--data-binary", &body])
        .args(["-H", &format!("X-Dt-Signature: {}", token(&body, now()))])
        .args(options)
        .arg(format!("https://{}/", receiver.listen))
        .output()
        .expect("curl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// What `openssl s_client` says of its handshake.
fn s_client(place: &Place, receiver: &Receiver, options: &[&str]) -> Result<String, String> {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &receiver.listen.to_string(), "-CAfile", &place.text("ca.pem")])
        .args(["-verify_return_error", "-verify_ip", "127.0.0.1"])
        .args(options)
        .stdin(Stdio::null())
        .output()
        .expect("openssl runs");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(said) } else { Err(said) }
}

#[test]
fn curl_gets_through_with_each_version_of_tls_and_http() {
    if !has_tool("curl", "events sent with curl over TLS") {
        return;
    }
    let (place, _) = Place::with_certificate();
    let receiver = place.start("", TLS);
    let versions = [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"]];
    let mut number = 0;
    for version in versions {
        for (http, expected) in [("--http1.1", "200 1.1"), ("--http2", "200 2")] {
            number += 1;
            let options = [version, &[http]].concat();
            assert_eq!(curl(&place, &receiver, number, &options), Ok(expected.to_owned()), "{options:?}");
        }
    }
    assert!(curl(&place, &receiver, 99, &["--tls-max", "1.1"]).is_err());
    // Who does not know our authority does not trust us; and we hear why.
    place.write("ca.pem", &crate::authority::Authority::new().pem);
    let error = curl(&place, &receiver, 99, &[]).expect_err("not trusted");
    assert!(error.contains("certificate"), "{error}");
    until("the refusal is counted", || failed_handshakes(&receiver, "refused_by_client") >= 1.0);
    assert_eq!(receiver.stop().code(), 0);
}

#[test]
fn openssl_gets_through_with_each_version_and_the_least_is_kept() {
    if !has_tool_with("openssl", "version", "handshakes of openssl") {
        return;
    }
    let (place, _) = Place::with_certificate();
    let receiver = place.start("", TLS);
    for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for (offered, chosen) in [("h2", "h2"), ("http/1.1,h2", "h2"), ("http/1.1", "http/1.1")] {
            let said = s_client(&place, &receiver, &[option, "-alpn", offered]).expect("a handshake");
            assert!(said.contains(&format!("New, {version}, Cipher is")), "{said}");
            assert!(said.contains(&format!("ALPN protocol: {chosen}")), "{said}");
            assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        }
    }
    assert_eq!(receiver.stop().code(), 0);
    let strict = place.start("", &format!("{TLS}min_version = '1.3'\n"));
    s_client(&place, &strict, &["-tls1_3"]).expect("a handshake");
    s_client(&place, &strict, &["-tls1_2"]).expect_err("too old");
    until("it is counted", || failed_handshakes(&strict, "incompatible") >= 1.0);
    assert_eq!(strict.stop().code(), 0);
}

#[test]
fn a_stop_ends_connections_as_tls_wants_it() {
    let (place, authority) = Place::with_certificate();
    let receiver = place.start("", TLS);
    let config = trusting(&authority, None);
    let mut used = Client::connect(receiver.listen, &config).expect("a handshake");
    assert_eq!(used.send(1, 1), Ok(200));
    let mut fresh = Client::connect(receiver.listen, &config).expect("a handshake");
    // A handshake that never goes on must not hold up the stop.
    let _silent = std::net::TcpStream::connect(receiver.listen).expect("connected");
    receiver.signal("TERM");
    assert_eq!(used.end().expect("close_notify"), 0);
    assert_eq!(fresh.end().expect("close_notify"), 0);
    assert_eq!(receiver.wait().code(), 0);
}

#[test]
fn the_command_line_has_tls_too() {
    let (place, authority) = Place::with_certificate();
    let (data, cert, key) = (place.text("data"), place.text("cert.pem"), place.text("key.pem"));
    let receiver = Receiver::start(["--data", &data, "--tls-cert", &cert, "--tls-key", &key], &[]);
    let mut client = Client::connect(receiver.listen, &trusting(&authority, None)).expect("a handshake");
    assert_eq!(client.send(1, 1), Ok(200));
    let ended = receiver.stop();
    assert_eq!(ended.code(), 0);
    assert!(ended.stderr.contains(r#""scheme":"https""#), "{}", ended.stderr);
    let alone = crate::common::run(["serve", "--data", &data, "--tls-cert", &cert], b"");
    assert_eq!(alone.code(), 2, "{alone:?}");
}

/// A handshake costs more than a refused request, and counts like one unless a request follows that verifies.
#[test]
fn handshakes_count_against_the_budget_of_their_peer() {
    let (place, authority) = Place::with_certificate();
    let receiver = place.start("", &format!("{TLS}[limits]\ndeadline = '1s'\nmax_refused_per_peer = 5\n"));
    let config = trusting(&authority, None);
    // Within the budget the body is waited for, beyond it the answer comes at once.
    let refused = || {
        let mut client = Client::connect(receiver.listen, &config).expect("a handshake");
        client.request("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n").expect("an answer")
    };
    for number in 0..20 {
        let mut client = Client::connect(receiver.listen, &config).expect("a handshake");
        assert_eq!(client.send(1, number), Ok(200));
    }
    assert_eq!(refused(), 408, "those of good requests count for nothing");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _idle = Client::connect(receiver.listen, &config);
            }
        });
        let started = std::time::Instant::now();
        while refused() != 401 && started.elapsed() < std::time::Duration::from_secs(20) {}
        assert_eq!(refused(), 401);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(receiver.stop().code(), 0);
}
