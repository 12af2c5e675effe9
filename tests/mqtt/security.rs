//! TLS, passwords and permissions, each right and wrong. What is wrong is named, costs no event, and is over once it is corrected.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::authority::{Authority, Pair};
use crate::broker::{Broker, Subscriber};
use crate::common::Receiver;
use crate::load::{Ledger, Load};
use crate::seen::Seen;
use crate::setup::Setup;

pub(crate) const USER: &str = "plant";
pub(crate) const PASSWORD: &str = "a-good-password";

/// A broker with a user.
pub(crate) fn with_user(left_out: &str, more: &str) -> Option<Broker> {
    Broker::start_with(left_out, |folder| {
        let file = folder.join("passwords");
        let made =
            Command::new("mosquitto_passwd").args(["-c", "-b"]).arg(&file).args([USER, PASSWORD]).status();
        assert!(made.expect("it comes with mosquitto").success());
        format!("password_file {}\n{more}", file.display())
    })
}

/// A broker with TLS, that requires a client certificate. Its files are `ca.pem`, `broker.pem` and `broker.key`.
pub(crate) fn with_tls(authority: &Authority, pair: &Pair, left_out: &str) -> Option<Broker> {
    Broker::start_with(left_out, |folder| {
        write(folder, "broker", pair);
        fs::write(folder.join("ca.pem"), &authority.pem).expect("written");
        let path = |name: &str| folder.join(name).display().to_string();
        format!(
            "cafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\nuse_identity_as_username true\n\
             listener 0 {}\nallow_anonymous true\n",
            path("ca.pem"),
            path("broker.pem"),
            path("broker.key"),
            path("socket"),
        )
    })
}

pub(crate) fn write(folder: &Path, name: &str, pair: &Pair) {
    fs::write(folder.join(format!("{name}.pem")), &pair.certificate).expect("written");
    fs::write(folder.join(format!("{name}.key")), &pair.key).expect("written");
}

/// It says all of this, accepts events all the same, and moves none to the dead letters.
fn assert_named(setup: &Setup, receiver: &Receiver, parts: &[&str]) -> Ledger {
    println!("{}", receiver.wait_for_reason(parts));
    let ledger = Load::of(receiver.listen, 0..4, 10).send();
    receiver.wait_for_reason(parts);
    assert_eq!(receiver.backlog(), 40);
    assert!(setup.dead_letters().is_empty());
    ledger
}

#[test]
fn a_wrong_password_is_named_and_never_printed() {
    let Some(broker) = with_user("passwords of MQTT", "") else { return };
    for version in ["5", "3.1.1"] {
        let sink = format!("version = '{version}'\nformat = 'body'");
        let mut setup = Setup::with_password(&broker.address(), &sink, [USER, "a-wrong-password"]);
        let receiver = setup.start();
        assert_named(&setup, &receiver, &["sink mqtt", "not authorized", "[sink.password]"]);
        let said = receiver.stop().stderr;
        assert!(!said.contains("a-wrong-password"), "{said}");
        setup.set_sink_secret(PASSWORD);
        let receiver = setup.start();
        receiver.drain();
        receiver.wait_until_ready();
        let said = receiver.stop().stderr;
        assert!(!said.contains(PASSWORD), "{said}");
    }
}

#[test]
fn a_permission_that_is_missing_is_named_and_costs_no_event() {
    let left_out = "permissions of MQTT";
    let Some(broker) = Broker::start_with(left_out, |folder| {
        let file = folder.join("acl");
        fs::write(&file, "topic readwrite dt/receiver/#\ntopic read #\n").expect("written");
        format!("allow_anonymous true\nacl_file {}\n", file.display())
    }) else {
        return;
    };
    let Some(subscriber) = Subscriber::start(&broker, "dt/p/#", left_out) else { return };
    let setup = Setup::new(&broker.address(), "format = 'body'");
    let receiver = setup.start();
    receiver.wait_until_ready();
    let ledger = Load::of(receiver.listen, 0..4, 10).send();
    println!(
        "{}",
        receiver.wait_for_reason(&[
            "sink mqtt",
            "topic dt/p/dev",
            "not authorized (0x87)",
            "allow this user"
        ])
    );
    assert!(setup.dead_letters().is_empty());
    fs::write(broker.folder().join("acl"), "topic readwrite #\n").expect("written");
    broker.signal("HUP");
    receiver.drain();
    receiver.wait_until_ready();
    receiver.stop();
    assert!(setup.dead_letters().is_empty());
    let messages = subscriber
        .wait_for("all events", |messages| Seen::of_bodies(messages).events().len() >= ledger.count());
    Seen::of_bodies(&messages).assert_complete(&ledger);
}

#[test]
fn tls_with_a_client_certificate_delivers() {
    let authority = Authority::new();
    let left_out = "MQTT over TLS";
    let Some(broker) = with_tls(&authority, &authority.good(1), left_out) else { return };
    let setup = Setup::new(&broker.address(), "");
    write(setup.folder(), "client", &authority.good(2));
    let file = |name: &str| setup.folder().join(name).display().to_string();
    let ca = broker.folder().join("ca.pem").display().to_string();
    let tls = format!(
        "tls = {{ ca = '{ca}', certificate = '{}', key = '{}' }}",
        file("client.pem"),
        file("client.key")
    );
    setup.configure(&broker.address(), &tls);
    let checked = setup.run(&["check"]);
    assert_eq!((checked.code(), &*checked.stderr), (0, ""), "{checked:?}");
    let receiver = setup.start();
    receiver.wait_until_ready();
    Load::of(receiver.listen, 0..4, 100).send();
    receiver.drain();
    assert!(receiver.count("dt_receiver_mqtt_connected", "") == 1);
    receiver.stop();
    assert!(setup.dead_letters().is_empty());
    // Without the client certificate.
    setup.configure(&broker.address(), &format!("tls = {{ ca = '{ca}' }}"));
    let receiver = setup.start();
    println!("{}", receiver.wait_for_reason(&["sink mqtt", "[sink.tls]", "ertificate"]));
    receiver.stop();
}

#[test]
fn certificates_that_are_wrong_are_named() {
    let authority = Authority::new();
    let left_out = "wrong certificates of MQTT";
    let Some(expired) = with_tls(&authority, &authority.sign(1, 2020, 2021), left_out) else { return };
    let tls = |broker: &Broker| format!("tls = {{ ca = '{}' }}", broker.folder().join("ca.pem").display());
    let setup = Setup::new(&expired.address(), &tls(&expired));
    let receiver = setup.start();
    assert_named(&setup, &receiver, &["sink mqtt", "[sink.tls]", "certificate", "expired"]);
    receiver.stop();
    let Some(good) = with_tls(&authority, &authority.good(2), left_out) else { return };
    // Signed by another authority: Mozilla's do not know it.
    let setup = Setup::new(&good.address(), "tls = {}");
    let receiver = setup.start();
    assert_named(&setup, &receiver, &["sink mqtt", "[sink.tls]", "certificate", "UnknownIssuer"]);
    receiver.stop();
    // Plain text where TLS is required.
    let setup = Setup::new(&good.address(), "");
    let receiver = setup.start();
    assert_named(&setup, &receiver, &["sink mqtt", "[sink.tls]"]);
    receiver.stop();
}

#[test]
fn check_names_what_is_wrong_before_the_start() {
    let setup = Setup::new("mqtt.example.com:1883", "");
    let checked = setup.run(&["check"]);
    assert_eq!(checked.code(), 0, "{checked:?}");
    assert!(checked.stderr.contains("sink.mqtt.broker: events cross the network unencrypted"), "{checked:?}");
    for (sink, said) in [
        (
            "topic = 'dt/{label}'",
            r#"sink.mqtt.topic: found "dt/{label}": unknown placeholder "{label}"; the placeholders are"#,
        ),
        ("topic = 'dt/#'", "sink.mqtt.topic: found \"dt/#\": a topic may not contain"),
        ("topic = 'dt/{quantity}'", "sink.mqtt.topic: `{quantity}` is for `state_topic`"),
        ("state_topic = 'dt/{device}'", "sink.mqtt.state_topic: needs `{device}` and `{quantity}`"),
        ("status_topic = ''", "sink.mqtt.status_topic: found \"\": a topic may not be empty"),
        ("version = '3'", "sink.mqtt.version: found \"3\""),
        ("client_id = ''", "sink.mqtt.client_id: found \"\""),
        ("max_in_flight = 0", "sink.mqtt.max_in_flight: found 0"),
        ("password = { env = 'PATH' }", "sink.mqtt.username: is missing"),
        ("password = 'secret'", "sink.mqtt.password"),
        ("tls = { ca = '/etc/hostname' }", "sink.mqtt.tls.ca: has no certificate"),
        ("tls = { ca = '/not/there' }", "sink.mqtt.tls.ca: /not/there: "),
        ("tls = { certificate = '/etc/hostname' }", "sink.mqtt.tls.key: is missing"),
        ("retain_latest = true", "sink.mqtt.retain_latest: unknown key"),
    ] {
        setup.configure("127.0.0.1:1883", sink);
        let checked = setup.run(&["check"]);
        assert_eq!(checked.code(), 2, "{sink}: {checked:?}");
        assert!(checked.stderr.contains(said), "{sink}: {}", checked.stderr);
    }
    setup.configure("mqtt://127.0.0.1:1883", "");
    let checked = setup.run(&["check"]);
    assert!(checked.stderr.contains("expected HOST:PORT"), "{}", checked.stderr);
}
