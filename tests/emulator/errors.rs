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
        ("GET", format!("{url}/v2/projects/-/dataconnectors"), "", 400),
        ("GET", format!("{url}/v2/projects/-/devices"), "", 200),
        ("POST", format!("{url}/v2/projects/-/devices"), r#"{"type":"touch"}"#, 400),
        ("POST", format!("{url}/v2/projects/-/devices:transfer"), "{}", 400),
        ("GET", format!("{project}/devices?order_by=color"), "", 400),
        ("PUT", format!("{project}/dataconnectors"), "{}", 405),
        ("GET", format!("{url}/oauth2/token"), "", 405),
        ("POST", format!("{url}/oauth2/token"), "grant_type=password", 400),
        ("PATCH", format!("{url}/emulator/faults"), r#"{"smoke":1}"#, 400),
        ("PATCH", format!("{url}/emulator/faults"), r#"{"tamper":2}"#, 400),
        ("PATCH", format!("{url}/emulator/faults"), r#"{"burst":5}"#, 400),
    ] {
        let answer = ask(method, &url, &[ANYONE], body).await;
        assert_eq!(answer.status, status, "{method} {url} {body}: {answer:?}");
        if status == 200 {
            continue;
        }
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

/// Whoever names the same device or label thousands of times would hold the lock of everyone.
#[tokio::test]
async fn a_batch_is_of_bounded_size_and_does_each_device_once() {
    let emulator = emulator().await;
    let device = device(&emulator, "touch", &json!({}));
    let name = device.trim_start_matches("/v2/");
    let update = |body: Value| emulator.call("POST", "/v2/projects/p/devices:batchUpdate", &body);
    for body in [
        json!({"devices": vec![name; 1_001]}),
        json!({"devices": [name], "removeLabels": vec!["x"; 101]}),
        json!({"devices": [name], "removeLabels": 1}),
    ] {
        assert_eq!(update(body).expect_err("refused").status, 400);
    }
    let transfer = json!({"devices": vec![name; 1_001]});
    let refused = emulator.call("POST", "/v2/projects/q/devices:transfer", &transfer).expect_err("refused");
    assert_eq!(refused.status, 400);
    let wrong = update(json!({"devices": ["x", "x"], "addLabels": {"a": ""}})).expect("done");
    assert_eq!(wrong["batchErrors"].as_array().expect("errors").len(), 1, "{wrong}");
}

#[tokio::test]
async fn a_device_has_at_most_100_labels_however_they_are_set() {
    let emulator = emulator().await;
    // With `virtual-sensor`, which every device has, these are 100.
    let labels: serde_json::Map<_, _> = (0..99).map(|n| (n.to_string(), json!(""))).collect();
    let device = device(&emulator, "touch", &labels.clone().into());
    let name = device.trim_start_matches("/v2/");
    let batch =
        |body: Value| emulator.call("POST", "/v2/projects/p/devices:batchUpdate", &body).expect("done");
    let full = batch(json!({"devices": [name], "addLabels": {"new": ""}}));
    assert_eq!(full["batchErrors"][0]["status"]["code"], 3, "{full}");
    let replaced = batch(json!({"devices": [name], "addLabels": {"0": "other"}}));
    assert_eq!(replaced["batchErrors"], json!([]), "it has no more labels than before");
    let patch = json!({"labels": {"new": ""}});
    assert_eq!(emulator.call("PATCH", &device, &patch).expect_err("refused").status, 400);
    let mut many = labels;
    many.insert("new".to_owned(), json!(""));
    let made = json!({"type": "touch", "labels": many});
    let refused = emulator.call("POST", "/v2/projects/p/devices", &made).expect_err("refused");
    assert_eq!(refused.status, 400);
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

/// Any credentials do here, so a page in a browser on this machine could have connectors made that send where it likes.
#[tokio::test]
async fn web_pages_may_not_use_the_emulator() {
    let emulator = emulator().await;
    let (faults, rest) = (format!("{}/emulator/faults", emulator.url()), emulator.api_url());
    let connectors = format!("{rest}/projects/p/dataconnectors");
    let connector = r#"{"type":"HTTP_PUSH","httpConfig":{"url":"http://127.0.0.1:9/"}}"#;
    let port = emulator.address().port();
    let rebound = format!("example.com:{port}");
    for sign in [("origin", "https://example.com"), ("origin", "null"), ("host", &*rebound), ("host", "x")] {
        for (method, url, body) in [
            ("PATCH", &faults, r#"{"outage":true}"#),
            ("POST", &connectors, connector),
            ("GET", &connectors, ""),
            ("POST", &emulator.token_endpoint(), "grant_type=password"),
        ] {
            let answer = ask(method, url, &[ANYONE, sign], body).await;
            assert_eq!(answer.status, 403, "{method} {url} {sign:?}");
            is_dt_s(&answer);
        }
    }
    assert_eq!(emulator.call("GET", "/emulator/faults", &json!(null)).expect("faults")["outage"], false);
    let list = emulator.call("GET", "/v2/projects/p/dataconnectors", &json!(null)).expect("a list");
    assert_eq!(list["dataConnectors"], json!([]));
    for host in ["localhost", &format!("LOCALHOST:{port}"), &format!("[::1]:{port}"), "127.0.0.1"] {
        assert_eq!(ask("GET", &connectors, &[ANYONE, ("host", host)], "").await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn faults_that_are_refused_change_nothing() {
    let emulator = emulator().await;
    let url = format!("{}/emulator/faults", emulator.url());
    assert_eq!(ask("PATCH", &url, &[], r#"{"outage":true,"burst":5}"#).await.status, 400);
    assert_eq!(ask("GET", &url, &[], "").await.body["outage"], false);
}

/// Connections are few: whoever says nothing, or stops halfway, must not keep one.
#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let emulator = emulator().await;
    for said in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM", "GET / HTT"] {
        let mut silent = tokio::net::TcpStream::connect(emulator.address()).await.expect("connected");
        silent.write_all(said.as_bytes()).await.expect("sent");
        // It was accepted before this one.
        assert_eq!(ask("GET", &format!("{}/emulator", emulator.url()), &[], "").await.status, 200);
        let mut rest = Vec::new();
        let closed = silent.read_to_end(&mut rest);
        let closed = tokio::time::timeout(std::time::Duration::from_secs(60), closed).await;
        assert!(closed.is_ok(), "{said:?} keeps the connection");
    }
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
        // An xid (base32hex, lower case) and a time, as in the fixtures of DT's Python client.
        let id = ping["eventId"].as_str().expect("an id");
        assert!(id.len() == 20 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'v')), "{ping}");
        let time = ping["timestamp"].as_str().expect("a time").parse::<jiff::Timestamp>();
        assert!(time.is_ok(), "{ping}");
    }
}

/// DT's Python client reads `error.code` of every line of a stream, also of one that is refused.
#[tokio::test]
async fn errors_of_a_stream_are_nested() {
    let account = "key:secret:reader@example.com".parse().expect("an account");
    let emulator = Emulator::builder().service_account(account).start().await.expect("it starts");
    let url = format!("{}/projects/p/devices:stream", emulator.api_url());
    let known = ("authorization", "Basic a2V5OnNlY3JldA==");
    let unknown = ("authorization", "Bearer bad");
    let cases = [
        ("GET", url.clone(), unknown, 401),
        ("GET", url.replace(":stream", "%3Astream"), unknown, 401),
        ("GET", format!("{url}?ping_interval=soon"), known, 400),
        ("GET", url.replace("/p/", "/a%2Fb/"), known, 400),
        ("POST", url.clone(), known, 405),
        ("GET", url.clone(), ("origin", "null"), 403),
    ];
    for (method, url, header, status) in cases {
        let answer = ask(method, &url, &[header], "").await;
        assert_eq!(answer.status, status, "{method} {url}: {answer:?}");
        assert_eq!(answer.body["error"]["code"], status, "{method} {url}: {answer:?}");
        assert!(answer.body["error"]["message"].is_string(), "{answer:?}");
    }
    let mut faults = dt_receiver::emulator::Faults::default();
    faults.apply("api-outage").expect("a fault");
    emulator.set_faults(faults).expect("set");
    let answer = ask("GET", &url, &[known], "").await;
    assert_eq!((answer.status, &answer.body["error"]["code"]), (503, &json!(503)), "{answer:?}");
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
    assert_eq!(answer.body["error"]["code"], 429);
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

/// Who may not use the API may not set faults, read the ledger or change keys either.
#[tokio::test]
async fn the_controls_need_the_credentials_of_the_api() {
    let parse = |text: &str| text.parse().expect("an account");
    let builder = Emulator::builder().service_account(parse("dev:secret:dev@example.com"));
    let builder = builder.service_account(parse("user:secret:user@example.com:project.user"));
    let emulator = builder.start().await.expect("it starts");
    let (dev, user) =
        (("authorization", "Basic ZGV2OnNlY3JldA=="), ("authorization", "Basic dXNlcjpzZWNyZXQ="));
    for (method, path, of_user) in [
        ("GET", "", 200),
        ("GET", "/faults", 200),
        ("PATCH", "/faults", 403),
        ("DELETE", "/faults", 403),
        ("GET", "/ledger", 200),
        ("POST", "/keys:rotate", 403),
        ("GET", "/nonsense", 404),
    ] {
        let url = format!("{}/emulator{path}", emulator.url());
        let of_dev = if of_user == 403 { 200 } else { of_user };
        for (headers, status) in [(&[][..], 401), (&[ANYONE], 401), (&[user], of_user), (&[dev], of_dev)] {
            let answer = ask(method, &url, headers, "{}").await;
            assert_eq!(answer.status, status, "{method} {path} {headers:?}: {answer:?}");
        }
    }
    // Without accounts nothing is asked for.
    let open = Emulator::builder().start().await.expect("it starts");
    assert_eq!(ask("GET", &format!("{}/emulator/ledger", open.url()), &[], "").await.status, 200);
}
