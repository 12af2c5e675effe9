//! How fast a full spool is drained to a bare hyper server, and what that costs: a figure, not a limit.
//!
//! 2,000 events; `DT_RECEIVER_TEST_HTTP_DRAIN_EVENTS` sets the full count, which tells something in a release build only.

use std::net::{SocketAddr, TcpListener};
use std::time::Instant;

use crate::events::setting;
use crate::load::Load;
use crate::setup::Setup;
use crate::target::Target;

const DEVICES: u64 = 64;

#[test]
fn a_full_spool_is_drained() {
    let events = setting("DT_RECEIVER_TEST_HTTP_DRAIN_EVENTS", 2_000);
    for (name, keys) in
        [("alone", ""), ("in batches of 100", "batch = { format = 'ndjson', max_events = 100 }")]
    {
        let address: SocketAddr =
            TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
        let setup = Setup::new(&format!("http://{address}/"), &format!("format = 'body'\n{keys}"));
        let receiver = setup.start();
        let ledger = Load::of(receiver.listen, 0..DEVICES, events.div_ceil(DEVICES)).send();
        let events = u64::try_from(ledger.count()).expect("few");
        assert_eq!(receiver.backlog(), events);
        // A start of its own, so that neither a back-off nor what the filling used is measured along.
        receiver.stop();
        let target = Target::start_at(address, Target::nothing(false));
        let receiver = setup.start();
        let (begun, before) = (Instant::now(), receiver.cpu());
        let first = receiver.backlog();
        receiver.drain();
        let (drained, used) = (begun.elapsed(), receiver.cpu() - before);
        let requests = target.received.count();
        receiver.stop();
        assert!(requests >= 1 && setup.dead_letters().is_empty());
        println!(
            "{events} events {name}: {first} drained in {drained:?} ({:.0}/s) by {requests} requests, {:.1} µs of CPU each",
            first as f64 / drained.as_secs_f64(),
            used.as_secs_f64() * 1e6 / first.max(1) as f64,
        );
    }
}
