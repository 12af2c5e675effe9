//! A configuration that is rejected changes nothing: the old one stays active as a whole, and the reason is reported.

use std::fs;

use crate::common::run;
use crate::load::{Load, assert_all_once_in_order};
use crate::place::{Place, SECRET, Served, until};

/// A configuration is refused, for this reason; one with a harmless change in it, too, so that nothing is taken by half.
fn refused(served: &Served, place: &Place, text: &str, outcome: &str, reason: &str) {
    let text = format!("drain_timeout = '9s'\n{text}");
    served.reload(place, &text, outcome);
    let said = served.readiness();
    assert!(said.starts_with("ready, but: ") && said.contains(reason), "{reason}: {said}");
    assert!(!said.contains("good-secret"), "{said}");
}

#[test]
fn a_bad_file_keeps_the_old_configuration() {
    let place = Place::new("spool");
    let plain = place.plain();
    let served = place.serve(&plain);
    let load = Load::start(served.receiver.listen);
    let (connector, sink) = (place.connector("default", "/", ""), place.sink("file", "events.ndjson"));
    refused(&served, &place, "[[connector", "invalid", "not TOML");
    let unknown = place.text("nonsense = 1", &[connector.clone(), sink.clone()]);
    refused(&served, &place, &unknown, "invalid", "nonsense: unknown key");
    let absent = place.connector("other", "/other", "secrets = [{ file = '/nowhere/secret' }]");
    let unreadable = place.text("", &[connector.clone(), absent, sink.clone()]);
    refused(&served, &place, &unreadable, "invalid", "/nowhere/secret");
    assert_eq!(served.post("/other", 9, 0, SECRET).status, 404, "nothing of it was taken");
    let misplaced =
        place.connector("other", "/other", "secrets = [{ label = 'a b', env = 'my-good-secret' }]");
    let misplaced = place.text("", &[connector.clone(), misplaced, sink.clone()]);
    refused(&served, &place, &misplaced, "invalid", "not shown: it may be the secret itself");
    let elsewhere = plain.replace("/data'", "/elsewhere'");
    refused(&served, &place, &elsewhere, "needs_restart", "data: needs a restart");
    let both = plain.replace("'spool'", "'direct'").replace("/data'", "/elsewhere'");
    refused(&served, &place, &both, "needs_restart", "mode, data: need a restart");
    let limits = place.text("[limits]\nmax_in_flight = 7", &[connector, sink]);
    refused(&served, &place, &limits, "needs_restart", "limits.max_in_flight");
    load.go_on();
    // What is in the file is what is in force again.
    served.reload(&place, &plain, "unchanged");
    assert_eq!(served.readiness(), "ready\n");
    let sent = load.stop();
    let ended = served.receiver.stop();
    assert_all_once_in_order(&place.ids(&["events.ndjson"]), &sent);
    assert!(
        ended.stderr.contains("the old one stays active") && ended.stderr.contains("nonsense: unknown key")
    );
    assert!(!ended.stderr.contains("\"target\":\"audit\""), "nothing was changed");
    assert!(!ended.stderr.contains("my-good-secret") && !ended.stderr.contains("a b"), "{}", ended.stderr);
}

fn sinks_that_cannot_be_opened(mode: &'static str) {
    let place = Place::new(mode);
    fs::create_dir(place.path("folder")).expect("made");
    let served = place.serve(&place.plain());
    let load = Load::start(served.receiver.listen);
    let connector = place.connector("default", "/", "");
    let (good, bad) = (place.sink("file", "events.ndjson"), place.sink("bad", "folder"));
    let added = place.text("", &[connector.clone(), good.clone(), bad]);
    refused(&served, &place, &added, "refused", "sink bad: ");
    load.go_on();
    // One sink was changed already when another turned out to be bad; it gets its old place back.
    let two = place.text("", &[connector.clone(), good.clone(), place.sink("other", "other.ndjson")]);
    served.apply(&place, &two);
    load.go_on();
    let changed = [connector, place.sink("file", "moved.ndjson"), place.sink("other", "folder")];
    refused(&served, &place, &place.text("", &changed), "refused", "sink other: ");
    load.go_on();
    assert_eq!(served.post("/", 9, 0, SECRET).status, 200);
    for file in ["events.ndjson", "other.ndjson"] {
        until("the old sinks go on", || place.ids(&[file]).contains(&(9, 0)));
    }
    let sent = load.stop();
    served.receiver.stop();
    let mut all = place.ids(&["events.ndjson", "moved.ndjson"]);
    all.retain(|(device, _)| *device != 9);
    all.sort_unstable();
    assert_all_once_in_order(&all, &sent);
}

#[test]
fn a_sink_that_cannot_be_opened_is_not_taken() {
    sinks_that_cannot_be_opened("spool");
}

#[test]
fn a_sink_that_cannot_be_opened_is_not_taken_in_mode_direct() {
    sinks_that_cannot_be_opened("direct");
}

#[test]
fn a_connector_in_use_is_not_removed() {
    for mode in ["spool", "direct"] {
        let place = Place::new(mode);
        let (default, used) = (place.connector("default", "/", ""), place.connector("used", "/used", ""));
        let sink = place.sink("file", "events.ndjson");
        let served = place.serve(&place.text("", &[default.clone(), used.clone(), sink.clone()]));
        assert_eq!(served.post("/used", 1, 0, SECRET).status, 200);
        let without = place.text("", &[default.clone(), sink.clone()]);
        refused(
            &served,
            &place,
            &without,
            "refused",
            "connector used: it is removed or renamed, but it accepted",
        );
        let renamed = used.replace("'used'", "'renamed'");
        let renamed = place.text("", &[default, renamed, sink]);
        refused(&served, &place, &renamed, "refused", "a restart accepts the change deliberately");
        assert_eq!(served.post("/used", 1, 1, SECRET).status, 200);
        served.receiver.stop();
        // The restart does.
        place.serve(&without);
    }
}

#[test]
fn a_sink_with_a_backlog_is_not_removed_until_it_has_had_everything() {
    let place = Place::new("spool");
    let connector = place.connector("default", "/", "");
    let (file, other) = (place.sink("file", "events.ndjson"), place.sink("other", "other.ndjson"));
    // A folder in the place of its file: it is down until somebody mends that.
    let served = place.serve(&place.text("", &[connector.clone(), file.clone(), other.clone()]));
    fs::remove_file(place.path("other.ndjson")).expect("made at the start");
    fs::create_dir(place.path("other.ndjson")).expect("made");
    for number in 0..7 {
        assert_eq!(served.post("/", 1, number, SECRET).status, 200);
    }
    let without = place.text("", &[connector.clone(), file.clone()]);
    refused(&served, &place, &without, "refused", "sink other: it is removed or renamed, but 7 events");
    let renamed = place.text("", &[connector, file, other.replace("'other'", "'renamed'")]);
    refused(&served, &place, &renamed, "refused", "spool forget other --yes");
    fs::remove_dir(place.path("other.ndjson")).expect("removed");
    until("it drains", || place.ids(&["other.ndjson"]).len() == 7);
    served.apply(&place, &without);
    until("it is forgotten", || {
        let data = place.path("data");
        let status = run(["spool", "status", "--json", "--data", data.to_str().expect("text")], b"").json();
        status["sinks"].as_array().is_some_and(|sinks| sinks.len() == 1)
    });
    assert_eq!(served.readiness(), "ready\n");
    assert_eq!(served.post("/", 1, 7, SECRET).status, 200);
    served.receiver.stop();
    assert_eq!(place.ids(&["events.ndjson"]).len(), 8);
    assert_eq!(place.ids(&["other.ndjson"]).len(), 7);
}
