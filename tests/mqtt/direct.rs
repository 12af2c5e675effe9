//! Mode `direct`: an event is answered with 200 only after the PUBACK of its packet, and with 503 while there is no broker.
//!
//! 5,000 events and 3 restarts of the broker; `DT_RECEIVER_TEST_MQTT_EVENTS` and `DT_RECEIVER_TEST_MQTT_RESTARTS` set the full
//! counts.

use crate::broker::{Broker, Subscriber};
use crate::events::{id, setting};
use crate::load::{Load, Manner};
use crate::proxy::{Proxy, Published};
use crate::seen::Seen;
use crate::sender::Sender;
use crate::setup::Setup;

const SINK: &str = "format = 'body'\ntimeout = '2s'";

const DEVICES: u64 = 32;

#[test]
fn every_event_that_was_answered_with_200_is_there_once_as_it_was_sent_and_in_order() {
    let left_out = "events in mode direct through MQTT";
    let Some(broker) = Broker::start(left_out) else { return };
    let Some(subscriber) = Subscriber::start(&broker, "dt/p/#", left_out) else { return };
    let events = setting("DT_RECEIVER_TEST_MQTT_EVENTS", 5_000);
    let setup = Setup::direct(&broker.address(), SINK);
    let receiver = setup.start();
    let begun = std::time::Instant::now();
    let ledger = Load::of(receiver.listen, 0..DEVICES, events.div_ceil(DEVICES)).send();
    let sent = begun.elapsed();
    receiver.stop();
    assert!(setup.dead_letters().is_empty());
    let messages = subscriber.wait_for("all events", |messages| messages.len() >= ledger.count());
    Seen::of_bodies(&messages).assert_exact(&ledger);
    println!("{} events acknowledged and answered in {sent:?}, slowest {:?}", ledger.count(), ledger.slowest);
}

#[test]
fn a_200_is_answered_only_after_the_acknowledgement() {
    let left_out = "the order of PUBACK and answer";
    let Some(broker) = Broker::start(left_out) else { return };
    let proxy = Proxy::start(broker.port());
    let setup = Setup::direct(&proxy.address(), SINK);
    let receiver = setup.start();
    receiver.wait_until_ready();
    for number in 0..5 {
        // The broker has the packet, and its PUBACK does not arrive.
        proxy.hold_at(&id(1, number));
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| Sender::connect(receiver.listen)?.send(1, number));
            proxy.wait_for_unacknowledged();
            assert!(!answer.is_finished(), "answered before the PUBACK");
            proxy.release();
            assert_eq!(answer.join().expect("a sender").expect("an answer").status, 200);
        });
        let published: Vec<Published> = proxy.published().into_iter().flatten().collect();
        let expected: Vec<Published> =
            (0..=number).map(|number| Published { event: (1, number), is_acknowledged: true }).collect();
        assert_eq!(published, expected);
    }
    receiver.stop();
}

#[test]
fn without_a_broker_events_get_503_and_their_retries_are_delivered() {
    let left_out = "restarts of an MQTT broker in mode direct";
    let Some(mut broker) = Broker::start(left_out) else { return };
    let Some(subscriber) = Subscriber::start(&broker, "dt/p/#", left_out) else { return };
    let restarts = setting("DT_RECEIVER_TEST_MQTT_RESTARTS", 3);
    let setup = Setup::direct(&broker.address(), SINK);
    let receiver = setup.start();
    receiver.wait_until_ready();
    broker.stop();
    let mut sender = Sender::connect(receiver.listen).expect("it listens");
    let answer = sender.send(DEVICES, 0).expect("an answer");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("sink_unavailable"), "{answer:?}");
    println!("{}", receiver.wait_for_reason(&["not ready", "sink mqtt", "refused"]));
    broker.start_again();
    // DT sends it again.
    let again = Load { manner: Manner::Insisting, ..Load::of(receiver.listen, DEVICES..DEVICES + 1, 1) };
    let mut ledger = again.send();
    let load = Load::steady(receiver.listen, 0..DEVICES, 400, Manner::Insisting);
    ledger.add(load.during(|| {
        for _ in 0..restarts {
            let before = subscriber.messages().len();
            subscriber.wait_for("events arrive", |messages| messages.len() >= before + 200);
            broker.stop();
            receiver.wait_for_reason(&["not ready", "sink mqtt"]);
            broker.start_again();
        }
    }));
    receiver.wait_until_ready();
    receiver.stop();
    assert!(setup.dead_letters().is_empty());
    assert!(ledger.statuses.get(&503).is_some_and(|count| *count >= restarts), "{:?}", ledger.statuses);
    let is_complete = |messages: &[_]| Seen::of_bodies(messages).events().is_superset(&ledger.accepted);
    let copies = Seen::of_bodies(&subscriber.wait_for("all events", is_complete)).assert_complete(&ledger);
    println!(
        "{restarts} restarts, {} events, answers {:?}, {copies} copies",
        ledger.count(),
        ledger.statuses,
    );
}
