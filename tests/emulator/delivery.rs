//! Receivers that refuse, hang, leave or speak something else: failed attempts, with their reason.

use dt_receiver::emulator::Emulator;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::target::{connect, device, publish};
use crate::wait::until;

/// What the first attempt at an event for this URL is said to have ended with.
async fn reason_for(url: &str) -> String {
    let emulator = Emulator::builder().start().await.expect("it starts");
    let connector = connect(&emulator, url, &json!({}));
    let device = device(&emulator, "touch", &json!({}));
    publish(&emulator, &device, &json!({"touch": {}}));
    let how = until(|| {
        emulator.ledger().first().filter(|entry| entry.attempts > 0).map(|entry| entry.last.clone())
    })
    .await;
    let metrics = emulator.call("GET", &format!("{connector}:metrics"), &json!(null)).expect("metrics");
    assert!(metrics["metrics"]["errors"][&*how].as_u64() >= Some(1), "{how}: {metrics}");
    how.into()
}

/// A server that does this to every connection.
async fn server(bytes: &'static [u8], stay: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            // The other side may have gone.
            let _written = stream.write_all(bytes).await;
            if stay {
                kept.push(stream);
            }
        }
    });
    url
}

#[tokio::test]
async fn nobody_listens() {
    // A port that was free a moment ago; it is not given to others so soon.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    drop(listener);
    assert_eq!(reason_for(&url).await, "connection_refused");
}

#[tokio::test]
async fn the_receiver_answers_garbage() {
    assert_eq!(reason_for(&server(b"SSH-2.0-OpenSSH_9\r\n\r\n", true).await).await, "not_http");
}

#[tokio::test]
async fn the_receiver_leaves() {
    assert_eq!(reason_for(&server(b"", false).await).await, "connection_lost");
}

#[tokio::test]
async fn a_receiver_without_tls_is_no_https() {
    let url = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false).await;
    let reason = "tls_failed";
    assert_eq!(reason_for(&url.replace("http:", "https:")).await, reason);
}

/// The runtime's clock stands still while anything happens, and jumps when nothing does: ten seconds cost nothing.
#[tokio::test(start_paused = true)]
async fn the_receiver_hangs() {
    assert_eq!(reason_for(&server(b"", true).await).await, "timeout");
}

/// DT looks at the status; a body that never ends is the receiver's affair.
#[tokio::test]
async fn an_answer_counts_when_its_head_is_there() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let emulator = Emulator::builder().start().await.expect("it starts");
    connect(&emulator, &url, &json!({}));
    let device = device(&emulator, "touch", &json!({}));
    publish(&emulator, &device, &json!({"touch": {}}));
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut some = [0; 16 << 10];
    assert!(stream.read(&mut some).await.expect("a request") > 0);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await.expect("sent");
    let began = std::time::Instant::now();
    until(|| (emulator.queued() == 0).then_some(())).await;
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    assert_eq!(&*emulator.ledger()[0].last, "status_200");
}
