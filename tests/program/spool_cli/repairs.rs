//! `spool` and `dead` beside a running server, and with the spool's own lock without one.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::setup::{Place, SECRET, event, fill, letters, metrics, rejected, send_with, unreadable};

#[test]
fn a_running_server_is_inspected_and_repaired() {
    let place = Place::new("", "");
    let receiver = place.serve();
    fill(&place, &receiver);

    let (code, status) = place.json(&["spool", "status"]);
    assert_eq!(code, 0);
    assert_eq!((&status["records"], &status["lastSeq"]), (&3.into(), &3.into()), "{status}");
    let sink = &status["sinks"][0];
    assert_eq!((sink["name"].as_str(), &sink["backlog"]), (Some("file"), &0.into()), "{status}");
    let kinds = serde_json::json!({"damaged": 0, "expired": 1, "refused": 1, "rejected": 0, "unreadable": 1});
    assert_eq!(status["deadLetters"], kinds);
    let said = place.run(&["spool", "status"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("dead letters  1 expired, 1 refused"), "{said:?}");
    assert_eq!(place.json(&["spool", "check"]), (0, serde_json::json!({"ok": true, "findings": []})));
    let exported = place.run(&["spool", "export", "--format", "body", "--since", "1h"]);
    assert_eq!(String::from_utf8_lossy(&exported.stdout).lines().count(), 3, "{exported:?}");
    let exported = place.run(&["spool", "export", "--format", "line-protocol"]);
    let lines = String::from_utf8_lossy(&exported.stdout);
    assert_eq!(lines.lines().filter(|line| line.starts_with("touch touch=1.0 ")).count(), 3, "{exported:?}");
    let exported = place.run(&["spool", "export", "--sink", "file"]);
    assert_eq!((exported.status.code(), exported.stdout.len()), (Some(0), 0), "{exported:?}");

    let shown = place.run(&["spool", "show", "2"]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("an object");
    assert_eq!(
        (&shown["seq"], &shown["envelope"]["event"]["eventId"]),
        (&2.into(), &"two".into()),
        "{shown}"
    );
    assert_eq!(shown["sinks"], serde_json::json!([{"name": "file", "delivered": true}]));
    assert!(
        shown["headerNames"].as_array().is_some_and(|names| names.iter().any(|name| name == "x-mine")),
        "{shown}"
    );
    assert_eq!(place.run(&["spool", "show", "99"]).status.code(), Some(1));

    let (code, shown) = place.json(&["dead", "show", "--reason", "unreadable"]);
    assert_eq!((code, shown["letters"][0]["body"].as_str()), (0, Some("not JSON")), "{shown}");
    let (_, listed) = place.json(&["dead", "list", "--limit", "2"]);
    assert_eq!(listed["letters"].as_array().map(Vec::len), Some(2));
    assert_eq!(listed["next"], listed["letters"][1]["id"]);
    let id = listed["letters"][0]["id"].to_string();
    assert_eq!(place.run(&["dead", "show", "--id", &id]).status.code(), Some(0));
    assert_eq!(place.run(&["dead", "show", "--id", "999"]).status.code(), Some(1));
    assert_eq!(place.run(&["dead", "list", "--reason", "nonsense"]).status.code(), Some(2));

    // An expired one comes in as if it had come in time, the required header or not; a second time it is gone.
    let (code, report) = place.json(&["dead", "replay", "--reason", "expired"]);
    assert_eq!((code, &report["accepted"]), (0, &1.into()), "{report}");
    place.wait_for_lines(4);
    assert_eq!(place.lines()[3], event("late"));
    // What fails again stays, and is counted.
    let (code, report) = place.json(&["dead", "replay", "--reason", "unreadable"]);
    assert_eq!((code, &report["failed"]), (1, &1.into()), "{report}");
    let (code, report) = place.json(&["dead", "replay", "--reason", "refused"]);
    assert_eq!((code, &report["skipped"]), (1, &1.into()), "{report}");
    let (code, report) = place.json(&["dead", "replay", "--reason", "refused", "--reverify"]);
    assert_eq!((code, &report["failed"]), (1, &1.into()), "{report}");
    let (_, listed) = place.json(&["dead", "list", "--reason", "refused"]);
    assert_eq!(listed["letters"][0]["replays"], 1, "{listed}");
    assert!(listed["letters"][0]["error"].as_str().is_some_and(|text| text.contains("signature_mismatch")));

    // Dropping everything has to be said in so many words.
    assert_eq!(place.run(&["dead", "drop"]).status.code(), Some(2));
    let (code, report) = place.json(&["dead", "drop", "--reason", "unreadable"]);
    assert_eq!((code, &report["dropped"]), (0, &1.into()), "{report}");

    let (code, report) = place.json(&["spool", "replay", "--since", "1h", "--sink", "file"]);
    assert_eq!((code, &report["records"]), (0, &4.into()), "{report}");
    place.wait_for_lines(8);
    assert_eq!(place.lines()[4..], place.lines()[..4]);
    assert_eq!(place.run(&["spool", "replay", "--since", "1h", "--sink", "nobody"]).status.code(), Some(2));
    let refused = place.run(&["spool", "forget", "file", "--yes"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let refused = place.run(&["spool", "repair"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another process"), "{refused:?}");

    let text = metrics(&receiver);
    for line in [
        "dt_receiver_spool_sink_backlog_records{sink=\"file\"} 0",
        "dt_receiver_spool_sink_oldest_seconds{sink=\"file\"} 0",
        "dt_receiver_spool_dead_letters{reason=\"refused\"} 1",
        "dt_receiver_clock_skew_seconds{connector=\"default\"} ",
        "dt_receiver_spool_commit_duration_seconds_count ",
        "dt_receiver_spool_used_bytes ",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    let socket = place.path("data/spool/control.sock");
    assert_eq!(fs::metadata(&socket).expect("there").permissions().mode() & 0o777, 0o600);

    // The secret was wrong here, and is corrected: what was refused comes in.
    receiver.stop();
    assert!(!socket.exists());
    place.configure(", { label = 'b', env = 'DT_OTHER' }", "");
    let receiver = place.serve();
    let (code, report) = place.json(&["dead", "replay", "--reverify"]);
    assert_eq!((code, &report["accepted"]), (0, &1.into()), "{report}");
    place.wait_for_lines(9);
    assert_eq!(place.lines()[8], event("other"));
    assert!(letters(&place).as_object().is_some_and(|kinds| kinds.values().all(|count| *count == 0)));
    assert!(receiver.stop().status.success());
}

#[test]
fn a_spool_without_a_server_is_repaired_and_the_next_start_goes_on() {
    let place = Place::new("", "[[sink]]\nname = 'old'\ntype = 'stdout'\n");
    let receiver = place.serve();
    fill(&place, &receiver);
    receiver.kill();
    let socket = place.path("data/spool/control.sock");
    assert!(socket.exists(), "a killed server leaves it");
    place.configure("", "");

    let (code, status) = place.json(&["spool", "status"]);
    assert_eq!((code, &status["records"]), (0, &3.into()), "{status}");
    let configured = |sink: &Value| (sink["name"].clone(), sink["configured"].clone());
    let sinks: Vec<_> = status["sinks"].as_array().into_iter().flatten().map(configured).collect();
    assert_eq!(sinks, [("file".into(), true.into()), ("old".into(), false.into())]);
    let told = place.run(&["spool", "forget", "old"]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains("use --yes"), "{told:?}");
    let (code, _) = place.json(&["spool", "forget", "old", "--yes"]);
    assert_eq!(code, 0);
    assert_eq!(place.run(&["spool", "forget", "old", "--yes"]).status.code(), Some(2));

    place.dead_letter(vec![rejected("file", "odd"), rejected("gone", "strange")]);
    let (code, report) = place.json(&["dead", "replay", "--reason", "rejected"]);
    assert_eq!((code, &report["queued"], &report["skipped"]), (1, &1.into(), &1.into()), "{report}");
    let (code, report) = place.json(&["dead", "replay", "--reason", "expired"]);
    assert_eq!((code, &report["accepted"]), (0, &1.into()), "{report}");
    let (_, report) = place.json(&["spool", "replay", "--since", "1970-01-01T00:00:00Z", "--sink", "file"]);
    assert_eq!(report["records"], 3, "{report}");
    assert_eq!(place.json(&["spool", "check"]), (0, serde_json::json!({"ok": true, "findings": []})));

    let receiver = place.serve();
    // The sink receives what it has not had yet, the two that were added; then it goes back, and receives all five.
    place.wait_for_lines(3 + 2 + 5);
    let lines = place.lines();
    assert_eq!(lines.iter().filter(|line| **line == event("late")).count(), 2, "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains("odd")).count(), 2, "{lines:?}");
    // The letter left for the log, from which its sink gets it until it takes it; the other one stays.
    let (_, left) = place.json(&["dead", "list", "--reason", "rejected"]);
    assert_eq!(left["letters"].as_array().map(Vec::len), Some(1), "{left}");
    assert_eq!(left["letters"][0]["sink"], "gone", "{left}");
    // The server has replaced the socket.
    assert_eq!(place.run(&["dead", "drop", "--sink", "gone"]).status.code(), Some(0));
    assert!(receiver.stop().status.success());
}

/// The connector has no `sinks`: its events are for all sinks of the configuration, not for those that the log still has.
#[test]
fn without_a_server_events_are_replayed_to_the_configured_sinks_alone() {
    let place = Place::new("", "[[sink]]\nname = 'old'\ntype = 'stdout'\n");
    let receiver = place.serve();
    fill(&place, &receiver);
    assert!(receiver.stop().status.success(), "both sinks have all events");
    place.dead_letter(vec![rejected("old", "strange")]);

    place.configure("", "[[sink]]\nname = 'new'\ntype = 'stdout'\n");
    let (code, report) = place.json(&["dead", "replay", "--reason", "expired"]);
    assert_eq!((code, &report["skipped"]), (1, &1.into()), "{report}");
    assert!(report["notes"].to_string().contains("sink new is not in the log yet"), "{report}");

    place.configure("", "");
    let (code, report) = place.json(&["dead", "replay", "--reason", "rejected"]);
    assert_eq!((code, &report["skipped"]), (1, &1.into()), "{report}");
    assert!(report["notes"].to_string().contains("there is no sink old any more"), "{report}");
    let (code, report) = place.json(&["dead", "replay", "--reason", "expired"]);
    assert_eq!((code, &report["accepted"]), (0, &1.into()), "{report}");
    // It would not start if `old` had not received an event.
    let receiver = place.serve();
    place.wait_for_lines(4);
    assert!(receiver.stop().status.success());
}

#[test]
fn many_dead_letters_are_processed_in_steps_with_a_server_and_without() {
    let place = Place::new("", "");
    let fill = || place.dead_letter((0..600).map(|number| unreadable(format!("{{{number}}}"))).collect());
    place.serve().stop();
    fill();
    let (code, listed) = place.json(&["dead", "list", "--limit", "250"]);
    assert_eq!((code, &listed["next"]), (0, &250.into()), "{listed}");
    let replay_and_drop = || {
        let (code, report) = place.json(&["dead", "replay"]);
        assert_eq!((code, &report["skipped"]), (1, &600.into()), "{report}");
        assert!(
            report["notes"][0].as_str().is_some_and(|note| note.contains("no connector nobody")),
            "{report}"
        );
        let (code, report) = place.json(&["dead", "drop", "--reason", "unreadable"]);
        assert_eq!((code, &report["dropped"]), (0, &600.into()), "{report}");
    };
    replay_and_drop();
    fill();
    let receiver = place.serve();
    replay_and_drop();
    assert_eq!(place.json(&["spool", "check"]).0, 0);
    assert!(receiver.stop().status.success());
}

/// Of a request that was refused for a required header, the header's value was not kept: only an operator can say that the
/// signature is enough.
#[test]
fn requests_without_a_required_header_are_replayed_only_on_request() {
    let place = Place::new("", "");
    let receiver = place.serve();
    assert_eq!(send_with(receiver.listen, SECRET, &event("bare"), 0, ""), 401);
    let (code, report) = place.json(&["dead", "replay", "--reverify"]);
    assert_eq!((code, &report["accepted"], &report["skipped"]), (1, &0.into(), &1.into()), "{report}");
    assert!(report["notes"].to_string().contains("--ignore-required-headers"), "{report}");
    assert_eq!(place.run(&["dead", "replay", "--ignore-required-headers"]).status.code(), Some(2));
    let (code, report) = place.json(&["dead", "replay", "--reverify", "--ignore-required-headers"]);
    assert_eq!((code, &report["accepted"]), (0, &1.into()), "{report}");
    place.wait_for_lines(1);
    assert!(receiver.stop().status.success());
}
