//! The metrics of connectors. The series of a connector are registered and removed together with it; a request that ends later
//! must not register them again.

use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use prometheus::{IntCounter, IntGauge};

use super::Telemetry;

/// The series in which nearly all requests of a connector are counted. They are looked up once; all other series are looked up by
/// name.
///
/// The series belong to one configuration. After the connector is removed, they are no longer shown, and a request that ends
/// later is counted in series that are not shown.
#[derive(Debug)]
pub struct ConnectorSeries {
    /// The counters of the successful outcomes, by reason. All of them have status 200.
    successes: Vec<(&'static str, IntCounter)>,
    last_accepted: IntGauge,
    /// The clock skew; empty before the first event, since it is not known then.
    clock_skew: OnceLock<IntGauge>,
}

/// The numbers of answered requests of a connector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answers {
    /// The number of requests that were answered 2xx.
    pub successes: u64,
    /// The number of requests with a signature that were answered 401, and of those that were answered 403.
    pub refused: u64,
    /// The number of requests that were answered 503; not those that could be anybody's (`unverified`).
    pub unavailable: u64,
}

impl Answers {
    /// Returns the answers since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            successes: self.successes.saturating_sub(earlier.successes),
            refused: self.refused.saturating_sub(earlier.refused),
            unavailable: self.unavailable.saturating_sub(earlier.unavailable),
        }
    }
}

impl ConnectorSeries {
    /// Counts an answer, if these series contain its outcome. Returns whether they do.
    fn count(&self, status: StatusCode, reason: &str, now: i64) -> bool {
        if status != StatusCode::OK {
            return false;
        }
        let Some((_, counter)) = self.successes.iter().find(|(known, _)| *known == reason) else {
            return false;
        };
        counter.inc();
        if reason == "accepted" {
            self.last_accepted.set(now);
        }
        true
    }
}

impl Telemetry {
    /// Registers a connector and returns its series. `outcomes` are all possible outcomes of a request, as status and reason:
    /// each has its series from the start, so that `increase()` counts the first request.
    pub fn register_connector(&self, name: &str, outcomes: &[(StatusCode, &'static str)]) -> ConnectorSeries {
        self.connectors.write().insert(name.to_owned());
        let counters = self.register_outcomes(name, outcomes).into_iter().zip(outcomes);
        let successes = counters.filter(|(_, (status, _))| status.is_success());
        ConnectorSeries {
            successes: successes.map(|(counter, (_, reason))| (*reason, counter)).collect(),
            last_accepted: self.metrics.last_accepted.with_label_values(&[name]),
            clock_skew: OnceLock::new(),
        }
    }

    /// Registers the outcomes of requests on paths that belong to no connector.
    pub fn register_no_connector(&self, outcomes: &[(StatusCode, &'static str)]) {
        self.register_outcomes("", outcomes);
    }

    fn register_outcomes(&self, connector: &str, outcomes: &[(StatusCode, &'static str)]) -> Vec<IntCounter> {
        let counter = |(status, reason): &(StatusCode, &str)| {
            self.metrics.requests.with_label_values(&[connector, status.as_str(), reason])
        };
        outcomes.iter().map(counter).collect()
    }

    /// Removes the series of a removed connector, which would look like those of a connector without events. Counters are removed
    /// as well, since otherwise there would be one for each name that was ever used.
    pub fn unregister_connector(&self, name: &str) {
        let mut connectors = self.connectors.write();
        connectors.remove(name);
        self.families.remove_series("connector", name);
    }

    /// Restores the time of the last event that was accepted by an earlier process, in Unix seconds.
    pub fn restore_last_accepted(&self, connector: &str, at: i64) {
        let gauge = self.metrics.last_accepted.with_label_values(&[connector]);
        gauge.set(gauge.get().max(at));
    }

    /// Returns when a connector accepted its last event, in Unix seconds; 0 if it is not known.
    #[must_use]
    pub fn last_accepted(&self, connector: &str) -> i64 {
        // A look-up in the library would make a series.
        if !self.connectors.read().contains(connector) {
            return 0;
        }
        self.metrics.last_accepted.with_label_values(&[connector]).get()
    }

    /// Returns how many requests of a connector were answered since the start, by the kind of the answer. `outcomes` are all
    /// possible outcomes of a request.
    pub fn answers(&self, connector: &str, outcomes: &[(StatusCode, &'static str)]) -> Answers {
        let mut answers = Answers::default();
        self.if_registered(connector, || {
            for (status, reason) in outcomes {
                let count =
                    self.metrics.requests.with_label_values(&[connector, status.as_str(), reason]).get();
                let sum = match *status {
                    status if status.is_success() => &mut answers.successes,
                    // Anybody can send a request without a signature.
                    StatusCode::UNAUTHORIZED if *reason == "signature_missing" => continue,
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => &mut answers.refused,
                    StatusCode::SERVICE_UNAVAILABLE if *reason != "unverified" => &mut answers.unavailable,
                    _ => continue,
                };
                *sum = sum.saturating_add(count);
            }
        });
        answers
    }

    /// Records the token's `iat` minus the receiver's time, in seconds, when a connector accepted an event.
    pub fn clock_skew(&self, connector: &str, series: Option<&ConnectorSeries>, seconds: i64) {
        if let Some(gauge) = series.and_then(|series| series.clock_skew.get()) {
            gauge.set(seconds);
            return;
        }
        self.if_registered(connector, || {
            let gauge = self.metrics.clock_skew.with_label_values(&[connector]);
            gauge.set(seconds);
            if let Some(series) = series {
                // It fails only if another request was first, with the same gauge.
                let _set = series.clock_skew.set(gauge);
            }
        });
    }

    /// Counts an answered request. `now` is when it was received, in Unix seconds.
    pub(super) fn count_answer(
        &self,
        (connector, series): (&str, Option<&ConnectorSeries>),
        (status, reason): (StatusCode, &str),
        took: Duration,
        now: i64,
    ) {
        self.metrics.request_duration.observe(took.as_secs_f64());
        if series.is_some_and(|series| series.count(status, reason, now)) {
            return;
        }
        self.if_registered(connector, || {
            self.metrics.requests.with_label_values(&[connector, status.as_str(), reason]).inc();
            if reason == "accepted" {
                self.metrics.last_accepted.with_label_values(&[connector]).set(now);
            }
        });
    }

    /// Calls `count` unless the connector was removed. `connector` is empty for a path that belongs to no connector.
    pub(super) fn if_registered(&self, connector: &str, count: impl FnOnce()) {
        let connectors = self.connectors.read();
        if connector.is_empty() || connectors.contains(connector) {
            count();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::telemetry::OtherSchemeFailed;
    use dt_sink::clock::SystemClock;

    const SUCCESSES: [(StatusCode, &str); 2] = [(StatusCode::OK, "accepted"), (StatusCode::OK, "duplicate")];

    #[test]
    fn a_request_that_ends_after_its_connector_does_not_bring_its_series_back() {
        let telemetry = Telemetry::new(Arc::new(SystemClock));
        let answer = |name: &str| {
            telemetry.count_answer((name, None), (StatusCode::OK, "accepted"), Duration::ZERO, 1);
            telemetry.clock_skew(name, None, 1);
            telemetry.emit(&OtherSchemeFailed { connector: name, reason: "expired" });
        };
        for name in ["gone", "stays"] {
            telemetry.register_connector(name, &SUCCESSES);
            answer(name);
        }
        assert_eq!(telemetry.last_accepted("gone"), 1);
        telemetry.unregister_connector("gone");
        ["gone", "stays", ""].into_iter().for_each(answer);
        assert_eq!(telemetry.last_accepted("gone"), 0);
        let text = telemetry.render();
        assert!(!text.contains("gone"), "{text}");
        assert!(text.contains(r#"code="200",connector="stays",reason="accepted"} 2"#), "{text}");
        assert!(text.contains(r#"code="200",connector="",reason="accepted"} 1"#), "{text}");
        telemetry.register_connector("gone", &SUCCESSES);
        answer("gone");
        assert_eq!(telemetry.last_accepted("gone"), 1);
    }

    #[test]
    fn answers_are_counted_by_their_kind() {
        let outcomes = crate::http::outcomes();
        let telemetry = Telemetry::new(Arc::new(SystemClock));
        assert_eq!(telemetry.answers("a", &outcomes), Answers::default());
        assert!(!telemetry.render().contains(r#"connector="a""#), "counting makes no series");
        telemetry.register_connector("a", &outcomes);
        let before = telemetry.answers("a", &outcomes);
        for (status, reason, count) in [
            (StatusCode::OK, "accepted", 1),
            (StatusCode::OK, "duplicate", 2),
            (StatusCode::UNAUTHORIZED, "signature_mismatch", 3),
            (StatusCode::UNAUTHORIZED, "signature_missing", 4),
            (StatusCode::FORBIDDEN, "project_not_allowed", 5),
            (StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", 6),
            (StatusCode::SERVICE_UNAVAILABLE, "unverified", 7),
            (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", 8),
        ] {
            for _ in 0..count {
                telemetry.count_answer(("a", None), (status, reason), Duration::ZERO, 1);
            }
        }
        let found = telemetry.answers("a", &outcomes).since(before);
        assert_eq!(found, Answers { successes: 3, refused: 8, unavailable: 6 });
    }

    #[test]
    fn series_that_were_looked_up_count_the_same_and_go_with_their_connector() {
        let telemetry = Telemetry::new(Arc::new(SystemClock));
        let count = |series: &ConnectorSeries| {
            let answer = |status, reason| {
                telemetry.count_answer(("c", Some(series)), (status, reason), Duration::ZERO, 7);
            };
            for reason in ["accepted", "duplicate", "other"] {
                answer(StatusCode::OK, reason);
            }
            answer(StatusCode::FORBIDDEN, "accepted");
            telemetry.clock_skew("c", Some(series), -2);
        };
        let old = telemetry.register_connector("c", &SUCCESSES);
        count(&old);
        count(&telemetry.register_connector("c", &SUCCESSES));
        let text = telemetry.render();
        for reason in ["accepted", "duplicate", "other"] {
            assert!(text.contains(&format!(r#"code="200",connector="c",reason="{reason}"}} 2"#)), "{text}");
        }
        assert!(text.contains(r#"code="403",connector="c",reason="accepted"} 2"#), "{text}");
        assert!(text.contains(r#"dt_receiver_clock_skew_seconds{connector="c"} -2"#), "{text}");
        assert_eq!(telemetry.last_accepted("c"), 7);
        telemetry.unregister_connector("c");
        count(&old);
        let text = telemetry.render();
        assert!(!text.contains(r#"connector="c""#), "{text}");
        let new = telemetry.register_connector("c", &SUCCESSES);
        count(&new);
        assert!(telemetry.render().contains(r#"code="200",connector="c",reason="accepted"} 1"#));
    }
}
