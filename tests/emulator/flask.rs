//! DT's own receiver package, `dtintegrations`, in a Flask server, verifies every delivery of a run with all event types.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dt_receiver::emulator::{DeliveryStatus, Emulator};
use dt_receiver::event::{EventType, Sample};
use serde_json::{Value, json};

use crate::http::ask;
use crate::python::{python, script};
use crate::target::{connect, device};
use crate::wait::until;

/// A Flask server; it is killed when dropped.
struct Flask {
    url: String,
    child: Child,
}

impl Flask {
    fn start(python: &str) -> Self {
        let mut child = Command::new(python)
            .arg(script("flask_receiver.py"))
            .arg("some-good-secret")
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a port");
        let port: u16 = line.trim().parse().expect("a port");
        Self { url: format!("http://127.0.0.1:{port}"), child }
    }
}

impl Drop for Flask {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dt_s_own_receiver_verifies_all_event_types() {
    let Some(python) = python() else { return };
    let flask = Flask::start(&python);
    let population = "temperature,humidity,co2,proximity,proximityCounter,touchCounter,waterDetector,motion,contact,deskOccupancy,ccon";
    let emulator = Emulator::builder()
        .devices("p", population.parse().expect("devices"), Duration::from_secs(60))
        .time_scale(60)
        .start()
        .await
        .expect("it starts");
    connect(&emulator, &format!("{}/", flask.url), &json!({"labels": ["name"]}));
    // All types once by hand; devices that live send most of them by themselves.
    let devices =
        ["temperature", "proximity", "humidity", "proximityCounter", "touchCounter", "waterDetector", "co2"]
            .into_iter()
            .chain(["motion", "deskOccupancy", "contact", "ccon"])
            .map(|kind| device(&emulator, kind, &json!({})))
            .collect::<Vec<_>>();
    let device = &devices[0];
    for event_type in EventType::KNOWN.into_iter().filter(|known| *known != EventType::LabelsChanged) {
        let sample = Sample { event_type, event_id: "e", project: "p", device: "d", unix_millis: 0, seed: 3 };
        let body: Value = serde_json::from_str(&sample.body()).expect("JSON");
        // By the first device that has the type.
        let publish = |device: &String| {
            emulator.call("POST", &format!("{device}:publish"), &body["event"]["data"]).is_ok()
        };
        assert!(devices.iter().any(publish), "{body}");
    }
    let labels = json!({"devices": [device.strip_prefix("/v2/")], "addLabels": {"room": "17"}});
    emulator.call("POST", "/v2/projects/p/devices:batchUpdate", &labels).expect("changed");
    until(|| {
        let ledger = emulator.ledger();
        let done = ledger.iter().filter(|entry| entry.fate == DeliveryStatus::Acknowledged).count();
        (done >= 100).then_some(())
    })
    .await;
    emulator.call("PATCH", "/emulator/faults", &json!({"outage": true})).expect("set");
    let summary = ask("GET", &format!("{}/summary", flask.url), &[], "").await.body;
    assert_eq!(summary["refused"], json!([]));
    let accepted = summary["accepted"].as_object().expect("counts");
    assert_eq!(accepted.len(), EventType::KNOWN.len(), "{accepted:?}");
    let total: u64 = accepted.values().filter_map(Value::as_u64).sum();
    assert!(total >= 100, "{total}");
    println!("dtintegrations verified {total} deliveries of {} types: {accepted:?}", accepted.len());
    assert!(emulator.ledger().iter().all(|entry| entry.attempts <= 1), "none had to be sent twice");
}
