//! Events over HTTP, through the receiver, to a target: every event once, as it was sent, in order, alone and in batches, in
//! both modes; beside them, to a file and to standard output.
//!
//! 5,000 events; `DT_RECEIVER_TEST_HTTP_EVENTS` sets the full count.

use std::time::Instant;

use crate::events::setting;
use crate::load::Load;
use crate::setup::Setup;
use crate::target::{Received, Target};

const DEVICES: u64 = 32;

#[test]
fn every_event_arrives_once_as_it_was_sent_and_in_order() {
    let events = setting("DT_RECEIVER_TEST_HTTP_EVENTS", 5_000);
    let (alone, batches) = (Target::start(), Target::start());
    let sink = |name: &str, url: String, more: &str| {
        format!("[[sink]]\nname = '{name}'\ntype = 'http'\nformat = 'body'\nurl = '{url}'\n{more}\n")
    };
    let batch = "batch = { format = 'ndjson', max_events = 100 }";
    let setup = Setup::forwarding(&format!(
        "{}{}[[sink]]\nname = 'file'\ntype = 'file'\nformat = 'body'\npath = 'FOLDER/events.ndjson'\n\
         [[sink]]\nname = 'stdout'\ntype = 'stdout'\nformat = 'body'\n",
        sink("http", alone.url(), ""),
        sink("batches", batches.url(), batch)
    ));
    let receiver = setup.start();
    let begun = Instant::now();
    let ledger = Load::of(receiver.listen, 0..DEVICES, events.div_ceil(DEVICES)).send();
    let sent = begun.elapsed();
    receiver.drain();
    let drained = begun.elapsed();
    let stdout = receiver.stop().stdout;
    let file = std::fs::read_to_string(setup.folder().join("events.ndjson")).expect("text");
    for (name, text) in [("file", file), ("stdout", stdout)] {
        assert_eq!(text.lines().count(), ledger.count(), "{name}: a line for each event");
        assert_eq!(Received::of_lines(&text).assert_complete(&ledger), 0, "{name}: there are copies");
    }
    assert_eq!(alone.received.assert_complete(&ledger), 0, "there are copies");
    assert_eq!(
        alone.received.count(),
        u64::try_from(ledger.count()).expect("few"),
        "a request for each event"
    );
    assert_eq!(batches.received.assert_complete(&ledger), 0, "there are copies");
    assert!(batches.received.count() < alone.received.count());
    assert!(setup.dead_letters().is_empty());
    println!(
        "{} events answered in {sent:?}; at both targets, in the file and on standard output after {drained:?}, each once and in order; {} requests in batches",
        ledger.count(),
        batches.received.count(),
    );
}

#[test]
fn in_mode_direct_a_200_means_that_the_target_has_the_event() {
    let target = Target::start();
    let setup = Setup::new(&target.url(), "format = 'body'");
    let config = std::fs::read_to_string(setup.config()).expect("read");
    std::fs::write(setup.config(), format!("mode = 'direct'\n{config}")).expect("written");
    let receiver = setup.start();
    let ledger = Load::of(receiver.listen, 0..8, 20).send();
    assert_eq!(target.received.assert_complete(&ledger), 0);
    assert_eq!(target.received.count(), 160);
    let mut sender = crate::sender::Sender::connect(receiver.listen).expect("listens");
    for (status, expected) in [(500, 503), (404, 503), (422, 200), (200, 200)] {
        target.received.set_status(status);
        assert_eq!(sender.send(9, u64::from(status)).expect("an answer").status, expected, "{status}");
    }
    receiver.stop();
    assert_eq!(setup.dead_letters().len(), 1, "the one that was answered with 422");
}
