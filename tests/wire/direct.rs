//! Mode `direct`: what sinks do, and what senders are told of it.

use dt_receiver::service::StartError;
use dt_receiver::sink::{Fate, Outcome};

use crate::client::{Client, ask, push, push_to};
use crate::fake_sink::{FakeSink, Seen};
use crate::harness::{Receiver, SINK_ERROR, Setup, event, event_id, ms};

#[tokio::test]
async fn copies_that_come_at_once_are_delivered_once() {
    let (sink, seen, mut gate) = FakeSink::gated();
    let receiver = Setup::new().sink("test", sink).start().await;
    let mut clients = Vec::new();
    for _copy in 0..3 {
        let mut client = Client::connect(receiver.address).await;
        client.send(push(event(1))).await;
        clients.push(client);
    }
    assert_eq!(gate.entered().await, [event_id(1)]);
    gate.let_go(true);
    let mut codes = Vec::new();
    for client in &mut clients {
        let reply = client.reply().await;
        assert_eq!(reply.status, 200);
        codes.push(reply.code());
    }
    codes.sort_unstable();
    assert_eq!(codes, ["accepted", "duplicate", "duplicate"]);
    assert_eq!(seen.ids(), [event_id(1)]);
}

#[tokio::test]
async fn no_copy_is_acknowledged_before_the_sink_has_the_first() {
    let (sink, seen, mut gate) = FakeSink::gated();
    let receiver = Setup::new().sink("test", sink).start().await;
    let mut first = Client::connect(receiver.address).await;
    first.send(push(event(1))).await;
    gate.entered().await;
    let mut copy = Client::connect(receiver.address).await;
    copy.send(push(event(1))).await;
    gate.let_go(false);
    first.reply().await.must_be(503, "sink_unavailable");
    // The copy heard of the failure too, or came after it and is a first one itself.
    let reply = tokio::select! {
        reply = copy.reply() => reply,
        _ids = gate.entered() => { gate.let_go(false); copy.reply().await }
    };
    reply.must_be(503, "sink_unavailable");
    assert!(seen.ids().is_empty());
}

#[tokio::test]
async fn a_sink_that_failed_gets_the_retry() {
    let (sink, seen) = FakeSink::scripted([|batch: &[_]| Outcome::retry(batch.len(), SINK_ERROR)]);
    let receiver = Setup::new().sink("test", sink).start().await;
    ask(receiver.address, push(event(1))).await.must_be(503, "sink_unavailable");
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    ask(receiver.address, push(event(1))).await.must_be(200, "duplicate");
    assert_eq!(seen.ids(), [event_id(1)]);
}

#[tokio::test]
async fn a_sink_that_has_the_event_is_not_sent_the_retry() {
    let (good, good_seen) = FakeSink::working();
    let (bad, bad_seen, switch) = FakeSink::switched();
    switch.turn(false);
    let receiver = Setup::new().sink("good", good).sink("bad", bad).start().await;
    for _attempt in 0..3 {
        ask(receiver.address, push(event(1))).await.must_be(503, "sink_unavailable");
    }
    assert_eq!(good_seen.ids(), [event_id(1)]);
    switch.turn(true);
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    ask(receiver.address, push(event(1))).await.must_be(200, "duplicate");
    assert_eq!(good_seen.ids(), [event_id(1)]);
    assert_eq!(bad_seen.ids(), [event_id(1)]);
}

#[tokio::test]
async fn one_bad_record_of_a_batch_does_not_spoil_the_others() {
    // The first batch is held until the rest has queued up behind it.
    let (entered, at_gate) = std::sync::mpsc::channel();
    let (let_go, gate) = std::sync::mpsc::channel::<()>();
    let (sink, seen) = FakeSink::new(move |batch| {
        let _gone = entered.send(batch.len());
        let _over = gate.recv();
        let fate = |id: &str| match id {
            id if id == event_id(2) => Fate::Retry { error: SINK_ERROR.to_owned() },
            id if id == event_id(3) => Fate::Rejected { error: SINK_ERROR.to_owned() },
            _ => Fate::Delivered,
        };
        Outcome { fates: batch.iter().map(|record| fate(&record.event_id)).collect(), ..Outcome::default() }
    });
    let receiver = Setup::new().sink("test", sink).start().await;
    let mut clients = Vec::new();
    for n in 0..6 {
        let mut client = Client::connect(receiver.address).await;
        client.send(push(event(n))).await;
        clients.push(client);
    }
    let outcomes = async {
        let mut codes = Vec::new();
        for client in &mut clients {
            codes.push(client.reply().await.code());
        }
        codes
    };
    let gatekeeper = tokio::task::spawn_blocking(move || {
        while at_gate.recv().is_ok() {
            let _over = let_go.send(());
        }
    });
    let expected = ["accepted", "accepted", "sink_unavailable", "accepted", "accepted", "accepted"];
    assert_eq!(outcomes.await, expected);
    let mut ids = seen.ids();
    ids.sort_unstable();
    assert_eq!(ids, [event_id(0), event_id(1), event_id(4), event_id(5)]);
    assert_eq!(receiver.letters().len(), 1);
    stop(receiver).await;
    gatekeeper.await.unwrap();
}

#[tokio::test]
async fn a_late_acknowledgement_makes_the_retry_a_duplicate() {
    let (sink, mut seen, mut gate) = FakeSink::gated();
    let receiver = Setup::new().sink("test", sink).limits(|l| l.deadline = ms(150)).start().await;
    ask(receiver.address, push(event(1))).await.must_be(503, "sink_unavailable");
    gate.entered().await;
    // The retry comes while the first is still on its way.
    ask(receiver.address, push(event(1))).await.must_be(503, "sink_unavailable");
    gate.let_go(true);
    seen.wait_for(1).await;
    ask(receiver.address, push(event(1))).await.must_be(200, "duplicate");
    assert_eq!(seen.ids(), [event_id(1)]);
}

#[tokio::test]
async fn connectors_do_not_share_ids() {
    let (setup, seen) = Setup::working();
    let receiver = setup.connector("other", "/other", |_| {}).start().await;
    ask(receiver.address, push_to("/", event(1))).await.must_be(200, "accepted");
    ask(receiver.address, push_to("/other", event(1))).await.must_be(200, "accepted");
    ask(receiver.address, push_to("/other", event(1))).await.must_be(200, "duplicate");
    let connectors: Vec<_> = seen.records().iter().map(|record| record.connector.to_string()).collect();
    assert_eq!(connectors, ["main", "other"]);
}

#[tokio::test]
async fn a_connector_goes_to_its_own_sinks_only() {
    let (one, one_seen) = FakeSink::working();
    let (two, two_seen) = FakeSink::failing();
    let receiver = Setup::new()
        .sink("one", one)
        .sink("two", two)
        .main(|main| main.sinks = Some(vec!["one".to_owned()]))
        .connector("other", "/other", |other| other.sinks = Some(vec!["two".to_owned()]))
        .start()
        .await;
    ask(receiver.address, push_to("/", event(1))).await.must_be(200, "accepted");
    ask(receiver.address, push_to("/other", event(2))).await.must_be(503, "sink_unavailable");
    assert_eq!(one_seen.ids(), [event_id(1)]);
    assert!(two_seen.ids().is_empty());
}

#[tokio::test]
async fn without_a_window_copies_are_delivered() {
    let (setup, seen) = Setup::working();
    let receiver = setup.main(|main| main.dedup = false).connector("other", "/other", |_| {}).start().await;
    for _copy in 0..3 {
        ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    }
    assert_eq!(seen.ids().len(), 3);
    // It is off for that connector only.
    ask(receiver.address, push_to("/other", event(1))).await.must_be(200, "accepted");
    ask(receiver.address, push_to("/other", event(1))).await.must_be(200, "duplicate");
}

#[tokio::test]
async fn the_window_forgets_after_its_time() {
    let (setup, seen) = Setup::working();
    let receiver = setup.config(|config| config.dedup_window = ms(60_000)).start().await;
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    receiver.clock.set(crate::harness::NOW * 1000 + 59_999);
    ask(receiver.address, push(event(1))).await.must_be(200, "duplicate");
    receiver.clock.set(crate::harness::NOW * 1000 + 60_000);
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    assert_eq!(seen.ids().len(), 2);
}

#[tokio::test]
async fn a_sink_that_panics_is_503_and_the_service_goes_on() {
    let (sink, seen) = FakeSink::scripted([|_batch: &[_]| -> Outcome { panic!("{SINK_ERROR}") }]);
    let receiver = Setup::new().sink("test", sink).start().await;
    ask(receiver.address, push(event(1))).await.must_be(503, "sink_unavailable");
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    ask(receiver.address, push(event(2))).await.must_be(200, "accepted");
    assert_eq!(seen.ids(), [event_id(1), event_id(2)]);
}

#[tokio::test]
async fn a_sink_that_panics_while_it_is_opened_again_does_not_end_its_worker() {
    let mut opened = 0;
    let open = move || {
        opened += 1;
        assert!(opened != 2, "{SINK_ERROR}");
        Ok(())
    };
    let mut delivered = 0;
    let (sink, seen) = FakeSink::opening(open, move |batch| {
        delivered += 1;
        assert!(delivered != 1, "{SINK_ERROR}");
        Outcome::delivered(batch.len())
    });
    let receiver = Setup::new().sink("test", sink).limits(|l| l.deadline = ms(2000)).start().await;
    for _attempt in 0..2 {
        ask(receiver.address, push(event(1))).await.must_be(503, "sink_unavailable");
    }
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    assert_eq!(seen.ids(), [event_id(1)]);
}

#[tokio::test]
async fn a_sink_that_says_too_little_or_too_much_is_not_believed() {
    let nothing = |_batch: &[_]| Outcome::default();
    let too_much = |batch: &[_]| Outcome::delivered(batch.len() + 5);
    let (sink, _seen) = FakeSink::scripted([nothing, too_much]);
    let receiver = Setup::new().sink("test", sink).start().await;
    ask(receiver.address, push(event(1))).await.must_be(503, "sink_unavailable");
    let ready = crate::metrics::readyz(receiver.admin).await;
    assert_eq!(ready.0, 503, "a sink that does not deliver is no healthy one: {}", ready.1);
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    let metrics = crate::metrics::Metrics::scrape(receiver.admin).await;
    let records = |outcome| metrics.value("dt_receiver_sink_records_total", &[("outcome", outcome)]);
    assert_eq!((records("retry"), records("delivered")), (1.0, 1.0));
}

#[tokio::test]
async fn a_service_without_a_sink_does_not_start() {
    let started = Setup::new().try_start().await;
    assert!(started.is_err(), "it would acknowledge events and drop them");
    let (setup, _seen) = Setup::working();
    let started =
        setup.connector("other", "/other", |other| other.sinks = Some(Vec::new())).try_start().await;
    assert!(started.is_err(), "it would acknowledge events and drop them");
}

#[tokio::test]
async fn what_can_never_work_is_an_error_on_start() {
    let unknown = Setup::working().0.main(|main| main.sinks = Some(vec!["nowhere".to_owned()]));
    assert!(matches!(unknown.try_start().await, Err(StartError::UnknownSink { .. })));
    let twice = Setup::working().0.sink("test", FakeSink::working().0);
    assert!(matches!(twice.try_start().await, Err(StartError::RepeatedSink(_))));
    let none = Setup::working().0.config(|config| config.connectors.clear());
    assert!(matches!(none.try_start().await, Err(StartError::NoConnector)));
    let down = || Err(dt_receiver::sink::OpenError::Unusable(SINK_ERROR.to_owned()));
    let unusable = Setup::new().sink("test", FakeSink::opening(down, |_| Outcome::default()).0);
    assert!(matches!(unusable.try_start().await, Err(StartError::Sink { .. })));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for key in ["listen", "admin"] {
        let address = taken.local_addr().unwrap();
        let setup = Setup::working().0.config(|config| match key {
            "listen" => config.listen = address.into(),
            _ => config.admin = Some(address.into()),
        });
        let error = setup.try_start().await.map(|_| ()).unwrap_err();
        assert!(matches!(error, StartError::Listen { key: found, .. } if found == key), "{error}");
    }
    let one_path = Setup::working().0.connector("other", "/", |_| {});
    assert!(one_path.try_start().await.is_err(), "one of the two would get nothing");
    let one_name = Setup::working().0.connector("main", "/other", |_| {});
    assert!(one_name.try_start().await.is_err(), "their events would be taken for each other's copies");
    // Names become file names.
    for name in ["", "a/b", "..", "a b", "a\0b"] {
        let sink = Setup::new().sink(name, FakeSink::working().0);
        assert!(sink.try_start().await.is_err(), "a sink named {name:?}");
        let connector = Setup::working().0.connector(name, "/other", |_| {});
        assert!(connector.try_start().await.is_err(), "a connector named {name:?}");
    }
}

#[tokio::test]
async fn events_reach_the_sink_in_the_order_of_their_acknowledgements() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let mut client = Client::connect(receiver.address).await;
    for n in 0..200 {
        client.ask(push(event(n))).await.must_be(200, "accepted");
    }
    assert_eq!(seen.ids(), (0..200).map(event_id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_senders_with_copies_lose_and_double_nothing() {
    const SENDERS: u64 = 16;
    const EVENTS: u64 = 100;
    // Every third batch fails.
    let mut batches = 0_u64;
    let (sink, seen) = FakeSink::new(move |batch| {
        batches += 1;
        if batches.is_multiple_of(3) {
            Outcome::retry(batch.len(), SINK_ERROR)
        } else {
            Outcome::delivered(batch.len())
        }
    });
    let receiver = Setup::new().sink("test", sink).start().await;
    let mut senders = tokio::task::JoinSet::new();
    for _sender in 0..SENDERS {
        let address = receiver.address;
        senders.spawn(async move {
            let mut client = Client::connect(address).await;
            let mut accepted = 0;
            for n in 0..EVENTS {
                // As DT does: again and again until it is taken.
                let reply = loop {
                    let reply = client.ask(push(event(n))).await;
                    if reply.status == 200 {
                        break reply;
                    }
                    reply.must_be(503, "sink_unavailable");
                };
                accepted += u64::from(reply.code() == "accepted");
            }
            accepted
        });
    }
    let accepted: u64 = senders.join_all().await.into_iter().sum();
    assert_eq!(accepted, EVENTS, "one sender of each event is told that it was the first");
    let mut ids = seen.ids();
    ids.sort_unstable();
    let mut expected: Vec<_> = (0..EVENTS).map(event_id).collect();
    expected.sort_unstable();
    assert_eq!(ids, expected);
}

async fn stop(mut receiver: Receiver) {
    receiver.tell_to_stop();
    receiver.stopped().await;
}

/// The sink's own thread takes the record: what a test sees of it is what was acknowledged.
#[tokio::test]
async fn a_sink_has_every_event_that_was_acknowledged() {
    let (one, one_seen) = FakeSink::working();
    let (two, two_seen): (_, Seen) = FakeSink::working();
    let receiver = Setup::new().sink("one", one).sink("two", two).start().await;
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    assert_eq!((one_seen.ids(), two_seen.ids()), (vec![event_id(1)], vec![event_id(1)]));
}
