//! The receiver and the emulator's keys: fetched by discovery, rotated, and out of reach.

use std::fs;

use dt_receiver::emulator::{Emulator, Faults};
use serde_json::json;

use crate::common::{Receiver, SECRET, SECRET_VARIABLE};
use crate::target::{connect, device, publish};
use crate::wait::until_within;

/// Longer than the half minute for which the receiver leaves the issuer alone.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);

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
