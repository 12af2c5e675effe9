//! What DT's own clients rely on in DT's REST API: filters, orders, lists that are emptied, history in time order.

use dt_receiver::emulator::{Emulator, Faults};
use serde_json::{Value, json};

use crate::http::{ANYONE, ask};
use crate::target::{connect, device, publish};

async fn emulator() -> Emulator {
    Emulator::builder().start().await.expect("it starts")
}

fn get(emulator: &Emulator, path: &str) -> Value {
    emulator.call("GET", path, &Value::Null).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The labels `name` of the devices that a query finds, in the order of the list.
fn names(emulator: &Emulator, query: &str) -> Vec<String> {
    let list = get(emulator, &format!("/v2/projects/p/devices?{query}"));
    let devices = list["devices"].as_array().expect("a list").iter();
    devices.map(|device| device["labels"]["name"].as_str().expect("a name").to_owned()).collect()
}

/// DT's Terraform provider sends `null` for an empty list.
#[tokio::test]
async fn null_empties_the_lists_of_a_connector() {
    let emulator = emulator().await;
    let lists = json!({"events": ["touch"], "labels": ["name"], "displayName": "kept"});
    let connector = connect(&emulator, "http://127.0.0.1:9/", &lists);
    let patch = |body: Value| emulator.call("PATCH", &connector, &body).expect("changed");
    let shown = patch(json!({"events": null, "displayName": null}));
    assert_eq!((&shown["events"], &shown["labels"]), (&json!([]), &json!(["name"])));
    let shown = patch(json!({"labels": null}));
    assert_eq!(shown["labels"], json!([]));
    assert_eq!(shown["displayName"], "kept", "null empties lists only");
}

/// DT's Python client writes `label_filters={"floor": ""}` so.
#[tokio::test]
async fn a_label_filter_without_a_value_finds_every_device_with_the_key() {
    let emulator = emulator().await;
    device(&emulator, "touch", &json!({"name": "a", "floor": "2"}));
    device(&emulator, "touch", &json!({"name": "b", "floor": "3"}));
    device(&emulator, "touch", &json!({"name": "c"}));
    for query in ["label_filters=floor%3D", "labelFilters=floor"] {
        let mut found = names(&emulator, query);
        found.sort();
        assert_eq!(found, ["a", "b"], "{query}");
    }
    assert_eq!(names(&emulator, "label_filters=floor%3D3"), ["b"]);
}

#[tokio::test]
async fn a_query_searches_types_labels_and_ids() {
    let emulator = emulator().await;
    let cold = device(&emulator, "temperature", &json!({"name": "Cold store", "Room-Number": "17"}));
    device(&emulator, "proximityCounter", &json!({"name": "Door"}));
    let id = cold.rsplit('/').next().expect("an id");
    for (query, found) in [
        ("proximitycounter", &["Door"][..]),
        ("room-number", &["Cold store"]),
        ("COLD", &["Cold store"]),
        ("store%20temperature", &["Cold store"]),
        ("store%20door", &[]),
        (id, &["Cold store"]),
        (&id.to_uppercase(), &["Cold store"]),
        ("nothing", &[]),
    ] {
        assert_eq!(names(&emulator, &format!("query={query}")), found, "{query}");
    }
}

#[tokio::test]
async fn devices_are_ordered_by_any_documented_field() {
    let emulator = emulator().await;
    let make = |kind: &str, name: &str| device(&emulator, kind, &json!({"name": name}));
    let (nine, ten) = (make("temperature", "b"), make("temperature", "a"));
    let unseen = make("touch", "c");
    publish(&emulator, &nine, &json!({"temperature": {"value": 9, "updateTime": "2026-01-01T00:00:00Z"}}));
    // Text would order both the other way round.
    publish(
        &emulator,
        &ten,
        &json!({"temperature": {"value": 10.5, "updateTime": "2026-01-01T00:00:00.5Z"}}),
    );
    for (order, found) in [
        ("id", ["b", "a", "c"]),
        ("name", ["b", "a", "c"]),
        ("-id", ["c", "a", "b"]),
        ("labels.name", ["a", "b", "c"]),
        ("-labels.name", ["c", "b", "a"]),
        ("-type", ["c", "b", "a"]),
        ("productNumber", ["b", "a", "c"]),
        ("reported.temperature.value", ["b", "a", "c"]),
        // A device without the field comes last in both directions.
        ("-reported.temperature.value", ["a", "b", "c"]),
        ("reported.temperature.updateTime", ["b", "a", "c"]),
        ("-reported.temperature.updateTime", ["a", "b", "c"]),
    ] {
        assert_eq!(names(&emulator, &format!("order_by={order}")), found, "{order}");
        let mut paged = Vec::new();
        let mut token = String::new();
        loop {
            let path = format!("/v2/projects/p/devices?orderBy={order}&pageSize=1&pageToken={token}");
            let page = get(&emulator, &path);
            paged.push(page["devices"][0]["labels"]["name"].as_str().expect("a name").to_owned());
            token = page["nextPageToken"].as_str().expect("a token").to_owned();
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(paged, found, "{order} in pages");
    }
    emulator.call("DELETE", &unseen, &Value::Null).expect("deleted");
    for wrong in ["color", "-", "reported", "reported.temperature", "labels.", "reported.temperature.value.x"]
    {
        let path = format!("/v2/projects/p/devices?orderBy={wrong}");
        let refused = emulator.call("GET", &path, &Value::Null).expect_err("refused");
        assert_eq!(refused.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn an_organization_filters_devices_and_projects() {
    let emulator = Emulator::builder().organization("mine").start().await.expect("it starts");
    device(&emulator, "touch", &json!({}));
    for (organization, count) in [("mine", 1), ("other", 0)] {
        for list in ["devices", "projects"] {
            let path = if list == "devices" { "/v2/projects/-/devices" } else { "/v2/projects" };
            let found = get(&emulator, &format!("{path}?organization=organizations/{organization}"));
            assert_eq!(found[list].as_array().expect("a list").len(), count, "{list} of {organization}");
        }
    }
    // DT's Python client: the organization is ignored where the project is named.
    let found = get(&emulator, "/v2/projects/p/devices?organization=organizations/other");
    assert_eq!(found["devices"].as_array().expect("a list").len(), 1);
}

#[tokio::test]
async fn projects_have_display_names_and_are_found_by_them() {
    let emulator = emulator().await;
    for (project, name) in [("p", "North Wing"), ("q", "South wing")] {
        let path = format!("/v2/projects/{project}");
        emulator.call("PATCH", &path, &json!({"displayName": name})).expect("named");
        assert_eq!(get(&emulator, &path)["displayName"], name);
    }
    emulator.call("PATCH", "/v2/projects/q", &json!({})).expect("nothing changes");
    let found = |query: &str| {
        let list = get(&emulator, &format!("/v2/projects?query={query}"));
        let projects = list["projects"].as_array().expect("a list").iter();
        projects.map(|project| project["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("wing"), ["projects/p", "projects/q"]);
    assert_eq!(found("SOUTH"), ["projects/q"]);
    assert_eq!(found("emulator"), ["projects/p", "projects/q"], "the organization's name counts");
    assert_eq!(found("nothing"), [""; 0]);
    for wrong in [json!({"displayName": 1}), json!({"displayName": "x".repeat(5_000)})] {
        let refused = emulator.call("PATCH", "/v2/projects/p", &wrong).expect_err("refused");
        assert_eq!(refused.status, 400);
    }
}

#[tokio::test]
async fn a_batch_that_changes_no_label_is_refused() {
    let emulator = emulator().await;
    let device = device(&emulator, "touch", &json!({}));
    let name = device.trim_start_matches("/v2/");
    for body in [
        json!({"devices": [name]}),
        json!({"devices": [name], "addLabels": {}, "removeLabels": []}),
        json!({"devices": [name], "addLabels": null}),
    ] {
        let refused = emulator.call("POST", "/v2/projects/p/devices:batchUpdate", &body);
        assert_eq!(refused.expect_err("refused").status, 400, "{body}");
    }
}

#[tokio::test]
async fn the_history_is_in_time_order_also_for_late_events() {
    let day_later = 1_767_312_000_000;
    let emulator = Emulator::builder().clock(move || day_later).start().await.expect("it starts");
    let device = device(&emulator, "touchCounter", &json!({}));
    for (total, second) in [(1, 1), (4, 4), (2, 2), (5, 4), (3, 3)] {
        let time = format!("2026-01-01T00:00:0{second}Z");
        publish(&emulator, &device, &json!({"touchCount": {"total": total, "updateTime": time}}));
    }
    let path = format!("{device}/events?startTime=2026-01-01T00:00:00Z&endTime=2026-01-02T00:00:00Z");
    let (mut totals, mut token) = (Vec::new(), String::new());
    loop {
        let page = get(&emulator, &format!("{path}&pageSize=2&pageToken={token}"));
        let events = page["events"].as_array().expect("a list").iter();
        totals.extend(events.map(|event| event["data"]["touchCount"]["total"].as_u64().expect("a total")));
        token = page["nextPageToken"].as_str().expect("a token").to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(totals, [5, 4, 3, 2, 1], "the newest first");
    for wrong in ["x", "1", "1_", "_1", "99999999999999999999_1"] {
        let refused = emulator.call("GET", &format!("{path}&pageToken={wrong}"), &Value::Null);
        assert_eq!(refused.expect_err("refused").status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_device_publishes_only_what_it_has() {
    let emulator = emulator().await;
    let types = [
        ("temperature", json!({"probeWireStatus": {"state": "THREE_WIRE"}}), true),
        ("temperature", json!({"humidity": {"temperature": 20, "relativeHumidity": 40}}), false),
        ("touch", json!({"temperature": {"value": 1}}), false),
        ("touch", json!({"networkStatus": {"signalStrength": 50}}), true),
        ("touch", json!({"connectionStatus": {"connection": "OFFLINE"}}), true),
        ("co2", json!({"pressure": {"pascal": 99_000}}), true),
        ("ccon", json!({"batteryStatus": {"percentage": 80}}), false),
        ("ccon", json!({"cellularStatus": {"signalStrength": 80}}), true),
        // One that it has does not let another through, and nothing of the call is published.
        ("motion", json!({"touch": {}, "co2": {"ppm": 500}}), false),
    ];
    for (kind, event, allowed) in types {
        let device = device(&emulator, kind, &json!({}));
        let answer = emulator.call("POST", &format!("{device}:publish"), &event);
        match answer {
            Ok(_) => assert!(allowed, "{kind} {event}"),
            Err(error) => {
                assert!(!allowed && error.status == 400, "{kind} {event}: {error}");
                let history = get(&emulator, &format!("{device}/events"));
                assert_eq!(history["events"], json!([]), "{kind} {event}");
            }
        }
    }
}

/// DT's Python client waits for the seconds of `Retry-After`, and gives up without one.
#[tokio::test]
async fn the_fault_rate_limit_answers_429() {
    let mut faults = Faults::default();
    faults.apply("rate-limit=1").expect("a fault");
    let emulator = Emulator::builder().faults(faults).start().await.expect("it starts");
    let url = format!("{}/projects", emulator.api_url());
    let answer = ask("GET", &url, &[ANYONE], "").await;
    assert_eq!((answer.status, &answer.headers["retry-after"]), (429, &"1".parse().expect("a value")));
    assert_eq!(answer.body["code"], 429, "{answer:?}");
    let control = format!("{}/emulator/faults", emulator.url());
    let half = ask("PATCH", &control, &[ANYONE], r#"{"rateLimit": 0.5}"#).await;
    assert_eq!(half.status, 200, "the controls have no limit");
    let (mut refused, mut served) = (0, 0);
    while refused == 0 || served == 0 {
        match ask("GET", &url, &[ANYONE], "").await.status {
            200 => served += 1,
            429 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(ask("PATCH", &control, &[ANYONE], r#"{"rateLimit": 2}"#).await.status, 400);
}
