//! The dashboard, the alert rules and their cases use only metrics of the table, with the labels that these have.

use std::collections::{BTreeMap, BTreeSet};

use dt_receiver::sink::{Metric, MetricKind};
use dt_receiver::sink_types;
use dt_receiver::telemetry::{METRICS, metrics_markdown};

use super::text;

/// Labels that Prometheus adds.
const ADDED: [&str; 3] = ["instance", "job", "le"];

/// The rows of the table, by the names of their series.
struct Table(BTreeMap<String, &'static Metric>);

impl Table {
    fn new() -> Self {
        let mut series = BTreeMap::new();
        for metric in METRICS.iter().chain(&sink_types().metrics()).flat_map(|(_, metrics)| *metrics) {
            let suffixes: &[&str] = match metric.kind {
                MetricKind::Histogram { .. } => &["_bucket", "_sum", "_count"],
                MetricKind::Counter | MetricKind::Gauge => &[""],
            };
            for suffix in suffixes {
                series.insert(format!("{}{suffix}", metric.name), metric);
            }
        }
        Self(series)
    }

    /// Returns what is wrong with the PromQL in a text.
    fn problems(&self, text: &str) -> Vec<String> {
        let text = without_quoted(text);
        let mut problems = Vec::new();
        let mut labels: BTreeSet<&str> = ADDED.into();
        for (name, matched) in series_in(&text) {
            if name.starts_with("process_") {
                if !metrics_markdown(&[]).contains(&format!("`{name}`")) {
                    problems.push(format!("{name} is not on the page"));
                }
                continue;
            }
            let Some(metric) = self.0.get(name) else {
                // A build without Kafka does not have its rows.
                if cfg!(feature = "kafka") || !name.contains("_kafka_") {
                    problems.push(format!("{name} is not in the table"));
                }
                continue;
            };
            labels.extend(metric.labels);
            for label in matched {
                if !metric.labels.contains(&label) && !ADDED.contains(&label) {
                    problems.push(format!("{name} has no label {label}"));
                }
            }
        }
        for keyword in [" by (", " on (", " without (", " group_left ("] {
            for list in text.split(keyword).skip(1) {
                let list = list.split(')').next().unwrap_or_default();
                let unknown = list.split(',').map(str::trim).find(|label| !labels.contains(label));
                problems
                    .extend(unknown.map(|label| format!("no metric has the label {label}:{keyword}{list})")));
            }
        }
        problems
    }
}

/// The text with nothing between its double quotes, which never reach beyond a line.
fn without_quoted(text: &str) -> String {
    let line = |line: &str| line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The series of ours that a text names, each with the labels between its braces.
fn series_in(text: &str) -> Vec<(&str, Vec<&str>)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let (word, after) =
            rest[start..].split_at(rest[start..].find(|c| !is_word(c)).unwrap_or(rest.len() - start));
        rest = after;
        if word.starts_with("dt_receiver_") || word.starts_with("process_") {
            let matchers = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
            let labels = matchers.split(',').filter_map(|matcher| matcher.split(['=', '!']).next());
            found.push((word, labels.map(str::trim).filter(|label| !label.is_empty()).collect()));
        }
    }
    found
}

/// All texts in a JSON value.
fn texts(value: &serde_json::Value) -> Vec<&str> {
    match value {
        serde_json::Value::String(text) => vec![text],
        serde_json::Value::Array(values) => values.iter().flat_map(texts).collect(),
        serde_json::Value::Object(members) => members.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn dashboard_and_alerts_fit_the_table_of_metrics() {
    let table = Table::new();
    let dashboard: serde_json::Value =
        serde_json::from_str(&text("deploy/grafana/dashboard.json")).expect("JSON");
    let (rules, cases) = (text("deploy/prometheus/alerts.yml"), text("deploy/prometheus/alerts_test.yml"));
    let rules: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    let cases: Vec<&str> = cases.lines().filter(|line| line.contains("series: ")).collect();
    let expressions = texts(&dashboard);
    assert!(rules.len() >= 12 && cases.len() >= 30 && expressions.len() >= 100);
    let problems: Vec<String> =
        expressions.into_iter().chain(rules).chain(cases).flat_map(|text| table.problems(text)).collect();
    assert_eq!(problems, [] as [&str; 0]);
}

#[test]
fn a_wrong_metric_and_a_wrong_label_would_be_seen() {
    let table = Table::new();
    let good = "sum by (reason, le) (rate(dt_receiver_requests_total{job=\"a,b\", code=~\"4..\"}[5m])) \
        / dt_receiver_request_duration_seconds_count - process_start_time_seconds";
    assert_eq!(table.problems(good), [] as [&str; 0]);
    for (wrong, problem) in [
        ("rate(dt_receiver_request_total[5m])", "dt_receiver_request_total is not in the table"),
        ("dt_receiver_request_duration_seconds", "dt_receiver_request_duration_seconds is not in the table"),
        ("dt_receiver_ready{connector!=\"\"}", "dt_receiver_ready has no label connector"),
        ("sum by (sink) (dt_receiver_ready)", "no metric has the label sink: by (sink)"),
        ("process_start_seconds", "process_start_seconds is not on the page"),
    ] {
        assert_eq!(table.problems(wrong), [problem]);
    }
}

#[test]
fn every_row_keeps_the_conventions_of_prometheus() {
    let mut names = BTreeSet::new();
    let of_sinks = sink_types().metrics();
    let rows = METRICS.iter().chain(&of_sinks).flat_map(|(_, rows)| *rows);
    for Metric { name, kind, unit, labels, help } in rows {
        assert!(names.insert(name), "{name} is there twice");
        assert!(name.starts_with("dt_receiver_"), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
        assert_eq!(name.ends_with("_seconds"), unit.ends_with("seconds"), "{name}: {unit}");
        assert_eq!(name.ends_with("_timestamp_seconds"), *unit == "Unix seconds", "{name}: {unit}");
        assert_eq!(name.ends_with("_bytes"), *unit == "bytes", "{name}: {unit}");
        assert!(help.ends_with('.') && !help.contains(['|', '\n']), "{name}: {help}");
        assert_eq!(labels.iter().collect::<BTreeSet<_>>().len(), labels.len(), "{name}: {labels:?}");
        if let MetricKind::Histogram { buckets } = kind {
            assert!(buckets.is_sorted() && !buckets.is_empty(), "{name}: {buckets:?}");
        }
    }
    assert!(names.len() > 30, "{}", names.len());
}
