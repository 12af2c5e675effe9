//! Connections that end without a reason, through a proxy that ends them: a network that fails moves no event to the dead letters;
//! an event at which each connection ends does, once events of other devices go through.

use std::time::{Duration, Instant};

use crate::broker::{Broker, Subscriber};
use crate::common::Receiver;
use crate::events::{body, id};
use crate::load::Load;
use crate::proxy::{Proxy, Published};
use crate::seen::Seen;
use crate::sender::Sender;
use crate::setup::{PATIENCE, Setup};

const SINK: &str = "format = 'body'\ntimeout = '5s'";

/// The event that the proxy does not let pass, and its device.
const STOPPED: (u64, u64) = (1, 2);

/// The connections with events.
fn connections(proxy: &Proxy) -> Vec<Vec<Published>> {
    proxy.published().into_iter().filter(|events| !events.is_empty()).collect()
}

/// Waits until something holds.
fn wait_until(what: &str, receiver: &Receiver, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}: {}", receiver.readiness());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_network_that_ends_every_connection_moves_no_event_to_the_dead_letters() {
    let left_out = "a network that ends connections";
    let Some(broker) = Broker::start(left_out) else { return };
    let Some(subscriber) = Subscriber::start(&broker, "dt/p/#", left_out) else { return };
    let proxy = Proxy::start(broker.port());
    proxy.cut_at(Some("\"eventId\":\"ev"));
    let setup = Setup::new(&proxy.address(), SINK);
    let receiver = setup.start();
    let ledger = Load::of(receiver.listen, 0..4, 10).send();
    wait_until("seven connections ended", &receiver, || connections(&proxy).len() >= 7);
    println!("{}", receiver.wait_for_reason(&["sink mqtt", "the connection ended", "only the event ev"]));
    assert!(setup.dead_letters().is_empty());
    assert_eq!(receiver.backlog(), 40);
    proxy.cut_at(None);
    receiver.drain();
    receiver.wait_until_ready();
    receiver.stop();
    assert!(setup.dead_letters().is_empty());
    let is_complete = |messages: &[_]| Seen::of_bodies(messages).events().len() >= 40;
    Seen::of_bodies(&subscriber.wait_for("all events", is_complete)).assert_exact(&ledger);
}

#[test]
fn an_event_at_which_each_connection_ends_waits_until_others_go_through() {
    let left_out = "an event at which connections end";
    let Some(broker) = Broker::start(left_out) else { return };
    let Some(subscriber) = Subscriber::start(&broker, "dt/p/#", left_out) else { return };
    let proxy = Proxy::start(broker.port());
    let stopped = id(STOPPED.0, STOPPED.1);
    proxy.cut_at(Some(&stopped));
    let setup = Setup::new(&proxy.address(), SINK);
    let receiver = setup.start();
    // Only one device sends, so nothing shows that the network works.
    let mut ledger = Load::of(receiver.listen, STOPPED.0..STOPPED.0 + 1, 5).send();
    let ended_at = |events: &Vec<Published>| events.last().is_some_and(|last| last.event == STOPPED);
    let ends = || connections(&proxy).iter().filter(|events| ended_at(events)).count();
    wait_until("four connections ended at it", &receiver, || ends() >= 4);
    assert!(setup.dead_letters().is_empty());
    println!("{}", receiver.wait_for_reason(&["sink mqtt", "only the event", &stopped]));
    let before = connections(&proxy).len();
    let mut device = STOPPED.0 + 1;
    while setup.dead_letters().is_empty() {
        receiver.accept(&body(device, 0));
        ledger.accepted.insert((device, 0));
        device += 1;
    }
    receiver.drain();
    receiver.wait_until_ready();
    receiver.stop();
    let letters = setup.dead_letters();
    assert_eq!((letters.len(), letters[0]["eventId"].as_str()), (1, Some(&*stopped)));
    let error = letters[0]["error"].as_str().expect("text");
    assert!(error.contains("closes the connection because of this record"), "{error}");
    // The connections since others were sent: those with the event have nothing else, and others went through in between.
    let later = connections(&proxy).split_off(before);
    let turns: Vec<bool> = later.iter().map(|events| events.iter().any(|one| one.event == STOPPED)).collect();
    for (events, is_turn) in later.iter().zip(&turns) {
        assert!(!is_turn || events.len() == 1, "the event was not alone: {events:?}");
        assert!(
            *is_turn || events.iter().all(|one| one.is_acknowledged),
            "others did not go through: {events:?}"
        );
    }
    let text: String = turns.iter().map(|is_turn| if *is_turn { 'E' } else { 'o' }).collect();
    assert!(text.trim_start_matches('E').starts_with("oEoEo"), "the turns: {text}");
    ledger.accepted.remove(&STOPPED);
    let is_complete = |messages: &[_]| Seen::of_bodies(messages).events().len() >= ledger.count();
    Seen::of_bodies(&subscriber.wait_for("all others", is_complete)).assert_exact(&ledger);
    println!("turns after {before} connections: {text}");
}

#[test]
fn in_mode_direct_an_event_that_is_sent_again_and_again_is_moved_to_the_dead_letters_too() {
    let left_out = "an event at which connections end, in mode direct";
    let Some(broker) = Broker::start(left_out) else { return };
    let proxy = Proxy::start(broker.port());
    let stopped = id(STOPPED.0, STOPPED.1);
    proxy.cut_at(Some(&stopped));
    let setup = Setup::direct(&proxy.address(), SINK);
    let receiver = setup.start();
    receiver.wait_until_ready();
    let mut sender = Sender::connect(receiver.listen).expect("it listens");
    let mut send = |(device, number)| sender.send(device, number).expect("an answer").status;
    let (mut statuses, mut others) = (Vec::new(), 0);
    while statuses.last() != Some(&200) {
        // Each event is a batch of its own, and others come before DT sends this one again.
        statuses.push(send(STOPPED));
        assert!(statuses.len() < 20, "{statuses:?}");
        others += 1;
        let answered = (0..20).any(|_| send((STOPPED.0 + 1, others)) == 200);
        assert!(answered, "other events are not delivered");
    }
    receiver.stop();
    let letters = setup.dead_letters();
    assert_eq!((letters.len(), letters[0]["eventId"].as_str()), (1, Some(&*stopped)));
    let error = letters[0]["error"].as_str().expect("text");
    assert!(error.contains("closes the connection because of this record"), "{error}");
    println!("answers: {statuses:?}");
}
