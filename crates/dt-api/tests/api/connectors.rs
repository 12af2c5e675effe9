//! Data Connectors.

use std::collections::BTreeMap;

use dt_api::{
    AwsSqsConfig, Connector, ConnectorSettings, ConnectorStatus, EndpointUrl, HttpConfig, SecretText, Target,
};
use dt_emulator::Emulator;
use dt_verify::event::EventType;
use serde_json::{Value, json};

use crate::setup::{Server, client_of, json as answer, ok};

fn http(connector: &Connector) -> &HttpConfig {
    match &connector.target {
        Target::HttpPush(config) => config,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_connector_lives_its_whole_life() {
    let cloud = Emulator::builder().start().await.unwrap();
    let client = client_of(&cloud);
    let target = Target::HttpPush(HttpConfig {
        signature_secret: Some(SecretText::new("hunter2")),
        headers: Some(BTreeMap::from([("x-a".to_owned(), SecretText::new("hunter2-a"))])),
        ..HttpConfig::new("https://example.com/dt")
    });
    let settings = ConnectorSettings::new()
        .display_name("receiver")
        .events([&EventType::Touch, &EventType::Temperature])
        .labels(["name"]);
    let created = client.create_connector("p", &target, &settings).await.unwrap();
    assert_eq!(created.target, target);
    assert_eq!((&*created.display_name, &created.status), ("receiver", &ConnectorStatus::Active));
    assert_eq!(
        (created.events.as_slice(), created.labels.len()),
        ([EventType::Touch, EventType::Temperature].as_slice(), 1)
    );
    assert!(!format!("{created:?} {target:?} {settings:?}").contains("hunter2"));

    let listed = client.connectors("p").unwrap().up_to(100).await.unwrap();
    assert_eq!(listed.len(), 1);
    let id = listed[0].id();
    assert_eq!(client.connector("p", id).await.unwrap().target, target);

    // Only what is set changes.
    let disabled = ConnectorSettings::new().status(ConnectorStatus::UserDisabled);
    let changed = client.update_connector("p", id, &disabled).await.unwrap();
    assert_eq!(
        (&changed.status, &changed.target, changed.events.len()),
        (&ConnectorStatus::UserDisabled, &target, 2)
    );
    let url = Target::HttpPush(HttpConfig::new("https://example.com/other"));
    let changed =
        client.update_connector("p", id, &ConnectorSettings::new().target(&url).events([])).await.unwrap();
    assert_eq!(http(&changed).url.as_ref().map(EndpointUrl::expose), Some("https://example.com/other"));
    assert_eq!(http(&changed).signature_secret, Some(SecretText::new("hunter2")));
    assert_eq!((changed.events.len(), &changed.status), (0, &ConnectorStatus::UserDisabled));

    client.sync_connector("p", id).await.unwrap();
    let metrics = client.connector_metrics("p", id).await.unwrap();
    assert_eq!((metrics.success_count, metrics.error_count), (0, 0));
    client.delete_connector("p", id).await.unwrap();
    for result in [
        client.connector("p", id).await.map(|_| ()),
        client.delete_connector("p", id).await,
        client.sync_connector("p", id).await,
        client.connector_metrics("p", id).await.map(|_| ()),
        client.update_connector("p", id, &disabled).await.map(|_| ()),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.code(), "not_found", "{error}");
    }
    let nothing = client.update_connector("p", id, &ConnectorSettings::new()).await.unwrap_err();
    assert_eq!(nothing.code(), "argument");
    cloud.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_error_contains_no_secret_of_the_request() {
    let cloud = Emulator::builder().start().await.unwrap();
    let client = client_of(&cloud);
    let target = Target::HttpPush(HttpConfig::new("https://user:hunter2@example.com/"));
    let error = client.create_connector("p", &target, &ConnectorSettings::new()).await.unwrap_err();
    assert!(error.code() == "rejected" && error.to_string().contains("user name"), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    cloud.shutdown().await.unwrap();

    // An answer that repeats what it was sent.
    let body = r#"{"error": "bad values: hunter2-secret, hunter2-header, key=hunter2", "code": 400}"#;
    let server = Server::start([answer("400 Bad Request", "", body)]).await;
    let target = Target::HttpPush(HttpConfig {
        signature_secret: Some(SecretText::new("hunter2-secret")),
        headers: Some(BTreeMap::from([("a".to_owned(), SecretText::new("hunter2-header"))])),
        ..HttpConfig::new("https://example.com/?key=hunter2")
    });
    let error = server.client().update_connector("p", "c", &ConnectorSettings::new().target(&target)).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("bad values: (redacted), (redacted), (redacted)"), "{error}");
}

#[tokio::test]
async fn a_request_has_only_what_is_set() {
    let connector = r#"{"name": "projects/p/dataconnectors/c", "type": "AWS_SQS", "status": "ACTIVE"}"#;
    let server =
        Server::start([ok(connector), ok(connector), ok("{}"), answer("204 No Content", "", "")]).await;
    let client = server.client();
    let target =
        Target::AwsSqs(AwsSqsConfig { aws_role_arn: Some("arn:x".to_owned()), ..AwsSqsConfig::default() });
    client.create_connector("p", &target, &ConnectorSettings::new().display_name("q")).await.unwrap();
    client.update_connector("p", "c", &ConnectorSettings::new().target(&target)).await.unwrap();
    client.sync_connector("p", "c").await.unwrap();
    client.delete_connector("p", "c").await.unwrap();
    let requests = server.requests();
    let body = |request: &str| serde_json::from_str::<Value>(request.split_once("\r\n\r\n").unwrap().1).ok();
    assert!(requests[0].starts_with("POST /v2/projects/p/dataconnectors HTTP/1.1\r\n"), "{}", requests[0]);
    let config = json!({"awsRoleArn": "arn:x"});
    assert_eq!(
        body(&requests[0]),
        Some(json!({"displayName": "q", "type": "AWS_SQS", "awsSqsConfig": config}))
    );
    assert!(requests[1].starts_with("PATCH /v2/projects/p/dataconnectors/c HTTP/1.1\r\n"));
    assert_eq!(body(&requests[1]), Some(json!({"awsSqsConfig": config})));
    assert!(requests[2].starts_with("POST /v2/projects/p/dataconnectors/c:sync HTTP/1.1\r\n"));
    assert!(requests[2].contains("content-length: 0\r\n") && requests[2].ends_with("\r\n\r\n"));
    assert!(requests[3].starts_with("DELETE /v2/projects/p/dataconnectors/c HTTP/1.1\r\n"));
}

#[tokio::test]
async fn all_types_are_listed_and_a_future_one_breaks_nothing() {
    let connector = |kind: &str, member: &str, config: Value| {
        json!({"name": format!("projects/p/dataconnectors/{kind}"), "displayName": "", "type": kind, "status": "ACTIVE",
            "events": [], "labels": [], member: config})
    };
    let azure = json!({"tenantId": "t", "clientId": "c"});
    let list = json!({"dataConnectors": [
        connector("HTTP_PUSH", "httpConfig", json!({"url": "https://h/", "signatureSecret": "", "headers": {}})),
        connector("AZURE_SERVICE_BUS", "azureServiceBusConfig", json!({"url": "https://bus/q", "authenticationConfig": azure})),
        connector("AZURE_EVENT_HUB", "azureEventHubConfig", json!({"url": "https://hub/h", "authenticationConfig": azure})),
        connector("GOOGLE_CLOUD_PUBSUB", "pubsubConfig", json!({"topic": "projects/x/topics/y", "audience": "a"})),
        connector("AWS_SQS", "awsSqsConfig", json!({"queueUrl": "https://sqs/q", "awsRoleArn": "arn:x", "audience": "a"})),
        connector("PIGEON", "pigeonConfig", json!({"loft": "hunter2"})),
    ], "nextPageToken": ""});
    let server = Server::start([ok(&list.to_string())]).await;
    let found = server.client().connectors("p").unwrap().up_to(100).await.unwrap();
    let types: Vec<_> = found.iter().map(|connector| connector.target.type_name()).collect();
    let expected =
        ["HTTP_PUSH", "AZURE_SERVICE_BUS", "AZURE_EVENT_HUB", "GOOGLE_CLOUD_PUBSUB", "AWS_SQS", "PIGEON"];
    assert_eq!(types, expected);
    let addresses: Vec<_> = found.iter().map(|connector| connector.target.address()).collect();
    assert_eq!(
        addresses[1..4].iter().flatten().collect::<Vec<_>>(),
        ["https://bus/q", "https://hub/h", "projects/x/topics/y"]
    );
    assert_eq!((addresses[5].as_ref(), &found[5].extra["pigeonConfig"]["loft"]), (None, &json!("hunter2")));
    assert!(!format!("{found:?}").contains("hunter2"));
}
