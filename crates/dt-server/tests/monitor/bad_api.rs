//! What the monitor says when DT's API does not answer as it should. The receiver's main job goes on.

use dt_emulator::Role;
use http::StatusCode;
use serde_json::json;

use crate::logs;
use crate::world::{Plan, World};

const EACH_MINUTE: &str = "interval = '1m'\nreenable = true";

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_is_named_and_the_main_job_goes_on() {
    let mut world = World::start(Plan::new("p-failures", EACH_MINUTE)).await;
    let device = world.add_device("touch");
    world.start_receiver().await;
    world.wait_for_checks(1).await;
    let up = r#"dt_receiver_cloud_up{project="p-failures"}"#;
    assert_eq!(world.metric(up).await, Some(1.0));
    for (status, body, parts) in [
        (
            StatusCode::UNAUTHORIZED,
            r#"{"error": "no"}"#,
            ["project p-failures", "check key id, secret and e-mail"],
        ),
        (StatusCode::FORBIDDEN, r#"{"error": "no"}"#, ["has no permission", "grant it a role"]),
        (StatusCode::NOT_FOUND, r#"{"error": "no"}"#, ["not found", "is a member of the project"]),
        (StatusCode::OK, r#"{"connectors": []}"#, ["is not as documented", "dataConnectors"]),
        (StatusCode::OK, r#"{"dataConnectors": [{"na"#, ["the answer is incomplete", "check the network"]),
        (StatusCode::OK, r#"{"dataConnectors": []}"#, ["is not as documented", "nextPageToken"]),
        (StatusCode::BAD_REQUEST, "<html>\r\nno</html>", ["DT rejects the request", "status 400"]),
    ] {
        world.api.rule(move |_| Some((status, body.to_owned())));
        let reason =
            world.wait_for_reason(&[&["200 OK", "ready, but: monitor: "], &parts[..]].concat()).await;
        assert_eq!(reason.lines().count(), reason.trim_end().lines().count(), "one line: {reason}");
        assert_eq!(world.metric(up).await, Some(0.0), "{status}");
        world.publish(&device, &json!({"touch": {}}));
        world.wait_for_all().await;
        world.api.forward_all();
        world.wait_for_reason(&["\r\n\r\nready\n"]).await;
    }
    // Once each, although there were many checks.
    for code in ["credentials", "forbidden", "not_found", "rejected"] {
        let code = format!(r#""code":"{code}""#);
        let found =
            logs::lines_with(&["the monitor found a problem", r#""problem":"project p-failures: "#, &code]);
        assert_eq!(found.len(), 1, "{found:?}");
    }
    assert!(world.api.changes().is_empty());
    world.check_secrets().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_and_a_missing_role_are_named() {
    for plan in [
        Plan { key: "WRONG", ..Plan::new("p-key", EACH_MINUTE) },
        Plan { role: Role::User, ..Plan::new("p-role", EACH_MINUTE) },
    ] {
        let is_wrong_key = plan.key == "WRONG";
        let mut world = World::start(plan).await;
        let device = world.add_device("touch");
        world.start_receiver().await;
        if is_wrong_key {
            world.wait_for_reason(&["project p-key", "DT rejects the credentials"]).await;
        } else {
            // This role may read, but not change.
            world.wait_for_checks(2).await;
            world.system_disable();
            world.wait_for_reason(&["project p-role", "has no permission", "grant it a role"]).await;
            assert_eq!(world.status(), "SYSTEM_DISABLED");
            world.set_status("ACTIVE");
        }
        world.publish(&device, &json!({"touch": {}}));
        world.wait_for_all().await;
        world.check_secrets().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_and_rate_limits_are_survived() {
    let mut world = World::start(Plan::new("p-outage", EACH_MINUTE)).await;
    let device = world.add_device("touch");
    world.start_receiver().await;
    world.wait_for_checks(1).await;
    let mut faults = dt_emulator::Faults::default();
    for (text, part) in
        [("api-outage", "DT cannot answer"), ("api-outage=off,rate-limit=1", "DT limits the rate")]
    {
        faults.apply(text).expect("a fault");
        world.emulator.set_faults(faults.clone()).expect("set");
        world.publish(&device, &json!({"touch": {}}));
        world.wait_for_all().await;
        world.wait_for_reason(&["200 OK", "ready, but", part]).await;
    }
    world.emulator.set_faults(dt_emulator::Faults::default()).expect("set");
    world.wait_for_reason(&["\r\n\r\nready\n"]).await;
}
