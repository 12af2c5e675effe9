//! Stopping: what is in flight is finished, what is idle is closed, and nothing can hold it up for ever.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::net::TcpStream;

use crate::client::{Client, ask, push, within};
use crate::fake_sink::FakeSink;
use crate::harness::{Setup, event, event_id, ms};
use crate::metrics::readyz;

/// Waits until it says that it stops. Polling: it says so to whoever asks.
pub(crate) async fn until_stopping(admin: SocketAddr) {
    within(async {
        while readyz(admin).await != (503, "not ready: shutting down\n".to_owned()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_in_flight_is_finished_and_what_is_idle_is_closed() {
    let (sink, seen, mut gate) = FakeSink::gated();
    let mut receiver = Setup::new().sink("test", sink).start().await;
    // Idle in two ways: never used, and between requests.
    let fresh = Client::connect(receiver.address).await;
    let mut used = Client::connect(receiver.address).await;
    used.send(push(event(1))).await;
    gate.entered().await;
    gate.let_go(true);
    used.reply().await.must_be(200, "accepted");
    let mut busy = Client::connect(receiver.address).await;
    busy.send(push(event(2))).await;
    gate.entered().await;
    let started = Instant::now();
    receiver.tell_to_stop();
    assert_eq!(fresh.rest().await, b"");
    assert_eq!(used.rest().await, b"");
    until_stopping(receiver.admin).await;
    assert!(TcpStream::connect(receiver.address).await.is_err(), "it listens no more");
    assert!(!seen.is_closed(), "the sink is still needed");
    gate.let_go(true);
    let reply = busy.reply().await;
    reply.must_be(200, "accepted");
    assert!(reply.closes(), "no more requests are wanted");
    assert!(busy.maybe_reply().await.is_none(), "it is closed");
    let admin = receiver.admin;
    receiver.stopped().await;
    assert!(started.elapsed() < ms(5000), "it waited for nothing: {:?}", started.elapsed());
    assert!(seen.is_closed());
    assert_eq!(seen.ids(), [event_id(1), event_id(2)]);
    assert!(TcpStream::connect(admin).await.is_err(), "the admin listener is gone too");
}

#[tokio::test]
async fn a_body_that_is_on_its_way_is_waited_for() {
    let (setup, seen) = Setup::working();
    let mut receiver = setup.start().await;
    let request = push(event(1));
    let (most, rest) = request.split_at(request.len() - 5);
    let mut client = Client::connect(receiver.address).await;
    client.send(most).await;
    // What came first was read first.
    ask(receiver.address, push(event(2))).await.must_be(200, "accepted");
    receiver.tell_to_stop();
    until_stopping(receiver.admin).await;
    client.send(rest).await;
    client.reply().await.must_be(200, "accepted");
    receiver.stopped().await;
    assert_eq!(seen.ids(), [event_id(2), event_id(1)]);
}

#[tokio::test]
async fn an_idle_service_stops_at_once() {
    let (setup, seen) = Setup::working();
    let mut receiver = setup.start().await;
    // Operators' connections do not count.
    let _admin = Client::connect(receiver.admin).await;
    let started = Instant::now();
    receiver.tell_to_stop();
    receiver.stopped().await;
    assert!(started.elapsed() < ms(5000), "{:?}", started.elapsed());
    assert!(seen.is_closed());
}

#[tokio::test]
async fn every_sink_is_closed_once_even_if_one_fails() {
    let (good, good_seen) = FakeSink::working();
    let (bad, bad_seen) = FakeSink::failing();
    let mut receiver = Setup::new().sink("good", good).sink("bad", bad).start().await;
    ask(receiver.address, push(event(1))).await.must_be(503, "sink_unavailable");
    receiver.tell_to_stop();
    receiver.stopped().await;
    assert!(good_seen.is_closed() && bad_seen.is_closed());
}

/// A test of its own runtime: dropping it must not wait for the sink either.
#[test]
fn a_sink_that_hangs_does_not_hold_up_the_stop() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let started = Instant::now();
    let (sink, _seen, mut gate) = FakeSink::gated();
    runtime.block_on(async {
        let drain = |config: &mut dt_receiver::config::Config| config.drain_timeout = ms(200);
        let mut receiver = Setup::new().sink("test", sink).config(drain).start().await;
        let mut client = Client::connect(receiver.address).await;
        client.send(push(event(1))).await;
        gate.entered().await;
        receiver.tell_to_stop();
        receiver.stopped().await;
        assert!(started.elapsed() >= ms(200), "it did not wait at all");
        // Nothing was acknowledged.
        assert!(client.maybe_reply().await.is_none());
    });
    let (dropped, waiting) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(runtime);
        let _gone = dropped.send(());
    });
    waiting.recv_timeout(ms(10_000)).expect("the runtime waits for the sink that hangs");
    drop(gate);
}

#[tokio::test]
async fn a_slow_head_does_not_hold_up_the_stop() {
    let (setup, _seen) = Setup::working();
    let mut receiver = setup.limits(|limits| limits.header_timeout = ms(200)).start().await;
    let mut client = Client::connect(receiver.address).await;
    client.send("POST / HTTP/1.1\r\nHost: localhost\r\n").await;
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    let started = Instant::now();
    receiver.tell_to_stop();
    receiver.stopped().await;
    assert!(started.elapsed() < ms(5000), "{:?}", started.elapsed());
    assert_eq!(client.rest().await, b"");
}

#[tokio::test]
async fn http_2_is_finished_and_closed_like_http_1() {
    let (sink, seen, mut gate) = FakeSink::gated();
    let mut receiver = Setup::new().sink("test", sink).start().await;
    let stream = TcpStream::connect(receiver.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    let connection = tokio::spawn(connection);
    let body = event(1);
    let request = http::Request::post("http://receiver.test/")
        .header("X-Dt-Signature", crate::client::token(&body))
        .body(http_body_util::Full::<bytes::Bytes>::from(body))
        .unwrap();
    let response = tokio::spawn(sender.send_request(request));
    gate.entered().await;
    receiver.tell_to_stop();
    until_stopping(receiver.admin).await;
    gate.let_go(true);
    assert_eq!(within(response).await.unwrap().unwrap().status(), 200);
    let started = Instant::now();
    let _ended = within(connection).await;
    receiver.stopped().await;
    assert!(started.elapsed() < ms(5000), "{:?}", started.elapsed());
    assert_eq!(seen.ids(), [event_id(1)]);
}

/// An embedder may lose interest in the future; the service ends all the same.
#[tokio::test]
async fn a_service_whose_future_is_dropped_stops() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    ask(receiver.address, push(event(1))).await.must_be(200, "accepted");
    let address = receiver.address;
    receiver.abandon();
    within(async {
        while TcpStream::connect(address).await.is_ok() || !seen.is_closed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
