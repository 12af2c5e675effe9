//! Everything that can be changed, in both modes, while events come.

use std::io::{Read, Write};

use crate::load::{Load, assert_all_once_in_order, assert_stretches};
use crate::place::{Place, SECRET, until};

/// Secrets, sinks and connectors come, change and go.
fn everything_changes(mode: &'static str) {
    let place = Place::new(mode);
    let served = place.serve(&place.plain());
    let load = Load::start(served.receiver.listen);

    // A secret is rotated: both, then the new one alone.
    place.write("secret-b", "second-good-secret");
    let (a, b) = (place.path("secret-a"), place.path("secret-b"));
    let both = format!(
        "secrets = [{{ label = 'a', file = '{}' }}, {{ label = 'b', file = '{}' }}]",
        a.display(),
        b.display()
    );
    let connector = place.connector("default", "/", &both);
    served.apply(&place, &place.text("", &[connector, place.sink("file", "events.ndjson")]));
    load.go_on();
    load.sign_with("second-good-secret");
    load.go_on();
    let only = format!("secrets = [{{ label = 'b', file = '{}' }}]", b.display());
    let connector = place.connector("default", "/", &only);
    served.apply(&place, &place.text("", &[connector.clone(), place.sink("file", "events.ndjson")]));
    load.go_on();
    assert_eq!(served.post("/", 9, 0, SECRET).status, 401, "the old secret is gone");

    // A sink comes, and later goes.
    let (file, second) = (place.sink("file", "events.ndjson"), place.sink("second", "second.ndjson"));
    served.apply(&place, &place.text("", &[connector.clone(), second.clone(), file]));
    load.go_on();
    until("the new sink gets events", || !place.ids(&["second.ndjson"]).is_empty());

    // A sink writes elsewhere, and in another place of the list.
    let moved = place.sink("file", "moved.ndjson");
    served.apply(&place, &place.text("", &[connector.clone(), second, moved.clone()]));
    load.go_on();
    until("events go there", || !place.ids(&["moved.ndjson"]).is_empty());
    served.apply(&place, &place.text("", &[connector.clone(), moved.clone()]));
    load.go_on();
    until("it is forgotten", || !served.scrape().contains("sink=\"second\""));

    // Connectors come, with rules that change, and one that was never used goes.
    let with_other = |more: &str, top: &str| {
        let more = if more.is_empty() { String::new() } else { format!("{more}\n") };
        let other = place.connector("other", "/other", &more);
        let unused = place.connector("unused", "/unused", "");
        place.text(top, &[connector.clone(), other, unused, moved.clone()])
    };
    assert_eq!(served.post("/other", 100, 0, SECRET).status, 404);
    served.apply(&place, &with_other("events = ['temperature']", ""));
    let answer = served.post("/other", 100, 0, SECRET);
    assert!(answer.status == 200 && answer.body.contains("ignored"), "{answer:?}");
    served.apply(&place, &with_other("projects = ['elsewhere']", ""));
    assert_eq!(served.post("/other", 100, 0, SECRET).status, 403);
    place.write("header", "value");
    let header = place.path("header");
    let headers = format!("[connector.headers]\nx-mine = {{ file = '{}' }}", header.display());
    served.apply(&place, &with_other(&headers, ""));
    assert!(served.post("/other", 100, 0, SECRET).body.contains("header_mismatch"));
    served.apply(&place, &with_other("", "[limits]\nmax_body = '1KiB'"));
    let long = format!("{}{}", crate::events::body(100, 0), " ".repeat(1500));
    let mut sender = crate::sender::Sender::connect(served.receiver.listen).expect("it listens");
    let answer = sender.post("/other", &long, &crate::place::token(&long, SECRET)).expect("an answer");
    assert_eq!(answer.status, 413, "{answer:?}");
    served.apply(&place, &place.text("", &[connector, place.connector("other", "/new", ""), moved]));
    assert_eq!(served.post("/other", 100, 0, SECRET).status, 404);
    assert_eq!(served.post("/unused", 100, 0, SECRET).status, 404);
    load.go_on();

    let sent = load.stop();
    assert_eq!(served.post("/new", 100, 0, SECRET).status, 200);
    let ended = served.receiver.stop();
    assert_eq!(ended.code(), 0, "{ended:?}");
    let mut all = place.ids(&["events.ndjson", "moved.ndjson"]);
    assert_eq!(all.pop(), Some((100, 0)));
    assert_all_once_in_order(&all, &sent);
    assert_stretches(&place.ids(&["second.ndjson"]));
    let audit: Vec<_> = ended.stderr.lines().filter(|line| line.contains("\"target\":\"audit\"")).collect();
    for key in [
        "connector.default.secrets.b",
        "sink.second",
        "sink.file.path",
        "connector.other.events",
        "limits.max_body",
    ] {
        assert!(
            audit.iter().any(|line| line.contains(&format!("\"key\":\"{key}\"")) && line.contains("SIGHUP")),
            "{key}"
        );
    }
    assert!(!ended.stderr.contains("good-secret"), "a secret is in the log");
}

#[test]
fn nothing_is_lost_while_everything_changes() {
    everything_changes("spool");
}

#[test]
fn nothing_is_lost_while_everything_changes_in_mode_direct() {
    everything_changes("direct");
}

#[test]
fn a_connector_goes_to_other_sinks_without_a_gap() {
    let place = Place::new("spool");
    let (one, two) = (place.sink("one", "one.ndjson"), place.sink("two", "two.ndjson"));
    let to = |sinks: &str| {
        let connector = place.connector("default", "/", &format!("sinks = [{sinks}]"));
        place.text("", &[connector, one.clone(), two.clone()])
    };
    let served = place.serve(&to("'one'"));
    let load = Load::start(served.receiver.listen);
    for _ in 0..5 {
        served.apply(&place, &to("'two'"));
        load.go_on();
        served.apply(&place, &to("'one'"));
        load.go_on();
    }
    let sent = load.stop();
    served.receiver.stop();
    let mut all = place.ids(&["one.ndjson", "two.ndjson"]);
    all.sort_unstable();
    // Around each change both may have an event; none may be missing.
    all.dedup();
    assert_all_once_in_order(&all, &sent);
}

/// A request ends with the sinks that it began with, also when these are removed before its body has come.
#[test]
fn a_removed_sink_gets_what_is_on_its_way() {
    let place = Place::new("spool");
    let only = |name: &str| {
        let connector = place.connector("default", "/", &format!("sinks = ['{name}']"));
        place.text("", &[connector, place.sink(name, &format!("{name}.ndjson"))])
    };
    let served = place.serve(&only("old"));
    assert_eq!(served.post("/", 1, 0, SECRET).status, 200);
    until("the old sink has the first", || place.ids(&["old.ndjson"]).len() == 1);
    let body = crate::events::body(1, 1);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nX-Dt-Signature: {}\r\nContent-Length: {}\r\n\r\n",
        crate::place::token(&body, SECRET),
        body.len()
    );
    let mut slow = std::net::TcpStream::connect(served.receiver.listen).expect("it listens");
    slow.write_all(format!("{head}{}", &body[..10]).as_bytes()).expect("sent");
    until("it is being answered", || served.metric("dt_receiver_requests_in_flight") >= 1.0);
    served.apply(&place, &only("new"));
    assert_eq!(served.post("/", 1, 2, SECRET).status, 200);
    slow.write_all(&body.as_bytes()[10..]).expect("sent");
    let mut answer = [0; 1024];
    let length = slow.read(&mut answer).expect("an answer");
    assert!(String::from_utf8_lossy(&answer[..length]).starts_with("HTTP/1.1 200"));
    until("the old sink is forgotten", || !served.scrape().contains("sink=\"old\""));
    served.receiver.stop();
    assert_eq!(
        (place.ids(&["old.ndjson"]), place.ids(&["new.ndjson"])),
        (vec![(1, 0), (1, 1)], vec![(1, 2)])
    );
}

#[test]
fn the_bounds_of_the_spool_change() {
    let place = Place::new("spool");
    let bounded = |top: &str| {
        place.text(top, &[place.connector("default", "/", ""), place.sink("file", "events.ndjson")])
    };
    let served = place.serve(&bounded("[spool]\nmin_free = '1MiB'"));
    assert_eq!(served.post("/", 1, 0, SECRET).status, 200);
    served.apply(&place, &bounded("[spool]\nmin_free = '15TiB'"));
    // It counts when a segment is made; the spares that are there take events.
    assert_eq!(served.post("/", 1, 1, SECRET).status, 200);
    served.apply(&place, &bounded("[spool]\nmin_free = '1MiB'\nmax_size = '256MiB'"));
    assert_eq!(served.post("/", 1, 2, SECRET).status, 200);
    // Alerts measure what is used against it.
    let told = served.metric("dt_receiver_spool_max_bytes");
    assert!((told - 268_435_456.0).abs() < 1.0, "{told}");
}
