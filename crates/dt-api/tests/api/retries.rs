//! What is repeated, and what is not.

use std::time::{Duration, Instant};

use dt_api::{Client, ConnectorSettings, ConnectorStatus, Error, HttpConfig, Target};
use dt_emulator::{Emulator, Faults};

use crate::setup::{Reply, SECRET, Server, basic, builder_of, hang, json, oauth, ok, raw, raw_open};

const PAGE: &str = r#"{"projects": [], "nextPageToken": ""}"#;
const CONNECTOR: &str = r#"{"name": "projects/p/dataconnectors/c", "type": "HTTP_PUSH", "status": "ACTIVE",
    "httpConfig": {"url": "https://h/"}}"#;

fn target() -> Target {
    Target::HttpPush(HttpConfig::new("https://example.com/"))
}

fn status(code: u16, headers: &str) -> Reply {
    json(&format!("{code} x"), headers, r#"{"error": "no", "code": 0}"#)
}

/// Half of an answer: its length is larger than what comes.
fn half() -> Reply {
    raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", PAGE.len(), &PAGE[..20]))
}

/// Half of an answer that ends with its connection, so that nothing but the JSON says that it is half.
fn half_without_length() -> Reply {
    raw(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", &PAGE[..20]))
}

/// A connection that closes without an answer.
fn cut() -> Reply {
    raw("")
}

#[tokio::test]
async fn reading_is_repeated_after_what_may_pass() {
    let failures: [fn() -> Reply; 9] = [
        || status(408, ""),
        || status(429, "Retry-After: 0\r\n"),
        || status(500, ""),
        || status(502, ""),
        || status(503, ""),
        half,
        half_without_length,
        cut,
        hang,
    ];
    for (at, failure) in failures.iter().enumerate() {
        let server = Server::start([failure(), ok(PAGE)]).await;
        let page = server.client().projects().next().await;
        assert_eq!(page.map(|page| page.map(|page| page.len())), Ok(Some(0)), "failure {at}");
        assert_eq!(server.requests().len(), 2, "failure {at}");

        let server = Server::start([failure(), failure(), ok(PAGE)]).await;
        let error = server.client().projects().next().await.unwrap_err();
        assert!(error.is_temporary() && error.call().unwrap().attempts == 2, "failure {at}: {error}");
        assert!(!error.may_have_been_done(), "failure {at}: {error}");
        assert!(!format!("{error:?}").contains(SECRET));
    }
}

#[tokio::test]
async fn nothing_is_repeated_that_would_fail_again() {
    for (code, error_code) in [
        (400, "rejected"),
        (401, "credentials"),
        (403, "forbidden"),
        (404, "not_found"),
        (409, "rejected"),
        (302, "not_understood"),
    ] {
        let server = Server::start([status(code, ""), ok(PAGE)]).await;
        let error = server.client().projects().next().await.unwrap_err();
        assert_eq!((error.code(), error.is_temporary()), (error_code, false), "{error}");
        assert_eq!(server.requests().len(), 1, "{code}");
    }
}

#[tokio::test]
async fn a_create_is_repeated_only_where_dt_has_done_nothing() {
    // 503 as well: a gateway also sends it after it has forwarded the request.
    for (code, is_repeated) in [(429, true), (503, false), (500, false), (502, false), (504, false)] {
        let server = Server::start([status(code, "Retry-After: 0\r\n"), ok(CONNECTOR)]).await;
        let created = server.client().create_connector("p", &target(), &ConnectorSettings::new()).await;
        assert_eq!(created.is_ok(), is_repeated, "{code}");
        assert_eq!(server.requests().len(), if is_repeated { 2 } else { 1 }, "{code}");
        if let Err(error) = created {
            assert!(error.may_have_been_done() && error.is_temporary(), "{error}");
        }
    }
    for failure in [half(), cut(), hang()] {
        let server = Server::start([failure, ok(CONNECTOR)]).await;
        let error =
            server.client().create_connector("p", &target(), &ConnectorSettings::new()).await.unwrap_err();
        assert!(error.may_have_been_done() && error.is_temporary(), "{error}");
        assert_eq!(server.requests().len(), 1, "{error}");
    }
    let server = Server::start([status(409, "")]).await;
    let error =
        server.client().create_connector("p", &target(), &ConnectorSettings::new()).await.unwrap_err();
    assert!(!error.may_have_been_done(), "{error}");
}

#[tokio::test]
async fn a_change_with_an_odd_answer_was_done_all_the_same() {
    let server = Server::start([ok(r#"{"id": "c"}"#)]).await;
    let error =
        server.client().create_connector("p", &target(), &ConnectorSettings::new()).await.unwrap_err();
    assert!(error.code() == "not_understood" && error.may_have_been_done(), "{error}");
    let server = Server::start([ok(r#"{"id": "c"}"#)]).await;
    assert!(!server.client().connector("p", "c").await.unwrap_err().may_have_been_done());
}

#[tokio::test]
async fn an_error_counts_though_its_reason_does_not_arrive() {
    let half = "HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n{";
    let server = Server::start([raw_open(half)]).await;
    let client = server.builder(basic()).request_timeout(Duration::from_secs(60)).build().unwrap();
    let error = client.projects().next().await.unwrap_err();
    assert!(error.code() == "forbidden" && error.to_string().contains("no reason given"), "{error}");
}

#[tokio::test]
async fn a_sync_is_not_repeated_blindly_but_a_change_is() {
    let server = Server::start([hang(), ok("{}")]).await;
    let error = server.client().sync_connector("p", "c").await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }) && error.may_have_been_done(), "{error}");
    let server = Server::start([status(503, "Retry-After: 0\r\n"), ok("{}")]).await;
    let error = server.client().sync_connector("p", "c").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }) && error.may_have_been_done(), "{error}");
    assert_eq!(server.requests().len(), 1);
    let server = Server::start([hang(), ok(CONNECTOR)]).await;
    let enable = ConnectorSettings::new().status(ConnectorStatus::Active);
    assert!(server.client().update_connector("p", "c", &enable).await.is_ok());
    // The first attempt has deleted the connector, so the second does not find it.
    let server = Server::start([cut(), status(404, "")]).await;
    assert_eq!(server.client().delete_connector("p", "c").await, Ok(()));
    let server = Server::start([status(404, "")]).await;
    assert_eq!(server.client().delete_connector("p", "c").await.unwrap_err().code(), "not_found");
}

#[tokio::test]
async fn without_a_connection_nothing_was_done() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::builder(basic()).api_url(url).attempts(2).build().unwrap();
    let error = client.create_connector("p", &target(), &ConnectorSettings::new()).await.unwrap_err();
    assert_eq!(error.code(), "network", "{error}");
    assert!(error.call().unwrap().attempts == 2 && !error.may_have_been_done(), "nothing was sent: {error}");
    assert!(error.to_string().contains("check the network"), "{error}");
}

/// A host that drops what opens a connection: Linux does so while the queue of a listener that accepts nothing is full.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn with_a_host_that_does_not_answer_nothing_was_done() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    let connect = async || {
        let connecting = tokio::net::TcpStream::connect(address);
        tokio::time::timeout(Duration::from_secs(1), connecting).await
    };
    while let Ok(connected) = connect().await {
        queued.push(connected.unwrap());
        assert!(queued.len() < 100, "the queue is never full");
    }
    let client = Client::builder(basic()).api_url(format!("http://{address}")).attempts(1);
    let limit = Duration::from_secs(3);
    let client = client.request_timeout(limit).build().unwrap();
    let started = Instant::now();
    let error = client.create_connector("p", &target(), &ConnectorSettings::new()).await.unwrap_err();
    assert!(error.code() == "network" && !error.may_have_been_done(), "nothing was sent: {error}");
    // Both limits must not end at the same moment: then it is chance which error it is.
    assert!(started.elapsed() < limit, "{error}");
}

#[tokio::test]
async fn retry_after_is_waited_for_within_the_limit_of_the_call() {
    // A date, one second after the time of the client's clock.
    let date = "Retry-After: Sun, 06 Nov 1994 08:49:38 GMT\r\n";
    for code in [429, 503] {
        let server = Server::start([status(code, date), ok(PAGE)]).await;
        let client = server.builder(basic()).clock(|| 784_111_777_000).build().unwrap();
        let started = Instant::now();
        client.projects().next().await.unwrap();
        assert!(started.elapsed() >= Duration::from_secs(1), "{code}");
    }

    // Longer than the call may take: the caller decides.
    let server = Server::start([status(429, "Retry-After: 120\r\n"), ok(PAGE)]).await;
    let error = server.client().projects().next().await.unwrap_err();
    let Error::RateLimited { retry_after, .. } = error else { panic!("{error}") };
    assert_eq!(retry_after, Some(Duration::from_secs(120)));
    assert!(error.to_string().contains("try again in 120 s"), "{error}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_call_ends_within_its_total_time() {
    let server = Server::start((0..50).map(|_| hang())).await;
    let total = Duration::from_secs(2);
    let client = server.builder(basic()).total_timeout(total).attempts(1000).build().unwrap();
    let started = Instant::now();
    let error = client.projects().next().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }) && error.call().unwrap().attempts > 1, "{error}");
    // A margin for a slow machine: without the limit, it would take minutes.
    assert!(started.elapsed() < total + Duration::from_secs(5));
}

#[tokio::test]
async fn a_storm_of_429_is_named_or_passes() {
    let storm = (0..6).map(|_| status(429, "Retry-After: 0\r\n"));
    let server = Server::start(storm.chain([ok(PAGE)])).await;
    server.builder(basic()).attempts(7).build().unwrap().projects().next().await.unwrap();
    assert_eq!(server.requests().len(), 7);

    let cloud = Emulator::builder().start().await.unwrap();
    let mut faults = Faults::default();
    faults.apply("rate-limit=1").unwrap();
    cloud.set_faults(faults).unwrap();
    let builder = || builder_of(&cloud, oauth()).total_timeout(Duration::from_millis(1800));
    let error = builder().build().unwrap().projects().next().await.unwrap_err();
    assert!(matches!(error, Error::RateLimited { .. }), "{error}");
    assert_eq!(error.call().unwrap().attempts, 2, "{error}");

    cloud.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_outage_of_the_api_is_named() {
    let cloud = Emulator::builder().start().await.unwrap();
    let mut faults = Faults::default();
    faults.apply("api-outage").unwrap();
    cloud.set_faults(faults).unwrap();
    let client = builder_of(&cloud, oauth()).attempts(2).build().unwrap();
    let error = client.projects().next().await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }) && error.call().unwrap().attempts == 2, "{error}");
    cloud.shutdown().await.unwrap();
}
