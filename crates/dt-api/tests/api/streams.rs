//! The device stream.

use std::time::Duration;

use dt_api::{Client, Error, EventRecord, EventStream, Message, StreamFormat, StreamQuery};
use dt_emulator::Emulator;
use dt_verify::event::EventType;
use futures_util::StreamExt;
use serde_json::json;

use crate::setup::{SECRET, Server, client_of, json as answer, oauth, ok, raw};

const EVENT: &str =
    r#"{"eventId":"e1",  "targetName":"projects/p/devices/d","eventType":"touch","data":{"touch":{}}}"#;
const HEAD: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n";

/// Returns the next event, after any pings.
async fn event(stream: &mut EventStream) -> Result<EventRecord, Error> {
    loop {
        if let Message::Event(event) = stream.next().await? {
            return Ok(event);
        }
    }
}

async fn open(client: &Client, format: StreamFormat) -> EventStream {
    client.stream("p", &StreamQuery::new().format(format)).await.unwrap()
}

#[tokio::test]
async fn events_arrive_in_both_formats() {
    let cloud = Emulator::builder().start().await.unwrap();
    let device = cloud.call("POST", "/v2/projects/p/devices", &json!({"type": "temperature"})).unwrap();
    let name = device["name"].as_str().unwrap();
    let client = client_of(&cloud);
    for format in [StreamFormat::JsonLines, StreamFormat::ServerSentEvents] {
        let mut stream = open(&client, format).await;
        let touches = StreamQuery::new()
            .format(format)
            .event_type(&EventType::Touch)
            .ping_interval(Duration::from_secs(1));
        let mut touches = client.stream("p", &touches).await.unwrap();
        for event in [json!({"temperature": {"value": 21.5}}), json!({"touch": {}})] {
            cloud.call("POST", &format!("/v2/{name}:publish"), &event).unwrap();
        }
        let (first, second) = (event(&mut stream).await.unwrap(), event(&mut stream).await.unwrap());
        assert_eq!((first.event_type, &second.event_type), (EventType::Temperature, &EventType::Touch));
        let history = cloud.call("GET", &format!("/v2/{name}/events"), &json!(null)).unwrap();
        let raw: serde_json::Value = serde_json::from_str(second.raw.get()).unwrap();
        assert!(history["events"].as_array().unwrap().contains(&raw));
        assert_eq!(event(&mut touches).await.unwrap().event_id, second.event_id);
        let Message::Ping { timestamp } = touches.next().await.unwrap() else { panic!("a ping after 1 s") };
        assert!(timestamp.unwrap().instant().is_some());
    }
    let error = client.stream("a/b", &StreamQuery::new()).await.unwrap_err();
    assert_eq!(error.code(), "argument");
    // The emulator closes its streams.
    let mut stream = open(&client, StreamFormat::JsonLines).await;
    cloud.shutdown().await.unwrap();
    assert_eq!(event(&mut stream).await.unwrap_err().code(), "network");
}

#[tokio::test]
async fn a_broken_connection_ends_the_stream_and_the_next_one_goes_on() {
    let line = format!("{{\"result\":{{\"event\":{EVENT}}}}}\n");
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n";
    let server = Server::start([
        // Broken within the second event.
        raw(format!("{chunked}{}{}", chunk(&line), chunk(&line[..30]))),
        // Closed within the second event.
        raw(format!("{HEAD}{line}{}", &line[..30])),
        // Closed after an event.
        raw(format!("{chunked}{}0\r\n\r\n", chunk(&line))),
    ])
    .await;
    for _ in 0..3 {
        let stream = open(&server.client(), StreamFormat::JsonLines).await;
        let messages: Vec<_> = stream.into_messages().collect().await;
        let [Ok(Message::Event(event)), Err(error)] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!((event.raw.get(), event.device()), (EVENT, Some("d")), "byte for byte as received");
        assert!(matches!(error, Error::Network { .. }) && error.is_temporary(), "{error}");
    }
}

#[tokio::test]
async fn a_silent_stream_ends() {
    let server = Server::start([crate::setup::raw_open(HEAD)]).await;
    let query = StreamQuery::new().ping_interval(Duration::from_secs(1));
    let mut stream = server.client().stream("p", &query).await.unwrap();
    let error = stream.next().await.unwrap_err();
    let Error::Timeout { limit, .. } = error else { panic!("{error}") };
    assert_eq!(limit, Duration::from_millis(2500));
}

#[tokio::test]
async fn a_stream_continues_after_a_message_that_is_too_large() {
    let line = format!("{{\"result\":{{\"event\":{EVENT}}}}}\n");
    let large = "x".repeat(3 << 20);
    let server = Server::start([raw(format!("{HEAD}{line}{large}\n{line}"))]).await;
    let mut stream = open(&server.client(), StreamFormat::JsonLines).await;
    assert_eq!(event(&mut stream).await.unwrap().raw.get(), EVENT);
    let Error::NotUnderstood { path, expected, .. } = event(&mut stream).await.unwrap_err() else { panic!() };
    assert_eq!((&*path, expected), ("a message", "at most 1 MiB"));
    assert_eq!(event(&mut stream).await.unwrap().raw.get(), EVENT);
    assert_eq!(event(&mut stream).await.unwrap_err().code(), "network", "the end");
}

#[tokio::test]
async fn an_error_of_a_stream_does_not_show_the_access_token() {
    let error = format!("{{\"error\":{{\"code\":401,\"message\":\"not hunter2-token, {SECRET}\"}}}}\n");
    let token = r#"{"access_token": "hunter2-token", "expires_in": 3600}"#;
    let server = Server::start([ok(token), raw(format!("{HEAD}{error}"))]).await;
    let client = server.builder(oauth()).build().unwrap();
    let mut stream = open(&client, StreamFormat::JsonLines).await;
    assert!(server.requests()[1].contains("Bearer hunter2-token"), "it was sent");
    let error = stream.next().await.unwrap_err();
    assert!(error.to_string().contains("not (redacted), (redacted)"), "{error}");
    assert!(!format!("{error:?} {stream:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn errors_of_a_stream_are_those_of_other_calls() {
    for (code, error_code) in [
        (401, "credentials"),
        (403, "forbidden"),
        (404, "not_found"),
        (429, "rate_limited"),
        (503, "unavailable"),
    ] {
        let error = format!("{{\"error\":{{\"code\":{code},\"message\":\"as DT says\"}}}}");
        // As the status, and as a message.
        let server = Server::start([
            answer(&format!("{code} x"), "Retry-After: 100\r\n", &error),
            raw(format!("{HEAD}{error}\n")),
        ])
        .await;
        let client = server.client();
        let of_status = client.stream("p", &StreamQuery::new()).await.unwrap_err();
        let of_message = open(&client, StreamFormat::JsonLines).await.next().await.unwrap_err();
        for error in [of_status, of_message] {
            assert_eq!(error.code(), error_code, "{error}");
            assert!(error.to_string().contains("as DT says"), "{error}");
        }
    }
    for (line, path) in [
        ("nonsense", "the body"),
        ("{\"result\":{}}", "result.event"),
        ("{\"result\":{\"event\":{\"eventId\":\"1\"}}}", "result.event.eventType"),
        ("{\"event\":{}}", "result"),
    ] {
        let server = Server::start([raw(format!("{HEAD}{line}\n"))]).await;
        let error = open(&server.client(), StreamFormat::JsonLines).await.next().await.unwrap_err();
        let Error::NotUnderstood { path: found, .. } = error else { panic!("{error}") };
        assert_eq!(found, path, "{line}");
    }
}
