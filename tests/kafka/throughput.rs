//! How fast a full spool is drained to Kafka, and what that costs: a figure, not a limit.
//!
//! 5,000 events; `DT_RECEIVER_TEST_KAFKA_DRAIN_EVENTS` sets the full count, which tells something in a release build only.

use std::time::Instant;

use crate::cluster::one_broker;
use crate::common;
use crate::events::setting;
use crate::setup::Setup;

#[test]
fn a_full_spool_is_drained() {
    let Some(cluster) = one_broker("the drain of a full spool") else { return };
    let events = setting("DT_RECEIVER_TEST_KAFKA_DRAIN_EVENTS", 5_000);
    let setup = Setup::new("", cluster.bootstrap(), "topic = 'drain'\nformat = 'body'");
    let receiver = setup.start();
    let url = format!("http://{}/", receiver.listen);
    let (count, begun) = (events.to_string(), Instant::now());
    let sent = common::run(["send", "--url", &url, "--count", &count, "--concurrency", "64", "--json"], b"");
    assert_eq!(sent.code(), 0, "{sent:?}");
    let filled = begun.elapsed();
    assert_eq!(receiver.backlog(), events);
    // A start of its own, so that neither a back-off nor what the filling used is measured along.
    receiver.stop();
    cluster.create_topic("drain", 6);
    let receiver = setup.start();
    let (begun, before) = (Instant::now(), receiver.cpu());
    let first = receiver.backlog();
    receiver.drain();
    let (drained, used) = (begun.elapsed(), receiver.cpu() - before);
    let rss = receiver.rss();
    receiver.stop();
    assert_eq!(cluster.count("drain"), events);
    println!(
        "{events} events spooled in {filled:?}; {first} drained in {drained:?} ({:.0}/s), {:.1} µs of CPU each, RSS {rss} KiB",
        first as f64 / drained.as_secs_f64(),
        used.as_secs_f64() * 1e6 / first as f64,
    );
}
