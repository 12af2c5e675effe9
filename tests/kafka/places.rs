//! Addresses at which there is no Kafka: `/readyz` says so, and events are accepted all the same.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use crate::load::Load;
use crate::setup::Setup;

/// How long until the reason is told.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// The receiver accepts events, and says all of this about its sink.
fn assert_named(brokers: &str, sink: &str, parts: &[&str]) {
    let setup = Setup::new("", brokers, &format!("topic = 'nowhere'\n{sink}"));
    let receiver = setup.start();
    let before = receiver.wait_for_reason_within(parts, TOLD_WITHIN);
    let ledger = Load::of(receiver.listen, 0..4, 10).send();
    let said = receiver.wait_for_reason_within(parts, TOLD_WITHIN);
    assert_eq!((ledger.count(), receiver.backlog()), (40, 40), "{said}");
    println!("{brokers}: {before}");
    receiver.stop();
    assert!(setup.dead_letters().is_empty());
}

/// A port on which somebody answers, who is not Kafka.
fn babbler() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    // It ends with the tests.
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let _read = connection.read(&mut [0; 64]);
            let _said = connection
                .write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nno Kafka here\r\n");
        }
    });
    address
}

#[test]
fn a_port_that_is_no_kafka_is_named() {
    let address = babbler().to_string();
    assert_named(&address, "", &["sink kafka", &address, "Kafka"]);
}

#[test]
fn a_port_on_which_nobody_listens_is_named() {
    let address = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").to_string();
    assert_named(&address, "", &["sink kafka", &address, "refused"]);
}

#[test]
fn a_host_that_cannot_be_resolved_is_named() {
    assert_named("nowhere.invalid:9092", "", &["sink kafka", "nowhere.invalid", "resolve", "`brokers`"]);
}
