//! Three brokers, of which the leader is killed again and again, and then two at once: in mode `spool` nobody who sends
//! notices; in mode `direct` nothing is answered with 200 that is not on two brokers.
//!
//! 3 leaders and 6 s; `DT_RECEIVER_TEST_KAFKA_LEADERS` and `DT_RECEIVER_TEST_KAFKA_MINORITY_SECONDS` set the full length.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, three_brokers_alone};
use crate::common::Receiver;
use crate::events::setting;
use crate::load::{Ledger, Load, Manner};
use crate::seen::{Format, Seen};
use crate::setup::Setup;

/// Events a second to each of the receivers, from 32 connections together.
const RATE: u64 = 400;
/// How long the cluster works between one kill and the next.
const PAUSE: Duration = Duration::from_secs(2);

const SPOOLED: &str = "brokers.spooled";
const DIRECT: &str = "brokers.direct";

/// Kills the leaders of both topics in turn.
fn kill_leaders(cluster: &mut Cluster, count: u64) {
    for (_, topic) in (0..count).zip([SPOOLED, DIRECT].iter().cycle()) {
        let leader = cluster.leader(topic);
        cluster.kill(leader);
        // The two that are left go on.
        std::thread::sleep(PAUSE);
        cluster.start_broker(leader);
        [SPOOLED, DIRECT].iter().for_each(|topic| cluster.wait_in_sync(topic));
        std::thread::sleep(PAUSE);
    }
}

/// One broker is left, for longer than a record may take in mode `direct`.
fn leave_one(cluster: &mut Cluster, direct: &Receiver, how_long: Duration) -> Ledger {
    let leader = cluster.leader(DIRECT);
    cluster.kill(leader);
    cluster.kill(leader % 3 + 1);
    let begun = Instant::now();
    // Devices of their own: all of this was sent while one was left.
    let load = Load::steady(direct.listen, 100..116, RATE, Manner::Noting);
    let ledger = load.during(|| {
        direct.wait_for_reason(&["sink kafka"]);
        std::thread::sleep(how_long.saturating_sub(begun.elapsed()));
    });
    cluster.start_all();
    [SPOOLED, DIRECT].iter().for_each(|topic| cluster.wait_in_sync(topic));
    ledger
}

#[test]
fn killed_leaders_and_a_lost_majority_lose_nothing() {
    let Some(mut cluster) = three_brokers_alone("three brokers of which some are killed") else { return };
    let leaders = setting("DT_RECEIVER_TEST_KAFKA_LEADERS", 3);
    let minority = Duration::from_secs(setting("DT_RECEIVER_TEST_KAFKA_MINORITY_SECONDS", 6));
    [SPOOLED, DIRECT].iter().for_each(|topic| cluster.create_topic(topic, 3));
    let sink = |topic: &str| format!("topic = '{topic}'\nformat = 'body'");
    let spooled = Setup::new("", cluster.bootstrap(), &sink(SPOOLED));
    // A record may take 1.5 s less than a request.
    let direct = Setup::new("mode = 'direct'\n[limits]\ndeadline = '4s'", cluster.bootstrap(), &sink(DIRECT));
    let (to_spool, to_direct) = (spooled.start(), direct.start());

    let mut noted = Ledger::default();
    let ledger = Load::steady(to_spool.listen, 0..16, RATE, Manner::Strict).during(|| {
        // As DT does: one that is answered with 503 is sent again before the device's next one.
        let load = Load::steady(to_direct.listen, 16..32, RATE, Manner::Insisting);
        noted.add(load.during(|| kill_leaders(&mut cluster, leaders)));
        let alone = leave_one(&mut cluster, &to_direct, minority);
        let statuses: Vec<_> = alone.statuses.keys().collect();
        assert_eq!(statuses, [&503], "with one broker left: {:?}", alone.statuses);
        println!("with one broker of three left: {:?}, slowest {:?}", alone.statuses, alone.slowest);
        to_direct.wait_until_ready();
        noted.add(Load::of(to_direct.listen, 200..232, 10).send());
    });
    to_spool.drain();
    println!("spool: {:?} with {} renewed producers", ledger.statuses, to_spool.renewals());
    println!("direct: {:?} with {} renewed producers", noted.statuses, to_direct.renewals());
    to_spool.stop();
    to_direct.stop();
    let copies = Seen::new(&cluster.read(SPOOLED), Format::Body).assert_complete(&ledger);
    println!(
        "spool: {} events, slowest answer {:?}, {copies} copies too many",
        ledger.count(),
        ledger.slowest
    );
    let copies = Seen::new(&cluster.read(DIRECT), Format::Body).assert_complete(&noted);
    println!(
        "direct: {} events with 200, slowest answer {:?}, {copies} copies too many",
        noted.count(),
        noted.slowest
    );
    assert_eq!(noted.statuses.keys().filter(|status| ![200, 503].contains(*status)).count(), 0);
    assert!(spooled.dead_letters().is_empty());
}
