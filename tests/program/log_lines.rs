//! What the log of the real program says of a request that is not taken: once, in words, with what was expected and found.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{Ended, Receiver};
use crate::events::{body, now, token};
use crate::sender::Sender;
use serde_json::Value;

fn start(folder: &Path, spool: &str, connector: &str) -> Receiver {
    let text = format!(
        "listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'\ndata = '{0}/data'\nquarantine_refused = true\n\
         [spool]\n{spool}\n[[connector]]\nname = 'main'\nsecrets = [{{ env = 'DT_SIGNATURE_SECRET' }}]\n{connector}\n\
         [[sink]]\nname = 'file'\ntype = 'file'\npath = '{0}/out/{{connector}}'\n",
        folder.display()
    );
    let config = folder.join("dt-receiver.toml");
    fs::write(&config, text).expect("written");
    Receiver::start(["--config", config.to_str().expect("text")], &[])
}

fn lines(ended: &Ended) -> Vec<Value> {
    ended.stderr.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Those that tell of this reason, as text.
fn of_reason(lines: &[Value], reason: &str) -> Vec<String> {
    lines.iter().filter(|line| line["reason"] == reason).map(Value::to_string).collect()
}

fn detail_of(lines: &[Value], reason: &str) -> String {
    let found = of_reason(lines, reason);
    assert_eq!(found.len(), 1, "one line for each: {found:?}");
    let line: Value = serde_json::from_str(&found[0]).expect("JSON");
    assert!(line.get("suppressed").is_none(), "nothing was left out: {line}");
    line["detail"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_refusal_is_one_line_with_what_was_expected_and_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = start(folder.path(), "", "projects = ['elsewhere', 'nowhere']");
    let mut sender = Sender::connect(receiver.listen).expect("connected");
    assert_eq!(sender.send(1, 1).expect("an answer").status, 403);
    let (late, issued) = (body(1, 2), now() - 7200);
    assert_eq!(sender.post("/", &late, &token(&late, issued)).expect("an answer").status, 401);
    let other = body(1, 3);
    assert_eq!(sender.post("/", &other, &token(&late, now())).expect("an answer").status, 401);
    assert_eq!(sender.post("/nowhere", &other, "x").expect("an answer").status, 404);
    let lines = lines(&receiver.stop());
    let said = detail_of(&lines, "project_not_allowed");
    assert_eq!(said, "the event's project is p; `projects` allows elsewhere, nowhere");
    // Both are kept as letters as well, which are no lines of their own.
    let said = detail_of(&lines, "expired");
    let expired_at = jiff::Timestamp::from_second(issued + 3600).expect("a time").to_string();
    assert!(said.contains(&format!("the token expired at {expired_at}")), "times are RFC 3339: {said}");
    let said = detail_of(&lines, "checksum_mismatch");
    assert!(said.contains("of the token is"), "{said}");
    assert_eq!(of_reason(&lines, "refused").len() + of_reason(&lines, "not_found").len(), 1, "{lines:?}");
}

/// No disk has so much room: what a full one is, without filling any.
#[test]
fn a_full_disk_is_told_of_before_the_first_event_and_is_one_error_with_its_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    // A folder in the place of the sink's file: the event is owed, and its segment cannot be used again.
    fs::create_dir_all(folder.path().join("out/main")).expect("made");
    let receiver = start(folder.path(), "min_free = 0", "");
    let mut sender = Sender::connect(receiver.listen).expect("connected");
    assert_eq!(sender.send(1, 0).expect("an answer").status, 200);
    assert!(receiver.stop().status.success());
    // Each start takes one of the segments that were made ahead.
    let full = "min_free = '16TiB'";
    let receiver = start(folder.path(), full, "");
    wait_until_readyz(&receiver, "ready, but: spool: no segment can be added");
    assert!(receiver.stop().status.success());
    let receiver = start(folder.path(), full, "");
    wait_until_readyz(&receiver, "not ready: spool: ");
    let mut sender = Sender::connect(receiver.listen).expect("connected");
    for number in 1..4 {
        assert_eq!(sender.send(1, number).expect("an answer").status, 503);
    }
    let lines = lines(&receiver.stop());
    let errors: Vec<String> = lines
        .iter()
        .filter(|line| line["level"] == "ERROR" && line["message"] != "a sink failed")
        .map(Value::to_string)
        .collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    for part in
        ["no events can be stored", "data/spool", "are free on the disk", "`spool.min_free`", "make room"]
    {
        assert!(errors[0].contains(part), "{part}: {}", errors[0]);
    }
    let told = of_reason(&lines, "storage_unavailable");
    assert_eq!(told.len(), 3);
    assert!(
        told.iter().all(|line| line.contains("data/spool") && line.contains("free on the disk")),
        "{told:?}"
    );
}

fn wait_until_readyz(receiver: &Receiver, begins: &str) {
    let started = Instant::now();
    loop {
        let said = Sender::connect(receiver.admin)
            .and_then(|mut admin| admin.get("/readyz"))
            .expect("an answer")
            .body;
        if said.starts_with(begins) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{said}");
        std::thread::yield_now();
    }
}
