//! Each fault does what it says, and the ledger tells.

use std::collections::BTreeMap;

use dt_receiver::emulator::{DeliveryStatus, Emulator, Faults};
use dt_receiver::verify::{Secret, Verifier};
use serde_json::json;

use crate::target::{Got, Target, connect, device, publish};
use crate::wait::until;

/// An emulator at 1000 times the machine's speed with these faults, a connector to a target, and 20 events on their way.
async fn with(faults: &str) -> (Emulator, Target) {
    let mut set = Faults::default();
    set.apply(faults).expect("faults");
    let emulator =
        Emulator::builder().seed(7).time_scale(1_000).faults(set).start().await.expect("it starts");
    let target = Target::start().await;
    connect(&emulator, &target.url, &json!({}));
    let device = device(&emulator, "touchCounter", &json!({}));
    for total in 0..20 {
        publish(&emulator, &device, &json!({"touchCount": {"total": total}}));
    }
    (emulator, target)
}

async fn drained(emulator: &Emulator) {
    until(|| (emulator.queued() == 0).then_some(())).await;
}

/// How often each total came, in the order of its first coming.
fn totals(target: &Target) -> (Vec<u64>, BTreeMap<u64, usize>) {
    let of = |got: &Got| got.json()["event"]["data"]["touchCount"]["total"].as_u64().expect("a total");
    let (mut order, mut counts) = (Vec::new(), BTreeMap::new());
    for total in target.got().iter().map(of) {
        *counts.entry(total).or_default() += 1;
        if counts[&total] == 1 {
            order.push(total);
        }
    }
    (order, counts)
}

fn verifies(got: &Got) -> Result<(), &'static str> {
    let secret = Secret::new("some-good-secret").expect("a secret");
    let verifier = Verifier::builder().secret("s", secret).build().expect("a verifier");
    let verified = verifier.verify(&got.headers, &got.body, jiff::Timestamp::now().as_second());
    verified.map(|_| ()).map_err(|rejection| rejection.code())
}

#[tokio::test]
async fn without_faults_every_event_comes_once() {
    let (emulator, target) = with("").await;
    drained(&emulator).await;
    assert!(totals(&target).1.values().all(|count| *count == 1));
    assert_eq!(target.got().len(), 20);
}

#[tokio::test]
async fn duplicates_come_twice_with_the_same_id() {
    let (emulator, target) = with("duplicate=1").await;
    drained(&emulator).await;
    let (_, counts) = totals(&target);
    assert_eq!((counts.len(), target.got().len()), (20, 40));
    let ids: BTreeMap<String, usize> = target.got().iter().fold(BTreeMap::new(), |mut ids, got| {
        *ids.entry(got.json()["event"]["eventId"].to_string()).or_default() += 1;
        ids
    });
    assert!(ids.len() == 20 && ids.values().all(|count| *count == 2), "{ids:?}");
    let ledger = emulator.ledger();
    assert_eq!(ledger.len(), 20, "copies share an entry");
    assert!(ledger.iter().all(|entry| entry.acknowledged == 2 && entry.fate == DeliveryStatus::Acknowledged));
}

#[tokio::test]
async fn reordered_events_come_in_another_order() {
    let (emulator, target) = with("reorder=0.5").await;
    drained(&emulator).await;
    let (order, counts) = totals(&target);
    assert_eq!(counts.len(), 20);
    assert!(!order.is_sorted(), "{order:?}");
}

#[tokio::test]
async fn delayed_events_come_late() {
    let (emulator, target) = with("delay=600000").await;
    let queued = emulator.ledger()[0].queued_at;
    drained(&emulator).await;
    assert_eq!(target.got().len(), 20);
    assert!(emulator.ledger().iter().all(|entry| entry.decided_at.expect("decided") - queued >= 600_000));
}

#[tokio::test]
async fn cut_connections_lead_to_retries_and_nothing_is_lost() {
    let (emulator, target) = with("drop=1").await;
    until(|| emulator.ledger().iter().all(|entry| entry.attempts >= 3).then_some(())).await;
    let ledger = emulator.ledger();
    assert!(ledger.iter().all(|entry| &*entry.last == "connection_cut_by_fault" && entry.acknowledged == 0));
    assert!(!target.got().is_empty(), "some were cut only after the receiver had them");
    emulator.set_faults(Faults::default()).expect("none");
    drained(&emulator).await;
    assert_eq!(totals(&target).1.len(), 20);
    assert!(emulator.ledger().iter().all(|entry| entry.fate == DeliveryStatus::Acknowledged));
}

#[tokio::test]
async fn tampered_bodies_do_not_verify_and_the_ledger_knows_who_took_them() {
    let (emulator, target) = with("tamper=1").await;
    drained(&emulator).await;
    assert!(target.got().iter().all(|got| verifies(got) == Err("checksum_mismatch")));
    assert!(
        emulator.ledger().iter().all(|entry| entry.wrongly_acknowledged == 1),
        "this target takes anything"
    );
}

#[tokio::test]
async fn a_wrong_secret_does_not_verify() {
    let (emulator, target) = with("wrong-secret=1").await;
    drained(&emulator).await;
    assert!(target.got().iter().all(|got| verifies(got) == Err("signature_mismatch")));
}

/// A receiver that only looks at `DT-Asymmetric-Signature` has to refuse as well, or it would be judged wrongly.
#[tokio::test]
async fn a_wrong_secret_breaks_the_other_signature_too() {
    let (emulator, target) = with("wrong-secret=1").await;
    drained(&emulator).await;
    let set = dt_receiver::verify::KeySet::from_jwks(emulator.jwks().as_bytes()).expect("a key set");
    let verifier = Verifier::builder()
        .policy(dt_receiver::verify::Policy::Asymmetric)
        .key_set_of_issuer(set, "emulator", emulator.issuer())
        .build()
        .expect("a verifier");
    let now = jiff::Timestamp::now().as_second();
    for got in target.got() {
        let rejection = verifier.verify(&got.headers, &got.body, now).expect_err("refused");
        assert_eq!(rejection.code(), "signature_mismatch");
    }
}

#[tokio::test]
async fn a_burst_comes_at_once() {
    let (emulator, target) = with("").await;
    let burst = json!({"burst": 300});
    let shown = emulator.call("PATCH", "/emulator/faults", &burst).expect("set");
    assert_eq!(shown["burst"], 0, "it happens once");
    drained(&emulator).await;
    assert_eq!(target.got().len(), 320);
    assert!(target.got().iter().all(|got| verifies(got).is_ok()));
}

/// Ids have the time in them; all else is made from the seed, whatever attempts do meanwhile.
#[tokio::test]
async fn the_same_seed_makes_the_same_values_whatever_happens_to_deliveries() {
    let mut seen = Vec::new();
    for faults in ["", "drop=0.5"] {
        let mut set = Faults::default();
        set.apply(faults).expect("faults");
        let population = "co2:2,temperature:2".parse().expect("devices");
        let builder = Emulator::builder().seed(7).faults(set).time_scale(100);
        let builder = builder.devices("p", population, std::time::Duration::from_secs(10));
        let emulator = builder.start().await.expect("it starts");
        let target = Target::start().await;
        connect(&emulator, &target.url, &json!({}));
        let list = emulator.call("GET", "/v2/projects/p/devices", &json!(null)).expect("a list");
        let values = |name: &str, event_type: &str| {
            let path = format!("/v2/{name}/events?eventTypes={event_type}&pageSize=1000");
            let history = emulator.call("GET", &path, &json!(null)).expect("a history");
            let events = history["events"].as_array().expect("a list").clone();
            let of = |event: &serde_json::Value| event["data"][event_type]["ppm"].to_string();
            events.iter().rev().map(of).take(10).collect::<Vec<_>>()
        };
        let name = |device: &serde_json::Value| device["name"].as_str().expect("a name").to_owned();
        let devices = list["devices"].as_array().expect("a list");
        let co2 = devices.iter().find(|device| device["type"] == "co2").map(name).expect("a device");
        seen.push(until(|| Some(values(&co2, "co2")).filter(|values| values.len() == 10)).await);
    }
    assert_eq!(seen[0], seen[1]);
}
