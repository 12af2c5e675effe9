//! Events that were missed, and are fetched: each of them reaches the sink exactly once.

use dt_server::cloud::store::{CloudStore, MissingEvent};
use dt_sink::clock::Clock;
use serde_json::json;

use crate::clock::{DAY, HOUR, MINUTE};
use crate::logs;
use crate::world::{Plan, World};

/// A day is 10 s.
fn plan(project: &'static str) -> Plan {
    Plan { scale: 8_640, ..Plan::new(project, "") }
}

/// Publishes an event of each device each hour, for so many hours.
async fn publish_hourly(world: &World, devices: &[String], hours: u32) {
    for hour in 0..hours {
        for device in devices {
            world.publish(device, &json!({"touch": {}}));
            world.publish(device, &json!({"temperature": {"value": hour}}));
        }
        world.wait(HOUR).await;
    }
}

async fn started(project: &'static str) -> (World, Vec<String>) {
    let mut world = World::start(plan(project)).await;
    let devices: Vec<String> = (0..3).map(|_| world.add_device("temperature")).collect();
    // Before the first start: this is never fetched.
    world.start_receiver().await;
    world.wait_for_checks(1).await;
    publish_hourly(&world, &devices, 2).await;
    world.wait_for_all().await;
    (world, devices)
}

#[tokio::test(flavor = "multi_thread")]
async fn thirteen_hours_of_downtime_are_filled() {
    let (mut world, devices) = started("p-down").await;
    world.stop_receiver().await;
    publish_hourly(&world, &devices, 13).await;
    world.start_receiver().await;
    publish_hourly(&world, &devices, 2).await;
    world.wait_for_all().await;
    // It stays so, also after the window was fetched again.
    world.wait(DAY + 2 * HOUR).await;
    assert_eq!(world.wrong_counts(), Default::default());
    assert!(world.metric("dt_receiver_backfill_events_total").await.is_some_and(|filled| filled > 0.0));
    world.wait_for_reason(&["\r\n\r\nready\n"]).await;
    assert_eq!(world.metric("dt_receiver_backfill_open_windows").await, Some(0.0));
    let fetched =
        logs::lines_with(&["p-down", "a window of the event history was fetched", r#""cause":"outage""#]);
    // And again a day later. On a busy machine, this clock shows outages between two checks, too: windows of their own.
    let window = |line: &String| line.split_once(r#""from":"#).map(|(_, rest)| rest[..60].to_owned());
    let times = fetched.iter().filter(|line| window(line) == window(&fetched[0])).count();
    assert_eq!(times, 2, "{fetched:?}");
    let store = CloudStore::open(&world.data()).expect("opened");
    assert!(store.outages(10).expect("read").iter().any(|outage| outage.kind == "down"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_user_disabled_is_filled() {
    let (world, devices) = started("p-day").await;
    world.set_status("USER_DISABLED");
    publish_hourly(&world, &devices, 24).await;
    world.set_status("ACTIVE");
    publish_hourly(&world, &devices, 2).await;
    world.wait_for_all().await;
    assert!(world.api.changes().is_empty());
    // It is closed a moment after its last event is delivered.
    let done = ["p-day", "a window of the event history was fetched", r#""cause":"inactive""#];
    world.wait_for(|_| logs::lines_with(&done).len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_stored_is_noted_until_it_comes_back() {
    let (mut world, devices) = started("p-full").await;
    world.stop_receiver().await;
    // No disk has as much, so no further segment can be made.
    world.start_receiver_with("[spool]\nmin_free = '16TiB'\n[limits]\nmax_body = '8MiB'").await;
    // Otherwise segments are free again once their events are delivered.
    world.set_sink_down(true);
    world.fill_spool().await;
    world.publish(&devices[0], &json!({"touch": {}}));
    let store = CloudStore::open(&world.data()).expect("opened");
    world.wait_for(|_| store.count_missing().expect("read") > 0).await;
    world.stop_receiver().await;
    world.set_sink_down(false);
    world.start_receiver().await;
    world.wait_for_all().await;
    world.wait_for(|_| store.count_missing().expect("read") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_never_arrives_is_fetched_after_a_quarter_of_an_hour() {
    let (world, devices) = started("p-lag").await;
    world.publish_unpushed(&devices[1], &json!({"touch": {}}), 60);
    world.wait_for(|world| world.wrong_counts().len() == 1).await;
    world.wait_for_all().await;
    let fetched: Vec<String> = world
        .api
        .calls()
        .into_iter()
        .filter(|call| call.path.contains("/events?"))
        .map(|call| call.path.split("/events").next().unwrap_or_default().to_owned())
        .collect();
    assert!(!fetched.is_empty() && fetched.iter().all(|path| path.ends_with(&devices[1])), "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_answered_503_and_does_not_come_back_is_fetched() {
    let (world, devices) = started("p-503").await;
    // A later event arrives, so that the device is not behind.
    world.publish_unpushed(&devices[0], &json!({"touch": {}}), 30 * 60);
    world.publish(&devices[0], &json!({"touch": {}}));
    world.wait_for(|world| world.wrong_counts().len() == 1).await;
    let (id, _) = world.wrong_counts().pop_first().expect("one");
    let timestamp = world.clock.unix_millis() - 30 * MINUTE;
    let event = MissingEvent {
        connector: "plant".to_owned(),
        event_id: id,
        project: "p-503".to_owned(),
        device: devices[0].rsplit('/').next().expect("an id").to_owned(),
        // The clock has moved on a little since.
        timestamp,
        at: world.clock.unix_millis(),
    };
    let store = CloudStore::open(&world.data()).expect("opened");
    let history = world.emulator.history();
    let found = history.iter().find(|at_dt| *at_dt.event_id == *event.event_id).expect("at DT");
    let event = MissingEvent { timestamp: found.timestamp_micros / 1000, ..event };
    store.add_missing(&[event], world.clock.unix_millis()).expect("stored");
    world.wait(12 * HOUR).await;
    assert_eq!(world.wrong_counts().len(), 1, "DT may still send it");
    world.wait_for_all().await;
    world.wait_for(|_| store.count_missing().expect("read") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_from_before_the_first_start_is_fetched() {
    let mut world = World::start(plan("p-first")).await;
    let device = world.add_device("touch");
    world.set_status("USER_DISABLED");
    world.publish(&device, &json!({"touch": {}}));
    world.wait(HOUR).await;
    world.start_receiver().await;
    world.wait_for_checks(1).await;
    world.set_status("ACTIVE");
    world.publish(&device, &json!({"touch": {}}));
    world.wait_for(|world| world.ids_delivered().len() == 1).await;
    world.wait(DAY).await;
    assert_eq!(world.ids_delivered().len(), 1);
    let histories = world.api.calls().into_iter().filter(|call| call.path.contains("/events?")).count();
    assert!(histories > 0, "the time without an ACTIVE connector was fetched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_cannot_reach_dt_goes_on_later() {
    let (mut world, devices) = started("p-later").await;
    world.stop_receiver().await;
    publish_hourly(&world, &devices, 13).await;
    world.api.rule(|call| {
        let is_history = call.path.contains("/events?");
        is_history.then(|| (http::StatusCode::FORBIDDEN, json!({"error": "no"}).to_string()))
    });
    world.start_receiver().await;
    world.wait_for_reason(&["back-fill of project p-later", "no permission", "tried again"]).await;
    world.publish(&devices[0], &json!({"touch": {}}));
    world.wait_for(|world| world.status() == "ACTIVE").await;
    world.api.forward_all();
    world.wait_for_all().await;
    world.wait_for_reason(&["\r\n\r\nready\n"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_not_found_gives_up_no_window() {
    let (mut world, devices) = started("p-gone").await;
    world.stop_receiver().await;
    publish_hourly(&world, &devices, 13).await;
    let gone = devices[0].rsplit('/').next().expect("an id").to_owned();
    world.api.rule(move |call| {
        let is_gone = call.path.contains("/events?") && call.path.contains(&gone);
        is_gone.then(|| (http::StatusCode::NOT_FOUND, json!({"error": "no"}).to_string()))
    });
    world.start_receiver().await;
    let parts = ["p-gone", "but not all of it", "the window is fetched again at"];
    world.wait_for(|_| !logs::lines_with(&parts).is_empty()).await;
    let others: Vec<String> =
        devices[1..].iter().filter_map(|path| path.rsplit('/').next()).map(Into::into).collect();
    world
        .wait_for(|world| {
            let wrong = world.wrong_counts();
            let history = world.emulator.history();
            let of_others = |id: &String| {
                history.iter().any(|event| {
                    *event.event_id == **id && others.iter().any(|other| *other == *event.device)
                })
            };
            !wrong.keys().any(of_others)
        })
        .await;
    // The newest events of the device arrive, so that it is not behind.
    publish_hourly(&world, &devices, 1).await;
    world.api.forward_all();
    world.wait_for_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_dt_does_not_deliver_here_are_not_fetched() {
    let (mut world, devices) = started("p-types").await;
    world.person("PATCH", &world.connector, &json!({"events": ["touch"]}));
    world.wait_for_checks(2).await;
    let since = world.clock.unix_millis();
    world.stop_receiver().await;
    publish_hourly(&world, &devices, 13).await;
    world.start_receiver().await;
    let ids = |world: &World, event_type: &str| -> Vec<String> {
        let history = world.emulator.history();
        let is_wanted = |event: &&dt_emulator::HistoryEvent| {
            *event.event_type == *event_type && event.timestamp_micros / 1000 > since
        };
        history.iter().filter(is_wanted).map(|event| event.event_id.to_string()).collect()
    };
    let has_some = |world: &World, event_type: &str, all: bool| {
        let delivered = world.ids_delivered();
        let ids = ids(world, event_type);
        let mut found = ids.iter().map(|id| delivered.binary_search(id).is_ok());
        if all { found.all(|found| found) } else { found.any(|found| found) }
    };
    world.wait_for(|world| has_some(world, "touch", true)).await;
    // All types are delivered again: only what comes from now on is missed.
    world.person("PATCH", &world.connector, &json!({"events": []}));
    world.wait(DAY + 2 * HOUR).await;
    assert!(!ids(&world, "temperature").is_empty() && !has_some(&world, "temperature", false));
}
