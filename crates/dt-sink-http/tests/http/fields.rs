//! Fields of the operator's choice, as they arrive: alone, in lines, in an array, signed, and as the page shows them.

use std::sync::Arc;

use dt_sink::{Fate, Format, Record};
use serde_json::{Value, json};

use crate::driver::{Driver, Files, config, records};
use crate::target::{Reply, Target};

const FIELDS: &str = "fields = { id = '{eventId}', from = '{device}', none = '{co2}', n = 1 }";

fn files() -> Files {
    Files([("SECRET".to_owned(), b"s3cret".to_vec())].into())
}

/// Sends the events of three devices with these further keys. Returns each request's content type and body.
fn sent(more: &str) -> Vec<(String, String)> {
    let target = Target::start(|_| Reply::Status(200));
    let keys = format!("url = '{}'\n{FIELDS}\n{more}", target.url());
    let mut driver = Driver::with(config(&keys, &files()), Format::default());
    assert!(driver.deliver(&records(3, 2)).iter().all(|fate| *fate == Fate::Delivered));
    let arrived = target.take();
    arrived.iter().map(|arrived| (arrived.header("content-type").to_owned(), arrived.body.clone())).collect()
}

fn expected(device: usize, number: usize) -> Value {
    json!({"id": format!("dev{device}-{number}"), "from": format!("dev{device}"), "n": 1})
}

#[test]
fn each_event_is_an_object_with_these_fields() {
    for more in ["", "sign = { secret = { env = 'SECRET' } }", "cloudevents = 'structured'"] {
        let requests = sent(more);
        assert_eq!(requests.len(), 6);
        for (content_type, body) in requests {
            assert_eq!(content_type, "application/json");
            let value: Value = serde_json::from_str(&body).expect("JSON");
            let id = value["id"].as_str().expect("a text");
            let (device, number) = id.strip_prefix("dev").and_then(|id| id.split_once('-')).expect("of ours");
            assert_eq!(value, expected(device.parse().expect("a number"), number.parse().expect("a number")));
        }
    }
}

#[test]
fn a_batch_has_them_on_lines_or_in_an_array() {
    let all: Vec<Value> =
        (0..3).flat_map(|device| (0..2).map(move |number| expected(device, number))).collect();
    let [(content_type, body)] = &sent("batch = { format = 'ndjson' }")[..] else { panic!("one request") };
    let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((content_type.as_str(), &lines), ("application/x-ndjson", &all));
    assert!(body.ends_with('\n'));
    let [(content_type, body)] = &sent("batch = { format = 'json-array' }")[..] else {
        panic!("one request")
    };
    let array: Vec<Value> = serde_json::from_str(body).expect("an array");
    assert_eq!((content_type.as_str(), &array), ("application/json", &all));
}

/// Returns the code block of a language that contains `words`.
fn block<'a>(page: &'a str, language: &str, words: &str) -> &'a str {
    let fence = format!("```{language}\n");
    let mut blocks = page.split(&fence).skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.contains(words)).unwrap_or_else(|| panic!("no block with {words}"))
}

#[test]
fn the_page_shows_what_its_configuration_sends() {
    let page = include_str!("../../../../docs/http.md");
    let document: toml::Table = block(page, "toml", "[sink.fields]").parse().expect("TOML");
    let keys = toml::Table::from_iter([("fields".to_owned(), document["sink"][0]["fields"].clone())]);
    let shown = block(page, "json", "celsius").trim();
    let target = Target::start(|_| Reply::Status(200));
    let keys = format!("url = '{}'\n{keys}", target.url());
    let vectors: Value =
        serde_json::from_str(include_str!("../../../../tests/vectors/line_protocol.json")).expect("JSON");
    let record = Record {
        project: Some("b5rj9ed7rihk942p48og".into()),
        device: Some("b6roh6d7rihmn9oji86g".into()),
        body: vectors[0]["body"].as_str().expect("a body").to_owned().into(),
        ..Record::sample("c82gg9catj3vmh4248og")
    };
    let mut driver = Driver::with(config(&keys, &files()), Format::default());
    assert_eq!(driver.deliver_one(Arc::new(record)), Fate::Delivered);
    assert_eq!(target.bodies(), [shown]);
}
