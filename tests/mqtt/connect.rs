//! `check --connect` at a real broker: it says whether the broker accepts the connection, names what is wrong, and neither
//! publishes anything nor disturbs a receiver that runs.

use std::time::Instant;

use crate::authority::Authority;
use crate::broker::{Broker, retained};
use crate::security::{PASSWORD, USER, with_tls, with_user, write};
use crate::setup::Setup;

/// Runs it. Returns the exit code, and what it prints.
fn check(setup: &Setup) -> (i32, String) {
    let begun = Instant::now();
    let ended = setup.run(&["check", "--connect"]);
    assert!(begun.elapsed().as_secs() < 30, "it took {:?}", begun.elapsed());
    (ended.code(), format!("{}{}", ended.stdout, ended.stderr))
}

fn assert_ok(setup: &Setup) {
    let (code, said) = check(setup);
    assert!(code == 0 && said.contains("sink mqtt (mqtt): ok: "), "{code}: {said}");
}

/// It cannot deliver, and it says all of this.
fn assert_named(setup: &Setup, parts: &[&str]) {
    let (code, said) = check(setup);
    assert!(code == 1 && said.contains("sink mqtt (mqtt): "), "{code}: {said}");
    assert!(parts.iter().all(|part| said.contains(part)), "not {parts:?}: {said}");
    assert!(!said.contains(PASSWORD) && !said.contains("a-wrong-password"), "a password was printed");
    println!("{said}");
}

#[test]
fn a_broker_that_works_hears_nothing_and_a_running_receiver_stays_connected() {
    let Some(broker) = Broker::start("a check that connects") else { return };
    for version in ["5", "3.1.1"] {
        let setup = Setup::new(&broker.address(), &format!("version = '{version}'\nformat = 'body'"));
        assert_ok(&setup);
        // Neither a status nor a last will.
        assert_eq!(retained(&broker, "#"), []);
        let receiver = setup.start();
        // It is connected once it has delivered.
        receiver.accept(&crate::events::body(1, 1));
        receiver.drain();
        let connections = receiver.count("dt_receiver_mqtt_connections_total", "");
        assert!(connections > 0);
        let before = retained(&broker, "#");
        assert_ok(&setup);
        receiver.accept(&crate::events::body(1, 2));
        receiver.drain();
        assert_eq!(receiver.count("dt_receiver_mqtt_connections_total", ""), connections);
        assert_eq!(retained(&broker, "dt/receiver/#"), before);
        receiver.stop();
        crate::broker::retain(&broker, "dt/receiver/dt-receiver-mqtt", "");
    }
}

#[test]
fn a_broker_that_cannot_be_reached_is_named() {
    for (address, part) in [("127.0.0.1:1", "refused"), ("name.invalid:1883", "lookup")] {
        assert_named(&Setup::new(address, ""), &[address, part, "; check `broker`"]);
    }
}

#[test]
fn a_wrong_password_is_named_and_the_right_one_accepted() {
    let Some(broker) = with_user("passwords at a check", "") else { return };
    for version in ["5", "3.1.1"] {
        let sink = format!("version = '{version}'");
        let mut setup = Setup::with_password(&broker.address(), &sink, [USER, "a-wrong-password"]);
        assert_named(&setup, &["not authorized", "[sink.password]"]);
        setup.set_sink_secret(PASSWORD);
        assert_ok(&setup);
    }
}

#[test]
fn wrong_certificates_are_named_and_the_right_ones_accepted() {
    let authority = Authority::new();
    let left_out = "certificates at a check";
    let tls = |broker: &Broker| format!("ca = '{}'", broker.folder().join("ca.pem").display());
    let Some(expired) = with_tls(&authority, &authority.sign(1, 2020, 2021), left_out) else { return };
    let setup = Setup::new(&expired.address(), &format!("tls = {{ {} }}", tls(&expired)));
    assert_named(&setup, &["[sink.tls]", "certificate", "expired"]);
    let Some(good) = with_tls(&authority, &authority.good(2), left_out) else { return };
    assert_named(&Setup::new(&good.address(), "tls = {}"), &["[sink.tls]", "UnknownIssuer"]);
    let named = authority.sign_for(&["elsewhere.example"], 4, 2020, 2090);
    let Some(other) = with_tls(&authority, &named, left_out) else { return };
    let setup = Setup::new(&other.address(), &format!("tls = {{ {} }}", tls(&other)));
    assert_named(&setup, &["[sink.tls]", "not valid for name"]);
    // Plain text where TLS is required; no certificate where one is required.
    assert_named(&Setup::new(&good.address(), ""), &["[sink.tls]"]);
    assert_named(&Setup::new(&good.address(), &format!("tls = {{ {} }}", tls(&good))), &["[sink.tls]"]);
    let setup = Setup::new(&good.address(), "");
    write(setup.folder(), "client", &authority.good(3));
    let file = |name: &str| setup.folder().join(name).display().to_string();
    let pair = format!("certificate = '{}', key = '{}'", file("client.pem"), file("client.key"));
    setup.configure(&good.address(), &format!("tls = {{ {}, {pair} }}", tls(&good)));
    assert_ok(&setup);
}
