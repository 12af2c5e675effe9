//! The server is killed while events arrive, and receivers get each other's retries: everything is there, exactly once.
//!
//! 3 kills; `DT_RECEIVER_TEST_POSTGRES_KILLS` sets the full count.

use crate::common::Receiver;
use crate::end_to_end::assert_exact;
use crate::events::{Random, body, now, seed, setting, token};
use crate::load::{Load, Manner};
use crate::sender::Sender;
use crate::server::Server;
use crate::setup::Setup;

#[test]
fn a_server_that_is_killed_under_load_has_each_event_once() {
    let Some(mut server) = Server::start("a server that is killed") else { return };
    let kills = setting("DT_RECEIVER_TEST_POSTGRES_KILLS", 3);
    let mut random = Random::new(seed());
    let database = server.database();
    let setup = Setup::new("", &server.url(&database), "");
    let receiver = setup.start();
    let load = Load::steady(receiver.listen, 0..16, 500, Manner::Strict);
    let ledger = load.during(|| {
        for kill in 0..kills {
            // Some events are stored by this server before it ends.
            let stored = receiver.delivered();
            let more = random.below(400);
            let begun = std::time::Instant::now();
            while receiver.delivered() < stored + more {
                assert!(begun.elapsed() < crate::setup::PATIENCE, "{}", receiver.readiness());
            }
            if kill % 2 == 0 {
                server.kill()
            } else {
                server.stop()
            }
            receiver.wait_for_reason(&["sink pg"]);
            server.start_again();
        }
    });
    receiver.drain();
    receiver.stop();
    assert_exact(&server, &database, &ledger);
    assert!(setup.dead_letters().is_empty());
    println!("{} events, {kills} kills: none lost, each once", ledger.count());
}

#[test]
fn receivers_in_mode_direct_that_get_each_others_retries_store_each_event_once() {
    let Some(mut server) = Server::start("two receivers in mode direct") else { return };
    let kills = setting("DT_RECEIVER_TEST_POSTGRES_KILLS", 3);
    let database = server.database();
    let setups = [(), ()].map(|()| Setup::new("mode = 'direct'", &server.url(&database), ""));
    let receivers = setups.each_ref().map(Setup::start);
    let [first, second] = receivers.each_ref().map(|receiver| receiver.listen);
    // Both get all events of the same devices, at the same time, and again until both have answered 200.
    let load = |address| Load::steady(address, 0..8, 200, Manner::Insisting);
    let mut other = None;
    let mut ledger = load(first).during(|| {
        other = Some(load(second).during(|| {
            for _ in 0..kills {
                let stored = receivers.iter().map(Receiver::delivered).sum::<u64>();
                let begun = std::time::Instant::now();
                while receivers.iter().map(Receiver::delivered).sum::<u64>() < stored + 100 {
                    assert!(begun.elapsed() < crate::setup::PATIENCE, "{}", receivers[0].readiness());
                }
                server.kill();
                server.start_again();
            }
        }));
    });
    ledger.add(other.expect("it ran"));
    // What one has acknowledged, the other acknowledges as well.
    for (device, number) in ledger.accepted.iter().take(50) {
        let body = body(*device, *number);
        let answer =
            Sender::connect(second).and_then(|mut sender| sender.post("/", &body, &token(&body, now())));
        assert_eq!(answer.expect("an answer").status, 200);
    }
    let duplicates: u64 = receivers.iter().map(Receiver::duplicates).sum();
    assert!(duplicates > 0, "no receiver got a copy");
    for receiver in receivers {
        receiver.stop();
    }
    assert_exact(&server, &database, &ledger);
    println!("{} events at two receivers, {duplicates} copies, {kills} kills", ledger.count());
}
