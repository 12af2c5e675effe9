//! Events that are forwarded to a second receiver, which verifies DT's own signature, or after an outage of two hours a new
//! one.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use dt_receiver::clock::ManualClock;
use dt_receiver::config::{Config, SystemSources};
use dt_receiver::service::Service;
use dt_receiver::sink_types;
use serde_json::Value;

use crate::events::{body, now, parse_id, token};
use crate::sender::Sender;
use crate::setup::Setup;

const TWO_HOURS: i64 = 7200;
const EVENTS: u64 = 50;

/// A receiver that writes envelopes to a file, which say by which secret each event was verified.
fn second() -> Setup {
    Setup::forwarding("[[sink]]\nname = 'file'\ntype = 'file'\npath = 'FOLDER/events.ndjson'")
}

/// How each event of the second receiver was verified. Each is there once, with exactly its bytes.
fn verified_by(setup: &Setup) -> BTreeMap<(u64, u64), String> {
    let text = fs::read_to_string(setup.folder().join("events.ndjson")).expect("text");
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let (device, number) = parse_id(line).expect("an event of ours");
        assert!(line.ends_with(&body(device, number)[1..]), "{line}");
        let envelope: Value = serde_json::from_str(line).expect("JSON");
        let by = envelope["verifiedBy"].as_str().expect("text").to_owned();
        assert_eq!(found.insert((device, number), by), None, "{line}");
    }
    found
}

/// Accepts events at an earlier time, in this process: with all code of the program, but for its clock. Its sink has no
/// target yet.
fn accept_at(setup: &Setup, time: i64) {
    let config = setup.config();
    let mut config = Config::from_file(&config, &SystemSources, &sink_types()).expect("a configuration");
    config.listen = "127.0.0.1:0".parse().expect("an address");
    config.admin = None;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let clock = Arc::new(ManualClock::at(time * 1000));
        let service = Service::builder(config).clock(clock).start().await.expect("starts");
        let address = service.address().expect("it listens");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(service.run_until(async { drop(stopped.await) }));
        let sending = tokio::task::spawn_blocking(move || {
            let mut sender = Sender::connect(address).expect("connects");
            for number in 0..EVENTS {
                let body = body(1, number);
                let answer = sender.post("/", &body, &token(&body, time)).expect("an answer");
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        });
        sending.await.expect("all sent");
        drop(stop);
        running.await.expect("ends");
    });
}

#[test]
fn a_second_receiver_accepts_what_is_forwarded_also_after_two_hours() {
    let second = second();
    let address: SocketAddr = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let keys = "format = 'body'\nforward_signature = true\nsign = { secret = { file = 'FOLDER/ours' } }";
    let url = format!("url = 'http://{address}/'");
    let first = Setup::forwarding(&format!("[[sink]]\nname = 'http'\ntype = 'http'\n{url}\n{keys}"));
    accept_at(&first, now() - TWO_HOURS);

    let listen = address.to_string();
    let receiving = second.start_with(&["--listen", &listen]);
    // The tokens of then are worth nothing now, so the forwarding alone could not do it.
    let mut sender = Sender::connect(address).expect("connects");
    let old = body(2, 0);
    let answer = sender.post("/", &old, &token(&old, now() - TWO_HOURS)).expect("an answer");
    assert_eq!(answer.status, 401, "{answer:?}");
    let forwarding = first.start();
    forwarding.drain();
    // Those of now are forwarded as they are.
    let mut sender = Sender::connect(forwarding.listen).expect("connects");
    for number in 0..EVENTS {
        assert_eq!(sender.send(3, number).expect("an answer").status, 200);
    }
    forwarding.drain();
    assert_eq!(forwarding.count("dt_receiver_http_requests_signed_total", ""), EVENTS);
    assert_eq!(forwarding.count("dt_receiver_http_requests_accepted_total", ""), 2 * EVENTS);
    forwarding.stop();
    receiving.drain();
    receiving.stop();
    let found = verified_by(&second);
    for number in 0..EVENTS {
        assert_eq!(found[&(1, number)], "secret:ours", "two hours old");
        assert_eq!(found[&(3, number)], "secret:dt", "as DT signed it");
    }
    assert_eq!(found.len(), usize::try_from(2 * EVENTS).expect("few"));
    assert!(first.dead_letters().is_empty());
    // The copy of the one with an old token.
    assert_eq!(second.dead_letters().len(), 1);
}
