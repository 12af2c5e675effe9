//! Restarts and kills of the broker under load.
//!
//! 3 of each; `DT_RECEIVER_TEST_MQTT_RESTARTS` and `DT_RECEIVER_TEST_MQTT_KILLS` set the full counts.

use std::collections::BTreeSet;

use crate::broker::{Broker, Subscriber};
use crate::events::setting;
use crate::load::{Load, Manner};
use crate::proxy::Proxy;
use crate::seen::Seen;
use crate::setup::Setup;

const SINK: &str = "format = 'body'";
/// Events a second, of all devices together.
const RATE: u64 = 400;

#[test]
fn clean_restarts_of_the_broker_lose_nothing() {
    let left_out = "restarts of an MQTT broker";
    let Some(mut broker) = Broker::start(left_out) else { return };
    let Some(subscriber) = Subscriber::start(&broker, "dt/p/#", left_out) else { return };
    let restarts = setting("DT_RECEIVER_TEST_MQTT_RESTARTS", 3);
    let setup = Setup::new(&broker.address(), SINK);
    let receiver = setup.start();
    let load = Load::steady(receiver.listen, 0..16, RATE, Manner::Strict);
    let ledger = load.during(|| {
        for _ in 0..restarts {
            // Restarted while events are on their way.
            let before = subscriber.messages().len();
            subscriber.wait_for("events arrive", |messages| messages.len() >= before + 200);
            broker.stop();
            receiver.wait_for_reason(&["sink mqtt"]);
            broker.start_again();
        }
    });
    receiver.drain();
    let connections = receiver.count("dt_receiver_mqtt_connections_total", "");
    receiver.stop();
    assert!(setup.dead_letters().is_empty());
    let is_complete = |messages: &[_]| Seen::of_bodies(messages).events().len() >= ledger.count();
    let messages = subscriber.wait_for("all events", is_complete);
    let copies = Seen::of_bodies(&messages).assert_complete(&ledger);
    // A restarted broker sends what its subscriber had not acknowledged.
    let again = messages.iter().filter(|message| message.is_again).count();
    println!(
        "{restarts} restarts, {connections} connections, {} events: 0 lost, {copies} copies, {again} messages sent again to the \
         subscriber",
        ledger.count()
    );
}

/// Mosquitto stores snapshots, so a killed one forgets what it acknowledged. All that it did not acknowledge is published again,
/// and so each event is acknowledged at least once, as the bytes on the wire show.
#[test]
fn a_broker_that_is_killed_gets_everything_that_it_did_not_acknowledge() {
    let left_out = "kills of an MQTT broker";
    let Some(mut broker) = Broker::start(left_out) else { return };
    let Some(subscriber) = Subscriber::start(&broker, "dt/p/#", left_out) else { return };
    let kills = setting("DT_RECEIVER_TEST_MQTT_KILLS", 3);
    let proxy = Proxy::start(broker.port());
    let setup = Setup::new(&proxy.address(), SINK);
    let receiver = setup.start();
    let load = Load::steady(receiver.listen, 0..16, RATE, Manner::Strict);
    let ledger = load.during(|| {
        for killed in 0..kills {
            let before = subscriber.messages().len();
            subscriber.wait_for("events arrive", |messages| messages.len() >= before + 200);
            // Stopped first, so that there are packets on their way that it never reads.
            broker.pause();
            proxy.wait_for_unacknowledged();
            broker.kill();
            // A killed broker forgets its subscribers as well: no event passes until there is one again.
            proxy.set_open(false);
            broker.start_again();
            subscriber.wait_until_subscribed(killed + 2);
            proxy.set_open(true);
        }
    });
    receiver.drain();
    receiver.stop();
    assert!(setup.dead_letters().is_empty());
    let connections = proxy.published();
    let acknowledged: BTreeSet<_> =
        connections.iter().flatten().filter(|one| one.is_acknowledged).map(|one| one.event).collect();
    assert_eq!(acknowledged, ledger.accepted, "each accepted event has a PUBACK, and there are no others");
    let mut again = 0;
    for (number, connection) in connections.iter().enumerate() {
        let later: BTreeSet<_> = connections[number + 1..].iter().flatten().map(|one| one.event).collect();
        for one in connection.iter().filter(|one| !one.is_acknowledged) {
            assert!(later.contains(&one.event), "{one:?} of connection {number} is not published again");
            again += 1;
        }
    }
    let (last, killed) = connections.split_last().expect("a connection");
    let lasting: BTreeSet<_> = last.iter().map(|one| one.event).collect();
    let is_complete = |messages: &[_]| Seen::of_bodies(messages).events().is_superset(&lasting);
    let seen = Seen::of_bodies(&subscriber.wait_for("what the last broker acknowledged", is_complete));
    let copies = seen.assert_in_order();
    // What the subscriber lacks was acknowledged by a broker that was killed then.
    let forgotten: BTreeSet<_> = ledger.accepted.difference(&seen.events()).copied().collect();
    let by_killed: BTreeSet<_> =
        killed.iter().flatten().filter(|one| one.is_acknowledged).map(|one| one.event).collect();
    assert!(forgotten.is_subset(&by_killed), "lost without a PUBACK: {:?}", forgotten.difference(&by_killed));
    println!(
        "{kills} kills, {} connections, {} events: all acknowledged, {again} published again; killed brokers forgot {} that they \
         had acknowledged; {copies} copies",
        connections.len(),
        ledger.count(),
        forgotten.len(),
    );
}

/// A receiver that is killed delivers from its spool what has no PUBACK.
#[test]
fn a_receiver_that_is_killed_loses_nothing() {
    let left_out = "kills of a receiver with MQTT";
    let Some(broker) = Broker::start(left_out) else { return };
    let Some(subscriber) = Subscriber::start(&broker, "dt/p/#", left_out) else { return };
    let setup = Setup::new(&broker.address(), SINK);
    let mut ledger = crate::load::Ledger::default();
    for round in 0..3 {
        let receiver = setup.start();
        let devices = round * 8..round * 8 + 8;
        let load = Load::steady(receiver.listen, devices, RATE, Manner::Noting);
        let before = subscriber.messages().len();
        let mut running = Some(receiver);
        ledger.add(load.during(|| {
            subscriber.wait_for("events arrive", |messages| messages.len() >= before + 200);
            running.take().expect("it runs").kill();
        }));
    }
    let receiver = setup.start();
    receiver.drain();
    receiver.stop();
    let is_complete = |messages: &[_]| Seen::of_bodies(messages).events().is_superset(&ledger.accepted);
    let messages = subscriber.wait_for("all events", is_complete);
    let copies = Seen::of_bodies(&messages).assert_complete(&ledger);
    println!("{} events, {copies} copies", ledger.count());
}
