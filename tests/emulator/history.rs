//! The event history: windows, order, indexing delay, age, late events, transferred devices, and limits.

use std::time::Duration;

use dt_receiver::emulator::{DeliveryStatus, Emulator, EmulatorBuilder};
use serde_json::{Value, json};
use tokio::time::advance;

use crate::target::{Slow, Target, connect, device, publish};
use crate::wait::{until, until_within};

/// The time at which each emulator starts, in Unix seconds, and as a text without its `Z`.
const NOW: i64 = 1_767_225_600;
const NOW_TEXT: &str = "2026-01-01T00:00:00";

/// An emulator without a network, whose clock starts at [`NOW`].
fn builder() -> EmulatorBuilder {
    Emulator::builder().clock(|| NOW * 1_000).transport(Slow::new())
}

async fn emulator() -> Emulator {
    builder().start().await.expect("it starts")
}

fn get(emulator: &Emulator, path: &str) -> Value {
    emulator.call("GET", path, &Value::Null).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn faults(emulator: &Emulator, change: &Value) {
    emulator.call("PATCH", "/emulator/faults", change).expect("set");
}

/// Publishes a count that has this `timestamp`: `NOW` and these seconds.
fn count(emulator: &Emulator, device: &str, total: u64, second: i64) {
    let time = at(second);
    publish(emulator, device, &json!({"touchCount": {"total": total, "updateTime": time}}));
}

/// The time `NOW` and these seconds, in RFC 3339.
fn at(second: i64) -> String {
    jiff::Timestamp::from_second(NOW + second).expect("a time").to_string()
}

fn totals(page: &Value) -> Vec<u64> {
    let events = page["events"].as_array().expect("a list").iter();
    events.map(|event| event["data"]["touchCount"]["total"].as_u64().expect("a total")).collect()
}

/// The totals of a query, from all its pages.
fn all(emulator: &Emulator, path: &str) -> Vec<u64> {
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let page = get(emulator, &format!("{path}&pageSize=2&pageToken={token}"));
        found.extend(totals(&page));
        token = page["nextPageToken"].as_str().expect("a token").to_owned();
        if token.is_empty() {
            return found;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_is_indexed_late_and_pushed_and_reported_at_once() {
    let emulator = emulator().await;
    connect(&emulator, "http://receiver.test/", &json!({}));
    let device = device(&emulator, "touchCounter", &json!({}));
    faults(&emulator, &json!({"indexDelayMillis": 10_000}));
    count(&emulator, &device, 1, 0);
    assert_eq!(emulator.queued(), 1, "it is pushed");
    assert_eq!(get(&emulator, &device)["reported"]["touchCount"]["total"], 1);
    let path = format!("{device}/events?startTime={NOW_TEXT}Z");
    advance(Duration::from_millis(9_999)).await;
    assert_eq!(all(&emulator, &path), [0; 0]);
    assert_eq!(emulator.history().len(), 1, "the list of all events has it");
    advance(Duration::from_millis(1)).await;
    assert_eq!(all(&emulator, &path), [1]);
}

/// An event that is indexed after the position of the token is on a later page. One that is indexed before it is found by the
/// next window, if that overlaps by the delay, as DT recommends.
#[tokio::test(start_paused = true)]
async fn a_page_token_hides_no_event_that_is_indexed_while_paging() {
    // The events in the order of the history. The first and the fourth are indexed late.
    for (oldest_first, order) in [(false, [6, 5, 4, 3, 2, 1]), (true, [1, 2, 3, 4, 5, 6])] {
        let emulator = emulator().await;
        let device = device(&emulator, "touchCounter", &json!({}));
        faults(&emulator, &json!({"historyOldestFirst": oldest_first}));
        for total in 1..=6 {
            let is_late = total == order[0] || total == order[3];
            faults(&emulator, &json!({"indexDelayMillis": if is_late { 2_000 } else { 0 }}));
            count(&emulator, &device, total, total.cast_signed() - 60);
        }
        let path = format!("{device}/events?startTime={}&endTime={NOW_TEXT}Z", at(-60));
        let page = get(&emulator, &format!("{path}&pageSize=2"));
        assert_eq!(totals(&page), order[1..3]);
        advance(Duration::from_secs(2)).await;
        let token = page["nextPageToken"].as_str().expect("a token");
        // The last token that is not empty counts.
        assert_eq!(all(&emulator, &format!("{path}&pageToken={token}")), order[3..]);
        assert_eq!(all(&emulator, &path), order);
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_includes_both_ends_and_starts_before_its_end() {
    let emulator = emulator().await;
    let device = device(&emulator, "touchCounter", &json!({}));
    for second in 1..=5 {
        count(&emulator, &device, second, second.cast_signed() - 60);
    }
    let window = |start: &str, end: &str| format!("{device}/events?startTime={start}&endTime={end}");
    assert_eq!(all(&emulator, &window(&at(-58), &at(-56))), [4, 3, 2]);
    assert_eq!(all(&emulator, &window(&at(-57), &at(-57))), [3]);
    // To the microsecond.
    assert_eq!(all(&emulator, &window("2025-12-31T23:59:02.000001Z", "2025-12-31T23:59:03.999999Z")), [3]);
    for wrong in [
        window(&at(-56), &at(-57)),
        window("2026-01-01T00:00:00.000001Z", &at(0)),
        // The end is now by default.
        format!("{device}/events?startTime={}", at(1)),
        window("yesterday", &at(0)),
    ] {
        assert_eq!(emulator.call("GET", &wrong, &Value::Null).expect_err("refused").status, 400, "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_history_has_31_days() {
    const DAY: i64 = 86_400;
    let emulator = emulator().await;
    let device = device(&emulator, "touchCounter", &json!({}));
    count(&emulator, &device, 1, -31 * DAY - 1);
    count(&emulator, &device, 2, -31 * DAY);
    count(&emulator, &device, 3, 0);
    let path = format!("{device}/events?startTime={}", at(-40 * DAY));
    assert_eq!(all(&emulator, &path), [3, 2], "what is left is served");
    advance(Duration::from_secs(1)).await;
    assert_eq!(all(&emulator, &path), [3]);
    let gone = format!("{device}/events?startTime={}&endTime={}", at(-40 * DAY), at(-35 * DAY));
    assert_eq!(all(&emulator, &gone), [0; 0]);
    advance(Duration::from_secs(31 * 86_400)).await;
    assert_eq!(all(&emulator, &path), [0; 0]);
    assert_eq!(get(&emulator, &device)["reported"]["touchCount"]["total"], 3, "the newest is still reported");
}

/// A sensor that could not reach a Cloud Connector sends what it has measured meanwhile.
#[tokio::test(start_paused = true)]
async fn a_late_event_has_its_old_time_and_does_not_move_the_newest_one() {
    let emulator = emulator().await;
    connect(&emulator, "http://receiver.test/", &json!({}));
    let device = device(&emulator, "temperature", &json!({}));
    publish(&emulator, &device, &json!({"temperature": {"value": 1}}));
    let late = device.replace("/v2/", "/emulator/");
    for (query, value) in [("age=3600", 2), ("age=7200&push=false", 3)] {
        let body = json!({"temperature": {"value": value}, "touch": {}});
        emulator.call("POST", &format!("{late}:publish?{query}"), &body).expect("published");
    }
    assert_eq!(emulator.ledger().len(), 3, "the last one and its touch are not pushed");
    assert_eq!(emulator.queued(), 3, "pushed at once");
    let shown = get(&emulator, &device);
    assert_eq!(shown["reported"]["temperature"]["value"], 1);
    assert_eq!(shown["reported"]["temperature"]["updateTime"], format!("{NOW_TEXT}.000000Z"));
    assert_eq!(shown["reported"]["touch"]["updateTime"], "2025-12-31T23:00:00.000000Z");
    let history = get(&emulator, &format!("{device}/events?eventTypes=temperature"));
    let seen = history["events"].as_array().expect("a list").iter().map(|event| {
        let temperature = &event["data"]["temperature"];
        json!([event["timestamp"], temperature["value"], temperature["isBackfilled"]])
    });
    let expected = [
        json!(["2026-01-01T00:00:00.000000Z", 1, false]),
        json!(["2025-12-31T23:00:00.000000Z", 2, true]),
        json!(["2025-12-31T22:00:00.000000Z", 3, true]),
    ];
    assert_eq!(seen.collect::<Vec<_>>(), expected);
    for wrong in ["age=-1", "age=1h", "push=no"] {
        let refused = emulator.call("POST", &format!("{late}:publish?{wrong}"), &json!({"touch": {}}));
        assert_eq!(refused.expect_err("refused").status, 400, "{wrong}");
    }
    for (method, path, status) in [
        ("GET", format!("{late}:publish"), 405),
        ("POST", late.clone(), 404),
        ("POST", format!("{late}x:publish"), 404),
    ] {
        let refused = emulator.call(method, &path, &json!({"touch": {}})).expect_err("refused");
        assert_eq!(refused.status, status, "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connector_can_be_disabled_as_dt_does() {
    let emulator = emulator().await;
    let connector = connect(&emulator, "http://receiver.test/", &json!({}));
    let device = device(&emulator, "touch", &json!({}));
    publish(&emulator, &device, &json!({"touch": {}}));
    let control = connector.replace("/v2/", "/emulator/");
    let shown = emulator.call("POST", &format!("{control}:disable"), &Value::Null).expect("disabled");
    assert_eq!(shown["status"], "SYSTEM_DISABLED");
    assert_eq!(get(&emulator, "/emulator")["connectors"][0]["disabledAt"], format!("{NOW_TEXT}.000000Z"));
    assert_eq!((emulator.queued(), emulator.ledger()[0].fate), (0, DeliveryStatus::Dropped));
    publish(&emulator, &device, &json!({"touch": {}}));
    assert_eq!((emulator.queued(), emulator.ledger().len()), (0, 1), "nothing is queued meanwhile");
    for status in ["ACTIVE", "USER_DISABLED", "ACTIVE"] {
        emulator.call("PATCH", &connector, &json!({"status": status})).expect("set");
        assert_eq!(emulator.queued(), 0);
        publish(&emulator, &device, &json!({"touch": {}}));
        assert_eq!(emulator.queued(), usize::from(status == "ACTIVE"), "{status}");
    }
    for (method, path, status) in [
        ("GET", format!("{control}:disable"), 405),
        ("POST", control.clone(), 404),
        ("POST", format!("{control}x:disable"), 404),
    ] {
        assert_eq!(emulator.call(method, &path, &Value::Null).expect_err("refused").status, status, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transferred_device_takes_its_history_and_its_heartbeat_along() {
    let devices = "touchCounter".parse().expect("devices");
    let emulator = builder().devices("p", devices, Duration::from_secs(60)).start().await.expect("it starts");
    let old =
        get(&emulator, "/v2/projects/p/devices")["devices"][0]["name"].as_str().expect("a name").to_owned();
    let new = old.replace("projects/p/", "projects/q/");
    let events = |emulator: &Emulator, name: &str| {
        let history = get(emulator, &format!("/v2/{name}/events?eventTypes=touchCount&pageSize=1000"));
        let events = history["events"].as_array().expect("a list").iter();
        events.map(|event| event["targetName"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    let (hour, second) = (Duration::from_secs(3_600), Duration::from_secs(1));
    until_within(hour, second, || (events(&emulator, &old).len() == 3).then_some(())).await;
    let body = json!({"devices": [old]});
    emulator.call("POST", "/v2/projects/q/devices:transfer", &body).expect("transferred");
    until_within(hour, second, || (events(&emulator, &new).len() == 5).then_some(())).await;
    let gone = emulator.call("GET", &format!("/v2/{old}/events"), &Value::Null);
    assert_eq!(gone.expect_err("not there").status, 404);
    assert_eq!(events(&emulator, &new), [&*new, &*new, &*old, &*old, &*old]);
    emulator.call("DELETE", &format!("/v2/{new}"), &Value::Null).expect("deleted");
    let before = emulator.history().len();
    advance(Duration::from_secs(300)).await;
    assert_eq!(emulator.history().len(), before, "a deleted device sends nothing");
}

#[tokio::test(start_paused = true)]
async fn the_capacities_are_settings() {
    let emulator = builder().history_events(3).ledger_entries(2).start().await.expect("it starts");
    connect(&emulator, "http://receiver.test/", &json!({}));
    let device = device(&emulator, "touchCounter", &json!({}));
    for total in 1..=5 {
        count(&emulator, &device, total, total.cast_signed() - 60);
    }
    assert_eq!(all(&emulator, &format!("{device}/events?startTime={}", at(-60))), [5, 4, 3]);
    assert_eq!((emulator.history().len(), emulator.ledger().len()), (3, 2));
}

/// Back-fill reads both while DT limits it.
#[tokio::test]
async fn the_faults_of_the_api_cover_histories_and_lists() {
    use crate::http::{ANYONE, ask};
    let emulator = Emulator::builder().start().await.expect("it starts");
    let device = device(&emulator, "touch", &json!({}));
    let root = emulator.url();
    for (fault, status) in [("rateLimit", 429), ("apiOutage", 503)] {
        let set = if fault == "rateLimit" { json!({fault: 1}) } else { json!({fault: true}) };
        faults(&emulator, &set);
        for path in [format!("{device}/events"), "/v2/projects/p/devices".to_owned(), device.clone()] {
            assert_eq!(ask("GET", &format!("{root}{path}"), &[ANYONE], "").await.status, status, "{path}");
        }
        emulator.call("DELETE", "/emulator/faults", &Value::Null).expect("cleared");
    }
    faults(&emulator, &json!({"rateLimit": 1, "retryAfterDate": true}));
    let answer = ask("GET", &format!("{root}{device}/events"), &[ANYONE], "").await;
    let date = |name: &str| {
        let text = answer.headers[name].to_str().expect("text");
        let (time, zone) = text.rsplit_once(' ').expect("a date");
        assert_eq!((answer.status, zone), (429, "GMT"), "{answer:?}");
        let time = jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S", time).expect("a date");
        time.to_zoned(jiff::tz::TimeZone::UTC).expect("a time").timestamp().as_second()
    };
    assert_eq!(date("retry-after") - date("date"), 1, "{:?}", answer.headers);
}

/// `drop` is enough for a receiver that fails at random: the attempts count as failed, and half of them do not reach it.
#[tokio::test]
async fn a_share_of_attempts_can_fail_without_reaching_the_receiver() {
    let emulator = Emulator::builder().seed(7).time_scale(10_000).start().await.expect("it starts");
    faults(&emulator, &json!({"drop": 0.3}));
    let target = Target::start().await;
    let connector = connect(&emulator, &target.url, &json!({}));
    let device = device(&emulator, "touch", &json!({}));
    for _ in 0..100 {
        publish(&emulator, &device, &json!({"touch": {}}));
    }
    until(|| (emulator.queued() == 0).then_some(())).await;
    let attempts: u32 = emulator.ledger().iter().map(|entry| entry.attempts).sum();
    let failed = attempts - 100;
    assert!((20..80).contains(&failed), "{failed} failures");
    let metrics = get(&emulator, &format!("{connector}:metrics"));
    assert_eq!(metrics["metrics"]["errorCount"], failed);
    let reached = u32::try_from(target.got().len()).expect("few");
    assert!(reached > 100 && reached < attempts, "{reached} of {attempts}");
}
