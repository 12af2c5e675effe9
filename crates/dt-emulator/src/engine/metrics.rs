//! The metrics of a connector over the last 24 hours, as `:metrics` shows them, and why attempts failed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Over which time the metrics are.
const WINDOW: i64 = 24 * 3_600_000;

/// How long a slot of the window is: metrics forget in steps of this length.
const SLOT: i64 = 15 * 60_000;

/// The last day, in slots.
#[derive(Default)]
pub(crate) struct Metrics(VecDeque<Slot>);

struct Slot {
    begin: i64,
    successes: u64,
    errors: BTreeMap<String, u64>,
    /// Milliseconds until the answer; 2 significant digits.
    latency: Option<Histogram<u32>>,
}

impl Metrics {
    /// Counts an attempt that ended `now` (emulated Unix milliseconds): well, or for a reason.
    pub(crate) fn count(&mut self, now: i64, took: Duration, ended: Result<(), &str>) {
        self.forget(now);
        let begin = now.saturating_sub(now.rem_euclid(SLOT));
        if self.0.back().is_none_or(|slot| slot.begin < begin) {
            self.0.push_back(Slot { begin, successes: 0, errors: BTreeMap::new(), latency: None });
        }
        let Some(slot) = self.0.back_mut() else { return };
        match ended {
            Ok(()) => {
                slot.successes = slot.successes.saturating_add(1);
                // Rounded up: no answer takes no time.
                let millis = u64::try_from(took.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
                if slot.latency.is_none() {
                    slot.latency = Histogram::new_with_bounds(1, 60_000, 2).ok();
                }
                if let Some(latency) = &mut slot.latency {
                    latency.saturating_record(millis);
                }
            }
            Err(reason) => {
                let count = slot.errors.entry(reason.to_owned()).or_default();
                *count = count.saturating_add(1);
            }
        }
    }

    fn forget(&mut self, now: i64) {
        let oldest = now.saturating_sub(WINDOW);
        while self.0.front().is_some_and(|slot| slot.begin.saturating_add(SLOT) <= oldest) {
            self.0.pop_front();
        }
    }

    /// DT's three members; `errors`, the emulator's own, says why attempts failed.
    pub(crate) fn show(&mut self, now: i64) -> Value {
        self.forget(now);
        let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut successes, mut failures) = (0_u64, 0_u64);
        let mut latency: Option<Histogram<u32>> = None;
        for slot in &self.0 {
            successes = successes.saturating_add(slot.successes);
            for (reason, count) in &slot.errors {
                failures = failures.saturating_add(*count);
                let sum = errors.entry(reason).or_default();
                *sum = sum.saturating_add(*count);
            }
            match (&mut latency, &slot.latency) {
                (Some(all), Some(more)) => {
                    // Bounds are the same, so it always fits.
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
        metrics.count(SLOT, Duration::ZERO, Err("status_503"));
        metrics.count(SLOT, Duration::ZERO, Err("timeout"));
        let shown = metrics.show(SLOT);
        assert_eq!((&shown["successCount"], &shown["errorCount"]), (&json!(100), &json!(2)));
        assert!(["0.400s", "0.401s"].contains(&shown["latency99p"].as_str().unwrap()), "{shown}");
        assert_eq!(shown["errors"], json!({"status_503": 1, "timeout": 1}));
        assert_eq!(metrics.show(WINDOW + SLOT)["successCount"], 0);
        assert_eq!(metrics.show(WINDOW + 2 * SLOT)["errorCount"], 0);
        assert_eq!(metrics.show(WINDOW + 2 * SLOT)["latency99p"], "0.000s");
    }
}
