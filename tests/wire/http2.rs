//! The same over HTTP/2: how it is recognised, and what odd clients do to it.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{token, within};
use crate::fake_sink::FakeSink;
use crate::harness::{Setup, event, event_id, event_of_len, ms};

/// The status line, the parsed body and nothing else of an HTTP/2 reply.
async fn push_http2(
    sender: &mut hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    path: &str,
    body: String,
) -> (u16, serde_json::Value) {
    let request = http::Request::post(format!("http://receiver.test{path}"))
        .header("X-Dt-Signature", token(&body))
        .body(Full::from(body))
        .expect("a request");
    let response = within(sender.send_request(request)).await.expect("a response");
    let status = response.status().as_u16();
    let body = within(response.into_body().collect()).await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test]
async fn http_2_is_spoken_from_the_first_byte() {
    let (setup, seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.header_timeout = ms(100)).start().await;
    let stream = TcpStream::connect(receiver.address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..100 {
        let mut sender = sender.clone();
        tasks.spawn(async move { push_http2(&mut sender, "/", event(n / 2)).await });
    }
    let mut codes: Vec<String> = Vec::new();
    for (status, json) in tasks.join_all().await {
        assert_eq!(status, 200);
        codes.push(json["status"].as_str().unwrap().to_owned());
    }
    codes.sort_unstable();
    assert_eq!(codes[..50], vec!["accepted"; 50]);
    assert_eq!(codes[50..], vec!["duplicate"; 50]);
    assert_eq!(seen.ids().len(), 50);
    // It may rest for longer than a head of HTTP/1 may take.
    tokio::time::sleep(ms(300)).await;
    let mut sender = sender;
    let large = event_of_len(200, 64 * 1024 + 1);
    for (path, body, status, code) in [
        ("/nothing", event(200), 404, "not_found"),
        ("/", large, 413, "body_too_large"),
        ("/", "not JSON".to_owned(), 200, "quarantined"),
        ("/", event_of_len(201, 64 * 1024), 200, "accepted"),
    ] {
        let (found, json) = push_http2(&mut sender, path, body).await;
        let found_code = json[if found == 200 { "status" } else { "code" }].clone();
        assert_eq!((found, found_code), (status, code.into()));
    }
    drop(sender);
    let _ended = within(connection).await;
}

/// The client's preface may come in pieces: what tells HTTP/2 from HTTP/1 is not where the packets end.
#[tokio::test]
async fn http_2_is_known_by_its_preface_however_that_comes() {
    let (setup, _seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.header_timeout = ms(500)).start().await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let stream = TcpStream::connect(receiver.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    // A pipe that passes the first bytes on one by one.
    let pipe = tokio::spawn(async move {
        let (mut from_client, mut to_client) = tokio::io::split(far);
        let (mut from_server, mut to_server) = stream.into_split();
        let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        for _byte in 0..2 {
            let byte = from_client.read_u8().await.unwrap();
            to_server.write_u8(byte).await.unwrap();
            // Time for it to be read alone; if it is not, this test shows less, and still passes.
            tokio::time::sleep(ms(10)).await;
        }
        let _ended = tokio::io::copy(&mut from_client, &mut to_server).await;
        back.abort();
    });
    // Its pings are bytes between requests, but not the beginning of a head.
    let (mut sender, connection) = within(
        hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(ms(20))
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(near)),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    assert_eq!(push_http2(&mut sender, "/", event(1)).await.0, 200);
    // What a head of HTTP/1 may take, twice.
    tokio::time::sleep(ms(1000)).await;
    assert_eq!(push_http2(&mut sender, "/", event(2)).await.0, 200, "it was taken for HTTP/1");
    drop(sender);
    pipe.abort();
}

#[tokio::test]
async fn an_idle_http_2_connection_is_closed_after_its_time() {
    let (setup, _seen) = Setup::working();
    let receiver = setup.limits(|limits| limits.keep_alive_idle = ms(700)).start().await;
    let stream = TcpStream::connect(receiver.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    assert_eq!(push_http2(&mut sender, "/", event(1)).await.0, 200);
    let started = Instant::now();
    let _ended = within(connection).await;
    // It is idle since the answer was made, which is a little before it is here.
    assert!(started.elapsed() >= ms(350), "closed after {:?}", started.elapsed());
}

#[tokio::test]
async fn an_http_2_stream_that_is_cancelled_has_its_event_delivered_once() {
    let (sink, mut seen, mut gate) = FakeSink::gated();
    let receiver = Setup::new().sink("test", sink).start().await;
    let stream = TcpStream::connect(receiver.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut other = sender.clone();
    let cancelled = tokio::spawn(async move { push_http2(&mut other, "/", event(1)).await });
    gate.entered().await;
    cancelled.abort();
    let _cancelled = cancelled.await;
    gate.let_go(true);
    seen.wait_for(1).await;
    let (status, json) = push_http2(&mut sender, "/", event(1)).await;
    assert_eq!((status, json["status"].clone()), (200, "duplicate".into()));
    assert_eq!(seen.ids(), [event_id(1)]);
}

#[tokio::test]
async fn a_head_of_http_2_that_is_too_large_is_refused_alone() {
    let (setup, seen) = Setup::working();
    let receiver = setup.start().await;
    let stream = TcpStream::connect(receiver.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let body = event(1);
    let large = http::Request::post("http://receiver.test/")
        .header("X-Dt-Signature", token(&body))
        .header("X-Long", "x".repeat(17 * 1024))
        .body(Full::from(body))
        .unwrap();
    let refused = within(sender.send_request(large)).await;
    assert!(refused.is_err() || refused.is_ok_and(|response| response.status() == 431));
    assert_eq!(push_http2(&mut sender, "/", event(2)).await.0, 200);
    assert_eq!(seen.ids(), [event_id(2)]);
}
