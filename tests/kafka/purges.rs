//! What makes the sink stop and go on from where it was: a broker that is away, and refusals that end a producer. Nothing
//! is lost, nothing is set aside, and the order holds.
//!
//! 20 s at 200 events/s, and 20 refusals; `DT_RECEIVER_TEST_KAFKA_OUTAGE_SECONDS`, `DT_RECEIVER_TEST_KAFKA_OUTAGE_RATE` and
//! `DT_RECEIVER_TEST_KAFKA_PURGES` set the full length.

use std::time::{Duration, Instant};

use crate::cluster::{one_broker, one_broker_alone, wait_until};
use crate::events::setting;
use crate::load::{Load, Manner};
use crate::seen::{Format, Seen};
use crate::setup::{PATIENCE, Setup};

const DEVICES: u64 = 16;

#[test]
fn a_broker_that_is_away_is_waited_for() {
    let Some(mut cluster) = one_broker_alone("a broker that is away for long") else { return };
    let seconds = setting("DT_RECEIVER_TEST_KAFKA_OUTAGE_SECONDS", 20);
    let rate = setting("DT_RECEIVER_TEST_KAFKA_OUTAGE_RATE", 200);
    cluster.create_topic("outage", 6);
    let setup = Setup::new("", cluster.bootstrap(), "topic = 'outage'\nformat = 'body'");
    let receiver = setup.start();
    let before = receiver.rss();
    let (mut most, mut waiting) = (0, 0);
    let mut back = Instant::now();
    let ledger = Load::steady(receiver.listen, 0..DEVICES, rate, Manner::Strict).during(|| {
        wait_until("something was delivered", PATIENCE, || receiver.delivered() > 100);
        cluster.kill(1);
        let begun = Instant::now();
        receiver.wait_for_reason_within(&["sink kafka"], Duration::from_secs(10));
        while begun.elapsed() < Duration::from_secs(seconds) {
            most = receiver.rss().max(most);
            std::thread::sleep(Duration::from_millis(200));
        }
        waiting = receiver.backlog();
        cluster.start_all();
        back = Instant::now();
        receiver.wait_until_ready();
    });
    receiver.drain();
    let (drained, after, renewals) = (back.elapsed(), receiver.rss(), receiver.renewals());
    receiver.stop();
    let copies = Seen::new(&cluster.read("outage"), Format::Body).assert_complete(&ledger);
    assert!(setup.dead_letters().is_empty());
    println!(
        "{seconds} s without a broker: {} events, slowest answer {:?}, {waiting} waited at the end, drained {drained:?} after \
         the broker was back, {copies} copies too many, {renewals} producers renewed; RSS {before} KiB before, {most} at most, \
         {after} after",
        ledger.count(),
        ledger.slowest,
    );
}

#[test]
fn refusals_that_end_producers_lose_nothing_and_set_nothing_aside() {
    let Some(cluster) = one_broker("refusals that end producers") else { return };
    let purges = setting("DT_RECEIVER_TEST_KAFKA_PURGES", 20);
    cluster.create_topic("purges", 2);
    let setup = Setup::new("", cluster.bootstrap(), "topic = 'purges'\nformat = 'body'");
    let receiver = setup.start();
    let ledger = Load::steady(receiver.listen, 0..DEVICES, 400, Manner::Strict).during(|| {
        for round in 0..purges {
            let before = receiver.renewals();
            // Kafka refuses batches that it took a moment ago: all of them, or those of several records.
            let (key, refusing, lifted) = if round % 5 == 4 {
                ("max.message.bytes", "1500", "1048588")
            } else {
                ("message.timestamp.before.max.ms", "0", "9223372036854775807")
            };
            cluster.admin(["alter", "purges", &format!("{key}={refusing}")]);
            // Batches that have learnt to be small are not refused any more.
            if key != "max.message.bytes" {
                wait_until("a producer was renewed", PATIENCE, || receiver.renewals() > before);
            }
            cluster.admin(["alter", "purges", &format!("{key}={lifted}")]);
            receiver.wait_until_ready();
        }
    });
    receiver.drain();
    let renewals = receiver.renewals();
    receiver.stop();
    let copies = Seen::new(&cluster.read("purges"), Format::Body).assert_complete(&ledger);
    assert_eq!(setup.dead_letters(), Vec::<serde_json::Value>::new());
    println!(
        "{purges} times refused: {renewals} producers renewed, {} events, {copies} copies too many",
        ledger.count()
    );
}
