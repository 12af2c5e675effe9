//! Pages of devices, projects and the event history.

use std::collections::BTreeSet;

use dt_api::{DeviceQuery, EventRecord, HistoryQuery};
use dt_emulator::Emulator;
use dt_verify::event::{EventType, Payload, Timestamp};
use serde_json::{Value, json};

use crate::setup::client_of;

/// Creates devices in the project `p`, and returns their ids.
fn create_devices(cloud: &Emulator, count: usize) -> BTreeSet<String> {
    let create = |at: usize| {
        let body = json!({"type": "temperature", "labels": {"floor": (at % 3).to_string()}});
        let device = cloud.call("POST", "/v2/projects/p/devices", &body).unwrap();
        device["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
    };
    (0..count).map(create).collect()
}

#[tokio::test]
async fn pages_of_any_size_hold_each_device_once() {
    let cloud = Emulator::builder().start().await.unwrap();
    let ids = create_devices(&cloud, 7);
    let client = client_of(&cloud);
    for size in 1..=8 {
        let mut pages = client.devices("p", &DeviceQuery::new().page_size(size)).unwrap();
        let (mut found, mut count) = (Vec::new(), 0);
        while let Some(page) = pages.next().await.unwrap() {
            assert!(page.len() <= size as usize);
            found.extend(page.iter().map(|device| device.id().to_owned()));
            count += 1;
        }
        assert!(pages.next().await.unwrap().is_none(), "the list has ended");
        assert_eq!(found.len(), 7, "page size {size}");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), ids);
        assert_eq!(count, 7_u32.div_ceil(size));
    }
    // A list that was interrupted goes on at its token.
    let mut pages = client.devices("-", &DeviceQuery::new().page_size(3)).unwrap();
    let first = pages.next().await.unwrap().unwrap();
    let token = pages.token().to_owned();
    let rest = client.devices("-", &DeviceQuery::new()).unwrap().starting_at(token).up_to(100).await.unwrap();
    let all: BTreeSet<_> = first.iter().chain(&rest).map(|device| device.id().to_owned()).collect();
    assert_eq!((all, first.len(), rest.len()), (ids, 3, 4));
    cloud.shutdown().await.unwrap();
}

#[tokio::test]
async fn devices_have_labels_and_what_they_reported() {
    let cloud = Emulator::builder().start().await.unwrap();
    let ids = create_devices(&cloud, 4);
    let id = ids.first().unwrap();
    let event = json!({"temperature": {"value": 21.5, "updateTime": "2026-01-02T03:04:05.123456Z"}});
    cloud.call("POST", &format!("/v2/projects/p/devices/{id}:publish"), &event).unwrap();
    let client = client_of(&cloud);
    let device = client.device("-", id).await.unwrap();
    assert_eq!((device.project(), device.id(), &*device.device_type), (Some("p"), &**id, "temperature"));
    let reported = device.reported.unwrap();
    let newest = reported.get(&EventType::Temperature).unwrap();
    assert_eq!(newest.update_time.as_ref().unwrap().as_str(), "2026-01-02T03:04:05.123456Z");
    assert!(newest.raw.get().contains("21.5"));
    assert!(reported.get(&EventType::Touch).is_none(), "null counts as absent");
    assert_eq!(reported.iter().count(), 1);

    let floor = client.devices("p", &DeviceQuery::new().label("floor", "0")).unwrap().up_to(9).await.unwrap();
    assert_eq!(floor.len(), 2);
    let one = client.devices("p", &DeviceQuery::new().device(id)).unwrap().up_to(9).await.unwrap();
    assert_eq!(one.len(), 1);
    for missing in [client.device("p", "nothing").await, client.device("other", id).await] {
        let error = missing.unwrap_err();
        assert_eq!(error.code(), "not_found", "{error}");
    }
    assert_eq!(client.device("p", "a/b").await.unwrap_err().code(), "argument");
    cloud.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_history_is_read_by_windows_and_pages() {
    let cloud = Emulator::builder().start().await.unwrap();
    let id = create_devices(&cloud, 1).pop_first().unwrap();
    let name = format!("/v2/projects/p/devices/{id}");
    // The history has 31 days.
    let (day, minute_micros) = (24 * 3_600_000_000, 60_000_000);
    let two_days_ago = cloud.now_millis() * 1000 / day * day - 2 * day;
    let at = |minute: i64| Timestamp::from_unix_micros(two_days_ago + minute * minute_micros);
    for minute in 0..10 {
        let time = at(minute).as_str().to_owned();
        for event in [
            json!({"temperature": {"value": minute, "updateTime": time}}),
            json!({"touch": {"updateTime": time}}),
        ] {
            cloud.call("POST", &format!("{name}:publish"), &event).unwrap();
        }
    }
    let client = client_of(&cloud);
    let read = async |query: HistoryQuery| -> Vec<EventRecord> {
        client.history("p", &id, &query).unwrap().up_to(1000).await.unwrap()
    };
    let window = || HistoryQuery::new().from(&at(2)).until(&at(5));
    assert_eq!(read(HistoryQuery::new()).await.len(), 0, "without times, it is the last day");
    assert_eq!(read(window()).await.len(), 8);
    let temperatures = read(window().event_type(&EventType::Temperature)).await;
    assert_eq!(temperatures.len(), 4);
    let Payload::Temperature(newest) = temperatures[0].event().unwrap().data else {
        panic!("{temperatures:?}")
    };
    assert_eq!((newest.value, temperatures[0].device()), (5.0, Some(&*id)));
    assert_eq!(temperatures[0].timestamp, Some(at(5)));
    for size in 1..9 {
        let ids: BTreeSet<_> =
            read(window().page_size(size)).await.into_iter().map(|event| event.event_id).collect();
        assert_eq!(ids.len(), 8, "page size {size}");
    }
    // The JSON of each event is what DT sent.
    let sent = cloud.call(
        "GET",
        &format!("{name}/events?startTime={}&endTime={}", at(0).as_str(), at(59).as_str()),
        &Value::Null,
    );
    let all = read(HistoryQuery::new().from(&at(0)).until(&at(59))).await;
    let received: Vec<Value> =
        all.iter().map(|event| serde_json::from_str(event.raw.get()).unwrap()).collect();
    assert_eq!(Value::from(received), sent.unwrap()["events"]);

    let error = client.history("p", "nothing", &HistoryQuery::new()).unwrap().next().await.unwrap_err();
    assert_eq!(error.code(), "not_found");
    cloud.shutdown().await.unwrap();
}
