//! Answers that are not as documented.

use dt_api::{DeviceQuery, Error, HistoryQuery};

use crate::setup::{Server, ok, raw};

/// Returns the path, what was expected, and what was found.
fn parts<T>(result: Result<T, Error>) -> (String, &'static str, String) {
    match result.err().expect("an error") {
        Error::NotUnderstood { path, expected, found, .. } => (path, expected, found),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_missing_or_renamed_member_is_named() {
    for (body, path, expected, found) in [
        (r#"{"devices": []}"#, "nextPageToken", "a text", "no such member"),
        (r#"{"devices": [], "next_page_token": ""}"#, "nextPageToken", "a text", "no such member"),
        (r#"{"devices": [], "nextPageToken": 7}"#, "nextPageToken", "a text", "a number"),
        (r#"{"items": [], "nextPageToken": ""}"#, "devices", "an array", "no such member"),
        (r#"{"devices": null, "nextPageToken": ""}"#, "devices", "an array", "null"),
        (r#"{"devices": {}, "nextPageToken": ""}"#, "devices", "an array", "an object"),
        (
            r#"{"devices": [{"type": "x"}], "nextPageToken": ""}"#,
            "devices[0].name",
            "a text",
            "no such member",
        ),
        (
            r#"{"devices": [{"name": "n", "type": 5}], "nextPageToken": ""}"#,
            "devices[0].type",
            "a text",
            "a number",
        ),
        (
            r#"{"devices": [{"name": "n", "type": "x", "labels": ["hunter2"]}], "nextPageToken": ""}"#,
            "devices[0].labels",
            "an object of texts",
            "an array",
        ),
        (
            r#"{"devices": [{"name": "n", "type": "x", "reported": {"touch": {"updateTime": 5}}}], "nextPageToken": ""}"#,
            "devices[0].reported.touch.updateTime",
            "a text",
            "a number",
        ),
        ("[]", "the body", "a JSON object", "an array"),
        ("<html>hunter2</html>", "the body", "a JSON object", "no JSON"),
    ] {
        let server = Server::start([ok(body)]).await;
        let result = server.client().devices("p", &DeviceQuery::new()).unwrap().next().await;
        assert_eq!(parts(result), (path.to_owned(), expected, found.to_owned()), "{body}");
    }
}

#[tokio::test]
async fn a_changed_connector_is_named_without_its_values() {
    for (body, path) in [
        (r#"{"name": "n", "type": "HTTP_PUSH", "status": "ACTIVE", "httpConfig": "hunter2"}"#, "httpConfig"),
        (
            r#"{"name": "n", "type": "HTTP_PUSH", "status": "ACTIVE", "httpConfig": {"uri": "x"}}"#,
            "httpConfig.url",
        ),
        (
            r#"{"name": "n", "type": "HTTP_PUSH", "status": "ACTIVE", "httpConfig": {"url": "x", "headers": "hunter2"}}"#,
            "httpConfig.headers",
        ),
        (r#"{"name": "n", "type": "HTTP_PUSH", "state": "ACTIVE", "httpConfig": {"url": "x"}}"#, "status"),
        (r#"{"name": "n", "status": "ACTIVE", "httpConfig": {"url": "x"}}"#, "type"),
        (r#"{"name": "n", "type": "X", "status": "ACTIVE", "events": [{"hunter2": 1}]}"#, "events"),
    ] {
        let server = Server::start([ok(body)]).await;
        let error = server.client().connector("p", "c").await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        assert_eq!(parts(Err::<(), _>(error)).0, path, "{body}");
    }
    let body = r#"{"metrics": {"successCount": 1, "errorCount": 2, "latency99p": "fast"}}"#;
    let server = Server::start([ok(body)]).await;
    assert_eq!(parts(server.client().connector_metrics("p", "c").await).0, "metrics.latency99p");
    let body = r#"{"metrics": {"successCount": "9", "errorCount": 2, "latency99p": ""}}"#;
    let server = Server::start([ok(body)]).await;
    let metrics = server.client().connector_metrics("p", "c").await.unwrap();
    assert_eq!((metrics.success_count, metrics.latency_p99), (9, None));
}

#[tokio::test]
async fn a_list_that_never_ends_is_noticed() {
    let page = |token: &str| ok(&format!(r#"{{"events": [], "nextPageToken": "{token}"}}"#));
    for tokens in [&["again", "again"][..], &["a", "b", "a"]] {
        let server = Server::start(tokens.iter().map(|token| page(token))).await;
        let all = server.client().history("p", "d", &HistoryQuery::new()).unwrap().up_to(10).await;
        let expected = ("the token of another page", "that of an earlier page".to_owned());
        let (path, wanted, found) = parts(all);
        assert_eq!((&*path, (wanted, found)), ("nextPageToken", expected), "{tokens:?}");
        assert_eq!(server.requests().len(), tokens.len());
    }
}

#[tokio::test]
async fn an_odd_event_does_not_hide_the_others() {
    let odd = r#"{"eventId":"1","eventType":"smell","data":5,"timestamp":7,"x":{}}"#;
    let good = r#"{ "eventId": "2",  "eventType":"touch"}"#;
    let server = Server::start([ok(&format!(r#"{{"events": [{odd}, {good}], "nextPageToken": ""}}"#))]).await;
    let events = server.client().history("p", "d", &HistoryQuery::new()).unwrap().up_to(10).await.unwrap();
    let raw: Vec<_> = events.iter().map(|event| event.raw.get()).collect();
    assert_eq!(raw, [odd, good], "byte for byte as received");
    assert_eq!(
        (events[0].event_type.as_str(), &events[0].timestamp, events[0].device()),
        ("smell", &None, None)
    );
    assert!(events[0].event().is_ok());
}

#[tokio::test]
async fn the_size_of_an_answer_is_limited() {
    let size = 17 << 20;
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + size, b' ');
    let server = Server::start([raw(answer)]).await;
    let client = server.builder(crate::setup::basic()).request_timeout(std::time::Duration::from_secs(10));
    let error = client.build().unwrap().projects().next().await;
    assert_eq!(parts(error).1, "at most 16 MiB");
}
