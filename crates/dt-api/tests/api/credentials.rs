//! Credentials and access tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use dt_api::{Credentials, Error, HttpConfig, Target};
use dt_emulator::{Emulator, Faults, Role, ServiceAccount};
use dt_verify::Secret;

use crate::setup::{SECRET, Server, basic, builder_of, client_of, json, oauth, ok};

async fn cloud_with(role: Role) -> Emulator {
    let account = ServiceAccount::new("key", Secret::new(SECRET).unwrap(), "me@example.com", role);
    let cloud = Emulator::builder().service_account(account).start().await.unwrap();
    cloud.call("POST", "/v2/projects/p/devices", &serde_json::json!({"type": "touch"})).unwrap();
    cloud
}

#[tokio::test]
async fn both_schemes_are_accepted() {
    let cloud = cloud_with(Role::Developer).await;
    for credentials in [oauth(), basic()] {
        let client = builder_of(&cloud, credentials).build().unwrap();
        let projects = client.projects().up_to(10).await.unwrap();
        assert_eq!(projects.iter().map(dt_api::Project::id).collect::<Vec<_>>(), ["p"]);
        assert_eq!(client.project("p").await.unwrap(), projects[0]);
        assert_eq!(projects[0].sensor_count, Some(1));
    }
    cloud.shutdown().await.unwrap();
}

#[tokio::test]
async fn wrong_credentials_are_named_without_the_secret() {
    let cloud = cloud_with(Role::Developer).await;
    let other = || Secret::new("hunter2-of-another").unwrap();
    for credentials in [
        Credentials::service_account("key", other(), "me@example.com"),
        Credentials::service_account("other-key", other(), "me@example.com"),
        Credentials::service_account("key", Secret::new(SECRET).unwrap(), "other@example.com"),
        Credentials::basic("key", other()),
        Credentials::basic("other-key", other()),
    ] {
        let client = builder_of(&cloud, credentials).build().unwrap();
        let error = client.projects().next().await.unwrap_err();
        assert_eq!(error.code(), "credentials", "{error}");
        assert_eq!(error.call().unwrap().attempts, 1, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("check key id") && !shown.contains("hunter2"), "{shown}");
    }
    cloud.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_role_without_permission_is_named() {
    let cloud = cloud_with(Role::User).await;
    let client = client_of(&cloud);
    assert!(client.connectors("p").unwrap().next().await.is_ok());
    let target = Target::HttpPush(HttpConfig::new("https://example.com/"));
    let error = client.create_connector("p", &target, &Default::default()).await.unwrap_err();
    assert!(
        matches!(error, Error::Forbidden { .. }) && error.to_string().contains("grant it a role"),
        "{error}"
    );
    cloud.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_wrong_clock_is_named() {
    let cloud = cloud_with(Role::Developer).await;
    for (off, words) in [(2 * 3_600_000, "7200 s ahead"), (-2 * 3_600_000, "7200 s behind")] {
        let now = move || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            i64::try_from(since.as_millis()).unwrap() / 10_000 * 10_000 + off
        };
        let client = builder_of(&cloud, oauth()).clock(now).build().unwrap();
        let error = client.projects().next().await.unwrap_err();
        let Error::ClockOff { seconds, .. } = error else { panic!("{error}") };
        assert!((seconds.abs() - 7200).abs() < 15, "{error}, expected {words}");
        assert!(error.to_string().contains("NTP"), "{error}");
    }
    cloud.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_token_that_dt_no_longer_accepts_is_replaced() {
    let now = Arc::new(AtomicI64::new(1_700_000_000_000));
    let clock = |now: &Arc<AtomicI64>| {
        let now = Arc::clone(now);
        move || now.load(Ordering::SeqCst)
    };
    let cloud = Emulator::builder().clock(clock(&now)).start().await.unwrap();
    let client = builder_of(&cloud, oauth()).clock(clock(&now)).build().unwrap();
    client.projects().next().await.unwrap();
    // The emulator's tokens expire by its clock; the client's monotonic clock has not moved.
    now.fetch_add(2 * 3_600_000, Ordering::SeqCst);
    client.projects().next().await.unwrap();
    cloud.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_never_accepted_is_replaced_once() {
    let token = || ok(r#"{"access_token": "hunter2-token", "expires_in": 3600}"#);
    let refused = || json("401 Unauthorized", "", r#"{"error": "the token hunter2-token is unknown"}"#);
    let server = Server::start([token(), refused(), token(), refused()]).await;
    let error = server.builder(oauth()).attempts(9).build().unwrap().projects().next().await.unwrap_err();
    assert!(matches!(error, Error::Credentials { .. }) && !error.to_string().contains("hunter2"), "{error}");
    assert!(error.to_string().contains("the token (redacted) is unknown"), "{error}");
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn calls_at_once_need_one_token() {
    let page = || ok(r#"{"projects": [], "nextPageToken": ""}"#);
    let token = ok(r#"{"access_token": "t", "token_type": "Bearer", "expires_in": 3600}"#);
    let server = Server::start(std::iter::once(token).chain((0..8).map(|_| page()))).await;
    let client = server.builder(oauth()).build().unwrap();
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.projects().next().await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 9);
    assert!(requests[0].starts_with("POST /oauth2/token ") && requests[0].contains("\r\n\r\nassertion=ey"));
    assert!(requests[1..].iter().all(|request| request.contains("authorization: Bearer t\r\n")));
}

#[tokio::test]
async fn an_answer_of_the_token_endpoint_that_has_changed_is_named() {
    for (body, path) in [
        (r#"{"accessToken": "t", "expires_in": 3600}"#, "`access_token`: found no such member"),
        (r#"{"access_token": "t", "expires_in": "soon"}"#, "`expires_in`: found a text"),
        ("<html>", "`the body`: found no JSON"),
    ] {
        let server = Server::start([ok(body)]).await;
        let error = server.builder(oauth()).build().unwrap().projects().next().await.unwrap_err();
        assert!(matches!(error, Error::NotUnderstood { .. }) && error.to_string().contains(path), "{error}");
        assert!(error.to_string().contains("/oauth2/token"), "{error}");
    }
}

#[tokio::test]
async fn an_outage_of_the_identity_provider_is_waited_for() {
    let cloud = Emulator::builder().start().await.unwrap();
    let mut faults = Faults::default();
    faults.apply("identity-outage").unwrap();
    cloud.set_faults(faults).unwrap();
    let client = builder_of(&cloud, oauth()).attempts(2).build().unwrap();
    let error = client.projects().next().await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }) && error.is_temporary(), "{error}");
    assert_eq!(error.call().unwrap().attempts, 2);
    cloud.set_faults(Faults::default()).unwrap();
    client.projects().next().await.unwrap();
    cloud.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_error_does_not_show_the_assertion() {
    // A token endpoint that repeats the form, which has a signed assertion.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = crate::setup::read_request(&mut stream).await.unwrap();
        let assertion = request.split_once("assertion=").unwrap().1.split('&').next().unwrap().to_owned();
        let body = format!(r#"{{"error": "invalid_grant", "error_description": "bad: {assertion}"}}"#);
        let head = format!(
            "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        tokio::io::AsyncWriteExt::write_all(&mut stream, format!("{head}{body}").as_bytes()).await.unwrap();
        assertion
    });
    let client = dt_api::Client::builder(oauth()).api_url(&url).token_endpoint(&url).build().unwrap();
    let error = client.projects().next().await.unwrap_err();
    let assertion = echo.await.unwrap();
    assert!(assertion.starts_with("ey") && !format!("{error:?}").contains(&assertion), "{error}");
    assert!(error.to_string().contains("invalid_grant: bad: (redacted)"), "{error}");
}
