//! Brokers that are away, silent, or no brokers: named in `/readyz`, and no event is lost.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use crate::broker::{Broker, Subscriber};
use crate::load::Load;
use crate::seen::Seen;
use crate::setup::Setup;

const SINK: &str = "format = 'body'\ntimeout = '1s'";

#[test]
fn a_broker_that_is_away_or_silent_is_named_and_costs_no_event() {
    let left_out = "outages of an MQTT broker";
    let Some(mut broker) = Broker::prepare(left_out, |_| "allow_anonymous true\n".to_owned()) else { return };
    let setup = Setup::new(&broker.address(), SINK);
    let receiver = setup.start();
    println!("{}", receiver.wait_for_reason(&["sink mqtt", &broker.address(), "refused"]));
    let mut ledger = Load::of(receiver.listen, 0..4, 10).send();
    assert_eq!(receiver.backlog(), 40);
    broker.start_again();
    let Some(subscriber) = Subscriber::start(&broker, "dt/p/#", left_out) else { return };
    // The events may be published before the subscription, so these are other devices.
    receiver.drain();
    receiver.wait_until_ready();
    broker.signal("STOP");
    ledger.add(Load::of(receiver.listen, 4..8, 10).send());
    println!("{}", receiver.wait_for_reason(&["sink mqtt", "does not answer", "within 1 s"]));
    broker.signal("CONT");
    receiver.drain();
    receiver.wait_until_ready();
    receiver.stop();
    assert!(setup.dead_letters().is_empty());
    let messages = subscriber.wait_for("the later events", |messages| {
        Seen::of_bodies(messages).events().iter().filter(|(device, _)| *device >= 4).count() >= 40
    });
    Seen::of_bodies(&messages).assert_in_order();
}

#[test]
fn what_is_no_broker_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let _answered = client.read(&mut [0; 1024]).and_then(|_| client.write_all(&[b'x'; 1024]));
        }
    });
    let setup = Setup::new(&address, SINK);
    let receiver = setup.start();
    println!("{}", receiver.wait_for_reason(&["sink mqtt", "not an MQTT broker", "[sink.tls]"]));
    Load::of(receiver.listen, 0..2, 5).send();
    assert_eq!(receiver.backlog(), 10);
    receiver.stop();
    let setup = Setup::new("no-such-host.invalid:1883", SINK);
    let receiver = setup.start();
    println!("{}", receiver.wait_for_reason(&["sink mqtt", "no-such-host.invalid:1883"]));
    receiver.stop();
}

#[test]
fn two_receivers_with_one_client_id_are_named() {
    let left_out = "two receivers with one client id";
    let Some(broker) = Broker::start(left_out) else { return };
    let (one, other) = (Setup::new(&broker.address(), SINK), Setup::new(&broker.address(), SINK));
    let receiver = one.start();
    receiver.wait_until_ready();
    let begun = std::time::Instant::now();
    let second = other.start();
    println!(
        "{}",
        receiver.wait_for_reason(&["sink mqtt", "no other client has the client id dt-receiver-mqtt"])
    );
    assert!(begun.elapsed() < Duration::from_secs(30));
    second.stop();
    receiver.wait_until_ready();
    receiver.stop();
}
