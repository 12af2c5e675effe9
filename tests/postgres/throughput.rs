//! How fast a filled log is drained into the tables, and how long the lag after an outage takes to disappear.
//!
//! 4,000 events, and an outage of 3 s at 100/s; `DT_RECEIVER_TEST_POSTGRES_DRAIN_EVENTS`, `…_OUTAGE_SECONDS` and `…_OUTAGE_RATE`
//! set the full counts. `DT_RECEIVER_TEST_POSTGRES_RATE` is the least rate of the drain, for a release build on an idle machine.

use std::time::{Duration, Instant};

use crate::end_to_end::assert_exact;
use crate::events::setting;
use crate::load::{Load, Manner};
use crate::server::Server;
use crate::setup::Setup;

#[test]
fn a_filled_log_is_drained() {
    let Some(mut server) = Server::start("the drain of a filled log") else { return };
    let events = setting("DT_RECEIVER_TEST_POSTGRES_DRAIN_EVENTS", 4_000);
    let database = server.database();
    let setup = Setup::new("", &server.url(&database), "");
    server.stop();
    let receiver = setup.start();
    let ledger = Load::of(receiver.listen, 0..64, events.div_ceil(64)).send();
    let (count, before) = (ledger.count() as u64, receiver.cpu());
    assert_eq!(receiver.backlog(), count);
    server.start_again();
    let (server_before, began) = (server.cpu(), Instant::now());
    // The worker waits before it tries again; the drain begins with the first delivered batch.
    while receiver.delivered() == 0 {
        assert!(began.elapsed() < crate::setup::PATIENCE, "{}", receiver.readiness());
    }
    let (first, begun) = (receiver.delivered(), Instant::now());
    receiver.drain();
    let took = begun.elapsed();
    let rate = (count - first) as f64 / took.as_secs_f64();
    let each = |spent: Duration| spent.as_secs_f64() * 1e6 / count as f64;
    println!(
        "{count} events drained: {rate:.0}/s, {:.1} µs of the receiver and {:.1} µs of the server for each",
        each(receiver.cpu() - before),
        each(server.cpu() - server_before),
    );
    receiver.stop();
    assert_exact(&server, &database, &ledger);
    assert!(rate >= setting("DT_RECEIVER_TEST_POSTGRES_RATE", 0) as f64);
}

#[test]
fn the_lag_of_an_outage_disappears() {
    let Some(mut server) = Server::start("an outage under load") else { return };
    let outage = Duration::from_secs(setting("DT_RECEIVER_TEST_POSTGRES_OUTAGE_SECONDS", 3));
    let rate = setting("DT_RECEIVER_TEST_POSTGRES_OUTAGE_RATE", 100);
    let database = server.database();
    let setup = Setup::new("", &server.url(&database), "");
    let receiver = setup.start();
    let ledger = Load::steady(receiver.listen, 0..32, rate, Manner::Strict).during(|| {
        server.kill();
        std::thread::sleep(outage);
        let behind = receiver.backlog();
        server.start_again();
        let begun = Instant::now();
        // What arrives in a second is no lag: a busy machine has as much on its way all the time.
        while receiver.backlog() > rate {
            // Longer than the outage itself: the sink would never catch up.
            assert!(begun.elapsed() < crate::setup::PATIENCE + outage, "{}", receiver.readiness());
            std::thread::sleep(Duration::from_millis(20));
        }
        let took = begun.elapsed();
        let drained = behind.saturating_sub(rate) as f64 / took.as_secs_f64() + rate as f64;
        assert!(behind > rate, "{behind} events behind");
        println!(
            "{behind} events behind after {outage:?} at {rate}/s, a second's after {took:?} more: {drained:.0}/s"
        );
    });
    receiver.drain();
    receiver.stop();
    assert_exact(&server, &database, &ledger);
}
