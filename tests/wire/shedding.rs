//! When there is more than can be served: who has shown a signature that holds stays, and whoever has not makes room.

use std::time::Instant;

use crate::client::{Client, ask, chunked, head, push, request, token, token_at, within};
use crate::fake_sink::FakeSink;
use crate::harness::{NOW, Setup, event, event_id, ms};
use crate::metrics::Metrics;

#[tokio::test]
async fn a_stranger_makes_room_and_a_known_sender_stays() {
    let (setup, seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.max_connections = 2).start().await;
    let mut known = Client::connect(receiver.address).await;
    known.ask(push(event(0))).await.must_be(200, "accepted");
    let mut stranger = Client::connect(receiver.address).await;
    stranger.ask(request("POST", "/", &[], "x")).await.must_be(401, "signature_missing");
    for n in 1..10 {
        // Each finds the place that the one before it had.
        let mut idle = Client::connect(receiver.address).await;
        idle.send("P").await;
        ask(receiver.address, push(event(n))).await.must_be(200, "accepted");
        assert_eq!(idle.rest().await, b"", "closed without an answer");
        known.ask(push(event(n))).await.must_be(200, "duplicate");
    }
    assert!(stranger.maybe_reply().await.is_none());
    assert_eq!(seen.ids().len(), 10);
    let metrics = Metrics::scrape(receiver.admin).await;
    assert!(metrics.value("dt_receiver_connections_evicted_total", &[]) >= 10.0);
    assert_eq!(metrics.value("dt_receiver_connections_refused_total", &[("reason", "too_many")]), 0.0);
}

#[tokio::test]
async fn an_old_token_makes_nobody_known_and_takes_no_place_of_good_ones() {
    let (setup, _seen) = Setup::working();
    let receiver = setup
        .limits(|limits| (limits.max_connections, limits.max_in_flight, limits.deadline) = (3, 1, ms(8000)))
        .start()
        .await;
    let old = token_at(event(0), NOW - 7200);
    // Its body never comes. It waits in the place of a stranger.
    let mut holder = Client::connect(receiver.address).await;
    holder.send(head("POST", "/", &[("X-Dt-Signature", &old)], "Content-Length: 10")).await;
    let mut replayer = Client::connect(receiver.address).await;
    let late = request("POST", "/", &[("X-Dt-Signature", &old)], event(0));
    replayer.ask(&late).await.must_be(503, "unverified");
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    // Newcomers push both out.
    let mut newcomers = Vec::new();
    for n in 2..5 {
        let mut newcomer = Client::connect(receiver.address).await;
        newcomer.ask(push(event(n))).await.must_be(200, "accepted");
        newcomers.push(newcomer);
    }
    assert!(replayer.maybe_reply().await.is_none());
    assert!(holder.maybe_reply().await.is_none());
}

/// A body that never comes.
struct Never;

impl http_body::Body for Never {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Pending
    }
}

/// Requests of HTTP/2 are tasks of their own, and end with their connection all the same.
#[tokio::test]
async fn a_connection_of_http_2_that_makes_room_takes_its_requests_along() {
    let (setup, _seen) = Setup::working();
    let limits = |limits: &mut dt_receiver::config::Limits| {
        (limits.max_connections, limits.max_in_flight, limits.deadline) = (2, 1, ms(8000));
    };
    let receiver = setup.limits(limits).start().await;
    let old = token_at(event(0), NOW - 7200);
    let replay = || request("POST", "/", &[("X-Dt-Signature", &old)], event(0));
    let stream = tokio::net::TcpStream::connect(receiver.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    let connection = tokio::spawn(connection);
    let waiting = http::Request::post("http://receiver.test/").header("X-Dt-Signature", &old);
    let waiting = tokio::spawn(sender.send_request(waiting.body(Never).unwrap()));
    // Its permit is the only one for old tokens.
    let mut other = Client::connect(receiver.address).await;
    within(async { while other.ask(replay()).await.status != 503 {} }).await;
    let started = Instant::now();
    // Newcomers push out both, the connection of HTTP/2 first.
    within(async { while ask(receiver.address, replay()).await.status != 401 {} }).await;
    assert!(started.elapsed() < ms(5000), "the request waited for its deadline");
    let _ended = within(connection).await;
    assert!(within(waiting).await.unwrap().is_err());
}

/// A token that somebody got hold of opens no connection that others cannot have closed: its body is not the signed one.
#[tokio::test]
async fn a_connection_is_known_once_a_body_has_verified() {
    let (setup, _seen) = Setup::working();
    let receiver =
        setup.limits(|limits| (limits.max_connections, limits.deadline) = (2, ms(8000))).start().await;
    let good = token(event(1));
    let mut forger = Client::connect(receiver.address).await;
    forger
        .ask(request("POST", "/", &[("X-Dt-Signature", &good)], event(2)))
        .await
        .must_be(401, "checksum_mismatch");
    let mut waiting = Client::connect(receiver.address).await;
    waiting.send(head("POST", "/", &[("X-Dt-Signature", &good)], "Content-Length: 10")).await;
    let mut known = Vec::new();
    for n in 3..5 {
        let mut client = Client::connect(receiver.address).await;
        client.ask(push(event(n))).await.must_be(200, "accepted");
        known.push(client);
    }
    assert!(forger.maybe_reply().await.is_none());
    assert!(waiting.maybe_reply().await.is_none());
    ask(receiver.address, push(event(5))).await.must_be(503, "overloaded");
    known[0].ask(push(event(6))).await.must_be(200, "accepted");
}

#[tokio::test]
async fn one_peer_has_so_many_connections_that_have_shown_nothing() {
    let (setup, _seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.max_connections_per_peer = 2).start().await;
    // Any number that have.
    let mut known = Vec::new();
    for n in 0..5 {
        let mut client = Client::connect(receiver.address).await;
        client.ask(push(event(n))).await.must_be(200, "accepted");
        known.push(client);
    }
    let first = Client::connect(receiver.address).await;
    let mut later = vec![Client::connect(receiver.address).await, Client::connect(receiver.address).await];
    assert_eq!(first.rest().await, b"", "the oldest went");
    for client in known.iter_mut().chain(&mut later) {
        client.ask(push(event(1))).await.must_be(200, "duplicate");
    }
}

#[tokio::test]
async fn beyond_the_budget_a_refused_body_is_not_waited_for_and_good_requests_pass() {
    let (setup, seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.max_refused_per_peer = 2).start().await;
    let mut client = Client::connect(receiver.address).await;
    for _within_budget in 0..2 {
        client.ask(request("POST", "/", &[], "x")).await.must_be(401, "signature_missing");
    }
    // One whose body is there leaves the connection as it is.
    for n in 0..20 {
        let reply = client.ask(request("POST", "/", &[], "x")).await;
        reply.must_be(401, "signature_missing");
        assert!(!reply.closes());
        client.ask(push(event(n))).await.must_be(200, "accepted");
    }
    let started = Instant::now();
    let reply = client.ask(head("POST", "/", &[], "Content-Length: 10")).await;
    reply.must_be(401, "signature_missing");
    assert!(reply.closes(), "the rest of the body would be taken for a request");
    assert!(started.elapsed() < ms(5000), "it waited for the body");
    ask(receiver.address, push(event(100))).await.must_be(200, "accepted");
    assert_eq!(seen.ids().len(), 21);
}

#[tokio::test]
async fn strangers_with_slow_bodies_take_no_place_of_good_requests() {
    let (setup, seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.max_in_flight = 2).start().await;
    let mut strangers = Vec::new();
    for n in 0..40 {
        let mut client = Client::connect(receiver.address).await;
        // Some are refused for their signature, some for their length, some for their path.
        let request = match n % 4 {
            0 => head("POST", "/", &[], "Content-Length: 10"),
            1 => head("POST", "/", &[], "Content-Length: 100000000"),
            2 => head("POST", "/nowhere", &[], "Content-Length: 10"),
            _ => chunked("/", &[], [&b"x"[..]]).into_iter().take(60).collect(),
        };
        client.send(request).await;
        strangers.push(client);
        ask(receiver.address, push(event(n))).await.must_be(200, "accepted");
    }
    assert_eq!(seen.ids().len(), 40);
}

#[tokio::test]
async fn bodies_with_old_tokens_take_no_bytes_of_good_ones() {
    let (setup, _seen) = Setup::working();
    let limits = |limits: &mut dt_receiver::config::Limits| {
        (limits.max_body, limits.max_in_flight_bytes, limits.deadline) = (65536, 65536, ms(8000));
    };
    let receiver = setup.limits(limits).start().await;
    let old = token_at(event(0), NOW - 7200);
    let (mut first, mut second) =
        (Client::connect(receiver.address).await, Client::connect(receiver.address).await);
    for client in [&mut first, &mut second] {
        client.send(head("POST", "/", &[("X-Dt-Signature", &old)], "Content-Length: 65536")).await;
    }
    // Bodies that do not come: one is waited for, and there is no room for the other.
    let refused = tokio::select! {
        reply = first.reply() => reply,
        reply = second.reply() => reply,
    };
    refused.must_be(503, "unverified");
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
}

#[tokio::test]
async fn only_addresses_that_are_allowed_may_connect() {
    let (setup, _seen) = Setup::working();
    let networks = |text: &str| text.split(' ').map(|text| text.parse().unwrap()).collect();
    let receiver = setup.limits(|limits| limits.allow_cidrs = networks("192.0.2.0/24")).start().await;
    let client = Client::connect(receiver.address).await;
    assert_eq!(client.rest().await, b"", "closed without an answer");
    let metrics = Metrics::scrape(receiver.admin).await;
    assert_eq!(metrics.value("dt_receiver_connections_refused_total", &[("reason", "not_allowed")]), 1.0);
    let (setup, _seen) = Setup::working();
    let limits = |limits: &mut dt_receiver::config::Limits| {
        limits.allow_cidrs = networks("2001:db8::/32 127.0.0.0/8");
    };
    let receiver = setup.limits(limits).start().await;
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
}

#[tokio::test]
async fn each_answer_has_an_id_that_is_also_in_what_is_stored() {
    let (sink, seen) = FakeSink::working();
    let receiver = Setup::new().sink("test", sink).start().await;
    let mut ids = Vec::new();
    for (request, status, code) in [
        (push(event(1)), 200, "accepted"),
        (push(event(1)), 200, "duplicate"),
        (push("no JSON"), 200, "quarantined"),
        (request("POST", "/", &[("X-Request-Id", "theirs")], "x"), 401, "signature_missing"),
        (request("POST", "/nowhere", &[], "x"), 404, "not_found"),
        (request("GET", "/", &[], ""), 405, "method_not_allowed"),
        (head("POST", "/", &[], "Content-Length: 100000000"), 413, "body_too_large"),
    ] {
        let reply = ask(receiver.address, request).await;
        reply.must_be(status, code);
        ids.push(reply.header("x-request-id").expect("an id").to_owned());
    }
    assert!(ids.is_sorted() && ids.iter().all(|id| id.len() == 20), "{ids:?}");
    let stored = seen.records().into_iter().map(|record| record.request_id.expect("an id").to_string());
    assert_eq!(stored.collect::<Vec<_>>(), ids[..1], "of {}", event_id(1));
    let letters = receiver.letters().into_iter().map(|letter| letter.request_id.expect("an id").to_string());
    assert_eq!(letters.collect::<Vec<_>>(), ids[2..3]);
}
