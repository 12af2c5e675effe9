//! `--state`: a restart goes on where it ended.

use dt_receiver::emulator::Emulator;
use serde_json::json;

use crate::target::{Target, connect, device, publish};
use crate::wait::until;

#[tokio::test]
async fn a_restart_keeps_everything() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("state.json");
    let target = Target::start().await;
    let start = || Emulator::builder().state_file(&file).time_scale(100).start();
    let emulator = start().await.expect("it starts");
    let connector = connect(&emulator, &target.url, &json!({"labels": ["name"]}));
    let device = device(&emulator, "temperature", &json!({"name": "Cold store"}));
    target.answer(503);
    publish(&emulator, &device, &json!({"temperature": {"value": 3.25}}));
    target.wait_for(1).await;
    let seen = [&connector, &device].map(|path| emulator.call("GET", path, &json!(null)).expect("there"));
    let history = emulator.call("GET", &format!("{device}/events"), &json!(null)).expect("a history");
    let (keys, then) = (emulator.jwks(), emulator.now_millis());
    emulator.shutdown().await.expect("kept");

    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it has secrets");
    target.answer(200);
    let before = target.got().len();
    let emulator = start().await.expect("it starts again");
    assert!(emulator.now_millis() >= then, "the emulated clock never goes back");
    let again = [&connector, &device].map(|path| emulator.call("GET", path, &json!(null)).expect("there"));
    assert_eq!(again, seen);
    assert_eq!(emulator.call("GET", &format!("{device}/events"), &json!(null)).expect("a history"), history);
    assert_eq!(emulator.jwks(), keys);
    until(|| (emulator.queued() == 0).then_some(())).await;
    let got = target.got().split_off(before);
    assert_eq!(got.len(), 1, "what was queued is delivered");
    assert_eq!(got[0].json()["event"], history["events"][0]);
    publish(&emulator, &device, &json!({"touch": {}}));
    let ids = emulator
        .ledger()
        .iter()
        .map(|entry| entry.event_id.clone())
        .collect::<std::collections::BTreeSet<_>>();
    assert_eq!(ids.len(), 2, "ids are not used twice");
    emulator.shutdown().await.expect("kept");
}

#[tokio::test]
async fn a_file_that_is_no_state_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("state.json");
    for (text, said) in
        [("{", "not a state"), ("{\"version\":99}", "version 99"), ("{\"version\":1}", "not a state")]
    {
        std::fs::write(&file, text).expect("written");
        let error = Emulator::builder().state_file(&file).start().await.expect_err("refused");
        assert_eq!(error.code(), "state");
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(std::fs::read_to_string(&file).expect("there"), text);
    }
}

#[tokio::test]
async fn a_device_that_was_transferred_keeps_its_heartbeat_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |population: &str| {
        let population = population.parse().expect("devices");
        let builder = Emulator::builder().state_file(folder.path().join("state.json"));
        builder.devices("p", population, std::time::Duration::from_millis(50)).start()
    };
    let emulator = start("touchCounter").await.expect("it starts");
    let list = emulator.call("GET", "/v2/projects/p/devices", &json!(null)).expect("a list");
    let name = list["devices"][0]["name"].clone();
    emulator.call("POST", "/v2/projects/q/devices:transfer", &json!({"devices": [name]})).expect("moved");
    emulator.shutdown().await.expect("kept");
    let emulator = start("touchCounter").await.expect("it starts again");
    let events = |project: &str| {
        let list =
            emulator.call("GET", &format!("/v2/projects/{project}/devices"), &json!(null)).expect("a list");
        let name = list["devices"][0]["name"].as_str().expect("a name").to_owned();
        let history = emulator.call("GET", &format!("/v2/{name}/events?pageSize=1000"), &json!(null));
        history.expect("a history")["events"].as_array().expect("a list").len()
    };
    let before = events("q");
    // In its old project another has taken its place.
    until(|| (events("p") >= 6 && events("q") >= before + 6).then_some(())).await;
}

/// A file that happens to be called like the state with another ending is somebody else's.
#[tokio::test]
async fn keeping_touches_no_other_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let bystander = folder.path().join("cloud.new");
    std::fs::write(&bystander, "mine").expect("written");
    for name in ["cloud.json", "cloud"] {
        let file = folder.path().join(name);
        let emulator = Emulator::builder().state_file(&file).start().await.expect("it starts");
        emulator.shutdown().await.expect("kept");
        assert_eq!(std::fs::read_to_string(&bystander).expect("there"), "mine");
        let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it has secrets");
    }
    // The state itself may end so; nothing else stays behind.
    let emulator =
        Emulator::builder().state_file(folder.path().join("x.new")).start().await.expect("it starts");
    emulator.shutdown().await.expect("kept");
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("a file").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["cloud", "cloud.json", "cloud.new", "x.new"]);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_known_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("none").join("state.json");
    let error = Emulator::builder().state_file(&file).start().await.expect_err("refused");
    assert_eq!(error.code(), "state");
}

/// A state that a person writes, as `docs/emulator.md` shows it: projects and devices with chosen ids and names.
#[tokio::test]
async fn a_state_written_by_hand_names_its_devices() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("state.json");
    let page = include_str!("../../docs/emulator.md");
    let example = page.split("```json").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    std::fs::write(&file, example).expect("written");
    let project = "/v2/projects/c0md3mm0c7pet3vico8g";
    let device = format!("{project}/devices/bjeho5nlafj3bdrehgsg");
    for _ in 0..2 {
        let emulator = Emulator::builder().state_file(&file).start().await.expect("it starts");
        let shown = emulator.call("GET", &device, &json!(null)).expect("there");
        assert_eq!(shown["name"], device.trim_start_matches("/v2/"));
        assert_eq!(shown["labels"], json!({"name": "Cold store"}));
        let named = emulator.call("GET", project, &json!(null)).expect("there");
        assert_eq!(named["displayName"], "North wing");
        publish(&emulator, &device, &json!({"temperature": {"value": 3}}));
        emulator.shutdown().await.expect("kept");
    }
}

#[tokio::test]
async fn a_state_with_what_the_api_refuses_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("state.json");
    let with = |id: &str, device: serde_json::Value| json!({"p": {"devices": {id: device}}});
    let labels: serde_json::Map<_, _> = (0..101).map(|n| (n.to_string(), json!(""))).collect();
    for (projects, said) in [
        (with("a/b", json!({"device_type": "touch"})), "an id has 1 to 64"),
        (json!({"a b": {}}), "an id has 1 to 64"),
        (with("d", json!({"device_type": "toaster"})), "toaster"),
        (with("d", json!({"device_type": "touch", "id": "other"})), "other"),
        (with("d", json!({"device_type": "touch", "label": {}})), "label"),
        (with("d", json!({"device_type": "touch", "labels": labels})), "100 labels"),
        (with("d", json!({"device_type": "touch", "labels": {"": ""}})), "label"),
        (json!({"p": {"display_name": "x".repeat(5_000)}}), "display_name"),
    ] {
        let document = json!({"version": 1, "projects": projects});
        std::fs::write(&file, document.to_string()).expect("written");
        let started = Emulator::builder().state_file(&file).start().await;
        let error = started.expect_err("refused");
        assert_eq!(error.code(), "state");
        assert!(error.to_string().contains(said), "{document}: {error}");
    }
}
