//! Recorded answers of DT's API: the fixtures of DT's Python client (`fixtures/make.py` says where they are from).

use std::path::Path;
use std::time::Duration;

use dt_api::{ConnectorStatus, DeviceQuery, HistoryQuery, Message, StreamQuery, Target};
use dt_verify::event::{EventType, Payload};

use crate::setup::{Server, ok, raw};

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::fs::read_to_string(folder.join(format!("{name}.json"))).expect(name)
}

async fn answering(name: &str) -> Server {
    Server::start([ok(&fixture(name))]).await
}

#[tokio::test]
async fn recorded_projects_are_read() {
    let server = answering("projects").await;
    let projects = server.client().projects().up_to(10).await.unwrap();
    let [first, second] = &projects[..] else { panic!("{projects:?}") };
    assert_eq!((first.id(), &*first.display_name), ("c15j9p094l47cdv0o3pg", "my-project"));
    assert_eq!((first.sensor_count, first.cloud_connector_count), (Some(7), Some(1)));
    assert!(second.is_inventory && !first.is_inventory && first.extra.is_empty());
}

#[tokio::test]
async fn recorded_devices_are_read() {
    let server = answering("paginated_device_response").await;
    let devices = server.client().devices("p", &DeviceQuery::new()).unwrap().up_to(100).await.unwrap();
    let counts: Vec<_> =
        devices.iter().map(|device| device.reported.as_ref().unwrap().iter().count()).collect();
    assert_eq!(counts, [4, 4, 4, 4, 3, 4, 4, 4, 0], "`null` counts as absent");
    assert!(devices.iter().all(|device| device.extra.is_empty() && device.product_number.is_empty()));
    let newest = devices[3].reported.as_ref().unwrap().get(&EventType::Temperature).unwrap();
    assert_eq!(newest.update_time.as_ref().unwrap().as_str(), "2021-03-13T16:05:47.722334Z");
    assert_eq!((&*devices[3].labels["test"], devices[3].id()), ("2", "c0pppd1qdqebrvv1iqp0"));

    // The answer to a new device has no `reported`.
    let server = answering("created_temperatur_emulator").await;
    let device = server.client().device("p", "d").await.unwrap();
    assert!(device.reported.is_none() && device.labels.len() == 3);
}

#[tokio::test]
async fn recorded_connectors_are_read() {
    let server = answering("paginated_dataconnectors_response").await;
    let connectors = server.client().connectors("p").unwrap().up_to(10).await.unwrap();
    assert_eq!(connectors.len(), 2);
    for name in ["simple_dataconnector", "configured_dataconnector", "unknown_dataconnector"] {
        let server = answering(name).await;
        let connector = server.client().connector("p", "c").await.unwrap();
        assert_eq!((&connector.status, &*connector.display_name), (&ConnectorStatus::Active, "my-new-dcon"));
        match (name, &connector.target) {
            ("simple_dataconnector", Target::HttpPush(config)) => {
                assert!(config.signature_secret.as_ref().unwrap().is_empty());
                assert_eq!((connector.events.len(), config.headers.as_ref().unwrap().len()), (0, 0));
            }
            ("configured_dataconnector", Target::HttpPush(config)) => {
                assert_eq!(config.signature_secret.as_ref().unwrap().expose(), "some-very-good-secret");
                assert_eq!(config.headers.as_ref().unwrap()["some-header"].expose(), "abc123");
                assert_eq!(
                    connector.events,
                    [EventType::Touch, EventType::Temperature, EventType::ObjectPresent]
                );
                assert_eq!(connector.labels, ["name", "custom-label-01", "custom-label-02"]);
            }
            ("unknown_dataconnector", Target::Other(kind)) => {
                assert_eq!((&**kind, connector.extra.len()), ("unknown", 1));
            }
            other => panic!("{other:?}"),
        }
        assert!(!format!("{connector:?}").contains("abc123"));
    }
    let server = answering("metrics").await;
    let metrics = server.client().connector_metrics("p", "c").await.unwrap();
    assert_eq!((metrics.success_count, metrics.error_count), (9, 0));
    assert_eq!(metrics.latency_p99, Some(Duration::from_millis(411)));
}

#[tokio::test]
async fn recorded_events_are_read() {
    let server = answering("event_history_each_type").await;
    let events = server.client().history("p", "d", &HistoryQuery::new()).unwrap().up_to(100).await.unwrap();
    assert_eq!(events.len(), 13);
    for record in &events {
        assert!(record.event_type.is_known() && record.timestamp.as_ref().unwrap().instant().is_some());
        let event = record.event().unwrap();
        let is_read =
            !matches!(event.data, Payload::Unreadable { .. } | Payload::Unknown(_) | Payload::Empty);
        assert!(is_read, "{record:?}: {event:?}");
    }
}

#[tokio::test]
async fn recorded_messages_of_the_stream_are_read() {
    let messages = ["stream_ping", "stream_temperature_event", "stream_networkstatus_event"].map(fixture);
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\n\r\n";
    let server = Server::start([raw(format!("{head}{}", messages.concat()))]).await;
    let mut stream = server.client().stream("p", &StreamQuery::new()).await.unwrap();
    let ping = stream.next().await.unwrap();
    assert!(matches!(ping, Message::Ping { timestamp: Some(_) }), "{ping:?}");
    for event_type in [EventType::Temperature, EventType::NetworkStatus] {
        let Message::Event(event) = stream.next().await.unwrap() else { panic!("an event") };
        assert_eq!(event.event_type, event_type);
        assert!(
            fixture(&format!("stream_{}_event", event_type.as_str().to_lowercase()))
                .contains(event.raw.get())
        );
    }
}
