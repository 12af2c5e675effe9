//! TLS: the chain and the host name are checked whatever `sslmode` says, and what is wrong with them is named.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use crate::connect::{assert_named, assert_ok};
use crate::events::body;
use crate::server::{PASSWORD, Server};
use crate::setup::Setup;

/// An authority, and a certificate for `localhost` until this year with its key, in PEM.
fn certificates(until: i32) -> [String; 3] {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("signed");
    let key = KeyPair::generate().expect("a key");
    let mut server = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    server.not_before = date_time_ymd(2020, 1, 1);
    server.not_after = date_time_ymd(until, 1, 1);
    let server = server.signed_by(&key, &authority).expect("signed");
    [authority.pem(), server.pem(), key.serialize_pem()]
}

#[test]
fn chain_and_host_name_are_checked() {
    let [authority, certificate, key] = certificates(2090);
    let options = ["ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key"];
    let files = [("server.crt", &*certificate), ("server.key", &*key)];
    let Some(server) = Server::start_with(&options, &files, "TLS") else { return };
    let database = server.database();
    let ca = server.folder().join("ca.pem");
    std::fs::write(&ca, authority).expect("written");
    let ca = format!("ca = '{}'", ca.display());
    let url = |host: &str, more: &str| {
        format!("postgres://postgres:{PASSWORD}@{host}:{}/{database}?{more}", server.port())
    };
    // A name that the certificate does not have, and an authority that is not known.
    for (url, sink, reasons) in [
        (url("127.0.0.1", "sslmode=require"), &*ca, ["TLS handshake", "not valid for name"]),
        (
            url("other.example", "hostaddr=127.0.0.1&sslmode=require"),
            &ca,
            ["TLS handshake", "not valid for name"],
        ),
        (url("localhost", "sslmode=require"), "", ["UnknownIssuer", "in `ca`"]),
    ] {
        let setup = Setup::new("", &url, sink);
        assert_named(&setup, &reasons);
        let receiver = setup.start();
        receiver.accept(&body(1, 1));
        println!("{}", receiver.wait_for_reason(&["sink pg", reasons[0], reasons[1]]));
        receiver.stop();
        assert_eq!(server.psql(&database, "SELECT to_regclass('dt_events')"), "");
    }
    let setup = Setup::new("", &url("localhost", "sslmode=require"), &ca);
    assert_ok(&setup, "the tables will be created");
    let receiver = setup.start();
    receiver.accept(&body(1, 1));
    receiver.drain();
    let encrypted = "SELECT ssl, version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'dt-receiver'";
    assert_eq!(server.psql(&database, encrypted), "t|TLSv1.3");
    receiver.stop();
}

#[test]
fn an_expired_certificate_is_named_by_check() {
    let [authority, certificate, key] = certificates(2021);
    let options = ["ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key"];
    let files = [("server.crt", &*certificate), ("server.key", &*key)];
    let Some(server) = Server::start_with(&options, &files, "an expired certificate") else { return };
    let ca = server.folder().join("ca.pem");
    std::fs::write(&ca, authority).expect("written");
    let url = format!("postgres://postgres:{PASSWORD}@localhost:{}/postgres?sslmode=require", server.port());
    assert_named(
        &Setup::new("", &url, &format!("ca = '{}'", ca.display())),
        &["TLS handshake", "expired; renew"],
    );
}

#[test]
fn a_server_without_tls_is_not_used_in_plain_text() {
    let Some(server) = crate::server::shared("a server without TLS") else { return };
    let database = server.database();
    let setup = Setup::new("", &format!("{}?sslmode=require", server.url(&database)), "");
    let receiver = setup.start();
    receiver.accept(&body(1, 1));
    receiver.wait_for_reason(&["sink pg", "does not support TLS", "sslmode=disable"]);
    receiver.stop();
}
