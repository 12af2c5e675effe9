//! What odd, slow, rude and plainly broken clients do to a connection, and what comes of it.

use std::time::Instant;

use crate::client::{Client, ask, chunked, head, push, push_to, request, token, within};
use crate::fake_sink::FakeSink;
use crate::harness::{Setup, event, event_id, event_of_len, ms};

#[tokio::test]
async fn bodies_in_chunks_of_any_size_are_read() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let body = event(1);
    let signature = token(&body);
    let signed = [("X-Dt-Signature", &*signature)];
    let mut client = Client::connect(receiver.address).await;
    for size in [1, 7, 100, body.len()] {
        let request = chunked("/", &signed, body.as_bytes().chunks(size));
        let code = if size == 1 { "accepted" } else { "duplicate" };
        client.ask(request).await.must_be(200, code);
    }
    // Chunk extensions and trailers mean nothing, and belong to the body all the same.
    let mut odd = head("POST", "/", &signed, "Transfer-Encoding: chunked");
    odd.extend_from_slice(
        format!("{:X};name=\"value\"\r\n{body}\r\n0\r\nX-Trailer: t\r\n\r\n", body.len()).as_bytes(),
    );
    client.ask(odd).await.must_be(200, "duplicate");
    client.ask(push(event(2))).await.must_be(200, "accepted");
    assert_eq!(seen.records()[0].body, body);
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_is_read() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let mut client = Client::connect(receiver.address).await;
    for byte in push(event(1)) {
        client.send([byte]).await;
        tokio::task::yield_now().await;
    }
    client.reply().await.must_be(200, "accepted");
    assert_eq!(seen.ids(), [event_id(1)]);
}

#[tokio::test]
async fn a_content_length_that_is_too_small_ends_the_body_there() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let body = event(1);
    let mut request = head(
        "POST",
        "/",
        &[("X-Dt-Signature", &token(&body))],
        &format!("Content-Length: {}", body.len() - 1),
    );
    request.extend_from_slice(body.as_bytes());
    let mut client = Client::connect(receiver.address).await;
    client.ask(request).await.must_be(401, "checksum_mismatch");
    // What was too much is no request; the connection ends.
    let rest = String::from_utf8(client.rest().await).unwrap();
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 400 "), "{rest}");
    assert!(seen.ids().is_empty());
}

#[tokio::test]
async fn a_content_length_that_is_too_large_is_waited_for_or_unreadable() {
    let (setup, seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.deadline = ms(150)).start().await;
    let body = event(1);
    let length = format!("Content-Length: {}", body.len() + 1);
    let mut request = head("POST", "/", &[("X-Dt-Signature", &token(&body))], &length);
    request.extend_from_slice(body.as_bytes());
    ask(receiver.address, &request).await.must_be(408, "body_timeout");
    let mut client = Client::connect(receiver.address).await;
    client.send(&request).await;
    client.half_close().await;
    let reply = client.reply().await;
    reply.must_be(400, "body_unreadable");
    assert!(reply.closes());
    assert!(seen.ids().is_empty() && receiver.letters().is_empty());
}

#[tokio::test]
async fn a_head_that_does_not_come_is_closed_without_an_answer() {
    let (setup, _seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.header_timeout = ms(150)).start().await;
    for begun in ["P", "PRI", "POST / HT", "POST / HTTP/1.1\r\nHost: localhost\r\n"] {
        let mut client = Client::connect(receiver.address).await;
        let started = Instant::now();
        client.send(begun).await;
        assert_eq!(client.rest().await, b"", "{begun}");
        assert!(started.elapsed() >= ms(150), "{begun}: closed after {:?}", started.elapsed());
    }
}

/// A byte now and then does not buy time.
#[tokio::test]
async fn a_head_that_trickles_in_is_closed_all_the_same() {
    let (setup, _seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.header_timeout = ms(200)).start().await;
    let mut fresh = Client::connect(receiver.address).await;
    let mut used = Client::connect(receiver.address).await;
    used.ask(push(event(1))).await.must_be(200, "accepted");
    let started = Instant::now();
    fresh.send("POST / HTTP/1.1\r\n").await;
    used.send("POST / HTTP/1.1\r\n").await;
    let (mut fresh_ended, mut used_ended) = (false, false);
    while !(fresh_ended && used_ended) {
        assert!(started.elapsed() < ms(10_000), "it goes on for ever");
        // The pace of the client, not a wait for the server.
        tokio::time::sleep(ms(20)).await;
        fresh_ended = fresh_ended || !fresh.try_send("X").await;
        used_ended = used_ended || !used.try_send("X").await;
    }
    assert!(started.elapsed() >= ms(200));
    assert_eq!(fresh.rest().await, b"");
    assert_eq!(used.rest().await, b"");
}

#[tokio::test]
async fn a_connection_may_rest_between_requests_whatever_was_answered() {
    let (setup, _seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.header_timeout = ms(50)).start().await;
    let mut client = Client::connect(receiver.address).await;
    let requests = [
        (push(event(1)), 200),
        (push_to("/nothing", event(1)), 404),
        (request("GET", "/", &[], "a body"), 405),
        (request("POST", "/", &[], event(1)), 401),
        (push("not JSON"), 200),
        (chunked("/", &[], [&b"body"[..]]), 401),
        ([push(event(2)), push(event(3))].concat(), 200),
    ];
    for (request, status) in requests {
        assert_eq!(client.ask(request).await.status, status);
        // This is what is tested: three times what a head may take.
        tokio::time::sleep(ms(150)).await;
    }
    assert_eq!(client.reply().await.status, 200);
    client.ask(push(event(4))).await.must_be(200, "accepted");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let (setup, _seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.keep_alive_idle = ms(1000)).start().await;
    let started = Instant::now();
    let fresh = Client::connect(receiver.address).await;
    let mut used = Client::connect(receiver.address).await;
    used.ask(push(event(1))).await.must_be(200, "accepted");
    assert_eq!(fresh.rest().await, b"");
    assert!(started.elapsed() >= ms(1000));
    assert_eq!(used.rest().await, b"");
}

/// A sink that takes longer than the connection may idle: the request is not an idle one.
#[tokio::test]
async fn a_connection_that_waits_for_its_answer_is_not_idle() {
    let (sink, _seen, mut gate) = FakeSink::gated();
    let setup = Setup::new().sink("test", sink);
    let limits = |limits: &mut dt_receiver::config::Limits| {
        (limits.keep_alive_idle, limits.header_timeout) = (ms(300), ms(300));
    };
    let receiver = setup.limits(limits).start().await;
    let mut client = Client::connect(receiver.address).await;
    client.send(push(event(1))).await;
    gate.entered().await;
    tokio::time::sleep(ms(900)).await;
    gate.let_go(true);
    client.reply().await.must_be(200, "accepted");
}

#[tokio::test]
async fn a_client_that_has_said_all_still_gets_its_answer() {
    let (sink, seen, mut gate) = FakeSink::gated();
    let receiver = Setup::new().sink("test", sink).start().await;
    let mut client = Client::connect(receiver.address).await;
    client.send(push(event(1))).await;
    client.half_close().await;
    gate.entered().await;
    gate.let_go(true);
    client.reply().await.must_be(200, "accepted");
    assert!(client.maybe_reply().await.is_none(), "it is closed");
    assert_eq!(seen.ids(), [event_id(1)]);
}

#[tokio::test]
async fn requests_in_one_go_are_answered_in_order() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let mut client = Client::connect(receiver.address).await;
    let requests: Vec<u8> = (0..50).flat_map(|n| push(event(n))).collect();
    client.send(requests).await;
    for n in 0..50 {
        let reply = client.reply().await;
        reply.must_be(200, "accepted");
        assert_eq!(reply.json()["eventId"], event_id(n));
    }
    assert_eq!(seen.ids(), (0..50).map(event_id).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_refused_request_does_not_spoil_those_behind_it() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let mut client = Client::connect(receiver.address).await;
    let unsigned = request("POST", "/", &[], event(2));
    let requests = [
        push(event(1)),
        unsigned,
        push_to("/nothing", event(3)),
        request("PUT", "/", &[], "x"),
        push(event(4)),
    ];
    client.send(requests.concat()).await;
    for (status, code) in [
        (200, "accepted"),
        (401, "signature_missing"),
        (404, "not_found"),
        (405, "method_not_allowed"),
        (200, "accepted"),
    ] {
        client.reply().await.must_be(status, code);
    }
    assert_eq!(seen.ids(), [event_id(1), event_id(4)]);
}

#[tokio::test]
async fn a_client_that_goes_away_has_its_event_delivered_once() {
    let (sink, mut seen, mut gate) = FakeSink::gated();
    let receiver = Setup::new().sink("test", sink).start().await;
    let mut client = Client::connect(receiver.address).await;
    client.send(push(event(1))).await;
    gate.entered().await;
    client.reset();
    gate.let_go(true);
    seen.wait_for(1).await;
    ask(receiver.address, push(event(1))).await.must_be(200, "duplicate");
    assert_eq!(seen.ids(), [event_id(1)]);
}

#[tokio::test]
async fn a_client_that_goes_away_within_its_body_leaves_nothing() {
    let (setup, seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.max_in_flight = 1).start().await;
    let request = push(event(1));
    for _attempt in 0..20 {
        let mut client = Client::connect(receiver.address).await;
        client.send(&request[..request.len() - 1]).await;
        client.reset();
    }
    // Their places are free again, sooner or later: a reset takes its way.
    let reply = loop {
        let reply = ask(receiver.address, &request).await;
        if reply.status != 503 {
            break reply;
        }
        reply.must_be(503, "overloaded");
    };
    reply.must_be(200, "accepted");
    assert_eq!(seen.ids(), [event_id(1)]);
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let old = |request: Vec<u8>| {
        let request = String::from_utf8(request).expect("ASCII");
        request.replacen(" HTTP/1.1\r\nHost: localhost\r\n", " HTTP/1.0\r\n", 1)
    };
    let mut client = Client::connect(receiver.address).await;
    client.ask(old(push(event(1)))).await.must_be(200, "accepted");
    assert!(client.maybe_reply().await.is_none(), "it is closed");
    let kept = old(push(event(2))).replacen("\r\n", "\r\nConnection: keep-alive\r\n", 1);
    let mut client = Client::connect(receiver.address).await;
    client.ask(&kept).await.must_be(200, "accepted");
    client.ask(&kept).await.must_be(200, "duplicate");
    assert_eq!(seen.ids().len(), 2);
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on_or_why_not() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let body = event(1);
    let length = format!("Content-Length: {}", body.len());
    let token = token(&body);
    let asking = |headers: &[(&'static str, &str)], path: &str, framing: &str| {
        let mut all = vec![("Expect", "100-continue")];
        all.extend_from_slice(headers);
        head("POST", path, &all, framing)
    };
    let signed = [("X-Dt-Signature", &*token)];
    let mut client = Client::connect(receiver.address).await;
    assert_eq!(client.ask(asking(&signed, "/", &length)).await.status, 100);
    client.ask(&body).await.must_be(200, "accepted");
    // A refusal comes at once, so that the body need not.
    for (headers, path, framing, status, code) in [
        (&signed[..], "/nothing", &*length, 404, "not_found"),
        (&signed[..], "/", "Content-Length: 10000000", 413, "body_too_large"),
        (&[], "/", &*length, 401, "signature_missing"),
    ] {
        let mut client = Client::connect(receiver.address).await;
        client.ask(asking(headers, path, framing)).await.must_be(status, code);
    }
    assert_eq!(seen.ids().len(), 1);
}

#[tokio::test]
async fn garbage_is_refused_or_dropped_and_does_no_harm() {
    let (setup, seen) = Setup::working();
    let limits = |limits: &mut dt_receiver::config::Limits| {
        (limits.header_timeout, limits.keep_alive_idle, limits.deadline) = (ms(500), ms(1000), ms(500));
    };
    let receiver = setup.limits(limits).start().await;
    let tls_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03randomrandomrandomrandom\x20\xff\xfe";
    let body = event(1);
    let signature = format!("X-Dt-Signature: {}", token(&body));
    let with = |framing: &str, rest: &str| {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{signature}\r\n{framing}\r\n\r\n{rest}").into_bytes()
    };
    let half_chunk = format!("{:x}\r\n{body}", body.len());
    let garbage: Vec<Vec<u8>> = vec![
        tls_hello.to_vec(),
        vec![0; 5000],
        vec![0xff; 50_000],
        b"\r\n\r\n\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\n: nameless\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nBad Name: v\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nName: a\0b\r\n\r\n".to_vec(),
        b"POST  /  HTTP/1.1\r\n\r\n".to_vec(),
        b"POST /\xff\xfe HTTP/1.1\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage instead of frames".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(),
        with("Content-Length: -1", &body),
        with("Content-Length: 99999999999999999999", &body),
        with("Content-Length: 1\r\nContent-Length: 2", &body),
        with("Content-Length: 0x10", &body),
        with("Transfer-Encoding: gzip", &body),
        with("Transfer-Encoding: chunked, gzip", &body),
        with("Transfer-Encoding: chunked", "zz\r\n"),
        with("Transfer-Encoding: chunked", "ffffffffffffffffff\r\n"),
        with("Transfer-Encoding: chunked", &half_chunk),
        with("Transfer-Encoding: chunked", &format!("{half_chunk}no line end")),
    ];
    let mut clients = tokio::task::JoinSet::new();
    let address = receiver.address;
    for bytes in garbage {
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            client.try_send(&bytes).await;
            let answer = client.rest().await;
            (bytes, answer)
        });
    }
    for (bytes, answer) in clients.join_all().await {
        let status = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let shown = String::from_utf8_lossy(&bytes).escape_debug().take(60).collect::<String>();
        // HTTP/2 garbage is answered in frames.
        let is_frames = bytes.starts_with(b"PRI") && status.is_none();
        assert!(
            answer.is_empty() || is_frames || matches!(status, Some(b"400" | b"408")),
            "{shown}: {}",
            String::from_utf8_lossy(&answer)
        );
        ask(receiver.address, push("{}")).await.must_be(200, "quarantined");
    }
    assert!(seen.ids().is_empty());
}

/// Two ways to frame one request: whoever believes the other one sees a second request in the body.
#[tokio::test]
async fn a_request_cannot_be_smuggled_in_a_body() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let body = event(1);
    let smuggled = push(event(2));
    let mut request = head(
        "POST",
        "/",
        &[("X-Dt-Signature", &token(&body)), ("Content-Length", "5")],
        "Transfer-Encoding: chunked",
    );
    let framed = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    request.extend_from_slice(framed.as_bytes());
    let mut client = Client::connect(receiver.address).await;
    let reply = client.ask(request).await;
    // RFC 9112, section 6.3: Transfer-Encoding counts, or it is refused.
    assert!(reply.status == 400 || reply.is(200, "accepted"), "{reply:?}");
    // The body as such may look like a request; it is a body.
    let inner = String::from_utf8(smuggled).unwrap();
    ask(receiver.address, crate::client::request("POST", "/", &[], &inner))
        .await
        .must_be(401, "signature_missing");
    assert!(!seen.ids().contains(&event_id(2)));
}

#[tokio::test]
async fn the_target_may_be_a_whole_url() {
    let (setup, seen) = Setup::working();
    let receiver = setup.connector("dt", "/dt", |_| {}).start().await;
    ask(receiver.address, push_to("http://receiver.test/dt", event(1))).await.must_be(200, "accepted");
    ask(receiver.address, push_to("https://elsewhere.test:443/dt?q", event(2)))
        .await
        .must_be(200, "accepted");
    ask(receiver.address, push_to("http://receiver.test", event(3))).await.must_be(200, "accepted");
    ask(receiver.address, request("OPTIONS", "*", &[], "")).await.must_be(404, "not_found");
    ask(receiver.address, request("CONNECT", "receiver.test:80", &[], "")).await.must_be(404, "not_found");
    assert_eq!(seen.ids().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_do_not_hold_up_a_good_sender() {
    let limit = rlimit::increase_nofile_limit(u64::MAX).expect("the limit of open files");
    // Both ends are in this process; other tests have sockets too.
    let count = limit.saturating_sub(1000).min(20_000) / 2;
    assert!(count >= 500, "too few open files are allowed: {limit}");
    let (setup, seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.header_timeout = ms(9000)).start().await;
    let mut idle = Vec::new();
    for n in 0..count {
        let mut client = Client::connect(receiver.address).await;
        if n % 2 == 0 {
            // Half of them have even begun to speak.
            client.send("P").await;
        }
        idle.push(client);
    }
    let mut client = Client::connect(receiver.address).await;
    for n in 0..100 {
        let started = Instant::now();
        client.ask(push(event(n))).await.must_be(200, "accepted");
        ask(receiver.address, push(event(n))).await.must_be(200, "duplicate");
        assert!(started.elapsed() < ms(2000), "event {n} took {:?}", started.elapsed());
    }
    assert_eq!(seen.ids().len(), 100);
    drop(idle);
}

#[tokio::test]
async fn a_body_of_10_mb_gets_an_answer_that_can_be_read() {
    const LARGE: usize = 10_000_000;
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let body = event_of_len(1, LARGE);
    let signature = token(&body);
    let signed = [("X-Dt-Signature", &*signature)];
    let announced = push(&body);
    let in_chunks = chunked("/", &signed, body.as_bytes().chunks(16 * 1024));
    let unsigned = request("POST", "/", &[], &body);
    let unsigned_in_chunks = chunked("/", &[], body.as_bytes().chunks(16 * 1024));
    let to_nowhere = push_to("/nothing", &body);
    for (request, status, code) in [
        (announced, 413, "body_too_large"),
        (in_chunks, 413, "body_too_large"),
        (unsigned, 413, "body_too_large"),
        (unsigned_in_chunks, 413, "body_too_large"),
        (to_nowhere, 404, "not_found"),
    ] {
        // A client that writes all it has before it reads, and does not mind errors until then.
        let mut client = Client::connect(receiver.address).await;
        client.try_send(&request).await;
        client.reply().await.must_be(status, code);
    }
    assert!(seen.ids().is_empty());
}

/// Answers that nobody takes must not be piled up, nor waited for.
#[tokio::test]
async fn a_client_that_never_reads_is_closed() {
    let (setup, _seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.keep_alive_idle = ms(700)).start().await;
    let mut client = Client::connect(receiver.address).await;
    let requests = request("GET", "/", &[], "").repeat(1000);
    within(async { while client.try_send(&requests).await {} }).await;
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
}

#[tokio::test]
async fn under_load_a_stranger_is_refused_before_the_body() {
    let (sink, _seen, mut gate) = FakeSink::gated();
    let receiver = Setup::new().sink("test", sink).limits(|l| l.max_in_flight = 4).start().await;
    let mut busy = Vec::new();
    for n in 0..2 {
        let mut client = Client::connect(receiver.address).await;
        client.send(push(event(n))).await;
        busy.push(client);
    }
    gate.entered().await;
    // The second has a place too, since it came before this.
    let stranger = head("POST", "/", &[], "Content-Length: 10");
    let started = Instant::now();
    ask(receiver.address, stranger).await.must_be(401, "signature_missing");
    assert!(started.elapsed() < ms(5000), "it waited for the body");
    gate.let_go(true);
    gate.let_go(true);
    for client in &mut busy {
        client.reply().await.must_be(200, "accepted");
    }
}

#[tokio::test]
async fn of_connections_beyond_the_limit_only_some_are_told() {
    const TOLD: usize = 64;
    let (setup, _seen) = Setup::working();
    let limits = |limits: &mut dt_receiver::config::Limits| {
        (limits.max_connections, limits.header_timeout) = (1, ms(9000));
    };
    let receiver = setup.limits(limits).start().await;
    let mut first = Client::connect(receiver.address).await;
    first.ask(push(event(1))).await.must_be(200, "accepted");
    let mut told = Vec::new();
    for _connection in 0..TOLD {
        told.push(Client::connect(receiver.address).await);
    }
    let started = Instant::now();
    assert_eq!(Client::connect(receiver.address).await.rest().await, b"");
    assert!(started.elapsed() < ms(5000), "it was kept for {:?}", started.elapsed());
    for client in &mut told {
        client.ask(push(event(2))).await.must_be(503, "overloaded");
    }
    first.ask(push(event(3))).await.must_be(200, "accepted");
}
