//! `check --connect`: the connection and the handshake of TLS, without a request.

use std::sync::Arc;
use std::time::Duration;

use dt_sink::{Format, SinkContext, SinkError, SinkSettings};

use crate::driver::{Counts, Files, config};
use crate::target::{Reply, Target};
use crate::tls::{Authority, authority, certificate, files, server};

fn probe(keys: &str, files: &Files) -> Result<String, SinkError> {
    let mut context = SinkContext::new(Format::Body, Arc::new(Counts::default()));
    context.give_up_after = Some(Duration::from_secs(2));
    config(keys, files).probe(context).expect("it can be checked")
}

/// Probes a target by its name, and trusts an authority.
fn trusting(target: &Target, authority: &Authority) -> Result<String, SinkError> {
    let keys =
        format!("url = 'https://localhost:{}/s3cret'\ntls = {{ ca = '/ca.pem' }}", target.address.port());
    probe(&keys, &files(&[("/ca.pem", authority.pem())]))
}

#[test]
fn only_the_right_certificate_for_the_name_passes_and_no_request_is_sent() {
    let (ours, others) = (authority(), authority());
    for (certificate, expected) in [
        (certificate("localhost", 2099, &ours), Ok("accepts connections, and its certificate is valid")),
        (certificate("elsewhere.example", 2099, &ours), Err("not valid for name \"localhost\"")),
        (certificate("localhost", 2021, &ours), Err("TLS failed: the certificate of the target has expired")),
        (certificate("localhost", 2099, &others), Err("an authority that is not trusted; check `tls.ca`")),
    ] {
        let both: &[&[u8]] = &[b"h2", b"http/1.1"];
        for alpn in [&[], both] {
            let target = Target::start_tls(server(&certificate, None, alpn), |_| Reply::Status(200));
            let probed = trusting(&target, &ours);
            let said = match (&probed, expected) {
                (Ok(said), Ok(part)) => said.contains(part),
                (Err(error), Err(part)) => error.to_string().contains(part),
                _ => false,
            };
            assert!(said, "{probed:?}, and not {expected:?}");
            assert!(!format!("{probed:?}").contains("s3cret"), "{probed:?}");
            assert_eq!(target.take().len(), 0);
        }
    }
}

#[test]
fn a_missing_client_certificate_is_found_although_the_handshake_succeeds() {
    let authority = authority();
    let of_server = certificate("localhost", 2099, &authority);
    let (client, client_key) = certificate("receiver", 2099, &authority);
    let target = Target::start_tls(server(&of_server, Some(&authority), &[]), |_| Reply::Status(200));
    let error = trusting(&target, &authority).expect_err("no certificate").to_string();
    assert!(error.contains("CertificateRequired") && error.contains("`tls.certificate`"), "{error}");
    let pem = [
        ("/ca.pem", authority.pem()),
        ("/client.pem", client.pem()),
        ("/client.key", client_key.serialize_pem()),
    ];
    let port = target.address.port();
    let keys = format!(
        "url = 'https://localhost:{port}/'\ntls = {{ ca = '/ca.pem', certificate = '/client.pem', key = '/client.key' }}"
    );
    probe(&keys, &files(&pem)).expect("a certificate");
}

#[test]
fn what_cannot_be_reached_is_named_in_time() {
    let plain = Target::start(|_| Reply::Status(200));
    for (url, part) in [
        ("http://127.0.0.1:1/".to_owned(), "http://127.0.0.1:1: cannot connect: tcp connect error"),
        ("http://name.invalid/".to_owned(), "http://name.invalid: cannot connect: dns error"),
        (format!("https://localhost:{}/", plain.address.port()), "TLS failed: "),
    ] {
        let error = probe(&format!("url = '{url}'"), &Files::default()).expect_err("no target").to_string();
        assert!(error.contains(part), "{error}");
    }
    // Its backlog accepts the connection, and no one answers the handshake.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    let port = listener.local_addr().expect("an address").port();
    let url = format!("url = 'https://localhost:{port}/'");
    let error = probe(&url, &Files::default()).expect_err("no answer").to_string();
    assert!(error.contains("no connection within 2s"), "{error}");
}
