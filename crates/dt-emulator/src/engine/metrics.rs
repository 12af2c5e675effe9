//! The metrics of a connector in the last 24 hours, as `:metrics` shows them, with the reasons of failed attempts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The time that the metrics cover, in milliseconds.
const PERIOD: i64 = 24 * 3_600_000;

/// The length of an interval, in milliseconds: old metrics are removed in steps of this length.
const INTERVAL: i64 = 15 * 60_000;

/// The metrics of the last 24 hours, by interval.
#[derive(Default)]
pub(crate) struct Metrics(VecDeque<IntervalMetrics>);

/// The metrics of one interval.
struct IntervalMetrics {
    /// The start of the interval, in Unix milliseconds of the emulated clock.
    start: i64,
    successes: u64,
    errors: BTreeMap<String, u64>,
    /// The times until the response in milliseconds, with 2 significant digits; `None` if there were no responses.
    latency: Option<Histogram<u32>>,
}

impl Metrics {
    /// Counts an attempt that ended at `now` (Unix milliseconds of the emulated clock), with success or for a reason.
    pub(crate) fn count(&mut self, now: i64, duration: Duration, result: Result<(), &str>) {
        self.forget(now);
        let start = now.saturating_sub(now.rem_euclid(INTERVAL));
        if self.0.back().is_none_or(|interval| interval.start < start) {
            self.0.push_back(IntervalMetrics { start, successes: 0, errors: BTreeMap::new(), latency: None });
        }
        let Some(interval) = self.0.back_mut() else { return };
        match result {
            Ok(()) => {
                interval.successes = interval.successes.saturating_add(1);
                // Rounded up, so that no response takes 0 ms.
                let millis = u64::try_from(duration.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
                if interval.latency.is_none() {
                    interval.latency = Histogram::new_with_bounds(1, 60_000, 2).ok();
                }
                if let Some(latency) = &mut interval.latency {
                    latency.saturating_record(millis);
                }
            }
            Err(reason) => {
                let count = interval.errors.entry(reason.to_owned()).or_default();
                *count = count.saturating_add(1);
            }
        }
    }

    fn forget(&mut self, now: i64) {
        let oldest = now.saturating_sub(PERIOD);
        while self.0.front().is_some_and(|interval| interval.start.saturating_add(INTERVAL) <= oldest) {
            self.0.pop_front();
        }
    }

    /// Returns DT's three members, and `errors` with the number of failed attempts by reason, which DT does not have.
    pub(crate) fn show(&mut self, now: i64) -> Value {
        self.forget(now);
        let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut successes, mut failures) = (0_u64, 0_u64);
        let mut latency: Option<Histogram<u32>> = None;
        for interval in &self.0 {
            successes = successes.saturating_add(interval.successes);
            for (reason, count) in &interval.errors {
                failures = failures.saturating_add(*count);
                let sum = errors.entry(reason).or_default();
                *sum = sum.saturating_add(*count);
            }
            match (&mut latency, &interval.latency) {
                (Some(all), Some(more)) => {
                    // Cannot fail, since all histograms have the same bounds.
                    let _added = all.add(more);
                }
                (None, Some(first)) => latency = Some(first.clone()),
                (_, None) => {}
            }
        }
        let millis = latency.map_or(0, |latency| latency.value_at_quantile(0.99));
        let p99 = Duration::from_millis(millis).as_secs_f64();
        json!({
            "successCount": successes,
            "errorCount": failures,
            "latency99p": format!("{p99:.3}s"),
            "errors": errors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_counted_and_then_forgotten() {
        let mut metrics = Metrics::default();
        for at in 0..100 {
            metrics.count(at, Duration::from_millis(if at < 98 { 5 } else { 400 }), Ok(()));
        }
        metrics.count(INTERVAL, Duration::ZERO, Err("status_503"));
        metrics.count(INTERVAL, Duration::ZERO, Err("timeout"));
        let shown = metrics.show(INTERVAL);
        assert_eq!((&shown["successCount"], &shown["errorCount"]), (&json!(100), &json!(2)));
        assert!(["0.400s", "0.401s"].contains(&shown["latency99p"].as_str().unwrap()), "{shown}");
        assert_eq!(shown["errors"], json!({"status_503": 1, "timeout": 1}));
        assert_eq!(metrics.show(PERIOD + INTERVAL)["successCount"], 0);
        assert_eq!(metrics.show(PERIOD + 2 * INTERVAL)["errorCount"], 0);
        assert_eq!(metrics.show(PERIOD + 2 * INTERVAL)["latency99p"], "0.000s");
    }
}
