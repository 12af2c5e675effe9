//! A configuration that changes while a sink has a backlog: what was accepted for the sink is delivered to it all the same.

use std::fs;
use std::process::{Command, Stdio};

use crate::sender::Sender;
use crate::server::{Place, Server};

const EVENTS: u64 = 20;

#[test]
fn a_sink_that_a_connector_no_longer_names_still_gets_what_was_accepted_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::with_backlog(folder.path(), EVENTS);
    // From now on the connector's events go to another sink.
    let other = folder.path().join("other.ndjson");
    let text =
        fs::read_to_string(&place.config).expect("read").replace("[[sink]]", "sinks = ['other']\n[[sink]]");
    let text = format!("{text}\n[[sink]]\nname = 'other'\ntype = 'file'\npath = '{}'\n", other.display());
    fs::write(&place.config, text).expect("written");
    let server = Server::bare(&place);
    let mut sender = Sender::connect(server.listen).expect("connected");
    for number in 0..EVENTS {
        assert_eq!(sender.send(2, number).expect("an answer").status, 200);
    }
    server.stop();
    let delivered: Vec<_> = place.events_in_file().into_keys().collect();
    assert_eq!(delivered, (0..EVENTS).map(|number| (1, number)).collect::<Vec<_>>());
    let lines = fs::read_to_string(&other).expect("read").lines().count() as u64;
    assert_eq!(lines, EVENTS, "the new sink gets what came since");
}

#[test]
fn a_removed_sink_that_is_owed_events_refuses_the_start_until_an_operator_gives_them_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::with_backlog(folder.path(), EVENTS);
    let before = fs::read_to_string(&place.config).expect("read");
    let other = folder.path().join("other.ndjson");
    let after = before
        .replace("name = 'file'", "name = 'other'")
        .replace(&place.file.display().to_string(), &other.display().to_string());
    assert_ne!(before, after);
    fs::write(&place.config, &after).expect("written");
    for _ in 0..2 {
        let ended = match Server::start(place.serve(), Stdio::null()) {
            Err(ended) => ended,
            Ok(_) => panic!("it started"),
        };
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        let owed = format!("{EVENTS} events are yet to be delivered to it");
        for word in ["sink file", &*owed, "dt-receiver spool forget file --yes"] {
            assert!(ended.stderr.contains(word), "\"{word}\" is not in: {ended:?}");
        }
    }
    // Put back, it gets them; removed then, it is owed nothing.
    fs::write(&place.config, &before).expect("written");
    Server::bare(&place).stop();
    assert_eq!(place.events_in_file().len() as u64, EVENTS);
    fs::write(&place.config, &after).expect("written");
    Server::bare(&place).stop();
    let status = Command::new(env!("CARGO_BIN_EXE_dt-receiver"))
        .args(["spool", "status", "--json", "--data"])
        .arg(&place.data)
        .output()
        .expect("it runs");
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    let sinks: Vec<_> = status["sinks"].as_array().expect("sinks").iter().map(|sink| &sink["name"]).collect();
    assert_eq!(sinks, ["other"], "the removed sink is forgotten");
}

#[test]
fn a_sink_that_is_forgotten_gives_up_what_it_is_owed_and_the_start_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::with_backlog(folder.path(), EVENTS);
    let text = fs::read_to_string(&place.config).expect("read").replace("name = 'file'", "name = 'other'");
    fs::write(&place.config, text).expect("written");
    let forget = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dt-receiver"));
        command.args(["spool", "forget", "file", "--data"]).arg(&place.data).args(more);
        command.output().expect("it runs")
    };
    let asked = forget(&[]);
    assert_eq!(asked.status.code(), Some(2), "{asked:?}");
    assert!(
        String::from_utf8_lossy(&asked.stderr)
            .contains(&format!("{EVENTS} undelivered events would be dropped"))
    );
    let done = forget(&["--yes"]);
    assert!(done.status.success(), "{done:?}");
    let server = Server::bare(&place);
    assert_eq!(Sender::connect(server.listen).and_then(|mut s| s.send(2, 0)).expect("an answer").status, 200);
    server.stop();
    assert_eq!(place.events_in_file().into_keys().collect::<Vec<_>>(), [(2, 0)]);
}
