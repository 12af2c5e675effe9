//! `dt-receiver backfill`: the real program, a running receiver, and the emulator.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_wrap,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests may fail loudly"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/events.rs"]
mod events;
mod failures;
mod kills;
mod newest;
#[path = "../common/sender.rs"]
mod sender;
#[path = "../common/setup.rs"]
mod setup;
mod world;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use world::{DAY, HOUR, World, connector, rfc3339};

/// How long to wait for a state.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Each id once, and per device in the order of the history.
fn assert_complete(world: &World, connector: &str, devices: &[String]) {
    let written = world.written_ids(connector);
    let expected: BTreeSet<String> = devices.iter().flat_map(|device| world.history("p", device)).collect();
    assert_eq!(written.iter().cloned().collect::<BTreeSet<_>>(), expected);
    assert_eq!(written.len(), expected.len(), "none is there twice");
}

/// The lines of the sink that were back-filled are in the order of their timestamps, for each device.
fn assert_in_order(lines: &[Value]) {
    let mut last = std::collections::BTreeMap::new();
    for line in lines {
        let text = |member: &str| line["event"][member].as_str().expect("text").to_owned();
        let (device, time) = (text("targetName"), text("timestamp"));
        let before = last.insert(device.clone(), time.clone());
        assert!(before.as_ref().is_none_or(|before| *before <= time), "{device}: {before:?}, then {time}");
    }
}

fn count(report: &Value, member: &str) -> u64 {
    report[member].as_u64().unwrap_or_else(|| panic!("{member}: {report}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_is_filled_exactly_and_filling_again_fills_nothing() {
    let world = World::start(&connector("plant", "")).await;
    let receiver = world.setup.start();
    let devices = world.devices("p", 3);
    let made = world.push("p", &receiver.url("/plant"));
    for hour in 0..10 {
        devices.iter().for_each(|device| world.publish("p", device, world.today - 2 * DAY + hour * HOUR));
    }
    until("the pushed events", || world.written("plant").len() == 30).await;
    world.disable(&made);
    // Not in the order of their times: some devices report late.
    for hour in (10..48).rev() {
        devices.iter().for_each(|device| world.publish("p", device, world.today - 2 * DAY + hour * HOUR));
    }
    let (code, dry) = world.fill(2, &["--until", &rfc3339(world.today), "--dry-run"]);
    assert_eq!((code, count(&dry, "filled"), count(&dry, "known")), (0, 114, 30), "{dry}");
    assert!(!world.database().exists(), "a dry run stores nothing");
    assert_eq!(world.written("plant").len(), 30);

    let (code, report) = world.fill(2, &["--until", &rfc3339(world.today)]);
    let counts =
        |report: &Value| ["devices", "fetched", "known", "filled"].map(|member| count(report, member));
    assert_eq!((code, counts(&report)), (0, [3, 144, 30, 114]), "{report}");
    assert_eq!(report["missing"], serde_json::json!([]));
    receiver.drain();
    assert_complete(&world, "plant", &devices);
    let lines = world.written("plant");
    assert_in_order(&lines[30..]);
    // What DT would have pushed, with the labels of the Data Connector, and the event byte for byte.
    let (pushed, filled) = (&lines[0], &lines[30]);
    let keys = |line: &Value| line.as_object().expect("an object").keys().cloned().collect::<BTreeSet<_>>();
    assert!(keys(filled).is_superset(&["event", "labels", "metadata"].map(str::to_owned).into()), "{filled}");
    assert_eq!((&filled["verifiedBy"], &filled["source"]), (&"api".into(), &"backfill".into()), "{filled}");
    let device = pushed["metadata"]["deviceId"].as_str().expect("an id");
    let same =
        lines[30..].iter().find(|line| line["metadata"]["deviceId"] == device).expect("one of the device");
    assert_eq!((&same["labels"], &same["metadata"]), (&pushed["labels"], &pushed["metadata"]));

    let (code, again) = world.fill(2, &["--until", &rfc3339(world.today)]);
    assert_eq!((code, counts(&again)), (0, [3, 144, 144, 0]), "{again}");
    receiver.drain();
    assert_complete(&world, "plant", &devices);
    receiver.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_older_than_the_ids_is_skipped_and_counted() {
    let world = World::start(&connector("plant", "")).await;
    let receiver = world.setup.start();
    let device = world.devices("p", 1).remove(0);
    world.publish("p", &device, world.today - DAY);
    let (since, until) = (rfc3339(world.today - DAY), rfc3339(world.today));
    let window = ["--since", &since, "--until", &until];
    let ended = world.backfill(&[&window[..], &["--json"]].concat());
    let report = ended.json();
    assert_eq!((ended.code(), count(&report, "tooOld"), count(&report, "filled")), (1, 1, 0), "{ended:?}");
    let ended = world.backfill(&window);
    assert_eq!(ended.code(), 1, "{ended:?}");
    assert!(ended.stdout.contains("1 events skipped: older than the ids"), "{ended:?}");
    let (code, report) = world.fill(1, &["--until", &until]);
    assert_eq!((code, count(&report, "filled")), (0, 1), "{report}");
    receiver.drain();
    // Now its id is known.
    let ended = world.backfill(&[&window[..], &["--json"]].concat());
    assert_eq!((ended.code(), count(&ended.json(), "known")), (0, 1), "{ended:?}");
    assert_complete(&world, "plant", &[device]);
    receiver.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_the_log_is_filled_for_the_next_start() {
    let world = World::start(&connector("plant", "")).await;
    world.setup.start().stop();
    let devices = world.devices("p", 2);
    for hour in 0..20 {
        devices.iter().for_each(|device| world.publish("p", device, world.today - DAY + hour * HOUR));
    }
    let one = ["--device", &devices[1]];
    let (code, report) = world.fill(1, &one);
    assert_eq!((code, count(&report, "devices"), count(&report, "filled")), (0, 1, 20), "{report}");
    let (code, report) = world.fill(1, &[]);
    assert_eq!((code, count(&report, "known"), count(&report, "filled")), (0, 20, 20), "{report}");
    assert_eq!(world.written("plant").len(), 0, "no sink runs");
    let receiver = world.setup.start();
    until("the sink has all", || world.written("plant").len() == 40).await;
    assert_complete(&world, "plant", &devices);
    assert_in_order(&world.written("plant"));
    receiver.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_to_the_connector_of_their_project_and_through_its_filter() {
    let connectors = [
        connector("first", "projects = ['p']"),
        connector("second", "projects = ['q']"),
        connector("third", "projects = ['r']\nevents = ['touch']"),
    ];
    let world = World::start(&connectors.concat()).await;
    let receiver = world.setup.start();
    let moved = world.devices("p", 1).remove(0);
    let gone = world.devices("p", 1).remove(0);
    world.devices("q", 1);
    (0..5).for_each(|hour| world.publish("p", &moved, world.today - DAY + hour * HOUR));
    (0..7).for_each(|hour| world.publish("p", &gone, world.today - DAY + hour * HOUR));
    world.transfer("p", &moved, "q");
    (5..9).for_each(|hour| world.publish("q", &moved, world.today - DAY + hour * HOUR));
    world.devices("s", 1);
    world.transfer("p", &gone, "s");

    // The events of the time in `p` belong to the connector of `p`.
    let (code, report) = world.fill(1, &["--project", "q"]);
    assert_eq!((code, count(&report, "filled")), (0, 9), "{report}");
    receiver.drain();
    assert_eq!((world.written("first").len(), world.written("second").len()), (5, 4));
    let line = &world.written("first")[0];
    assert_eq!(line["metadata"]["projectId"], "p", "{line}");

    // A device that is not in the project any more is found where it is.
    let (code, report) = world.fill(1, &["--device", &gone]);
    assert_eq!((code, count(&report, "filled")), (0, 7), "{report}");
    world.publish("s", &gone, world.today - HOUR);
    let (code, report) = world.fill(1, &["--project", "s"]);
    assert_eq!((code, count(&report, "known"), count(&report, "elsewhere")), (0, 7, 1), "{report}");
    let notes = report["notes"].to_string();
    assert!(notes.contains("no connector accepts events of project s"), "{notes}");

    let other = world.devices("r", 1).remove(0);
    world.publish("r", &other, world.today - HOUR);
    let (code, report) = world.fill(1, &["--project", "r"]);
    assert_eq!((code, count(&report, "filtered"), count(&report, "filled")), (0, 1, 0), "{report}");
    receiver.stop();
}
