//! The result of a run: its counts and latencies, as text and as JSON.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::client::{Answer, SendError, SendErrorKind};
use super::plan::Fault;

/// The largest number of codes that are counted separately, since another server may send any number of them.
const MAX_CODES: usize = 100;

/// The number of responses that are described individually.
const SHOWN: usize = 2;

/// The counts of responses and errors of a run.
#[derive(Debug)]
pub struct Tally {
    sent: u64,
    unexpected: u64,
    answers: Vec<Answers>,
    failures: Vec<Failures>,
    /// Descriptions of the first responses.
    first: Vec<String>,
    /// The times until the response in microseconds, of answered requests only.
    latency: Histogram<u64>,
}

/// The number of responses with one status and code.
#[derive(Debug)]
struct Answers {
    status: u16,
    code: Box<str>,
    count: u64,
}

/// The number of errors of one kind.
#[derive(Debug)]
struct Failures {
    kind: SendErrorKind,
    /// The message of the first error of this kind.
    detail: String,
    count: u64,
}

impl Tally {
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            sent: 0,
            unexpected: 0,
            answers: Vec::new(),
            failures: Vec::new(),
            first: Vec::new(),
            latency: Histogram::new(3)?,
        })
    }

    /// Returns the number of requests that were answered or that failed.
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Counts a response.
    pub fn answered(&mut self, answer: &Answer, took: Duration, fault: Fault) {
        self.sent = self.sent.saturating_add(1);
        self.unexpected = self.unexpected.saturating_add(u64::from(!fault.expects(answer.status)));
        // The histogram grows, so recording cannot fail.
        let _recorded = self.latency.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        let members = answer.members();
        let (status, mut code) = (answer.status.as_u16(), members.code.as_deref().unwrap_or(""));
        if self.first.len() < SHOWN {
            let id = members.event_id.as_deref().map(|id| format!(" eventId={}", id.escape_debug()));
            self.first.push(format!("{}{}", label(status, code), id.unwrap_or_default()));
        }
        if self.answers.len() >= MAX_CODES {
            code = "";
        }
        match self.answers.iter_mut().find(|known| known.status == status && *known.code == *code) {
            Some(known) => known.count = known.count.saturating_add(1),
            None => self.answers.push(Answers { status, code: code.into(), count: 1 }),
        }
    }

    /// Counts a request without a response.
    pub fn failed(&mut self, failed: SendError) {
        self.sent = self.sent.saturating_add(1);
        match self.failures.iter_mut().find(|known| known.kind == failed.kind) {
            Some(known) => known.count = known.count.saturating_add(1),
            None => self.failures.push(Failures { kind: failed.kind, detail: failed.detail, count: 1 }),
        }
    }
}

fn label(status: u16, code: &str) -> String {
    if code.is_empty() { status.to_string() } else { format!("{status} {code}") }
}

/// The report of a run.
#[derive(Debug)]
pub struct Report {
    pub tally: Tally,
    /// The number of requests in a complete run.
    pub requested: u64,
    pub took: Duration,
    pub fault: Fault,
    /// The receiver's host and port, for messages.
    pub target: String,
}

impl Report {
    /// Returns whether every request was sent and had the expected response.
    pub fn is_expected(&self) -> bool {
        let Tally { sent, unexpected, failures, .. } = &self.tally;
        *sent == self.requested && *unexpected == 0 && failures.is_empty()
    }

    /// Returns the object of `--json`.
    pub fn json(&self) -> Value {
        let tally = &self.tally;
        let answers: Map<String, Value> = tally
            .answers
            .iter()
            .map(|known| (label(known.status, &known.code), known.count.into()))
            .collect();
        let errors: Map<String, Value> =
            tally.failures.iter().map(|known| (known.kind.code().to_owned(), known.count.into())).collect();
        let latency = self.latency().map(|latency| {
            let pairs = latency.map(|(name, millis)| (name.to_owned(), millis.into()));
            Value::Object(pairs.into_iter().collect())
        });
        json!({
            "sent": tally.sent,
            "answers": answers,
            "errors": errors,
            "seconds": rounded(self.took.as_secs_f64()),
            "perSecond": rounded(self.per_second()),
            "latencyMs": latency,
            "expected": self.is_expected(),
        })
    }

    /// Returns the lines of the report: the responses to a single event, or else a summary.
    pub fn lines(&self, single: bool) -> Vec<String> {
        let tally = &self.tally;
        if single {
            return tally.first.clone();
        }
        let (seconds, per_second) = (self.took.as_secs_f64(), self.per_second());
        let mut lines = vec![format!("sent     {} in {seconds:.3} s, {per_second:.1} answers/s", tally.sent)];
        let mut answers: Vec<_> = tally.answers.iter().collect();
        answers.sort_by_key(|known| std::cmp::Reverse(known.count));
        lines.extend(
            answers
                .iter()
                .map(|known| format!("answer   {} x {}", known.count, label(known.status, &known.code))),
        );
        lines.extend(
            tally.failures.iter().map(|known| format!("error    {} x {}", known.count, known.kind.code())),
        );
        if let Some(latency) = self.latency() {
            let parts = latency.map(|(name, millis)| format!("{name} {millis:.3}"));
            lines.push(format!("latency  {} ms", parts.join("  ")));
        }
        lines
    }

    /// Returns the messages about errors and unexpected responses, which go to standard error.
    pub fn complaints(&self) -> Vec<String> {
        let (Tally { sent, unexpected, answers, failures, .. }, target) = (&self.tally, &self.target);
        let mut complaints: Vec<String> = failures
            .iter()
            .map(|Failures { kind, detail, .. }| match kind {
                SendErrorKind::Refused => format!("no process listens at {target} ({detail})"),
                SendErrorKind::Unreachable => format!("no connection to {target}: {detail}"),
                SendErrorKind::Tls => {
                    format!("no TLS with {target}: {detail}; use --ca FILE to trust your own authority")
                }
                SendErrorKind::Timeout => format!("{target} did not respond within 10 s, after which DT gives up"),
                SendErrorKind::Lost => format!("{target} closed the connection before its response: {detail}"),
                SendErrorKind::NotHttp => format!("{target} does not respond in HTTP/1.1: {detail}"),
            })
            .collect();
        if *unexpected > 0 {
            let expected = self.fault.expected();
            complaints.push(format!(
                "expected {expected}; {unexpected} of {sent} requests had another response"
            ));
        }
        // Without any response, the error above is the reason.
        if *sent < self.requested && !answers.is_empty() {
            complaints.push(format!("stopped after {sent} of {} requests", self.requested));
        }
        complaints
    }

    fn per_second(&self) -> f64 {
        let seconds = self.took.as_secs_f64();
        if seconds > 0.0 { as_f64(self.tally.latency.len()) / seconds } else { 0.0 }
    }

    /// Returns quantiles of the latency in milliseconds, with their names; `None` without responses.
    fn latency(&self) -> Option<[(&'static str, f64); 5]> {
        let latency = &self.tally.latency;
        let at = |quantile| rounded(as_f64(latency.value_at_quantile(quantile)) / 1_000.0);
        let max = rounded(as_f64(latency.max()) / 1_000.0);
        let table =
            [("p50", at(0.5)), ("p90", at(0.9)), ("p99", at(0.99)), ("p999", at(0.999)), ("max", max)];
        (!latency.is_empty()).then_some(table)
    }
}

#[expect(clippy::cast_precision_loss, reason = "no run comes near 2^52 requests or microseconds")]
const fn as_f64(number: u64) -> f64 {
    number as f64
}

/// Rounds to three decimals.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(fault: Fault, requested: u64, answers: &[(u16, &str)], failures: &[SendErrorKind]) -> Report {
        let mut tally = Tally::new().unwrap();
        for (status, body) in answers {
            tally.answered(&Answer::new(*status, body), Duration::from_millis(2), fault);
        }
        for kind in failures {
            tally.failed(SendError { kind: *kind, detail: "detail".to_owned() });
        }
        Report { tally, requested, took: Duration::from_secs(2), fault, target: "a:1".to_owned() }
    }

    const ACCEPTED: (u16, &str) = (200, r#"{"status":"accepted","eventId":"e1"}"#);
    const EXPIRED: (u16, &str) = (401, r#"{"status":401,"code":"expired"}"#);

    #[test]
    fn the_json_has_all_results() {
        let report = report(Fault::None, 4, &[ACCEPTED, EXPIRED, ACCEPTED], &[SendErrorKind::Refused]);
        let expected = json!({
            "sent": 4, "answers": {"200 accepted": 2, "401 expired": 1}, "errors": {"connection_refused": 1},
            "seconds": 2.0, "perSecond": 1.5, "expected": false,
            "latencyMs": {"p50": 2.0, "p90": 2.0, "p99": 2.0, "p999": 2.0, "max": 2.0},
        });
        assert_eq!(report.json(), expected);
        let complaints = report.complaints();
        assert_eq!(complaints[0], "no process listens at a:1 (detail)");
        assert_eq!(complaints[1], "expected 2xx; 1 of 4 requests had another response");
    }

    #[test]
    fn without_answers_there_are_no_latencies() {
        assert_eq!(report(Fault::None, 1, &[], &[SendErrorKind::Timeout]).json()["latencyMs"], Value::Null);
    }

    #[test]
    fn only_the_right_answers_to_all_requests_are_expected() {
        assert!(report(Fault::None, 1, &[ACCEPTED], &[]).is_expected());
        assert!(report(Fault::Expired, 1, &[EXPIRED], &[]).is_expected());
        assert!(!report(Fault::Expired, 1, &[ACCEPTED], &[]).is_expected());
        assert!(!report(Fault::None, 2, &[ACCEPTED], &[]).is_expected());
        assert!(!report(Fault::None, 2, &[ACCEPTED], &[SendErrorKind::Lost]).is_expected());
    }

    #[test]
    fn a_single_event_is_reported_by_its_responses() {
        let report = report(Fault::Duplicate, 2, &[ACCEPTED, (204, "")], &[]);
        assert_eq!(report.lines(true), ["200 accepted eventId=e1", "204"]);
        assert_eq!(report.lines(false)[0], "sent     2 in 2.000 s, 1.0 answers/s");
    }

    #[test]
    fn made_up_codes_do_not_fill_the_memory() {
        let mut tally = Tally::new().unwrap();
        for number in 0..1_000 {
            let body = format!(r#"{{"code":"c{number}"}}"#);
            tally.answered(&Answer::new(200, &body), Duration::ZERO, Fault::None);
        }
        assert!(tally.answers.len() <= MAX_CODES + 1);
    }
}
