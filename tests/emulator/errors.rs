//! Bad input gets DT's error JSON and status; and what the wire carries beside it.

use dt_receiver::emulator::Emulator;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::http::{ANYONE, Answer, ask, send};
use crate::target::{connect, device, publish};

async fn emulator() -> Emulator {
    Emulator::builder().start().await.expect("it starts")
}

/// Every error has DT's three members.
fn is_dt_s(answer: &Answer) {
    assert!(answer.body["error"].is_string(), "{answer:?}");
    assert_eq!(answer.body["code"], answer.status, "{answer:?}");
    assert!(answer.body["help"].as_str().expect("a URL").starts_with("https://"), "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
}

#[tokio::test]
async fn every_error_has_dt_s_shape() {
    let emulator = emulator().await;
    let (project, url) = (format!("{}/projects/p", emulator.api_url()), emulator.url());
    let taken = connect(&emulator, "http://127.0.0.1:9/", &json!({}));
    let taken = taken.rsplit('/').next().expect("an id");
    let again = format!(r#"{{"name":"{taken}","type":"HTTP_PUSH","httpConfig":{{"url":"https://x"}}}}"#);
    for (method, url, body, status) in [
        ("GET", format!("{project}/dataconnectors/none"), "", 404),
        ("POST", format!("{project}/dataconnectors/none:sync"), "", 404),
        ("GET", format!("{project}/dataconnectors/none:metrics"), "", 404),
        ("POST", format!("{project}/dataconnectors/{taken}:explode"), "", 404),
        ("PATCH", format!("{project}/dataconnectors/none"), "{}", 404),
        ("DELETE", format!("{project}/devices/none"), "", 404),
        ("GET", format!("{project}/devices/none/events"), "", 404),
        ("POST", format!("{project}/devices/none:publish"), r#"{"touch":{}}"#, 404),
        ("GET", format!("{project}/nonsense"), "", 404),
        ("GET", format!("{url}/nonsense"), "", 404),
        ("POST", format!("{project}/dataconnectors"), "not JSON", 400),
        ("POST", format!("{project}/dataconnectors"), "[]", 400),
        ("POST", format!("{project}/dataconnectors"), "{}", 400),
        ("POST", format!("{project}/dataconnectors"), &again, 409),
        ("PATCH", format!("{project}/dataconnectors/{taken}"), r#"{"status":"SYSTEM_DISABLED"}"#, 400),
        ("POST", format!("{project}/devices"), r#"{"type":"toaster"}"#, 400),
        ("POST", format!("{project}/devices"), r#"{"type":"touch","labels":{"a":1}}"#, 400),
        ("GET", format!("{project}/dataconnectors?pageSize=x"), "", 400),
        ("GET", format!("{url}/v2/projects/a%2Fb/devices"), "", 400),
        ("PUT", format!("{project}/dataconnectors"), "{}", 405),
        ("GET", format!("{url}/oauth2/token"), "", 405),
        ("POST", format!("{url}/oauth2/token"), "grant_type=password", 400),
        ("PATCH", format!("{url}/emulator/faults"), r#"{"smoke":1}"#, 400),
        ("PATCH", format!("{url}/emulator/faults"), r#"{"tamper":2}"#, 400),
        ("PATCH", format!("{url}/emulator/faults"), r#"{"burst":5}"#, 400),
    ] {
        let answer = ask(method, &url, &[ANYONE], body).await;
        assert_eq!(answer.status, status, "{method} {url} {body}: {answer:?}");
        is_dt_s(&answer);
        assert_eq!(answer.headers.contains_key("allow"), status == 405);
    }
    let device = device(&emulator, "touch", &json!({}));
    let large = format!(r#"{{"touch":{{"x":"{}"}}}}"#, "x".repeat(16 << 10));
    let answer = ask("POST", &format!("{url}{device}:publish"), &[ANYONE], &large).await;
    assert_eq!(answer.status, 400);
    let large = "x".repeat((1 << 20) + 1);
    let answer = ask("POST", &format!("{project}/devices"), &[ANYONE], &large).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn credentials_are_checked_before_anything_is_looked_up() {
    let account = "key:secret:reader@example.com:project.user".parse().expect("an account");
    let emulator = Emulator::builder().service_account(account).start().await.expect("it starts");
    let url = format!("{}/projects/p/dataconnectors/none", emulator.api_url());
    let basic = |pair: &str| {
        use base64::Engine;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    };
    for wrong in [None, Some(basic("key:wrong")), Some(basic("any:secret")), Some("Bearer x".to_owned())] {
        let headers: Vec<(&str, &str)> =
            wrong.iter().map(|value| ("authorization", value.as_str())).collect();
        let answer = ask("GET", &url, &headers, "").await;
        assert_eq!(answer.status, 401, "{wrong:?}");
        is_dt_s(&answer);
        assert!(answer.headers.contains_key("www-authenticate"));
    }
    let right = basic("key:secret");
    assert_eq!(ask("GET", &url, &[("authorization", &right)], "").await.status, 404);
    let answer = ask("DELETE", &url, &[("authorization", &right)], "").await;
    assert_eq!(answer.status, 403, "project.user may only read");
    is_dt_s(&answer);
}

#[tokio::test]
async fn what_the_real_dt_refuses_is_warned_of() {
    let emulator = emulator().await;
    let url = format!("{}/projects/p/dataconnectors", emulator.api_url());
    for (target, warned) in [("http://127.0.0.1:9/", true), ("https://example.com/", false)] {
        let body = json!({"type": "HTTP_PUSH", "httpConfig": {"url": target}}).to_string();
        let answer = ask("POST", &url, &[ANYONE], &body).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers.contains_key("x-emulator-warning"), warned, "{target}");
    }
}

#[tokio::test]
async fn lists_have_pages() {
    let emulator = emulator().await;
    for number in 0..7 {
        connect(&emulator, &format!("http://127.0.0.1:9/{number}"), &json!({}));
    }
    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let path = format!("/v2/projects/p/dataconnectors?pageSize=3&pageToken={token}");
        let page = emulator.call("GET", &path, &json!(null)).expect("a page");
        seen.extend(
            page["dataConnectors"].as_array().expect("a list").iter().map(|one| one["name"].to_string()),
        );
        token = page["nextPageToken"].as_str().expect("a token").to_owned();
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 7);
    seen.dedup();
    assert_eq!(seen.len(), 7);
}

#[tokio::test]
async fn web_pages_may_not_control_the_emulator() {
    let emulator = emulator().await;
    let url = format!("{}/emulator/faults", emulator.url());
    let answer = ask("PATCH", &url, &[("origin", "https://example.com")], r#"{"outage":true}"#).await;
    assert_eq!(answer.status, 403);
    assert_eq!(emulator.call("GET", "/emulator/faults", &json!(null)).expect("faults")["outage"], false);
}

#[tokio::test]
async fn a_stream_speaks_both_forms_and_pings() {
    let emulator = emulator().await;
    let device = device(&emulator, "touch", &json!({}));
    let url = format!("{}/projects/p/devices:stream?ping_interval=1s", emulator.api_url());
    for (accept, content_type) in
        [("application/json", "application/json"), ("text/event-stream", "text/event-stream")]
    {
        let response = send("GET", &url, &[ANYONE, ("accept", accept)], "").await;
        assert_eq!(response.headers()["content-type"], content_type);
        let mut body = response.into_body();
        publish(&emulator, &device, &json!({"touch": {}}));
        let mut line = async || {
            let frame = body.frame().await.expect("a line").expect("a line");
            let text = String::from_utf8(frame.into_data().expect("data").to_vec()).expect("UTF-8");
            let text = if accept == "application/json" {
                text.strip_suffix('\n').expect("a whole line").to_owned()
            } else {
                text.strip_prefix("data: ")
                    .and_then(|text| text.strip_suffix("\n\n"))
                    .expect("an event")
                    .to_owned()
            };
            serde_json::from_str::<Value>(&text).expect("JSON")["result"]["event"].clone()
        };
        assert_eq!(line().await["eventType"], "touch");
        let ping = line().await;
        assert_eq!((&ping["eventType"], &ping["data"]), (&json!("ping"), &Value::Null));
        assert_eq!(ping["targetName"], "projects/p");
    }
}

#[tokio::test]
async fn an_outage_of_the_api_is_503_and_the_controls_still_work() {
    let emulator = emulator().await;
    let faults = format!("{}/emulator/faults", emulator.url());
    assert_eq!(ask("PATCH", &faults, &[], r#"{"apiOutage":true,"identityOutage":true}"#).await.status, 200);
    let rest = ask("GET", &format!("{}/projects", emulator.api_url()), &[ANYONE], "").await;
    assert_eq!(rest.status, 503);
    is_dt_s(&rest);
    assert_eq!(ask("GET", &format!("{}/jwks.json", emulator.issuer()), &[], "").await.status, 503);
    assert_eq!(ask("DELETE", &faults, &[], "").await.status, 200);
    let discovery = format!("{}/.well-known/openid-configuration", emulator.issuer());
    let answer = ask("GET", &discovery, &[], "").await;
    assert_eq!(answer.body["issuer"], emulator.issuer());
    assert_eq!(answer.body["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let jwks = ask("GET", answer.body["jwks_uri"].as_str().expect("a URL"), &[], "").await;
    assert_eq!(jwks.body["keys"].as_array().expect("keys").len(), 1);
    assert_eq!(ask("POST", &format!("{}/emulator/keys:rotate", emulator.url()), &[], "").await.status, 200);
    let jwks = ask("GET", answer.body["jwks_uri"].as_str().expect("a URL"), &[], "").await;
    assert_eq!(jwks.body["keys"].as_array().expect("keys").len(), 2);
}

#[tokio::test]
async fn too_many_streams_are_429_with_seconds() {
    let emulator = emulator().await;
    let url = format!("{}/projects/p/devices:stream", emulator.api_url());
    let mut open = Vec::new();
    for _ in 0..64 {
        open.push(send("GET", &url, &[ANYONE], "").await);
    }
    let answer = ask("GET", &url, &[ANYONE], "").await;
    assert_eq!((answer.status, &answer.headers["retry-after"]), (429, &"1".parse().expect("a value")));
    is_dt_s(&answer);
    assert!(open.iter().all(|stream| stream.status() == 200));
    drop(open);
    // Streams whose client has gone make room.
    loop {
        let again = send("GET", &url, &[ANYONE], "").await;
        if again.status() == 200 {
            break;
        }
        tokio::task::yield_now().await;
    }
}
