//! Errors of `spool` and `dead`: their messages, damaged spools, missing secrets, folders of other users.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use super::setup::{Place, SECRET, event, send};

#[test]
fn errors_name_the_path_and_the_remedy() {
    let place = Place::new("", "");
    let nothing = place.run(&["spool", "status"]);
    assert_eq!(nothing.status.code(), Some(2));
    let said = String::from_utf8_lossy(&nothing.stderr);
    assert!(said.contains("data/spool") && said.contains("--data"), "{said}");

    let receiver = place.serve();
    assert_eq!(send(receiver.listen, SECRET, &event("one"), 0), 200);
    place.wait_for_lines(1);
    // A server whose socket somebody removed still has the lock.
    fs::remove_file(place.path("data/spool/control.sock")).expect("removed");
    let locked = place.run(&["dead", "drop", "--reason", "expired"]);
    assert_eq!(locked.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&locked.stderr).contains("another process"), "{locked:?}");
    receiver.kill();

    // An event that the disk damaged, before others.
    let receiver = place.serve();
    for id in ["two", "spoilt", "three"] {
        assert_eq!(send(receiver.listen, SECRET, &event(id), 0), 200);
    }
    place.wait_for_lines(4);
    receiver.kill();
    for path in place.segments() {
        let mut bytes = fs::read(&path).expect("read");
        if let Some(at) = bytes.windows(6).position(|found| found == b"spoilt") {
            bytes[at] ^= 1;
            fs::write(&path, bytes).expect("written");
        }
    }
    let (code, checked) = place.json(&["spool", "check"]);
    assert_eq!(code, 1);
    let is_named =
        |finding: &Value| finding.as_str().is_some_and(|text| text.contains("event 3 cannot be read"));
    assert!(checked["findings"].as_array().is_some_and(|found| found.iter().any(is_named)), "{checked}");
    for finding in checked["findings"].as_array().expect("a list") {
        let text = finding.as_str().expect("text");
        assert!(text.contains("dead list --reason damaged") && text.contains("event history"), "{text}");
    }
    let exported = place.run(&["spool", "export", "--format", "body"]);
    assert_eq!(exported.status.code(), Some(1), "{exported:?}");
    assert_eq!(String::from_utf8_lossy(&exported.stdout).lines().count(), 3, "{exported:?}");

    fs::write(place.path("data/spool/spool.db"), "").expect("written");
    let said = place.refuses_to_serve();
    assert!(said.contains("spool.db") && said.contains("unreleased edition"), "{said}");
    fs::remove_file(place.path("data/spool/spool.lock")).expect("removed");
    let status = place.run(&["spool", "status"]);
    assert!(String::from_utf8_lossy(&status.stderr).contains("unreleased edition"), "{status:?}");
}

#[test]
fn a_spool_that_does_not_open_is_repaired_and_nothing_is_removed() {
    let place = Place::new("", "");
    for id in ["one", "two"] {
        let receiver = place.serve();
        assert_eq!(send(receiver.listen, SECRET, &event(id), 0), 200);
        receiver.stop();
    }
    place.wait_for_lines(2);
    assert_eq!(place.json(&["spool", "repair"]).0, 0, "no repair is necessary");
    let segments = place.segments();
    assert!(segments.len() >= 2, "{segments:?}");
    fs::rename(&segments[0], place.path("lost")).expect("moved");
    fs::write(place.path("data/spool/dead.db"), "no database").expect("written");

    let said = place.refuses_to_serve();
    assert!(said.contains("segments 1 to 1 are missing") && said.contains("spool repair"), "{said}");
    let status = place.run(&["spool", "status"]);
    assert_eq!(status.status.code(), Some(2), "{status:?}");
    let (code, proposed) = place.json(&["spool", "repair"]);
    assert_eq!((code, &proposed["done"]), (1, &false.into()), "{proposed}");
    assert_eq!(place.segments(), segments[1..], "nothing was done");
    let told = place.run(&["spool", "repair"]);
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(text.contains("continue without the oldest segments, 1 to 1"), "{text}");
    let (code, done) = place.json(&["spool", "repair", "--yes"]);
    assert_eq!((code, &done["done"]), (0, &true.into()), "{done}");
    assert_eq!(done["steps"], proposed["steps"]);
    assert_eq!(fs::read(place.path("data/spool/dead.db.set-aside-1")).expect("kept"), b"no database");

    let receiver = place.serve();
    assert_eq!(send(receiver.listen, SECRET, &event("three"), 0), 200);
    place.wait_for_lines(3);
    assert!(receiver.stop().status.success());
    assert_eq!(place.lines(), [event("one"), event("two"), event("three")]);
    assert_eq!(place.json(&["spool", "check"]).0, 0);
}

#[test]
fn a_spool_is_read_without_the_secrets_of_the_configuration() {
    let place = Place::new(", { label = 'b', file = '/not/there' }", "");
    place.configure("", "");
    let receiver = place.serve();
    assert_eq!(send(receiver.listen, SECRET, &event("one"), 0), 200);
    place.wait_for_lines(1);
    let config = fs::read_to_string(place.config()).expect("read");
    let config = config.replace("admin = '127.0.0.1:0'", &format!("admin = '{}'", receiver.admin));
    // A file that only the service can read.
    let config = config.replace("}]\nheaders", "}, { label = 'b', file = '/not/there' }]\nheaders");
    fs::write(place.config(), config).expect("written");
    let commands: [&[&str]; 5] =
        [&["health"], &["spool", "status"], &["spool", "check"], &["spool", "export"], &["dead", "list"]];
    for command in commands {
        let output = place.run_bare(command);
        assert_eq!(output.status.code(), Some(0), "{command:?}: {output:?}");
    }
    receiver.kill();
    // What verifies again without a server needs them.
    let output = place.run_bare(&["dead", "replay", "--reason", "refused", "--reverify"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("DT_SIGNATURE_SECRET is not set") && said.contains("/not/there"), "{said}");
    // Other mistakes are still told.
    let config = fs::read_to_string(place.config()).expect("read");
    fs::write(place.config(), format!("lisen = 1\n{config}")).expect("written");
    let output = place.run_bare(&["spool", "status"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("lisen"), "{output:?}");
}

/// Runs the program as a user who may not read a folder, and gives what it complains of; `None` where there is no such user.
fn run_as_another(arguments: &[&str]) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permitted");
    // Where the build is, others may not be able to look.
    let copy = folder.path().join("dt-receiver");
    fs::copy(env!("CARGO_BIN_EXE_dt-receiver"), &copy).expect("copied");
    let mut program = if reads_everything() {
        let is_there =
            Command::new("setpriv").arg("--version").output().is_ok_and(|run| run.status.success());
        if !is_there {
            eprintln!("left out for want of setpriv: a spool of another user");
            return None;
        }
        let mut program = Command::new("setpriv");
        program.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
        program
    } else {
        Command::new(&copy)
    };
    let output = program.args(arguments).current_dir("/").output().expect("runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    Some(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Whether this process may read everything: it owns a folder of its own that nobody may.
fn reads_everything() -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o000)).expect("forbidden");
    let is_root = fs::read_dir(folder.path()).is_ok();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("permitted");
    is_root
}

#[test]
fn a_spool_without_read_permission_is_not_reported_as_missing() {
    let place = Place::new("", "");
    place.serve().stop();
    fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o755)).expect("permitted");
    let data = place.path("data");
    let text = data.to_str().expect("text");
    for forbidden in [data.clone(), data.join("spool")] {
        fs::set_permissions(&forbidden, fs::Permissions::from_mode(0o000)).expect("forbidden");
        for command in ["status", "check"] {
            let Some(said) = run_as_another(&["spool", command, "--data", text]) else { return };
            assert!(said.to_lowercase().contains("permission denied"), "{said}");
            assert!(
                !said.contains("there is no spool") && said.contains("run the command as the owner"),
                "{said}"
            );
        }
        fs::set_permissions(&forbidden, fs::Permissions::from_mode(0o755)).expect("permitted");
    }
}
