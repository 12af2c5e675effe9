//! What came of it: counts, latencies, and how they are told.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::client::{Answer, Failed, Kind};
use super::plan::Fault;

/// How many different codes are told apart; a stranger's server may make up any number.
const MAX_CODES: usize = 100;

/// How many answers are kept to be shown one by one.
const SHOWN: usize = 2;

/// Counts what happens to requests.
#[derive(Debug)]
pub(super) struct Tally {
    sent: u64,
    unexpected: u64,
    answers: Vec<Answers>,
    failures: Vec<Failures>,
    /// The first few answers in words.
    first: Vec<String>,
    /// Microseconds, of answered requests only.
    latency: Histogram<u64>,
}

/// Answers of one status and code.
#[derive(Debug)]
struct Answers {
    status: u16,
    code: Box<str>,
    count: u64,
}

/// Failures of one kind.
#[derive(Debug)]
struct Failures {
    kind: Kind,
    /// What the first of them said.
    detail: String,
    count: u64,
}

impl Tally {
    pub(super) fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            sent: 0,
            unexpected: 0,
            answers: Vec::new(),
            failures: Vec::new(),
            first: Vec::new(),
            latency: Histogram::new(3)?,
        })
    }

    /// How many requests have ended, one way or the other.
    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn answered(&mut self, answer: &Answer, took: Duration, fault: Fault) {
        self.sent = self.sent.saturating_add(1);
        self.unexpected = self.unexpected.saturating_add(u64::from(!fault.expects(answer.status)));
        // It grows as needed, so it refuses only what does not fit into memory.
        let _recorded = self.latency.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        let said = answer.said();
        let (status, mut code) = (answer.status.as_u16(), said.code.as_deref().unwrap_or(""));
        if self.first.len() < SHOWN {
            let id = said.event_id.as_deref().map(|id| format!(" eventId={}", id.escape_debug()));
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

    pub(super) fn failed(&mut self, failed: Failed) {
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

/// The end of a run.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) tally: Tally,
    /// How many requests there should have been.
    pub(super) asked: u64,
    pub(super) took: Duration,
    pub(super) fault: Fault,
    /// The receiver, for messages.
    pub(super) target: String,
}

impl Report {
    /// Whether every request was sent and got the right answer.
    pub(super) fn is_expected(&self) -> bool {
        let Tally { sent, unexpected, failures, .. } = &self.tally;
        *sent == self.asked && *unexpected == 0 && failures.is_empty()
    }

    /// The one object of `--json`.
    pub(super) fn json(&self) -> Value {
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

    /// The lines for people: one an answer for a single event, else a summary.
    pub(super) fn lines(&self, single: bool) -> Vec<String> {
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

    /// What is not as it should be, for standard error.
    pub(super) fn complaints(&self) -> Vec<String> {
        let (Tally { sent, unexpected, answers, failures, .. }, target) = (&self.tally, &self.target);
        let mut complaints: Vec<String> = failures
            .iter()
            .map(|Failures { kind, detail, .. }| match kind {
                Kind::Refused => format!("no one listens at {target} ({detail})"),
                Kind::Unreachable => format!("no connection to {target}: {detail}"),
                Kind::Tls => {
                    format!("no TLS with {target}: {detail}; --ca FILE trusts an authority of your own")
                }
                Kind::Timeout => format!("{target} gave no answer within 10 s, as long as DT waits"),
                Kind::Lost => format!("{target} closed the connection before its answer: {detail}"),
                Kind::NotHttp => format!("{target} does not answer in HTTP/1.1: {detail}"),
            })
            .collect();
        if *unexpected > 0 {
            let expected = self.fault.expected();
            complaints.push(format!(
                "expected {expected}; {unexpected} of {sent} requests were answered otherwise"
            ));
        }
        // Without any answer, the reason was told above.
        if *sent < self.asked && !answers.is_empty() {
            complaints.push(format!("stopped after {sent} of {} requests", self.asked));
        }
        complaints
    }

    fn per_second(&self) -> f64 {
        let seconds = self.took.as_secs_f64();
        if seconds > 0.0 { as_f64(self.tally.latency.len()) / seconds } else { 0.0 }
    }

    /// In milliseconds; `None` without answers.
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

/// To three decimals, as more would be noise.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(fault: Fault, asked: u64, answers: &[(u16, &str)], failures: &[Kind]) -> Report {
        let mut tally = Tally::new().unwrap();
        for (status, body) in answers {
            tally.answered(&Answer::new(*status, body), Duration::from_millis(2), fault);
        }
        for kind in failures {
            tally.failed(Failed { kind: *kind, detail: "detail".to_owned() });
        }
        Report { tally, asked, took: Duration::from_secs(2), fault, target: "a:1".to_owned() }
    }

    const ACCEPTED: (u16, &str) = (200, r#"{"status":"accepted","eventId":"e1"}"#);
    const EXPIRED: (u16, &str) = (401, r#"{"status":401,"code":"expired"}"#);

    #[test]
    fn one_object_tells_it_all() {
        let report = report(Fault::None, 4, &[ACCEPTED, EXPIRED, ACCEPTED], &[Kind::Refused]);
        let expected = json!({
            "sent": 4, "answers": {"200 accepted": 2, "401 expired": 1}, "errors": {"connection_refused": 1},
            "seconds": 2.0, "perSecond": 1.5, "expected": false,
            "latencyMs": {"p50": 2.0, "p90": 2.0, "p99": 2.0, "p999": 2.0, "max": 2.0},
        });
        assert_eq!(report.json(), expected);
        let complaints = report.complaints();
        assert_eq!(complaints[0], "no one listens at a:1 (detail)");
        assert_eq!(complaints[1], "expected 2xx; 1 of 4 requests were answered otherwise");
    }

    #[test]
    fn without_answers_there_are_no_latencies() {
        assert_eq!(report(Fault::None, 1, &[], &[Kind::Timeout]).json()["latencyMs"], Value::Null);
    }

    #[test]
    fn only_the_right_answers_to_all_requests_are_expected() {
        assert!(report(Fault::None, 1, &[ACCEPTED], &[]).is_expected());
        assert!(report(Fault::Expired, 1, &[EXPIRED], &[]).is_expected());
        assert!(!report(Fault::Expired, 1, &[ACCEPTED], &[]).is_expected());
        assert!(!report(Fault::None, 2, &[ACCEPTED], &[]).is_expected());
        assert!(!report(Fault::None, 2, &[ACCEPTED], &[Kind::Lost]).is_expected());
    }

    #[test]
    fn a_single_event_is_told_by_its_answers() {
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
