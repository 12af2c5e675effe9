//! Topics that do not exist: named and waited for, or created as the configuration says.

use std::time::Duration;

use crate::cluster::one_broker;
use crate::load::Load;
use crate::seen::{Format, Seen};
use crate::setup::Setup;

#[test]
fn a_topic_that_is_missing_is_named_and_waited_for() {
    let Some(cluster) = one_broker("a topic that is missing") else { return };
    let setup = Setup::new("", cluster.bootstrap(), "topic = 'missing'");
    let receiver = setup.start();
    // Before any event, and with events.
    let reason = ["sink kafka: topic missing does not exist", "create_topic"];
    receiver.wait_for_reason_within(&reason, Duration::from_secs(10));
    let ledger = Load::of(receiver.listen, 0..8, 20).send();
    receiver.wait_for_reason_within(&reason, Duration::from_secs(10));
    // Had it been created by our asking for it, this would fail.
    cluster.create_topic("missing", 5);
    receiver.drain();
    receiver.wait_until_ready();
    receiver.stop();
    Seen::new(&cluster.read("missing"), Format::Envelope).assert_exact(&ledger);
    assert!(setup.dead_letters().is_empty());
}

#[test]
fn a_topic_is_created_as_the_configuration_says() {
    let Some(cluster) = one_broker("the creation of topics") else { return };
    let sink = "topic = 'made.{eventType}'\ncreate_topic = { partitions = 3, replication = 1 }";
    let setup = Setup::new("", cluster.bootstrap(), sink);
    let receiver = setup.start();
    let ledger = Load::of(receiver.listen, 0..8, 20).send();
    receiver.drain();
    receiver.stop();
    assert_eq!(cluster.describe("made.touch").as_object().expect("an object").len(), 3);
    Seen::new(&cluster.read("made.touch"), Format::Envelope).assert_exact(&ledger);
    assert!(setup.dead_letters().is_empty());
}
