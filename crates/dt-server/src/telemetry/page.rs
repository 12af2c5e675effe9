//! The page `docs/metrics.md`, made from the rows of the metrics.

use std::fmt::Write;

use super::table::METRICS;
use dt_sink::{Metric, MetricKind};

const INTRODUCTION: &str = "# Metrics

`GET /metrics` on the listener `admin` returns these metrics in the text format of Prometheus (version 0.0.4).
At a loopback address it answers 421 to a `Host` that is neither an IP address nor `localhost`, since any web page could read it
otherwise (DNS rebinding). It answers 503 if the disk of the spool is so slow that the metrics cannot be measured in 10 s.
`dt-receiver config metrics` makes this page; a test compares it with the code. The dashboard is
[`deploy/grafana/dashboard.json`](../deploy/grafana/dashboard.json); the alert rules and what to do are in
[alerts.md](alerts.md).

- Label values are names from the configuration, and codes of this program. Nothing that a request contains becomes a label.
- `connector`, `sink` and `issuer` are names from the configuration; their series disappear when a reload removes them.
  `code` is the HTTP status. The values of `reason` in `dt_receiver_requests_total` and in the dead letters are listed in
  [troubleshooting.md](troubleshooting.md).
- Counters start at 0 when the program starts.
- On Linux, `process_start_time_seconds`, `process_cpu_seconds_total`, `process_open_fds`, `process_max_fds`,
  `process_resident_memory_bytes`, `process_virtual_memory_bytes` and `process_threads` describe the process.
";

/// Returns the page `docs/metrics.md`: the metrics of every receiver, then those that each type of sink declares.
///
/// # Examples
///
/// ```
/// use dt_server::{sink, telemetry};
///
/// let page = telemetry::metrics_markdown(&sink::standard_types().metrics());
/// assert!(page.contains("| `dt_receiver_ready` | gauge |"));
/// ```
#[must_use]
pub fn metrics_markdown(sink_types: &[(&str, &[Metric])]) -> String {
    let mut page = INTRODUCTION.to_owned();
    let sections = METRICS.iter().map(|(title, rows)| ((*title).to_owned(), rows));
    let of_sinks = sink_types.iter().map(|(name, rows)| (format!("Sinks of type `{name}`"), rows));
    for (title, rows) in sections.chain(of_sinks) {
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "\n## {title}\n\n| metric | type | labels | unit | meaning |\n|---|---|---|---|---|"
        );
        for Metric { name, kind, unit, labels, help } in *rows {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let (labels, kind_name) = (labels.join(", "), kind.name());
            let _ =
                write!(page, "| `{name}` | {kind_name} | {} | {} | {help}", or_dash(&labels), or_dash(unit));
            if let MetricKind::Histogram { buckets } = kind {
                let buckets: Vec<String> = buckets.iter().map(ToString::to_string).collect();
                let _ = write!(page, " Buckets: {}.", buckets.join(", "));
            }
            page.push_str(" |\n");
        }
    }
    page
}

const fn or_dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}
