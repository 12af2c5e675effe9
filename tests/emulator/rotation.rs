//! The receiver and the emulator's keys: fetched by discovery, rotated, and out of reach.

use std::fs;
use std::io::{Read, Write};

use dt_receiver::emulator::{Emulator, Faults};
use serde_json::json;

use crate::common::{Receiver, SECRET, SECRET_VARIABLE};
use crate::target::{connect, device, publish};
use crate::wait::until_within;

/// Longer than the half minute for which the receiver leaves the issuer alone.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);

/// Sends a token that nobody signed, with a key id that nobody has.
fn ask_as_a_stranger(address: &str) -> String {
    // {"alg":"ES256","typ":"JWT","kid":"stranger"}.{}.
    let token = format!("eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InN0cmFuZ2VyIn0.e30.{}", "A".repeat(86));
    let mut stream = std::net::TcpStream::connect(address).expect("connected");
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: localhost\r\nDT-Asymmetric-Signature: {token}\r\nX-Dt-Signature: {token}\r\n\
         Connection: close\r\nContent-Length: 2\r\n\r\n{{}}"
    )
    .expect("sent");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("answered");
    reply
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_follow_a_rotation_and_outlive_their_issuer() {
    let folder = tempfile::tempdir().expect("a folder");
    // Pauses between attempts are short then.
    let emulator =
        Emulator::builder().organization("my-org").time_scale(20).start().await.expect("it starts");
    let place = folder.path().display();
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let config = format!(
        "listen = '127.0.0.1:{port}'\ndata = '{place}/data'\n[[connector]]\nname = 'c'\npolicy = 'both'\n\
         secrets = [{{ env = '{SECRET_VARIABLE}' }}]\n\
         [connector.asymmetric]\norganization = 'my-org'\nissuer = '{}'\n\
         [[sink]]\nname = 'f'\ntype = 'file'\npath = '{place}/events'\nformat = 'body'\n",
        emulator.issuer()
    );
    let file = folder.path().join("config.toml");
    fs::write(&file, config).expect("written");
    let start = move || {
        let address = format!("127.0.0.1:{port}");
        Receiver::start(
            ["--config".into(), file.clone().into_os_string(), "--listen".into(), address.into()],
            &[],
        )
    };
    let receiver = start();
    connect(
        &emulator,
        &receiver.url("/"),
        &json!({"httpConfig": {"url": receiver.url("/"), "signatureSecret": SECRET}}),
    );
    let device = device(&emulator, "touch", &json!({}));
    let touch = || publish(&emulator, &device, &json!({"touch": {}}));
    let delivered = async || {
        let pause = std::time::Duration::from_millis(20);
        until_within(PATIENCE, pause, || (emulator.queued() == 0).then_some(())).await;
        assert_eq!(&*emulator.ledger().last().expect("an event").last, "status_200");
    };
    touch();
    delivered().await;
    // A stranger names keys that nobody has, again and again: that is no sign that the issuer is out of reach.
    let address = format!("127.0.0.1:{port}");
    let replies = tokio::task::spawn_blocking(move || [(); 5].map(|()| ask_as_a_stranger(&address)));
    for reply in replies.await.expect("answers") {
        assert!(reply.contains("\"key_unknown\"") || reply.contains("\"unverified\""), "{reply}");
    }
    // The receiver is told of the new key by the first token that names it.
    emulator.rotate_key().expect("a key");
    touch();
    delivered().await;
    // The issuer is gone, and the receiver starts anew.
    let mut faults = Faults::default();
    faults.identity_outage = true;
    emulator.set_faults(faults).expect("set");
    let receiver = tokio::task::spawn_blocking(move || {
        assert!(receiver.stop().status.success());
        start()
    })
    .await
    .expect("started");
    touch();
    delivered().await;
    tokio::task::spawn_blocking(|| receiver.stop()).await.expect("stopped");
    let lines: Vec<serde_json::Value> = fs::read_to_string(folder.path().join("events"))
        .expect("a file")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let ids: Vec<&str> = lines.iter().map(|line| line["event"]["eventId"].as_str().expect("an id")).collect();
    let sent: Vec<String> = emulator.ledger().iter().map(|entry| entry.event_id.to_string()).collect();
    assert_eq!(ids, sent, "each once, in order");
}
