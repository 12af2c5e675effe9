//! The output of the subcommands. Signature secrets and the values of headers are never printed.

use serde_json::{Value, json};

use crate::cli::spool_access::table;
use dt_api::{Connector, ConnectorMetrics, Target};
use dt_verify::event::EventType;

/// Returns connectors as a table or as JSON.
pub fn list(connectors: &[Connector], as_json: bool) -> String {
    if as_json {
        return json!({"connectors": connectors.iter().map(about).collect::<Vec<_>>()}).to_string();
    }
    let row = |connector: &Connector| {
        vec![
            connector.id().to_owned(),
            connector.display_name.clone(),
            connector.target.type_name().to_owned(),
            connector.status.to_string(),
            events(&connector.events),
            connector.target.address().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let rows: Vec<Vec<String>> = connectors.iter().map(row).collect();
    table(&["ID", "NAME", "TYPE", "STATUS", "EVENTS", "TARGET"], &rows)
}

/// Returns a connector as lines or as JSON.
pub fn one(connector: &Connector, as_json: bool) -> String {
    if as_json {
        return about(connector).to_string();
    }
    let mut lines = vec![
        ("id", connector.id().to_owned()),
        ("name", connector.display_name.clone()),
        ("type", connector.target.type_name().to_owned()),
        ("status", connector.status.to_string()),
        ("target", connector.target.address().unwrap_or_else(|| "unknown".to_owned())),
        ("events", events(&connector.events)),
        ("labels", or_none(&connector.labels)),
    ];
    if let Target::HttpPush(_) = &connector.target {
        let is_set = if has_secret(connector) { "set" } else { "not set" };
        lines.push(("signature secret", is_set.to_owned()));
        lines.push(("headers", or_none(&header_names(connector))));
    }
    let lines: Vec<String> =
        lines.iter().map(|(name, value)| format!("{name:<17} {}", clean(value))).collect();
    lines.join("\n")
}

/// Returns the metrics of a connector as lines or as JSON.
pub fn metrics(metrics: &ConnectorMetrics, as_json: bool) -> String {
    let ConnectorMetrics { success_count, error_count, latency_p99, .. } = metrics;
    if as_json {
        let latency = latency_p99.map(|latency| latency.as_secs_f64());
        let metrics =
            json!({"successCount": success_count, "errorCount": error_count, "latency99pSeconds": latency});
        return metrics.to_string();
    }
    let latency =
        latency_p99.map_or_else(|| "unknown".to_owned(), |latency| format!("{} s", latency.as_secs_f64()));
    format!(
        "In the last 24 hours\ndelivered         {success_count}\nfailed attempts   {error_count}\nlatency (99 %)    {latency}"
    )
}

/// Returns a text without control characters, which could change the state of the terminal.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Returns a connector as JSON, without secrets.
fn about(connector: &Connector) -> Value {
    let mut about = json!({
        "id": connector.id(),
        "name": connector.name,
        "displayName": connector.display_name,
        "type": connector.target.type_name(),
        "status": connector.status.as_str(),
        "target": connector.target.address(),
        "events": connector.events.iter().map(EventType::as_str).collect::<Vec<_>>(),
        "labels": connector.labels,
    });
    if let (Target::HttpPush(_), Some(members)) = (&connector.target, about.as_object_mut()) {
        members.insert("hasSignatureSecret".to_owned(), json!(has_secret(connector)));
        members.insert("headerNames".to_owned(), json!(header_names(connector)));
    }
    about
}

/// Returns event types as text for people.
pub fn events(events: &[EventType]) -> String {
    let names: Vec<&str> = events.iter().map(EventType::as_str).collect();
    if names.is_empty() { "all".to_owned() } else { names.join(", ") }
}

/// Returns texts as a list for people.
pub fn or_none(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

fn has_secret(connector: &Connector) -> bool {
    match &connector.target {
        Target::HttpPush(config) => config.signature_secret.as_ref().is_some_and(|secret| !secret.is_empty()),
        _ => false,
    }
}

fn header_names(connector: &Connector) -> Vec<String> {
    match &connector.target {
        Target::HttpPush(config) => config.headers.iter().flatten().map(|(name, _)| name.clone()).collect(),
        _ => Vec::new(),
    }
}
