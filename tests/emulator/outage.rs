//! A receiver that is killed and restarted for an emulated hour, under load, with duplicates, reordering and cut
//! connections, loses nothing: the emulator's own ledger against the receiver's file.
//!
//! An hour in 15 s; `DT_RECEIVER_TEST_HOUR_SECONDS` sets another length.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dt_receiver::emulator::{DeliveryStatus, Emulator, Faults};
use serde_json::{Value, json};

use crate::common::{Receiver, SECRET};
use crate::wait::{until, until_within};

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_killed_for_an_hour_loses_nothing() {
    let seconds: u32 =
        std::env::var("DT_RECEIVER_TEST_HOUR_SECONDS").map_or(15, |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let (data, file) = (folder.path().join("data"), folder.path().join("events.ndjson"));
    let mut faults = Faults::default();
    faults.apply("duplicate=0.1,reorder=0.3,drop=0.02").expect("faults");
    // 40 devices, each a heartbeat a minute: two or more events each, 40 × 60 × 2 in the hour.
    let population = "temperature:20,humidity:10,co2:5,touch:5".parse().expect("devices");
    let emulator = Emulator::builder()
        .devices("p", population, Duration::from_secs(60))
        .time_scale(3_600 / seconds)
        .faults(faults)
        .ledger_entries(1_000_000)
        .start()
        .await
        .expect("it starts");
    let start = |listen: &str| {
        let sink = format!("file:{}", file.display());
        let data = data.to_str().expect("UTF-8").to_owned();
        let listen = listen.to_owned();
        // Starting waits for the program, and the emulator must not wait for that.
        tokio::task::spawn_blocking(move || {
            Receiver::start(["--data", &data, "--sink", &sink, "--listen", &listen], &[])
        })
    };
    let mut receiver = start("127.0.0.1:0").await.expect("it starts");
    let (address, url) = (receiver.listen.to_string(), receiver.url("/"));
    let config = json!({"url": url, "signatureSecret": SECRET});
    let body = json!({"type": "HTTP_PUSH", "httpConfig": config});
    emulator.call("POST", "/v2/projects/p/dataconnectors", &body).expect("made");
    let begun = (Instant::now(), emulator.now_millis());
    let mut kills = 0_u32;
    while emulator.now_millis() - begun.1 < 3_600_000 {
        // Each life ends after another hundred or so of acknowledged events.
        let acknowledged =
            || emulator.ledger().iter().filter(|entry| entry.fate == DeliveryStatus::Acknowledged).count();
        let enough = acknowledged() + 97 + usize::try_from(kills).expect("few") * 31 % 200;
        until(|| (acknowledged() >= enough || emulator.now_millis() - begun.1 > 3_600_000).then_some(()))
            .await;
        tokio::task::spawn_blocking(move || receiver.kill()).await.expect("killed");
        kills += 1;
        receiver = start(&address).await.expect("it starts again");
    }
    let hour = begun.0.elapsed();
    emulator.set_faults(Faults::default()).expect("none");
    let devices =
        emulator.call("GET", "/v2/projects/p/devices?pageSize=1000", &json!(null)).expect("devices");
    for device in devices["devices"].as_array().expect("a list") {
        let name = device["name"].as_str().expect("a name");
        emulator.call("DELETE", &format!("/v2/{name}"), &json!(null)).expect("deleted");
    }
    until_within(Duration::from_secs(120), Duration::from_millis(10), || {
        (emulator.queued() == 0).then_some(())
    })
    .await;
    let ended = tokio::task::spawn_blocking(move || receiver.stop()).await.expect("stopped");
    assert!(ended.status.success(), "{ended:?}");

    let ledger = emulator.ledger();
    let file = std::fs::read_to_string(&file).expect("a file");
    let mut lines: BTreeMap<String, u32> = BTreeMap::new();
    for line in file.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        *lines.entry(line["event"]["eventId"].as_str().expect("an id").to_owned()).or_default() += 1;
    }
    assert!(ledger.iter().all(|entry| entry.fate == DeliveryStatus::Acknowledged), "none expired");
    let lost: Vec<_> = ledger.iter().filter(|entry| !lines.contains_key(&*entry.event_id)).collect();
    assert!(lost.is_empty(), "{} lost: {:?}", lost.len(), lost.first());
    assert_eq!(lines.len(), ledger.len(), "and nothing else is there");
    assert!(lines.values().all(|count| *count == 1), "the file sink writes each once");
    let attempts: u32 = ledger.iter().map(|entry| entry.attempts).sum();
    let copies: u32 = ledger.iter().map(|entry| entry.acknowledged.saturating_sub(1)).sum();
    assert!(
        kills >= 2 && attempts > u32::try_from(ledger.len()).expect("few"),
        "{kills} kills, {attempts} attempts"
    );
    println!(
        "{} events, {attempts} attempts, {copies} acknowledged copies, {kills} kills in an hour of {hour:?}: 0 lost, 0 doubled",
        ledger.len()
    );
}
