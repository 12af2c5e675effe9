//! Fields of the operator's choice, through the receiver to a target: each event once, in order, with these fields alone.

use serde_json::{Value, json};

use crate::common;
use crate::events::{body, parse_id};
use crate::load::{Ledger, Load};
use crate::setup::Setup;
use crate::target::{Received, Target};

const FIELDS: &str = "[sink.fields]\nid = '{eventId}'\ndevice = '{device}'\ntouched = '{touch}'\nnothing = '{co2}'\n\
                      body = '{body}'\nversion = 2\nsource = { name = 'project {project}', text = '{labels.f}' }\n";

fn sink(name: &str, url: &str, more: &str) -> String {
    format!("[[sink]]\nname = '{name}'\ntype = 'http'\nurl = '{url}'\n{more}\n{FIELDS}")
}

/// Each accepted event is there once, in the order of its device, as an object with exactly the fields.
fn assert_fields(received: &Received, ledger: &Ledger) {
    let mut last = std::collections::BTreeMap::new();
    let texts = received.texts();
    for text in &texts {
        let value: Value = serde_json::from_str(text).expect("JSON");
        let (device, number) = value["id"].as_str().and_then(parse_id).expect("an event of ours");
        let sent = body(device, number);
        let parsed: Value = serde_json::from_str(&sent).expect("JSON");
        let expected = json!({
            "id": parsed["event"]["eventId"],
            "device": format!("dev{device}"),
            "touched": 1,
            "body": parsed,
            "version": 2,
            "source": {"name": "project p", "text": parsed["labels"]["f"]},
        });
        assert_eq!(value, expected);
        assert!(text.contains(&format!("\"body\":{sent}")), "as received: {text}");
        assert!(
            last.insert(device, number).is_none_or(|before| before < number),
            "dev{device} is out of order"
        );
    }
    assert_eq!(texts.len(), ledger.count(), "each once");
}

#[test]
fn events_arrive_with_the_fields_that_are_configured() {
    let (alone, lines) = (Target::start(), Target::start());
    let sinks = [
        sink("alone", &alone.url(), ""),
        sink("lines", &lines.url(), "batch = { format = 'ndjson', max_events = 50 }"),
    ];
    let setup = Setup::forwarding(&sinks.concat());
    let receiver = setup.start();
    let ledger = Load::of(receiver.listen, 0..8, 40).send();
    receiver.drain();
    receiver.stop();
    assert_fields(&alone.received, &ledger);
    assert_fields(&lines.received, &ledger);
    assert!(lines.received.count() < alone.received.count());
    assert!(setup.dead_letters().is_empty());
}

#[test]
fn check_names_the_line_of_an_unknown_placeholder() {
    let setup = Setup::forwarding(&sink("http", "https://h.example/", "").replace("{co2}", "{c02}"));
    let config = setup.config();
    let ended = common::run(["check", "--config", config.to_str().expect("text")], b"");
    assert_eq!(ended.code(), 2, "{ended:?}");
    let text = std::fs::read_to_string(&config).expect("text");
    let line = text.lines().position(|line| line.starts_with("nothing")).expect("a line") + 1;
    let expected = format!(
        "line {line}: sink.http.fields.nothing: found \"{{c02}}\"; did you mean \"{{co2}}\"? expected {{date}}"
    );
    assert!(ended.stderr.contains(&expected), "{ended:?}");
}
