//! A target that is killed and started again under load: no acknowledged event is lost, and order holds.
//!
//! 3 kills; `DT_RECEIVER_TEST_HTTP_KILLS` sets the full count.

use std::time::{Duration, Instant};

use crate::events::{Random, seed, setting};
use crate::load::{Load, Manner};
use crate::setup::{PATIENCE, Setup};
use crate::target::Target;

#[test]
fn a_target_that_is_killed_again_and_again_gets_every_event_in_order() {
    let kills = setting("DT_RECEIVER_TEST_HTTP_KILLS", 3);
    let mut random = Random::new(seed());
    let target = Target::start();
    let setup = Setup::new(&target.url(), "format = 'body'\ntimeout = '2s'");
    let receiver = setup.start();
    let (address, received) = (target.address, std::sync::Arc::clone(&target.received));
    let mut target = Some(target);
    let ledger = Load::steady(receiver.listen, 0..16, 1000, Manner::Strict).during(|| {
        for kill in 0..kills {
            // Somewhere in the middle of it.
            let (begun, count, goal) = (Instant::now(), received.count(), 50 + random.below(400));
            while received.count() < count + goal {
                assert!(begun.elapsed() < PATIENCE, "kill {kill}: {}", received.count());
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(target.take());
            receiver.wait_for_reason(&["sink http"]);
            target = Some(Target::start_at(address, std::sync::Arc::clone(&received)));
        }
    });
    receiver.drain();
    receiver.wait_until_ready();
    receiver.stop();
    let copies = received.assert_complete(&ledger);
    assert!(setup.dead_letters().is_empty());
    println!("{kills} kills under {} events: 0 lost, in order, {copies} copies", ledger.count());
}
