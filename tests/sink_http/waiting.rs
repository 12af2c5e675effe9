//! What `/readyz` says while the target is wrong, what becomes a dead letter, and that the receiver goes on accepting.

use crate::load::Load;
use crate::setup::Setup;
use crate::target::Target;

#[test]
fn a_wrong_target_is_named_and_gets_everything_once_it_is_right() {
    let target = Target::start();
    let setup = Setup::new(&target.url(), "format = 'body'");
    let receiver = setup.start();
    let mut ledger = Load::of(receiver.listen, 0..4, 5).send();
    let mut number = 4;
    for (status, reason) in [
        (401, "401 Unauthorized; check `auth`, `headers` and `secret_headers`"),
        (404, "404 Not Found; check `url`"),
        (301, "301 Moved Permanently; redirects are not followed"),
        (503, "503 Service Unavailable"),
    ] {
        target.received.set_status(status);
        ledger.add(Load::of(receiver.listen, number..number + 4, 5).send());
        number += 4;
        let said = receiver.wait_for_reason(&[reason]);
        assert!(said.contains(&format!("sink http: http://{}: status", target.address)), "{said}");
        // It may be this event alone that the target fails for.
        assert_eq!(said.contains(", for event "), status == 503, "{said}");
        target.received.set_status(200);
        receiver.drain();
        receiver.wait_until_ready();
    }
    assert!(receiver.count("dt_receiver_http_requests_failed_total", "") > 0);
    receiver.stop();
    assert_eq!(target.received.assert_complete(&ledger), 0);
    assert!(setup.dead_letters().is_empty());
}

#[test]
fn a_target_that_rejects_everything_costs_ten_dead_letters_and_no_event_more() {
    let target = Target::start();
    let setup = Setup::new(&target.url(), "format = 'body'");
    let receiver = setup.start();
    target.received.set_status(400);
    let ledger = Load::of(receiver.listen, 0..8, 10).send();
    receiver.wait_for_reason(&["10 events in a row were rejected"]);
    target.received.set_status(200);
    receiver.drain();
    receiver.wait_until_ready();
    receiver.stop();
    assert_eq!((ledger.count(), target.received.count()), (80, 70));
    let letters = setup.dead_letters();
    assert_eq!(letters.len(), 10);
    assert!(
        letters
            .iter()
            .all(|letter| letter["error"].as_str().is_some_and(|error| error.contains("400 Bad Request"))),
        "{letters:?}"
    );
}
