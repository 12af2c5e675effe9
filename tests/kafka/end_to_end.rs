//! Events over HTTP, through the spool, to Kafka, read back by another client: every event once, as it was sent, in
//! order, in each of the formats.
//!
//! 2,000 events; `DT_RECEIVER_TEST_KAFKA_EVENTS` sets the full count.

use std::time::Instant;

use crate::cluster::one_broker;
use crate::events::setting;
use crate::load::Load;
use crate::seen::{Format, Seen};
use crate::setup::Setup;

const DEVICES: u64 = 32;

#[test]
fn every_event_arrives_once_as_it_was_sent_and_in_order() {
    let Some(cluster) = one_broker("events from end to end through Kafka") else { return };
    let events = setting("DT_RECEIVER_TEST_KAFKA_EVENTS", 2_000);
    let topics = ["e2e.body", "e2e.envelope", "e2e.cloudevents"];
    topics.iter().for_each(|topic| cluster.create_topic(topic, 6));
    let brokers = cluster.bootstrap();
    let other = |name: &str| {
        format!(
            "[[sink]]\nname = '{name}'\ntype = 'kafka'\nbrokers = '{brokers}'\ntopic = 'e2e.{name}'\nformat = '{name}'"
        )
    };
    let sinks =
        format!("topic = 'e2e.body'\nformat = 'body'\n{}\n{}", other("envelope"), other("cloudevents"));
    let setup = Setup::new("", brokers, &sinks);
    let receiver = setup.start();
    let begun = Instant::now();
    let ledger = Load::of(receiver.listen, 0..DEVICES, events.div_ceil(DEVICES)).send();
    let sent = begun.elapsed();
    receiver.drain();
    let drained = begun.elapsed();
    receiver.stop();
    Seen::new(&cluster.read(topics[0]), Format::Body).assert_exact(&ledger);
    Seen::new(&cluster.read(topics[1]), Format::Envelope).assert_exact(&ledger);
    Seen::new(&cluster.read_cloudevents(topics[2]), Format::CloudEvents).assert_exact(&ledger);
    assert!(setup.dead_letters().is_empty());
    println!(
        "{} events answered in {sent:?}, slowest {:?}; in three topics after {drained:?}, each once and in order",
        ledger.count(),
        ledger.slowest,
    );
}
