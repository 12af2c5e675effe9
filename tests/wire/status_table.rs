//! Every row of the status table (`design.md`, section 4): status, code, headers, and what the sink and the dead
//! letters have afterwards.

use std::time::Instant;

use dt_receiver::config::Limits;
use dt_receiver::event::{EventType, NotADelivery};
use dt_receiver::record::Reason;
use dt_receiver::sink::OpenError;

use crate::client::{Client, ask, chunked, head, push, push_to, request, token, token_at};
use crate::fake_sink::FakeSink;
use crate::harness::{NOW, PROJECT, SINK_ERROR, Setup, event, event_id, event_of, event_of_len, ms};
use crate::shutdown::until_stopping;

const MAX_BODY: usize = 64 * 1024;

#[tokio::test]
async fn an_event_is_accepted_once_and_a_copy_is_a_duplicate() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    for (copy, code) in ["accepted", "duplicate", "duplicate"].into_iter().enumerate() {
        let reply = ask(receiver.address, push(event(1))).await;
        reply.must_be(200, code);
        assert_eq!(reply.json()["eventId"], event_id(1), "copy {copy}");
        assert_eq!(reply.json().as_object().unwrap().len(), 2, "nothing else is told");
    }
    let records = seen.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].body, event(1), "the sink gets the received bytes");
    assert_eq!(&*records[0].connector, "main");
    assert_eq!(records[0].received_at, NOW * 1000);
}

#[tokio::test]
async fn an_event_type_that_is_not_wanted_is_ignored() {
    let (setup, seen) = Setup::working();
    let receiver = setup.main(|main| main.events = ["touch".to_owned()].into()).start().await;
    ask(receiver.address, push(event_of(EventType::Temperature, PROJECT, 1))).await.must_be(200, "ignored");
    ask(receiver.address, push(event_of(EventType::Touch, PROJECT, 2))).await.must_be(200, "accepted");
    assert_eq!(seen.ids(), [event_id(2)]);
    assert!(receiver.letters().is_empty());
}

#[tokio::test]
async fn an_unknown_event_type_is_passed_on() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let body = event_of(EventType::Other("seismicActivity".into()), PROJECT, 1);
    ask(receiver.address, push(&body)).await.must_be(200, "accepted");
    assert_eq!(&*seen.records()[0].event_type, "seismicActivity");
}

/// Bodies that are authentic, and no delivery that we can read.
const UNREADABLE: [&[u8]; 8] = [
    b"",
    b"\xff\xfe not text",
    b"not JSON\r\nat all\n",
    br#"{"labels":{}}"#,
    br#"{"event":{"eventType":"touch"}}"#,
    br#"{"event":{"eventId":"c82gg9catj3vmh4248og"}}"#,
    b"[1,2,3]",
    b"\x00",
];

#[tokio::test]
async fn what_is_authentic_but_unreadable_is_set_aside_and_answered_200() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    for body in UNREADABLE {
        let token = token(body);
        let headers = [("X-Dt-Signature", &*token), ("Authorization", "Bearer do-not-keep-me")];
        let reply = ask(receiver.address, request("POST", "/", &headers, body)).await;
        reply.must_be(200, "quarantined");
        assert_eq!(reply.json().as_object().unwrap().len(), 1, "nothing else is told");
    }
    let letters = receiver.letters();
    assert_eq!(letters.len(), UNREADABLE.len());
    for body in UNREADABLE {
        let letter =
            letters.iter().find(|letter| letter.body == body).expect("a letter with the exact bytes");
        assert_eq!((&letter.reason, &*letter.connector), (&Reason::Unreadable, "main"));
        let code = letter.error.split_once(": ").map(|(code, _)| code).expect("a code, then words");
        assert!(NotADelivery::CODES.contains(&code), "{}", letter.error);
        assert_eq!(letter.received_at, NOW * 1000);
        assert_eq!(letter.signatures, [("X-Dt-Signature", token(body))], "it can be verified again");
        assert!(letter.header_names.contains(&"authorization".to_owned()));
        assert!(!format!("{letter:?}").contains("do-not-keep-me"), "values of other headers are not kept");
    }
    assert!(seen.ids().is_empty());
}

#[tokio::test]
async fn a_letter_is_kept_once_a_connector_and_body() {
    let (setup, _seen) = Setup::working();
    let receiver = setup.connector("other", "/other", |_| {}).start().await;
    for path in ["/", "/", "/other", "/other"] {
        ask(receiver.address, push_to(path, "not JSON")).await.must_be(200, "quarantined");
    }
    let letters = receiver.letters();
    let mut connectors: Vec<_> = letters.iter().map(|letter| &*letter.connector).collect();
    connectors.sort_unstable();
    assert_eq!(connectors, ["main", "other"]);
}

#[tokio::test]
async fn an_expired_request_is_refused_and_a_copy_is_kept() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let body = event(1);
    let old = token_at(&body, NOW - 2 * 3600);
    for _copy in 0..3 {
        let request = request("POST", "/", &[("X-Dt-Signature", &old)], &body);
        ask(receiver.address, request).await.must_be(401, "expired");
    }
    let letters = receiver.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].reason, &*letters[0].body), (&Reason::Expired, body.as_bytes()));
    assert_eq!(letters[0].signatures, [("X-Dt-Signature", old)]);
    assert!(seen.ids().is_empty());
    // The copy stands in nobody's way: with a token of now the event is taken.
    ask(receiver.address, push(&body)).await.must_be(200, "accepted");
}

#[tokio::test]
async fn what_is_not_authentic_leaves_nothing_behind() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let (body, other) = (event(1), event(2));
    for (token, code) in [
        (token(&other), "checksum_mismatch"),
        (token_at(&other, NOW - 7200), "checksum_mismatch"),
        (token_at(&body, NOW + 3600), "not_yet_valid"),
        (token(&body).replace("eyJhbGciOiJIUzI1NiIs", "eyJhbGciOiJub25lIiws"), "signature_malformed"),
    ] {
        let request = request("POST", "/", &[("X-Dt-Signature", &token)], &body);
        ask(receiver.address, request).await.must_be(401, code);
    }
    ask(receiver.address, request("POST", "/", &[], &body)).await.must_be(401, "signature_missing");
    assert!(seen.ids().is_empty() && receiver.letters().is_empty());
}

#[tokio::test]
async fn a_project_that_is_not_listed_is_refused() {
    let (setup, seen) = Setup::working();
    let receiver = setup.main(|main| main.projects = [PROJECT.to_owned()].into()).start().await;
    let foreign = event_of(EventType::Touch, "c0md3mm0c7pet3vico8g", 1);
    let reply = ask(receiver.address, push(foreign)).await;
    reply.must_be(403, "project_not_allowed");
    assert!(!String::from_utf8_lossy(&reply.body).contains(PROJECT), "which projects there are is not told");
    ask(receiver.address, push(event(2))).await.must_be(200, "accepted");
    // An event of no project can be of no listed one; but it is authentic, so it is set aside.
    let of_none = format!(r#"{{"event":{{"eventId":"{}","eventType":"touch"}}}}"#, event_id(3));
    ask(receiver.address, push(of_none)).await.must_be(200, "quarantined");
    let letters = receiver.letters();
    assert!(letters[0].error.starts_with("project_missing: "), "{}", letters[0].error);
    assert_eq!(seen.ids(), [event_id(2)]);
}

#[tokio::test]
async fn a_path_without_connector_is_not_found_whatever_the_method() {
    let (setup, seen) = Setup::working();
    let receiver = setup.connector("dt", "/dt", |_| {}).start().await;
    for path in ["/nothing", "/dt/", "/DT", "/dt/more", "//", "/%64t", "/healthz", "/metrics", "/..", "/dt;x"]
    {
        ask(receiver.address, push_to(path, event(1))).await.must_be(404, "not_found");
        ask(receiver.address, request("GET", path, &[], "")).await.must_be(404, "not_found");
    }
    ask(receiver.address, push_to("/dt?from=dt&x=%00", event(1))).await.must_be(200, "accepted");
    assert_eq!(seen.ids().len(), 1);
}

#[tokio::test]
async fn another_method_than_post_is_not_allowed() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let token = token(event(1));
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "post"] {
        let request = request(method, "/", &[("X-Dt-Signature", &token)], event(1));
        ask(receiver.address, request).await.must_be(405, "method_not_allowed");
    }
    let mut client = Client::connect(receiver.address).await;
    client.send(request("HEAD", "/", &[], "")).await;
    let reply = client.reply_to_head().await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    // The reply to a HEAD has no body, so the next reply follows at once.
    client.ask(push(event(1))).await.must_be(200, "accepted");
    assert_eq!(seen.ids().len(), 1);
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_408() {
    let (setup, seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.deadline = ms(150)).start().await;
    let body = event(1);
    let token = token(&body);
    let signed = [("X-Dt-Signature", &*token)];
    let length = format!("Content-Length: {}", body.len());
    for headers in [&signed[..], &[]] {
        for framing in [&*length, "Transfer-Encoding: chunked"] {
            let mut client = Client::connect(receiver.address).await;
            let reply = client.ask(head("POST", "/", headers, framing)).await;
            reply.must_be(408, "body_timeout");
            assert!(reply.closes(), "what comes late would be taken for the next request");
            assert!(client.maybe_reply().await.is_none(), "it is closed");
        }
    }
    assert!(seen.ids().is_empty());
}

#[tokio::test]
async fn a_body_of_64_kib_is_taken_and_one_byte_more_is_413() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    assert_eq!(Limits::default().max_body, MAX_BODY);
    let split = |body: &str| {
        let token = token(body);
        let (a, b) = body.as_bytes().split_at(body.len() / 2);
        chunked("/", &[("X-Dt-Signature", &token)], [a, b])
    };
    let (largest, larger) = (event_of_len(1, MAX_BODY), event_of_len(2, MAX_BODY + 1));
    ask(receiver.address, push(&largest)).await.must_be(200, "accepted");
    ask(receiver.address, split(&largest)).await.must_be(200, "duplicate");
    let reply = ask(receiver.address, push(&larger)).await;
    reply.must_be(413, "body_too_large");
    assert!(reply.closes(), "what is left of the body is no request");
    ask(receiver.address, split(&larger)).await.must_be(413, "body_too_large");
    // Who is not known is told so of the size first, like everybody.
    ask(receiver.address, request("POST", "/", &[], &larger)).await.must_be(413, "body_too_large");
    let chunks = larger.as_bytes().chunks(1000);
    ask(receiver.address, chunked("/", &[], chunks)).await.must_be(413, "body_too_large");
    assert_eq!(seen.ids(), [event_id(1)]);
    assert_eq!(seen.records()[0].body, largest);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431_without_a_body() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let body = event(1);
    let token = token(&body);
    let long = "x".repeat(17 * 1024);
    let large = request("POST", "/", &[("X-Dt-Signature", &token), ("X-Long", &long)], &body);
    let names: Vec<String> = (0..120).map(|n| format!("X-Header-{n}")).collect();
    let mut many: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "v")).collect();
    many.push(("X-Dt-Signature", &token));
    for request in [large, request("POST", "/", &many, &body)] {
        let mut client = Client::connect(receiver.address).await;
        client.try_send(request).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.body.len()), (431, 0));
    }
    // A client that goes on to send 2 MB is not reset meanwhile: many read the answer only when they have sent all.
    let endless = request("POST", "/", &[("X-Long", &"x".repeat(2 << 20))], &body);
    let (first, rest) = endless.split_at(40_000);
    let mut client = Client::connect(receiver.address).await;
    client.send(first).await;
    assert_eq!(client.reply().await.status, 431);
    for part in rest.chunks(64 << 10) {
        assert!(client.try_send(part).await, "it was reset");
    }
    assert!(client.rest().await.is_empty());
    assert!(seen.ids().is_empty());
    // A head just as large as DT's might be passes: both tokens, and custom headers.
    let long = "x".repeat(7 * 1024);
    let headers =
        [("X-Dt-Signature", &*token), ("X-Long", &*long), ("DT-Asymmetric-Signature", "e30.e30.e30")];
    ask(receiver.address, request("POST", "/", &headers, &body)).await.must_be(200, "accepted");
}

#[tokio::test]
async fn too_many_requests_at_once_are_503() {
    let (sink, seen, mut gate) = FakeSink::gated();
    let receiver = Setup::new().sink("test", sink).limits(|l| l.max_in_flight = 1).start().await;
    let mut first = Client::connect(receiver.address).await;
    first.send(push(event(1))).await;
    gate.entered().await;
    ask(receiver.address, push(event(2))).await.must_be(503, "overloaded");
    gate.let_go(true);
    first.reply().await.must_be(200, "accepted");
    assert_eq!(seen.ids(), [event_id(1)]);
    // The place is free again.
    first.send(push(event(2))).await;
    gate.entered().await;
    gate.let_go(true);
    first.reply().await.must_be(200, "accepted");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_closed() {
    let (setup, _seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.max_connections = 1).start().await;
    let mut first = Client::connect(receiver.address).await;
    first.ask(push(event(1))).await.must_be(200, "accepted");
    let mut second = Client::connect(receiver.address).await;
    let reply = second.ask(push(event(2))).await;
    reply.must_be(503, "overloaded");
    assert!(reply.closes());
    assert!(second.maybe_reply().await.is_none(), "it is closed");
    first.ask(push(event(3))).await.must_be(200, "accepted");
}

#[tokio::test]
async fn too_many_bytes_in_flight_are_503() {
    let (setup, seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.max_in_flight_bytes = 1000).start().await;
    let body = event_of_len(1, 700);
    let headers = [("X-Dt-Signature", &*token(&body)), ("Expect", "100-continue")];
    let mut first = Client::connect(receiver.address).await;
    // It is told to go on once its bytes have a place.
    let reply = first.ask(head("POST", "/", &headers, "Content-Length: 700")).await;
    assert_eq!(reply.status, 100);
    ask(receiver.address, push(event_of_len(2, 700))).await.must_be(503, "overloaded");
    // A body in chunks says nothing of its size, so it needs a place for the largest.
    let small = event(3);
    let unknown = chunked("/", &[("X-Dt-Signature", &token(&small))], [small.as_bytes()]);
    ask(receiver.address, unknown).await.must_be(503, "overloaded");
    first.ask(&body).await.must_be(200, "accepted");
    ask(receiver.address, push(event_of_len(2, 700))).await.must_be(200, "accepted");
    assert_eq!(seen.ids(), [event_id(1), event_id(2)]);
}

#[tokio::test]
async fn a_sink_that_fails_is_503() {
    let (sink, seen) = FakeSink::failing();
    let receiver = Setup::new().sink("test", sink).start().await;
    ask(receiver.address, push(event(1))).await.must_be(503, "sink_unavailable");
    assert!(seen.ids().is_empty() && receiver.letters().is_empty());
}

#[tokio::test]
async fn a_sink_that_is_down_from_the_start_delays_nothing_but_its_events() {
    let mut attempts = 0;
    let open = move || {
        attempts += 1;
        if attempts < 3 { Err(OpenError::Down(SINK_ERROR.to_owned())) } else { Ok(()) }
    };
    let (sink, seen) = FakeSink::opening(open, |batch| dt_receiver::sink::Outcome::delivered(batch.len()));
    let receiver = Setup::new().sink("test", sink).start().await;
    let mut last = ask(receiver.address, push(event(1))).await;
    for _attempt in 0..3 {
        if last.status == 200 {
            break;
        }
        last.must_be(503, "sink_unavailable");
        last = ask(receiver.address, push(event(1))).await;
    }
    last.must_be(200, "accepted");
    assert_eq!(seen.ids(), [event_id(1)]);
}

#[tokio::test]
async fn a_sink_that_is_late_is_503_at_the_deadline() {
    let (sink, _seen, mut gate) = FakeSink::gated();
    let receiver = Setup::new().sink("test", sink).limits(|l| l.deadline = ms(150)).start().await;
    let mut client = Client::connect(receiver.address).await;
    let reply = client.ask(push(event(1))).await;
    reply.must_be(503, "sink_unavailable");
    assert!(!reply.closes(), "the sender may come again on the same connection");
    gate.entered().await;
}

/// They share the connection's timer.
#[tokio::test]
async fn each_request_of_a_connection_has_the_whole_deadline() {
    let (sink, _seen, _gate) = FakeSink::gated();
    let receiver = Setup::new().sink("test", sink).limits(|l| l.deadline = ms(300)).start().await;
    let mut client = Client::connect(receiver.address).await;
    for number in 1..4 {
        let started = Instant::now();
        client.ask(push(event(number))).await.must_be(503, "sink_unavailable");
        let took = started.elapsed();
        assert!(took >= ms(295) && took < ms(5000), "request {number}: {took:?}");
        tokio::time::sleep(ms(100)).await;
    }
}

#[tokio::test]
async fn what_cannot_be_set_aside_is_503() {
    let (sink, _seen) = FakeSink::rejecting();
    let receiver = Setup::new().sink("test", sink).start().await;
    receiver.break_dead_letters();
    ask(receiver.address, push("not JSON")).await.must_be(503, "storage_unavailable");
    ask(receiver.address, push(event(1))).await.must_be(503, "storage_unavailable");
    // An expired request stays with DT; its copy is only a help.
    let old = token_at(event(2), NOW - 7200);
    let expired = request("POST", "/", &[("X-Dt-Signature", &old)], event(2));
    ask(receiver.address, &expired).await.must_be(401, "expired");
    receiver.mend_dead_letters();
    ask(receiver.address, push("not JSON")).await.must_be(200, "quarantined");
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    ask(receiver.address, &expired).await.must_be(401, "expired");
    let mut reasons: Vec<_> = receiver.letters().iter().map(|letter| letter.reason.code()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["expired", "rejected", "unreadable"]);
}

#[tokio::test]
async fn what_a_sink_rejects_is_set_aside_and_answered_200() {
    let (sink, _seen) = FakeSink::rejecting();
    let receiver = Setup::new().sink("test", sink).start().await;
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    ask(receiver.address, push(event(1))).await.must_be(200, "duplicate");
    let letters = receiver.letters();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(
        (&letter.reason, &*letter.body),
        (&Reason::Rejected { sink: "test".into() }, event(1).as_bytes())
    );
    assert_eq!((&*letter.connector, letter.event_id.as_deref()), ("main", Some(&*event_id(1))));
    assert_eq!(letter.error, SINK_ERROR, "the operator sees what the sender does not");
    assert_eq!(letter.attempts, 1);
}

#[tokio::test]
async fn letters_of_other_connectors_and_sinks_are_not_mistaken_for_copies() {
    let (one, _seen) = FakeSink::rejecting();
    let (other, _seen) = FakeSink::rejecting();
    let receiver = Setup::new()
        .sink("c", one)
        .sink("b-c", other)
        .connector("a-b", "/a-b", |connector| connector.sinks = Some(vec!["c".to_owned()]))
        .connector("a", "/a", |connector| connector.sinks = Some(vec!["b-c".to_owned()]))
        .start()
        .await;
    for path in ["/a-b", "/a"] {
        ask(receiver.address, push_to(path, event(1))).await.must_be(200, "accepted");
    }
    assert_eq!(receiver.letters().len(), 2, "one of them is lost");
}

#[tokio::test]
async fn a_request_that_comes_while_it_stops_is_told_so() {
    let (setup, seen) = Setup::working();
    let mut receiver = setup.start().await;
    let request = push(event(1));
    let (begun, rest) = request.split_at(40);
    let mut client = Client::connect(receiver.address).await;
    client.send(begun).await;
    // What came first was read first: this reply says that the other connection's beginning was seen.
    ask(receiver.address, push(event(2))).await.must_be(200, "accepted");
    receiver.tell_to_stop();
    until_stopping(receiver.admin).await;
    client.send(rest).await;
    let reply = client.reply().await;
    reply.must_be(503, "shutting_down");
    assert!(reply.closes());
    assert!(client.maybe_reply().await.is_none(), "it is closed");
    receiver.stopped().await;
    assert_eq!(seen.ids(), [event_id(2)]);
}
