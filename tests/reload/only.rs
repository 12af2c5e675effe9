//! Sinks that receive a part of the events (`only`), in both modes: what each gets, what counts as done, and a filter that changes.

use crate::common::run;
use crate::place::{Place, SECRET, Served, token, until};
use crate::sender::{Answer, Sender};

/// Posts a touch of a device with this label, `room`. The number makes the id.
fn post(served: &Served, device: u64, number: u64, room: &str) -> Answer {
    let body = format!(
        r#"{{"event":{{"eventId":"{}","targetName":"projects/p/devices/dev{device}","eventType":"touch","data":{{"touch":{{}}}}}},"labels":{{"room":"{room}"}}}}"#,
        crate::events::id(device, number)
    );
    let mut sender = Sender::connect(served.receiver.listen).expect("it listens");
    sender.post("/", &body, &token(&body, SECRET)).expect("an answer")
}

/// Posts events of two devices in two rooms, which are accepted whatever becomes of them.
fn post_round(served: &Served, round: u64) {
    for (device, room) in [(1, "kitchen"), (2, "kitchen"), (1, "hall"), (2, "hall")] {
        let number = round * 10 + u64::from(room == "hall");
        let answer = post(served, device, number, room);
        assert!(answer.status == 200 && answer.body.contains("accepted"), "{answer:?}");
    }
}

/// Waits until no event is left for these sinks. In mode `direct` there is nothing to wait for.
fn until_done(served: &Served, sinks: &[&str]) {
    for sink in sinks {
        let series = format!("dt_receiver_spool_sink_backlog_records{{sink=\"{sink}\"}}");
        until("every event is done", || served.metric(&series) == 0.0);
    }
}

fn each_sink_gets_what_it_wants(mode: &'static str) {
    let place = Place::new(mode);
    let sink = |name: &str, only: &str| format!("{}\n{only}", place.sink(name, &format!("{name}.ndjson")));
    let text = |device: &str, more: &[String]| {
        let mut sections = vec![
            place.connector("default", "/", ""),
            sink("device", &format!("only = {{ devices = ['{device}'], events = ['touch', 'co2'] }}")),
            sink("kitchen", "only = { labels = { room = 'kitchen' } }"),
            sink("nothing", "only = { projects = ['elsewhere'], labels = { room = true } }"),
        ];
        sections.extend_from_slice(more);
        place.text("[spool]\nretain = '1h'", &sections)
    };
    let all = sink("all", "");
    let served = place.serve(&text("dev1", std::slice::from_ref(&all)));
    post_round(&served, 1);
    until_done(&served, &["device", "kitchen", "nothing", "all"]);
    assert_eq!(place.ids(&["device.ndjson"]), [(1, 10), (1, 11)]);
    assert_eq!(place.ids(&["kitchen.ndjson"]), [(1, 10), (2, 10)]);
    assert_eq!(place.ids(&["nothing.ndjson"]), []);
    assert_eq!(place.ids(&["all.ndjson"]), [(1, 10), (2, 10), (1, 11), (2, 11)]);

    // Another filter; the sink stays. And without `all`, an event may be for no sink.
    served.apply(&place, &text("dev2", &[]));
    post_round(&served, 2);
    assert_eq!(post(&served, 3, 30, "hall").status, 200);
    until_done(&served, &["device", "kitchen", "nothing"]);
    assert_eq!(place.ids(&["device.ndjson"]), [(1, 10), (1, 11), (2, 20), (2, 21)]);
    assert_eq!(place.ids(&["kitchen.ndjson"]), [(1, 10), (2, 10), (1, 20), (2, 20)]);
    assert_eq!(place.ids(&["nothing.ndjson"]), []);
    assert_eq!(served.readiness(), "ready\n");
    let refused = text("dev3", &[]).replace("room = true", "room = false");
    served.reload(&place, &refused, "invalid");

    if mode == "spool" {
        // A replay delivers what the sink wants now.
        let data = place.path("data");
        let data = data.to_str().expect("text");
        let replayed = run(["spool", "replay", "--data", data, "--since", "1h", "--sink", "device"], b"");
        assert_eq!(replayed.code(), 0, "{replayed:?}");
        until("the replay is done", || place.ids(&["device.ndjson"]).len() == 8);
        assert_eq!(place.ids(&["device.ndjson"])[4..], [(2, 10), (2, 11), (2, 20), (2, 21)]);
    }
    let ended = served.receiver.stop();
    let change = r#""key":"sink.device.only.devices""#;
    assert!(
        ended.stderr.lines().any(|line| line.contains(change) && line.contains("dev2")),
        "{}",
        ended.stderr
    );
}

#[test]
fn each_sink_gets_what_it_wants_in_mode_spool() {
    each_sink_gets_what_it_wants("spool");
}

#[test]
fn each_sink_gets_what_it_wants_in_mode_direct() {
    each_sink_gets_what_it_wants("direct");
}

/// A receiver with a sink that is down, for all but events of `dev2`.
fn with_a_broken_sink(place: &Place) -> Served {
    let broken =
        format!("{}\nonly = {{ devices = ['dev2'] }}", place.sink("broken", "missing/{date}.ndjson"));
    place.serve(&place.text("", &[place.connector("default", "/", ""), broken]))
}

#[test]
fn in_mode_direct_a_sink_that_is_down_holds_up_no_event_that_it_does_not_want() {
    let place = Place::new("direct");
    let served = with_a_broken_sink(&place);
    assert_eq!(post(&served, 1, 1, "hall").status, 200);
    assert_eq!(post(&served, 2, 2, "hall").status, 503);
    assert_eq!(post(&served, 1, 3, "hall").status, 200);
}

#[test]
fn in_mode_spool_events_for_a_sink_that_is_down_wait_and_the_others_are_done_after_them() {
    let place = Place::new("spool");
    let served = with_a_broken_sink(&place);
    for (device, number) in [(1, 1), (2, 2), (1, 3)] {
        assert_eq!(post(&served, device, number, "hall").status, 200);
    }
    std::fs::create_dir(place.path("missing")).expect("made");
    until_done(&served, &["broken"]);
    let file = std::fs::read_dir(place.path("missing")).expect("listed").next().expect("a file");
    let file = file.expect("an entry").path();
    assert_eq!(place.ids(&[file.to_str().expect("text")]), [(2, 2)]);
}

#[test]
fn after_a_kill_the_filter_leaves_each_event_in_its_file_once() {
    let place = Place::new("spool");
    let text = |device: &str| {
        let sink = format!("{}\nonly = {{ devices = ['{device}'] }}", place.sink("device", "device.ndjson"));
        place.text("", &[place.connector("default", "/", ""), sink])
    };
    let mut expected = Vec::new();
    for round in 0..5 {
        let served = place.serve(&text("dev1"));
        post_round(&served, 2 * round);
        until_done(&served, &["device"]);
        served.apply(&place, &text("dev2"));
        post_round(&served, 2 * round + 1);
        if round % 2 == 0 {
            until_done(&served, &["device"]);
        }
        served.receiver.kill();
        // The file sink compares its last lines with the events that it is given again: the filter is still the same.
        let served = place.serve(&text("dev2"));
        until_done(&served, &["device"]);
        assert_eq!(served.readiness(), "ready\n");
        for (device, number) in [(1, 2 * round), (2, 2 * round + 1)] {
            expected.extend([(device, number * 10), (device, number * 10 + 1)]);
        }
        assert_eq!(place.ids(&["device.ndjson"]), expected);
        assert_eq!(served.receiver.stop().code(), 0);
    }
}
