//! `dt-receiver connectors` against `dt-receiver emulate`, both as the real program.

mod apply;
mod cloud;
mod other_clouds;

use std::process::Command;

use crate::common::Ended;
use cloud::{Cloud, KEY_SECRET};
use serde_json::{Value, json};

/// Texts that no output may contain.
const SECRETS: [&str; 4] = [KEY_SECRET, "hunter2-signature", "hunter2-header", "hunter2-url"];

/// Runs `connectors` with arguments in a project `p` of a cloud. No output contains a secret.
fn connectors(cloud: &Cloud, arguments: &[&str]) -> Ended {
    ended(cloud.command(arguments))
}

fn ended(command: Command) -> Ended {
    let ended = crate::common::run_command(command, b"");
    for secret in SECRETS {
        assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret), "{ended:?}");
    }
    ended
}

/// Runs a command that succeeds, and returns its JSON.
fn json_of(cloud: &Cloud, arguments: &[&str]) -> Value {
    let ended = connectors(cloud, &[arguments, &["--json"]].concat());
    assert_eq!(ended.code(), 0, "{ended:?}");
    ended.json()
}

/// Creates a connector with a secret and a header, and returns its id.
fn create(cloud: &Cloud) -> String {
    let mut command = cloud.command(&[
        "create",
        "--url",
        "https://example.com/dt?key=hunter2-url",
        "--name",
        "receiver",
        "--event",
        "touch",
        "--label",
        "name",
        "--secret-env",
        "SIGNATURE",
        "--header",
        "X-Key:env=HEADER",
        "--json",
    ]);
    command.env("SIGNATURE", "hunter2-signature").env("HEADER", "hunter2-header");
    let created = ended(command);
    assert_eq!(created.code(), 0, "{created:?}");
    created.json()["id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_connector_lives_its_whole_life() {
    let cloud = Cloud::start(&[]);
    assert_eq!(json_of(&cloud, &["list"]), json!({"connectors": []}));
    let id = create(&cloud);
    let expected = json!({
        "id": id, "name": format!("projects/p/dataconnectors/{id}"), "displayName": "receiver", "type": "HTTP_PUSH",
        "status": "ACTIVE", "target": "https://example.com/dt?(redacted)", "events": ["touch"], "labels": ["name"],
        "hasSignatureSecret": true, "headerNames": ["X-Key"],
    });
    assert_eq!(json_of(&cloud, &["get", &id]), expected);
    assert_eq!(json_of(&cloud, &["list"]), json!({"connectors": [expected]}));
    let raw = cloud.read(&format!("dataconnectors/{id}"));
    assert_eq!(raw["httpConfig"]["signatureSecret"], "hunter2-signature");
    assert_eq!(raw["httpConfig"]["headers"], json!({"X-Key": "hunter2-header"}));

    // Only what is given changes.
    let updated =
        json_of(&cloud, &["update", &id, "--all-events", "--no-labels", "--no-headers", "--name", "other"]);
    assert_eq!(updated["events"], json!([]));
    assert_eq!(
        (&updated["labels"], &updated["headerNames"], &updated["displayName"]),
        (&json!([]), &json!([]), &json!("other"))
    );
    assert_eq!((&updated["hasSignatureSecret"], &updated["target"]), (&json!(true), &expected["target"]));
    assert_eq!(json_of(&cloud, &["update", &id, "--no-secret"])["hasSignatureSecret"], false);

    assert_eq!(json_of(&cloud, &["disable", &id, "--yes"])["status"], "USER_DISABLED");
    assert_eq!(json_of(&cloud, &["enable", &id])["status"], "ACTIVE");
    assert_eq!(json_of(&cloud, &["sync", &id]), json!({"id": id, "done": "synchronized"}));
    let metrics = json_of(&cloud, &["metrics", &id]);
    assert_eq!((&metrics["successCount"], &metrics["errorCount"]), (&json!(0), &json!(0)));
    assert_eq!(json_of(&cloud, &["delete", &id, "--yes"]), json!({"id": id, "done": "deleted"}));
    let gone = connectors(&cloud, &["get", &id, "--json"]);
    assert_eq!((gone.code(), &gone.json()["error"]["code"]), (1, &json!("not_found")));
    assert!(gone.stderr.contains("check the ids"), "{gone:?}");
}

#[test]
fn people_get_tables() {
    let cloud = Cloud::start(&[]);
    let id = create(&cloud);
    let list = connectors(&cloud, &["list"]).stdout;
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "NAME", "TYPE", "STATUS", "EVENTS", "TARGET"]);
    assert_eq!(
        lines[1],
        [&*id, "receiver", "HTTP_PUSH", "ACTIVE", "touch", "https://example.com/dt?(redacted)"]
    );
    let shown = connectors(&cloud, &["get", &id]).stdout;
    assert!(shown.contains("signature secret  set\nheaders           X-Key\n"), "{shown}");
    let metrics = connectors(&cloud, &["metrics", &id]).stdout;
    assert!(metrics.contains("delivered         0\n"), "{metrics}");
    assert_eq!(connectors(&cloud, &["sync", &id]).stdout, format!("{id}: synchronized\n"));
}

#[test]
fn changes_that_lose_events_are_confirmed() {
    let cloud = Cloud::start(&[]);
    let id = create(&cloud);
    for (verb, words) in [("disable", "DT drops its queue"), ("delete", "deleted with its queue")] {
        let refused = connectors(&cloud, &[verb, &id]);
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert!(refused.stderr.contains(words) && refused.stderr.contains("--yes"), "{refused:?}");
    }
    assert_eq!(json_of(&cloud, &["get", &id])["status"], "ACTIVE");
}

#[test]
fn wrong_credentials_are_named_with_their_remedy() {
    let cloud = Cloud::start(&[]);
    let with = |name: &str, value: &str, arguments: &[&str]| {
        let mut command = cloud.command(arguments);
        command.env(name, value);
        ended(command)
    };
    for arguments in [&["list", "--json"][..], &["list", "--json", "--basic-auth"]] {
        let wrong = with("DT_SERVICE_ACCOUNT_SECRET", "hunter2-url", arguments);
        assert_eq!((wrong.code(), &wrong.json()["error"]["code"]), (1, &json!("credentials")), "{wrong:?}");
        assert!(wrong.stderr.contains("check key id, secret and e-mail"), "{wrong:?}");
    }
    let missing = with("DT_SERVICE_ACCOUNT_KEY_ID", "", &["list"]);
    assert_eq!(missing.code(), 2);
    assert!(
        missing.stderr.contains("set the environment variable DT_SERVICE_ACCOUNT_KEY_ID, or use --key-id"),
        "{missing:?}"
    );
    let basic = connectors(&cloud, &["list", "--basic-auth"]);
    assert_eq!(basic.code(), 0, "{basic:?}");
}

#[test]
fn a_role_that_can_only_read_is_named() {
    let cloud = Cloud::start(&["--service-account", "reader:env=READER:reader@example.com:project.user"]);
    let reader = |arguments: &[&str]| {
        let mut command = cloud.command(arguments);
        command.args(["--key-id", "reader", "--key-secret-env", "READER", "--email", "reader@example.com"]);
        ended(command)
    };
    assert_eq!(reader(&["list"]).code(), 0);
    let refused = reader(&["create", "--url", "https://example.com/", "--json"]);
    assert_eq!((refused.code(), &refused.json()["error"]["code"]), (1, &json!("forbidden")));
    assert!(refused.stderr.contains("grant it a role"), "{refused:?}");
}

#[test]
fn a_credentials_file_of_dts_python_client_is_read() {
    let cloud = Cloud::start(&[]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("credentials.json");
    let account = json!({"keyId": "key", "secret": KEY_SECRET, "email": "me@example.com", "algorithm": "HS256",
        "tokenEndpoint": format!("{}/oauth2/token", cloud.url)});
    std::fs::write(&path, json!({"serviceAccount": account}).to_string()).expect("written");
    let mut command = cloud.command(&["list"]);
    for name in [
        "DT_SERVICE_ACCOUNT_KEY_ID",
        "DT_SERVICE_ACCOUNT_SECRET",
        "DT_SERVICE_ACCOUNT_EMAIL",
        "DT_OIDC_TOKEN_ENDPOINT",
    ] {
        command.env_remove(name);
    }
    command.env("DT_CREDENTIALS_FILE", &path);
    let listed = ended(command);
    assert_eq!(listed.code(), 0, "{listed:?}");
}

#[test]
fn wrong_settings_are_refused_before_a_request() {
    let cloud = Cloud::start(&[]);
    for (arguments, words) in [
        (&["create", "--name", "x"][..], "--url is missing"),
        (&["create", "--url", "https://h/", "--event", "smell"], "expected touch, temperature"),
        (&["create", "--url", "https://h/", "--header", "X-Key: hunter2-header"], "HEADER:env=NAME"),
        (&["create", "--url", "https://h/", "--secret-env", "NOT_SET_HERE"], "NOT_SET_HERE"),
        (&["update", "c"], "nothing to change is given"),
        (&["get", "a/b"], "connector: expected an id"),
        (&["get", "c", "--api-url", "http://example.com/v2"], "expected https"),
    ] {
        let refused = connectors(&cloud, arguments);
        assert_eq!(refused.code(), 2, "{arguments:?}: {refused:?}");
        assert!(refused.stderr.contains(words), "{arguments:?}: {refused:?}");
    }
    // What only DT can know.
    let refused = connectors(&cloud, &["create", "--url", "ftp://h/", "--json"]);
    assert_eq!((refused.code(), &refused.json()["error"]["code"]), (1, &json!("rejected")));
}

#[test]
fn a_storm_of_429_and_an_outage_are_named() {
    for (fault, code, words) in [
        ("rate-limit=1", "rate_limited", "DT limits the rate of requests"),
        ("api-outage", "unavailable", "DT cannot answer"),
    ] {
        let cloud = Cloud::start(&["--fault", fault]);
        let refused = connectors(&cloud, &["list", "--json"]);
        assert_eq!((refused.code(), &refused.json()["error"]["code"]), (1, &json!(code)), "{refused:?}");
        assert!(refused.stderr.contains(words) && refused.stderr.contains("5 attempts"), "{refused:?}");
    }
}
