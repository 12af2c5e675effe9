//! TLS: only the right certificate of the right authority for the right name is trusted; client certificates; HTTP/2.

use std::sync::Arc;

use dt_sink::{Fate, Format};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd,
};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::driver::{Driver, Files, config, error_of, is_retry, read, records};
use crate::network::Network;
use crate::target::{Reply, Target};

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn authority() -> Authority {
    let mut params = CertificateParams::new([]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// A certificate for a name, until a year.
pub(crate) fn certificate(name: &str, until: i32, by: &Authority) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new([name.to_owned()]).expect("parameters");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    (params.signed_by(&key, by).expect("a certificate"), key)
}

pub(crate) fn server(
    (certificate, key): &(Certificate, KeyPair),
    clients_of: Option<&Authority>,
    alpn: &[&[u8]],
) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let builder = match clients_of {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der().clone()).expect("added");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
    };
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let mut config = builder.with_single_cert(chain, key).expect("a pair");
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

pub(crate) fn files(pairs: &[(&str, String)]) -> Files {
    Files(pairs.iter().map(|(name, text)| ((*name).to_owned(), text.clone().into_bytes())).collect())
}

/// A sink that trusts an authority.
fn trusting(target: &Target, host: &str, authority: &Authority) -> Driver {
    let url = format!("https://{host}:{}/events", target.address.port());
    let keys = format!("url = '{url}'\ntls = {{ ca = '/ca.pem' }}");
    Driver::with(config(&keys, &files(&[("/ca.pem", authority.pem())])), Format::Body)
}

#[test]
fn a_certificate_of_the_authority_for_the_name_is_trusted() {
    let authority = authority();
    let target = Target::start_tls(server(&certificate("localhost", 2099, &authority), None, &[]), |_| {
        Reply::Status(200)
    });
    let mut driver = trusting(&target, "localhost", &authority);
    assert!(driver.deliver(&records(10, 5)).iter().all(|fate| *fate == Fate::Delivered));
    assert!(target.take().iter().all(|arrived| arrived.version == hyper::Version::HTTP_11));
}

#[test]
fn http_2_is_chosen_where_the_target_has_it_and_order_holds() {
    let authority = authority();
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    let target = Target::start_tls(server(&certificate("localhost", 2099, &authority), None, both), |_| {
        Reply::Late(std::time::Duration::from_millis(2), 200)
    });
    let mut driver = trusting(&target, "localhost", &authority);
    for _ in 0..2 {
        assert!(driver.deliver(&records(10, 20)).iter().all(|fate| *fate == Fate::Delivered));
    }
    let arrived = target.take();
    assert!(arrived.len() == 400 && arrived.iter().all(|arrived| arrived.version == hyper::Version::HTTP_2));
    assert!(target.most_in_flight() > 1);
    for device in 0..10 {
        let of_device = arrived.iter().map(|arrived| crate::driver::id_of(&arrived.body).to_owned());
        let numbers: Vec<usize> = of_device
            .filter_map(|id| id.strip_prefix(&format!("dev{device}-")).map(|n| n.parse().expect("a number")))
            .collect();
        assert_eq!(numbers, (0..20).chain(0..20).collect::<Vec<_>>());
    }
}

#[test]
fn a_connection_of_http_2_whose_peer_is_gone_is_replaced() {
    let authority = authority();
    let target =
        Target::start_tls(server(&certificate("localhost", 2099, &authority), None, &[b"h2"]), |_| {
            Reply::Status(200)
        });
    let network = Network::start(target.address);
    let keys = format!(
        "url = 'https://localhost:{}/events'\ntimeout = '2s'\ntls = {{ ca = '/ca.pem' }}",
        network.address.port()
    );
    let mut driver = Driver::with(config(&keys, &files(&[("/ca.pem", authority.pem())])), Format::Body);
    assert_eq!(driver.deliver(&records(1, 1)), [Fate::Delivered]);
    network.lose_connections();
    let fates = driver.deliver(&records(1, 1));
    assert!(fates.iter().all(is_retry), "{fates:?}");
    println!("{}", error_of(&fates[0]));
    assert_eq!(driver.deliver(&records(1, 1)), [Fate::Delivered]);
    assert_eq!(target.connections(), 2);
    assert!(target.take().iter().all(|arrived| arrived.version == hyper::Version::HTTP_2));
}

#[test]
fn a_wrong_name_authority_or_date_is_never_trusted() {
    let (ours, others) = (authority(), authority());
    let cases = [
        (certificate("elsewhere.example", 2099, &ours), "not valid for name \"localhost\""),
        (certificate("localhost", 2021, &ours), "TLS failed: the certificate of the target has expired"),
        (
            certificate("localhost", 2099, &others),
            "TLS failed: the certificate of the target is of an authority that is not trusted; check `tls.ca`",
        ),
    ];
    for (certificate, expected) in cases {
        let target = Target::start_tls(server(&certificate, None, &[]), |_| Reply::Status(200));
        let mut driver = trusting(&target, "localhost", &ours);
        let fates = driver.deliver(&records(3, 3));
        assert!(fates.iter().all(is_retry), "{fates:?}");
        assert!(error_of(&fates[0]).contains(expected), "{fates:?}");
        // The text does not contain the current time, or the log would have it again and again.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert_eq!(driver.deliver(&records(3, 3))[0], fates[0]);
        assert_eq!(target.take().len(), 0);
    }
    // Nor is one trusted that the public authorities did not sign.
    let target =
        Target::start_tls(server(&certificate("localhost", 2099, &ours), None, &[]), |_| Reply::Status(200));
    let mut driver = Driver::new(&format!("https://localhost:{}/", target.address.port()), "");
    assert!(driver.deliver(&records(1, 1)).iter().all(is_retry));
    assert_eq!(target.take().len(), 0);
    // A target without TLS gets nothing either.
    let plain = Target::start(|_| Reply::Status(200));
    let mut driver = trusting(&plain, "localhost", &ours);
    let fates = driver.deliver(&records(1, 1));
    assert!(fates.iter().all(is_retry) && error_of(&fates[0]).contains("TLS failed: "), "{fates:?}");
    assert_eq!(plain.take().len(), 0);
}

#[test]
fn a_client_certificate_is_shown_to_a_target_that_asks_for_one() {
    let authority = authority();
    let (client, client_key) = certificate("receiver", 2099, &authority);
    let of_server = certificate("localhost", 2099, &authority);
    let target = Target::start_tls(server(&of_server, Some(&authority), &[b"h2"]), |_| Reply::Status(200));
    let pem = [
        ("/ca.pem", authority.pem()),
        ("/client.pem", client.pem()),
        ("/client.key", client_key.serialize_pem()),
    ];
    let url = format!("url = 'https://localhost:{}/'", target.address.port());
    let with = format!("{url}\ntls = {{ ca = '/ca.pem', certificate = '/client.pem', key = '/client.key' }}");
    let mut driver = Driver::with(config(&with, &files(&pem)), Format::Body);
    assert!(driver.deliver(&records(3, 3)).iter().all(|fate| *fate == Fate::Delivered));
    assert_eq!(target.take().len(), 9);
    let mut without = trusting(&target, "localhost", &authority);
    let fates = without.deliver(&records(3, 3));
    assert!(fates.iter().all(is_retry), "{fates:?}");
    assert_eq!(target.take().len(), 0);
}

#[test]
fn files_that_are_no_certificates_are_reported_and_a_renewed_one_is_a_change() {
    let authority = authority();
    let (client, key) = certificate("receiver", 2099, &authority);
    let (other, _) = certificate("receiver", 2099, &authority);
    let url = "url = 'https://localhost/'";
    let pem = [
        ("/ca.pem", authority.pem()),
        ("/client.pem", client.pem()),
        ("/other.pem", other.pem()),
        ("/client.key", key.serialize_pem()),
        ("/text", "text".to_owned()),
    ];
    let pair = |certificate: &str, key: &str| {
        format!("{url}\ntls = {{ certificate = '{certificate}', key = '{key}' }}")
    };
    for (keys, expected) in [
        (format!("{url}\ntls = {{ ca = '/missing' }}"), "tls.ca: /missing: entity not found"),
        (
            format!("{url}\ntls = {{ ca = '/text' }}"),
            "tls.ca: has no certificate; expected \"-----BEGIN CERTIFICATE-----\"",
        ),
        (
            pair("/text", "/client.key"),
            "tls.certificate: has no certificate; expected \"-----BEGIN CERTIFICATE-----\"",
        ),
        (
            pair("/client.pem", "/text"),
            "tls.key: has no private key; expected \"-----BEGIN PRIVATE KEY-----\"",
        ),
        (pair("/other.pem", "/client.key"), "tls.key: is not the private key of `certificate`"),
        (
            format!("{url}\ntls = {{ certificate = '/client.pem' }}"),
            "tls.key: is missing; a client certificate needs both `certificate` and `key`",
        ),
        (
            format!("{url}\ntls = {{ key = '/client.key' }}"),
            "tls.certificate: is missing; a client certificate needs both `certificate` and `key`",
        ),
        (
            "url = 'http://localhost/'\ntls = { ca = '/ca.pem' }".to_owned(),
            "tls: is given, and the URL is http; set `url` to https, or delete the table",
        ),
    ] {
        let (_, errors, _) = read(&keys, &files(&pem));
        assert_eq!(errors, [expected], "{keys}");
    }
    let read = |ca: String| config(&format!("{url}\ntls = {{ ca = '/ca.pem' }}"), &files(&[("/ca.pem", ca)]));
    let before = read(authority.pem());
    assert_eq!(before, read(authority.pem()));
    assert_ne!(before, read(crate::tls::authority().pem()));
    assert!(!format!("{:?}", config(&pair("/client.pem", "/client.key"), &files(&pem))).contains("PRIVATE"));
}
