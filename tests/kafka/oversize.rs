//! A record that is too large for its topic, among others in one batch: it alone is set aside, and delivered once there is
//! room for it.

use std::time::Duration;

use crate::cluster::{one_broker, wait_until};
use crate::events::{id, now, token};
use crate::load::{Ledger, Load};
use crate::seen::{Format, Seen};
use crate::sender::Sender;
use crate::setup::{PATIENCE, Setup};

/// The device whose event is too large.
const DEVICE: u64 = 9000;

fn large() -> String {
    format!(
        r#"{{"event":{{"eventId":"{}","targetName":"projects/p/devices/dev{DEVICE}","eventType":"touch","data":{{}}}},"labels":{{"f":"{}"}}}}"#,
        id(DEVICE, 0),
        "x".repeat(3000)
    )
}

#[test]
fn a_record_over_the_limit_of_its_topic_is_set_aside_alone() {
    let Some(cluster) = one_broker("a record over max.message.bytes") else { return };
    let setup = Setup::new("", cluster.bootstrap(), "topic = 'oversize'\nformat = 'body'");
    let receiver = setup.start();
    // There is no topic yet, so all of it waits, and goes into few batches.
    let mut ledger = Ledger::default();
    ledger.add(Load::of(receiver.listen, 0..8, 40).send());
    let body = large();
    let mut sender = Sender::connect(receiver.listen).expect("connected");
    assert_eq!(sender.post("/", &body, &token(&body, now())).expect("an answer").status, 200);
    ledger.add(Load::of(receiver.listen, 8..16, 40).send());
    receiver.wait_for_reason_within(&["sink kafka: topic oversize does not exist"], Duration::from_secs(10));
    cluster.admin(["create", "oversize", "--partitions", "1", "--set", "max.message.bytes=2000"]);
    receiver.drain();
    let letters = setup.dead_letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = &letters[0];
    assert_eq!(
        (&letter["reason"], &letter["sink"], &letter["eventId"]),
        (&"rejected".into(), &"kafka".into(), &id(DEVICE, 0).into())
    );
    let error = letter["error"].as_str().expect("text");
    assert!(error.contains("topic oversize") && error.contains("Message size too large"), "{error}");
    Seen::new(&cluster.read("oversize"), Format::Body).assert_complete(&ledger);

    cluster.admin(["alter", "oversize", "max.message.bytes=1048588"]);
    setup.ask(&["dead", "replay", "--sink", "kafka"]);
    wait_until("the letter is delivered", PATIENCE, || setup.dead_letters().is_empty());
    receiver.wait_until_ready();
    receiver.stop();
    let all = cluster.read("oversize");
    let (replayed, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|message| message.header("dt-event-id") == id(DEVICE, 0));
    assert_eq!(replayed.len(), 1);
    assert_eq!(replayed[0].value, body.as_bytes());
    let copies = Seen::new(&others, Format::Body).assert_complete(&ledger);
    println!("{} events around a large one, {copies} copies too many; error: {error}", ledger.count());
}
