//! Data Connectors that are disabled, by DT or by a person.

use serde_json::{Value, json};

use crate::clock::{HOUR, MINUTE};
use crate::logs;
use crate::world::{Plan, World};

const REENABLE: &str = "interval = '1m'\nreenable = true\nreenable_after = '10m'";

fn touch() -> Value {
    json!({"touch": {}})
}

/// Returns the method and the end of the path of each change, and the body.
fn changes(world: &World) -> Vec<(String, String, String)> {
    let project = world.plan.project;
    let id = world.connector.rsplit('/').next().expect("an id");
    let known = format!("/projects/{project}/dataconnectors/{id}");
    let shown = |call: &crate::proxy::Call| {
        let end =
            call.path.strip_prefix(&known).unwrap_or_else(|| panic!("changes something else: {call:?}"));
        (call.method.to_string(), end.to_owned(), call.body.clone())
    };
    world.api.changes().iter().map(shown).collect()
}

fn enabled_and_synced() -> [(String, String, String); 2] {
    let change = |method: &str, end: &str, body: &str| (method.to_owned(), end.to_owned(), body.to_owned());
    [change("PATCH", "", r#"{"status":"ACTIVE"}"#), change("POST", ":sync", "")]
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_dt_disabled_is_enabled_once_and_synced() {
    let mut world = World::start(Plan::new("p-enabled", REENABLE)).await;
    let device = world.add_device("touch");
    world.start_receiver().await;
    world.publish(&device, &touch());
    world.wait_for_all().await;
    world.wait_for_checks(1).await;
    world.stop_receiver().await;
    world.system_disable();
    for _ in 0..3 {
        world.publish(&device, &touch());
    }
    world.start_receiver().await;
    world.wait_for(|world| world.status() == "ACTIVE").await;
    world.wait_for_all().await;
    world.publish(&device, &touch());
    world.wait_for_all().await;
    world.wait_for_checks(20).await;
    assert_eq!(changes(&world), enabled_and_synced());
    assert_eq!(world.wrong_counts(), Default::default());
    let lines = |message: &str| logs::lines_with(&["p-enabled", message]).len();
    assert_eq!(lines(r#""level":"ERROR""#), 1, "{:?}", logs::lines_with(&["p-enabled", "ERROR"]));
    assert_eq!(lines("the Data Connector is ACTIVE again"), 1);
    let attempts =
        r#"dt_receiver_cloud_connector_enable_attempts_total{connector="plant",project="p-enabled"}"#;
    assert_eq!(world.metric(attempts).await, Some(1.0));
    // The sync delivers the newest of the three.
    assert!(world.metric("dt_receiver_backfill_events_total").await.is_some_and(|filled| filled >= 2.0));
    let status = |status: &str| {
        format!(
            r#"dt_receiver_cloud_connector_status{{connector="plant",project="p-enabled",status="{status}"}}"#
        )
    };
    assert_eq!(world.metric(&status("ACTIVE")).await, Some(1.0));
    assert_eq!(world.metric(&status("SYSTEM_DISABLED")).await, Some(0.0));
    world.check_secrets().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_a_person_disabled_is_never_touched_and_filled_afterwards() {
    let mut world = World::start(Plan::new("p-person", REENABLE)).await;
    let device = world.add_device("touch");
    world.start_receiver().await;
    world.publish(&device, &touch());
    world.wait_for_all().await;
    world.wait_for_checks(1).await;
    world.set_status("USER_DISABLED");
    for _ in 0..3 {
        world.publish(&device, &touch());
    }
    let reason = world.wait_for_reason(&["200 OK", "ready, but", "a person has disabled"]).await;
    assert!(reason.contains("project p-person"), "{reason}");
    world.wait_for_checks(20).await;
    assert_eq!(changes(&world), []);
    assert_eq!(world.status(), "USER_DISABLED");
    assert_eq!(world.ids_delivered().len(), 1);
    world.set_status("ACTIVE");
    world.wait_for_all().await;
    world.wait_for_checks(5).await;
    assert_eq!(changes(&world), []);
    assert_eq!(world.wrong_counts(), Default::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_reenable_there_is_only_an_alert() {
    let mut world = World::start(Plan::new("p-alert", "interval = '1m'")).await;
    world.start_receiver().await;
    world.wait_for_checks(1).await;
    world.system_disable();
    world
        .wait_for_reason(&["200 OK", "DT has disabled", "`monitor.reenable` is false", "connectors enable"])
        .await;
    world.wait_for_checks(20).await;
    assert_eq!(changes(&world), []);
    let status =
        r#"dt_receiver_cloud_connector_status{connector="plant",project="p-alert",status="SYSTEM_DISABLED"}"#;
    assert_eq!(world.metric(status).await, Some(1.0));
    // Once, and not at each check.
    assert_eq!(logs::lines_with(&["p-alert", r#""level":"ERROR""#]).len(), 1);
    assert_eq!(logs::lines_with(&["p-alert", "reenable_off"]).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_settings() {
    let mut world = World::start(Plan::new("p-reload", "interval = '1h'")).await;
    world.start_receiver().await;
    world.wait_for_checks(0).await;
    world.system_disable();
    world.reload("interval = '1m'").await;
    world.wait_for_reason(&["`monitor.reenable` is false"]).await;
    world.reload(REENABLE).await;
    world.wait_for(|world| world.status() == "ACTIVE").await;
    world.wait_for_reason(&["\r\n\r\nready\n"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_we_rejected_block_it() {
    let mut world = World::start(Plan::new("p-refused", REENABLE)).await;
    let device = world.add_device("touch");
    let wrong = json!({"httpConfig": {"signatureSecret": "some-other-secret"}});
    world.person("PATCH", &world.connector, &wrong);
    world.start_receiver().await;
    world.publish(&device, &touch());
    let refused = r#"dt_receiver_requests_total{code="401",connector="plant",reason="signature_mismatch"}"#;
    while world.metric(refused).await.unwrap_or(0.0) == 0.0 {
        world.wait(MINUTE).await;
    }
    world.wait_for_checks(1).await;
    world.system_disable();
    world.wait_for_reason(&["DT has disabled", "refused", "401 or 403"]).await;
    world.wait_for_checks(20).await;
    assert_eq!(changes(&world), []);
    assert_eq!(world.status(), "SYSTEM_DISABLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_three_attempts_a_person_has_to_act() {
    let mut world = World::start(Plan::new("p-tries", REENABLE)).await;
    // Without a device, a sync delivers nothing.
    world.start_receiver().await;
    world.wait_for_checks(1).await;
    for attempt in 1..=3 {
        world.system_disable();
        world.wait_for(|world| world.status() == "ACTIVE").await;
        world.wait_for(|world| world.api.changes().len() == 2 * attempt).await;
        // Its result is stored then: otherwise the sync would be repeated after a restart.
        world.wait_for_checks(1).await;
        if attempt == 2 {
            // The number of attempts survives.
            world.stop_receiver().await;
            world.start_receiver().await;
            world.wait_for_checks(1).await;
        }
    }
    world.system_disable();
    world.wait_for_reason(&["3 attempts were made", "connectors enable"]).await;
    world.wait_for_checks(20).await;
    assert_eq!(world.status(), "SYSTEM_DISABLED");
    let changes = world.api.changes();
    let attempts: Vec<i64> =
        changes.iter().filter(|call| call.method == "PATCH").map(|call| call.at).collect();
    assert_eq!((attempts.len(), changes.len()), (3, 6), "{changes:?}");
    for pair in attempts.windows(2) {
        // The attempt is noted a moment before its request is made.
        assert!(pair[1] - pair[0] >= 10 * MINUTE - MINUTE, "{attempts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_a_person_changes_meanwhile_stays() {
    let mut world = World::start(Plan::new("p-meanwhile", REENABLE)).await;
    world.start_receiver().await;
    world.wait_for_checks(1).await;
    let (emulator, connector) = (std::sync::Arc::clone(&world.emulator), world.connector.clone());
    let path = connector.trim_start_matches("/v2").to_owned();
    world.api.rule(move |call| {
        // The status is read again, right before the change.
        if call.method == "GET" && call.path == path {
            let body = json!({"status": "USER_DISABLED"});
            emulator.call("PATCH", &connector, &body).expect("changed");
        }
        None
    });
    world.system_disable();
    world.wait_for(|world| world.status() == "USER_DISABLED").await;
    world.wait_for_reason(&["a person has disabled"]).await;
    world.wait_for_checks(20).await;
    assert_eq!(changes(&world), []);
    assert_eq!(world.status(), "USER_DISABLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_url_a_person_changes_meanwhile_is_not_touched() {
    let mut world = World::start(Plan::new("p-moved", REENABLE)).await;
    world.start_receiver().await;
    world.wait_for_checks(1).await;
    let (emulator, connector) = (std::sync::Arc::clone(&world.emulator), world.connector.clone());
    let path = connector.trim_start_matches("/v2").to_owned();
    world.api.rule(move |call| {
        // It is read again, right before the change.
        if call.method == "GET" && call.path == path {
            let body = json!({"httpConfig": {"url": "https://elsewhere.example.com/"}});
            emulator.call("PATCH", &connector, &body).expect("changed");
        }
        None
    });
    world.system_disable();
    world.wait_for_reason(&["has no Data Connector with the URL"]).await;
    world.wait_for_checks(10).await;
    assert_eq!(changes(&world), []);
    assert_eq!(world.status(), "SYSTEM_DISABLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_valid_certificate_it_is_not_enabled() {
    // The receiver has no TLS at all.
    let mut world = World::start(Plan { scheme: "https", ..Plan::new("p-certificate", REENABLE) }).await;
    world.start_receiver().await;
    world.wait_for_checks(1).await;
    world.system_disable();
    world.wait_for_reason(&["DT has disabled", "does not answer, or has no valid certificate"]).await;
    world.wait_for_checks(10).await;
    assert_eq!(changes(&world), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_connector_of_another_receiver_is_ignored() {
    let mut world = World::start(Plan::new("p-other", REENABLE)).await;
    let path = format!("/v2/projects/{}/dataconnectors", world.plan.project);
    let body =
        json!({"type": "HTTP_PUSH", "displayName": "plant", "httpConfig": {"url": "http://127.0.0.1:9/"}});
    let other = world.person("POST", &path, &body);
    let other = other["name"].as_str().expect("a name").to_owned();
    world.person("POST", &format!("/emulator/{other}:disable"), &Value::Null);
    world.start_receiver().await;
    world.wait_for_checks(10).await;
    assert_eq!(changes(&world), []);
    assert!(world.get("/readyz").await.ends_with("\r\n\r\nready\n"));
    // A connector without a Data Connector is reported.
    world.person("DELETE", &world.connector, &Value::Null);
    world
        .wait_for_reason(&["connector plant", "has no Data Connector with the URL", "connectors apply"])
        .await;
    world.wait(HOUR).await;
    assert_eq!(changes(&world), []);
}
