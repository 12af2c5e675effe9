//! Carries out an operator's request on an open log: replays or drops dead letters, replays records to a sink, forgets a
//! sink, stores events of DT's API (`fill.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::NEWEST_SINK;
use super::accepting::Accepting;
use super::fill::{FillReport, FillRequest};
use crate::config::{Config, ConnectorConfig, SpoolLimits};
use crate::keys::LiveVerifier;
use dt_log::dead::{DeadError, Filter, StoredDeadLetter};
use dt_log::{Appended, Log, LogError, SinkSet};
use dt_sink::clock::{Clock, SystemClock};
use dt_sink::record::{Reason, Record};

/// The largest number of dead letters that one request processes, so that it is answered soon. The caller continues after the
/// last one.
const MAX_PER_REQUEST: usize = 256;
/// The beginning of the error of a dead letter that was refused because of a required header.
const HEADER_MISMATCH: &str = "header_mismatch:";
/// The largest number of notes in a report.
const MAX_NOTES: usize = 5;

/// A change of the spool that an operator requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum RepairRequest {
    /// Stores the records of dead letters again, so that they are delivered.
    ReplayDead {
        /// Selects the dead letters to replay.
        filter: Filter,
        /// Whether refused requests are verified again.
        reverify: bool,
        /// Whether requests that were refused because of a required header may be accepted. The dead letter does not contain
        /// the header's value.
        ignore_required_headers: bool,
        /// Only dead letters with an id above this one are processed.
        after: i64,
    },
    /// Drops dead letters.
    DropDead {
        /// Selects the dead letters to drop.
        filter: Filter,
        /// Only dead letters with an id above this one are processed.
        after: i64,
    },
    /// Delivers records to a sink again.
    Replay {
        /// The name of the sink to deliver to.
        sink: String,
        /// The sequence number of the last record that is not delivered again.
        after: i64,
    },
    /// Removes the stored position of a sink that is not in the configuration.
    Forget {
        /// The name of the sink that is forgotten.
        sink: String,
    },
    /// Stores events that were fetched from DT's API.
    Fill(FillRequest),
}

/// The result of a request: counts of dead letters and records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct RepairReport {
    /// The number of dead letters that are queued for their sink again.
    pub queued: u64,
    /// The number of dead letters that were accepted and removed.
    pub accepted: u64,
    /// The number of dead letters that were removed since their event was stored before.
    pub duplicate: u64,
    /// The number of dead letters that were removed since the connector does not forward their event type.
    pub ignored: u64,
    /// The number of dead letters that were dropped.
    pub dropped: u64,
    /// The number of dead letters that failed again. They are kept.
    pub failed: u64,
    /// The number of dead letters that were not processed. They are kept.
    pub skipped: u64,
    /// The number of records that are delivered again, or that a forgotten sink did not receive.
    pub records: u64,
    /// Why dead letters were kept; each reason once, at most 5.
    pub notes: BTreeSet<String>,
    /// The id of the last dead letter that was processed, if more may follow; otherwise `None`.
    pub next: Option<i64>,
    /// The result of storing events of DT's API; `None` for other requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill: Option<FillReport>,
}

impl RepairReport {
    /// Adds the result of the next request.
    pub fn add(&mut self, next: Self) {
        for (sum, more) in [
            (&mut self.queued, next.queued),
            (&mut self.accepted, next.accepted),
            (&mut self.duplicate, next.duplicate),
            (&mut self.ignored, next.ignored),
            (&mut self.dropped, next.dropped),
            (&mut self.failed, next.failed),
            (&mut self.skipped, next.skipped),
            (&mut self.records, next.records),
        ] {
            *sum = sum.saturating_add(more);
        }
        next.notes.into_iter().for_each(|note| self.note(note));
        self.next = next.next;
        self.fill = next.fill;
    }

    /// Returns the number of dead letters that were processed.
    #[must_use]
    pub const fn dead_letters(&self) -> u64 {
        let removed = self.accepted.saturating_add(self.duplicate).saturating_add(self.ignored);
        let kept = self.queued.saturating_add(self.failed).saturating_add(self.skipped);
        removed.saturating_add(kept).saturating_add(self.dropped)
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.insert(note);
        }
    }
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// The log failed, or no such sink is registered in it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The dead letters cannot be read or changed.
    #[error(transparent)]
    DeadLetters(#[from] DeadError),
    /// The running server delivers to this sink, so that it cannot be forgotten.
    #[error(
        "sink {0} is in the configuration; stop the server if it runs, remove the sink there, forget it, start again"
    )]
    SinkRuns(String),
}

/// Carries out requests on an open log.
#[derive(Debug)]
pub struct Repair {
    pub(super) log: Arc<Log>,
    pub(super) clock: Arc<dyn Clock>,
    /// The parts of the active configuration that requests need: connectors, their verifiers, and the running sinks. A reload
    /// replaces them.
    configured: RwLock<Arc<Configured>>,
}

#[derive(Debug)]
pub(super) struct Configured {
    pub connectors: BTreeMap<Arc<str>, ConnectorConfig>,
    /// What the connectors and the sources accept, by name.
    pub accepting: BTreeMap<Arc<str>, Accepting>,
    /// The verifiers of the running server, by connector. Their keys may change.
    verifiers: BTreeMap<Arc<str>, Arc<LiveVerifier>>,
    /// Whether de-duplication is on for any connector.
    pub dedup: bool,
    /// The names of the sinks; empty without a configuration.
    pub sinks: BTreeSet<Arc<str>>,
    /// The limits of the log.
    pub spool: SpoolLimits,
    /// Whether a server delivers the events, so that a backlog becomes smaller.
    pub is_served: bool,
}

impl Configured {
    fn new(config: &Config, verifiers: &[Arc<LiveVerifier>], sinks: BTreeSet<Arc<str>>) -> Self {
        let named = config.connectors.iter().map(|connector| Arc::clone(&connector.name));
        let verifiers = named.clone().zip(verifiers.iter().cloned()).collect();
        let connectors = named.zip(config.connectors.iter().cloned()).collect();
        let (dedup, spool) = (!config.dedup_window.is_zero(), config.spool);
        let accepting = Accepting::all(config);
        Self { connectors, accepting, verifiers, dedup, sinks, spool, is_served: false }
    }
}

/// The decision about a dead letter.
enum Verdict {
    /// The request is authentic: its record is stored like that of a new request.
    Accept { record: Box<Record>, sinks: SinkSet, dedup: bool },
    /// The record is stored again, only for the sink that rejected it.
    Redeliver { record: Box<Record>, sink: String },
    /// The dead letter is kept with a new error.
    StillDead(String),
    /// The dead letter is removed: the connector does not forward its event type.
    Ignore,
    /// The dead letter is removed at the operator's request.
    Drop,
    /// The dead letter is kept unchanged, for this reason.
    Skip(String),
}

impl Repair {
    /// Creates the handler for an open log, with the connectors of `config`. `sinks` are the names of all sinks, including those
    /// of an embedder; if it is empty, events are for all sinks of the log.
    #[must_use]
    pub fn new(log: Arc<Log>, config: &Config, sinks: BTreeSet<Arc<str>>) -> Self {
        let configured = RwLock::new(Arc::new(Configured::new(config, &[], sinks)));
        Self { log, clock: Arc::new(SystemClock), configured }
    }

    /// Sets the clock for the time of receipt of fetched events. The default is the system clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Activates another configuration. `verifiers` has one entry for each of its connectors, in their order.
    pub(crate) fn set_config(
        &self,
        config: &Config,
        verifiers: &[Arc<LiveVerifier>],
        sinks: BTreeSet<Arc<str>>,
    ) {
        let configured = Configured { is_served: true, ..Configured::new(config, verifiers, sinks) };
        *self.configured.write() = Arc::new(configured);
    }

    pub(super) fn configured(&self) -> Arc<Configured> {
        Arc::clone(&self.configured.read())
    }

    /// Carries out a request, for at most 256 dead letters: [`RepairReport::next`] says where the next request has to continue.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// [`RepairError`] if the log fails, or if the request names a sink that it cannot change.
    pub fn handle(&self, request: &RepairRequest) -> Result<RepairReport, RepairError> {
        match request {
            RepairRequest::ReplayDead { filter, reverify, ignore_required_headers, after } => {
                self.for_each(filter, *after, true, |stored| {
                    self.decide(stored, *reverify, *ignore_required_headers)
                })
            }
            RepairRequest::DropDead { filter, after } => {
                self.for_each(filter, *after, false, |_| Verdict::Drop)
            }
            RepairRequest::Replay { sink, after } => {
                let records = self.log.replay(sink, *after)?;
                Ok(RepairReport { records, ..RepairReport::default() })
            }
            RepairRequest::Forget { sink } if self.configured().sinks.contains(&**sink) => {
                Err(RepairError::SinkRuns(sink.clone()))
            }
            RepairRequest::Forget { sink } => {
                let unknown = || LogError::UnknownSink { name: sink.clone() };
                let state = self.log.sink(sink).ok_or_else(unknown)?;
                let records = self.log.owed(&state)?;
                self.log.forget(sink)?;
                Ok(RepairReport { records, ..RepairReport::default() })
            }
            RepairRequest::Fill(request) => {
                let fill = Some(self.fill(request)?);
                Ok(RepairReport { fill, ..RepairReport::default() })
            }
        }
    }

    /// Makes a decision about each dead letter that matches, and applies it.
    fn for_each(
        &self,
        filter: &Filter,
        after: i64,
        with_bodies: bool,
        decide: impl Fn(&StoredDeadLetter) -> Verdict,
    ) -> Result<RepairReport, RepairError> {
        let dead = self.log.dead_letters();
        let found = dead.list(filter, after, MAX_PER_REQUEST, with_bodies)?;
        let next = found.last().map(|stored| stored.id);
        let mut report = RepairReport { next, ..RepairReport::default() };
        for stored in &found {
            let counted = self.apply(stored, decide(stored), &mut report)?;
            if let Some(count) = counted {
                *count = count.saturating_add(1);
            }
        }
        Ok(report)
    }

    /// Applies a decision. Returns the count of the report that increases; `None` if the dead letter or its sink was removed
    /// meanwhile.
    fn apply<'a>(
        &self,
        stored: &StoredDeadLetter,
        verdict: Verdict,
        report: &'a mut RepairReport,
    ) -> Result<Option<&'a mut u64>, RepairError> {
        let dead = self.log.dead_letters();
        let remove = || dead.remove_blocking(vec![stored.id]);
        let append =
            |record: Box<Record>, sinks, dedup| self.log.append_blocking(Arc::new(*record), sinks, dedup);
        let count = match verdict {
            Verdict::Drop if remove()? > 0 => &mut report.dropped,
            Verdict::Ignore if remove()? > 0 => &mut report.ignored,
            Verdict::Drop | Verdict::Ignore => return Ok(None),
            Verdict::Skip(why) => {
                report.note(why);
                &mut report.skipped
            }
            Verdict::StillDead(error) => {
                report.note(format!("{}: {error}", stored.dead_letter.reason));
                dead.still_dead_blocking(stored.id, error)?;
                &mut report.failed
            }
            // The record is stored before the dead letter is removed: a crash in between keeps both.
            Verdict::Redeliver { record, sink } => {
                let Some(state) = self.log.sink(&sink) else { return Ok(None) };
                append(record, SinkSet::new([state.number]), false)?;
                remove()?;
                &mut report.queued
            }
            Verdict::Accept { record, sinks, dedup } => {
                let appended = append(record, sinks, dedup)?;
                remove()?;
                match appended {
                    Appended::New(_) => &mut report.accepted,
                    Appended::Duplicate => &mut report.duplicate,
                }
            }
        };
        Ok(Some(count))
    }

    /// Returns the sinks that receive the events of a connector.
    ///
    /// # Errors
    ///
    /// The names of the missing sinks, if the log does not have all of them: a new sink would begin after a record that is stored
    /// now.
    pub(super) fn sinks_of(&self, connector: &str) -> Result<SinkSet, String> {
        let configured = self.configured();
        let number = |name: &str| match self.log.sink(name) {
            Some(sink) => Ok(sink.number),
            None => Err(format!("sink {name} is not in the log yet")),
        };
        let named = configured.accepting.get(connector).and_then(|connector| connector.sinks.as_ref());
        let mut numbers: Vec<_> = match named {
            Some(named) => named.iter().map(|name| number(name)).collect::<Result<_, _>>()?,
            None if configured.sinks.is_empty() => self.log.sinks().iter().map(|sink| sink.number).collect(),
            None => configured.sinks.iter().map(|name| number(name)).collect::<Result<_, _>>()?,
        };
        if numbers.is_empty() {
            return Err("the log has no sink yet".to_owned());
        }
        // The internal sink gets every event.
        let internal = self.log.sink(NEWEST_SINK).map(|sink| sink.number);
        numbers.extend(internal.filter(|internal| !numbers.contains(internal)));
        Ok(SinkSet::new(numbers))
    }

    /// Makes the decision about a dead letter that is to be replayed.
    fn decide(&self, stored: &StoredDeadLetter, reverify: bool, ignore_required_headers: bool) -> Verdict {
        match &stored.dead_letter.reason {
            Reason::Rejected { sink } if !self.is_deliverable(sink) => {
                Verdict::Skip(format!("rejected: there is no sink {sink} any more"))
            }
            Reason::Rejected { sink } => match stored.record() {
                Some(record) => Verdict::Redeliver { record: Box::new(record), sink: sink.to_string() },
                None => Verdict::Skip("rejected: the stored record is damaged".to_owned()),
            },
            Reason::Refused if !reverify => {
                Verdict::Skip("refused: use --reverify to verify refused requests again".to_owned())
            }
            Reason::Refused
                if !ignore_required_headers && stored.dead_letter.error.starts_with(HEADER_MISMATCH) =>
            {
                Verdict::Skip(
                    "refused: a required header was missing or wrong, and its value is not stored; \
                     --ignore-required-headers checks the signature only"
                        .to_owned(),
                )
            }
            Reason::Expired | Reason::Unreadable | Reason::Refused | Reason::Damaged => {
                self.verify_again(stored)
            }
        }
    }

    /// Returns whether records for this sink would be delivered: the sink is configured, and is registered in the log.
    fn is_deliverable(&self, sink: &str) -> bool {
        let sinks = &self.configured().sinks;
        (sinks.is_empty() || sinks.contains(sink)) && self.log.sink(sink).is_some()
    }

    /// Verifies a stored request and reads its record. An expired or damaged request is verified at the time at which its token
    /// was issued, any other one at its time of receipt.
    fn verify_again(&self, stored: &StoredDeadLetter) -> Verdict {
        let dead_letter = &stored.dead_letter;
        let configured = self.configured();
        let Some(connector) = configured.connectors.get(&dead_letter.connector) else {
            return Verdict::Skip(format!(
                "{}: no connector {} is configured, so there is no secret to verify with",
                dead_letter.reason, dead_letter.connector
            ));
        };
        let headers = stored.headers();
        let live = configured.verifiers.get(&dead_letter.connector).map(|live| live.get());
        // A dead letter contains no headers but the signatures.
        let verifier = live.as_deref().unwrap_or(&connector.verifier).without_required_headers();
        let verified = verifier.authenticate(&headers).and_then(|authenticated| {
            let body: Bytes = dead_letter.body.clone();
            // A damaged record was accepted before, and its time of receipt may be the damaged part.
            if matches!(dead_letter.reason, Reason::Expired | Reason::Damaged) {
                authenticated.verify_body_when_issued(body)
            } else {
                authenticated.verify_body(body, dead_letter.received_at.div_euclid(1000))
            }
        });
        let verified = match verified {
            Ok(verified) => verified,
            Err(rejection) => return Verdict::StillDead(format!("{}: {rejection}", rejection.code())),
        };
        let record = match Record::read(&verified, Arc::clone(&connector.name), dead_letter.received_at) {
            Ok(record) => record.with_headers(&headers).with_request_id(dead_letter.request_id),
            Err(reason) => return Verdict::StillDead(reason.to_string()),
        };
        if !connector.projects.is_empty()
            && !record.project.as_ref().is_some_and(|project| connector.projects.contains(&**project))
        {
            return Verdict::StillDead("its project is not among those that the connector allows".to_owned());
        }
        if !connector.events.is_empty() && !connector.events.contains(&*record.event_type) {
            return Verdict::Ignore;
        }
        // The id of a damaged record is in the dedup index already.
        let dedup = configured.dedup && connector.dedup && dead_letter.reason != Reason::Damaged;
        match self.sinks_of(&record.connector) {
            Ok(sinks) => Verdict::Accept { record: Box::new(record), sinks, dedup },
            Err(missing) => Verdict::Skip(format!(
                "{}: {missing}; start the server once with this configuration, then replay again",
                dead_letter.reason
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dt_log::{Bounds, LogOptions, StartAt};
    use dt_sink::record::DeadLetter;
    use dt_verify::{Secret, Signer, Verifier};

    /// Stores a copy of an authentic request whose token had expired.
    fn add_expired(log: &Log, event_id: &str) {
        let body = format!(r#"{{"event":{{"eventId":"{event_id}","eventType":"touch"}}}}"#);
        let secret = || Secret::new("a-good-secret").expect("good");
        let signer = Signer::secret(secret());
        let mut headers = http::HeaderMap::new();
        let token = signer.sign(body.as_bytes(), 1_700_000_000, "id").expect("signed");
        headers.insert(signer.header_name(), token.parse().expect("a value"));
        let now = SystemClock.unix_millis();
        let (reason, error) = (Reason::Expired, "expired".to_owned());
        let dead_letter = DeadLetter::of_request(Arc::from("plant"), reason, error, now, Bytes::from(body));
        log.dead_letters().add_blocking(vec![dead_letter.with_headers(&headers)]).expect("stored");
    }

    fn replay(log: &Arc<Log>, sinks: Option<&[&str]>, configured: &[&str]) -> RepairReport {
        let verifier = Verifier::builder()
            .secret("a", Secret::new("a-good-secret").expect("good"))
            .build()
            .expect("good");
        let sinks = sinks.map(|sinks| sinks.iter().map(ToString::to_string).collect());
        let mut config = Config::empty();
        config.connectors.push(ConnectorConfig { sinks, ..ConnectorConfig::new("plant", "/", verifier) });
        let filter = Filter::default();
        let request =
            RepairRequest::ReplayDead { filter, reverify: false, ignore_required_headers: false, after: 0 };
        let configured = configured.iter().map(|name| Arc::from(*name)).collect();
        Repair::new(Arc::clone(log), &config, configured).handle(&request).expect("done")
    }

    /// No server has been started since they were added to the configuration. The record would be stored for no sink, and a
    /// new sink begins after it.
    #[test]
    fn a_dead_letter_is_kept_while_the_log_lacks_a_sink_of_its_connector() {
        let folder = tempfile::tempdir().expect("a folder");
        let bounds = Bounds { min_free: 0, ..LogOptions::default().bounds };
        let options = LogOptions { bounds, ..LogOptions::default() };
        let log = Arc::new(Log::open(folder.path(), options, Arc::new(SystemClock)).expect("opens"));
        add_expired(&log, "e1");
        let kept = |sinks: Option<&[&str]>, configured: &[&str], why: &str| {
            let report = replay(&log, sinks, configured);
            assert_eq!((report.skipped, report.accepted, report.duplicate), (1, 0, 0), "{report:?}");
            assert!(report.notes.iter().any(|note| note.contains(why)), "{report:?}");
        };
        kept(None, &[], "the log has no sink yet");
        let old = log.register(&Arc::from("old"), StartAt::Now, Vec::new()).expect("registered");
        let removed = log.register(&Arc::from("removed"), StartAt::Now, Vec::new()).expect("registered");
        kept(Some(&["new"]), &[], "sink new is not in the log yet");
        kept(Some(&["old", "new"]), &["old", "new"], "sink new is not in the log yet");
        kept(None, &["old", "new"], "sink new is not in the log yet");
        assert_eq!(replay(&log, Some(&["old"]), &["old"]).accepted, 1);
        add_expired(&log, "e2");
        assert_eq!(replay(&log, None, &["old"]).accepted, 1);
        assert_eq!((log.owed(&old).expect("read"), log.owed(&removed).expect("read")), (2, 0));
        log.close();
    }
}
