//! What an operator asks for: letters that are dropped or tried again, sinks that are given events again or are forgotten.
//! A running server does it on request (`control.rs`); without one, the command line does it with the same code.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::config::{Config, ConnectorConfig};
use crate::keys::LiveVerifier;
use dt_log::dead::{Filter, StoredDeadLetter};
use dt_log::{Appended, Log, SinkSet};
use dt_sink::record::{Reason, Record};

/// How many letters one request looks at: an answer must not take long. Whoever asks goes on after the last.
const STEP: usize = 256;
/// How the error of a letter begins that was refused for a required header.
const HEADER_MISMATCH: &str = "header_mismatch:";
/// How many different notes a report has.
const MAX_NOTES: usize = 5;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum RepairRequest {
    /// Try dead letters again.
    ReplayDead {
        /// Which.
        filter: Filter,
        /// Whether refused ones are verified again.
        reverify: bool,
        /// Whether those are let in, too, that were refused for a required header: its value was not kept.
        ignore_required_headers: bool,
        /// Only those with an id over this.
        after: i64,
    },
    /// Drop dead letters.
    DropDead {
        /// Which.
        filter: Filter,
        /// Only those with an id over this.
        after: i64,
    },
    /// Give a sink again what comes after a sequence number.
    Replay {
        /// Its name.
        sink: String,
        /// The number.
        after: i64,
    },
    /// Forget a sink that was removed from the configuration.
    Forget {
        /// Its name.
        sink: String,
    },
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct RepairReport {
    /// Letters that their sink is given again.
    pub queued: u64,
    /// Letters that were accepted and left.
    pub accepted: u64,
    /// Letters whose event was there already; they left.
    pub duplicate: u64,
    /// Letters of a type that the connector does not pass on; they left.
    pub ignored: u64,
    /// Letters that were dropped.
    pub dropped: u64,
    /// Letters that failed again and stay.
    pub failed: u64,
    /// Letters that were not tried and stay.
    pub skipped: u64,
    /// Records that a sink sees again.
    pub records: u64,
    /// Why letters stay, each reason once.
    pub notes: BTreeSet<String>,
    /// There may be more after this id.
    pub next: Option<i64>,
}

impl RepairReport {
    /// Adds what the next step did.
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
    }

    /// How many letters were looked at.
    #[must_use]
    pub const fn letters(&self) -> u64 {
        let left = self.accepted.saturating_add(self.duplicate).saturating_add(self.ignored);
        let stay = self.queued.saturating_add(self.failed).saturating_add(self.skipped);
        left.saturating_add(stay).saturating_add(self.dropped)
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.insert(note);
        }
    }
}

/// Changes a log as an operator wants it.
#[derive(Debug)]
pub struct Repair {
    log: Arc<Log>,
    /// What the configuration in force says.
    known: RwLock<Arc<Known>>,
}

#[derive(Debug)]
struct Known {
    connectors: BTreeMap<Arc<str>, ConnectorConfig>,
    /// Those whose keys may change.
    verifiers: BTreeMap<Arc<str>, Arc<LiveVerifier>>,
    /// Whether copies of an event are caught at all.
    dedup: bool,
    /// The sinks that have a worker; none without a server.
    running: BTreeSet<Arc<str>>,
}

impl Known {
    fn new(config: &Config, verifiers: &[Arc<LiveVerifier>], running: BTreeSet<Arc<str>>) -> Self {
        let named = config.connectors.iter().map(|connector| Arc::clone(&connector.name));
        let verifiers = named.clone().zip(verifiers.iter().cloned()).collect();
        let connectors = named.zip(config.connectors.iter().cloned()).collect();
        Self { connectors, verifiers, dedup: !config.dedup_window.is_zero(), running }
    }
}

/// What is to become of a letter.
enum Verdict {
    /// It was verified and read: its record is stored like that of a request.
    Accept {
        record: Box<Record>,
        dedup: bool,
    },
    /// Its record is stored once more, for the sink that rejected it alone.
    Redeliver {
        record: Box<Record>,
        sink: String,
    },
    /// It failed again, and stays.
    StillDead(String),
    /// It is of a type that the connector does not pass on.
    Ignore,
    Drop,
    Skip(String),
}

impl Repair {
    /// Takes an open log, and the connectors that letters are verified for. `running` are the sinks with a worker.
    #[must_use]
    pub fn new(log: Arc<Log>, config: &Config, running: BTreeSet<Arc<str>>) -> Self {
        Self { log, known: RwLock::new(Arc::new(Known::new(config, &[], running))) }
    }

    /// Goes on with another configuration. `verifiers` are one for each of its connectors, by its place: their keys may
    /// change.
    pub(super) fn go_by(
        &self,
        config: &Config,
        verifiers: &[Arc<LiveVerifier>],
        running: BTreeSet<Arc<str>>,
    ) {
        *self.known.write() = Arc::new(Known::new(config, verifiers, running));
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read())
    }

    /// Does what is asked for, or a first part of it. It blocks.
    ///
    /// # Errors
    ///
    /// Why nothing was done, in words.
    pub fn handle(&self, request: &RepairRequest) -> Result<RepairReport, String> {
        match request {
            RepairRequest::ReplayDead { filter, reverify, ignore_required_headers, after } => self
                .each_letter(filter, *after, true, |letter| {
                    self.judge(letter, *reverify, *ignore_required_headers)
                }),
            RepairRequest::DropDead { filter, after } => {
                self.each_letter(filter, *after, false, |_| Verdict::Drop)
            }
            RepairRequest::Replay { sink, after } => {
                let records = self.log.replay(sink, *after).map_err(|error| error.to_string())?;
                Ok(RepairReport { records, ..RepairReport::default() })
            }
            RepairRequest::Forget { sink } if self.known().running.contains(&**sink) => Err(format!(
                "sink {sink} is in the configuration of the running server; remove it there and restart, then forget it"
            )),
            RepairRequest::Forget { sink } => {
                let unknown = || dt_log::LogError::UnknownSink { name: sink.clone() };
                let state = self.log.sink(sink).ok_or_else(|| unknown().to_string())?;
                let records = self.log.owed(&state).map_err(|error| error.to_string())?;
                self.log.forget(sink).map_err(|error| error.to_string())?;
                Ok(RepairReport { records, ..RepairReport::default() })
            }
        }
    }

    fn each_letter(
        &self,
        filter: &Filter,
        after: i64,
        bodies: bool,
        judge: impl Fn(&StoredDeadLetter) -> Verdict,
    ) -> Result<RepairReport, String> {
        let dead = self.log.dead_letters();
        let letters = dead.list(filter, after, STEP, bodies).map_err(|error| error.to_string())?;
        let next = letters.last().map(|letter| letter.id);
        let mut report = RepairReport { next, ..RepairReport::default() };
        for letter in &letters {
            let counted = self.carry_out(letter, judge(letter), &mut report)?;
            if let Some(count) = counted {
                *count = count.saturating_add(1);
            }
        }
        Ok(report)
    }

    /// Does with a letter what was found. Returns what counts it; `None` where somebody else was faster.
    fn carry_out<'a>(
        &self,
        letter: &StoredDeadLetter,
        verdict: Verdict,
        report: &'a mut RepairReport,
    ) -> Result<Option<&'a mut u64>, String> {
        let dead = self.log.dead_letters();
        let remove = || dead.remove_blocking(vec![letter.id]).map_err(|error| error.to_string());
        let append = |record: Box<Record>, sinks, dedup| {
            self.log.append_blocking(Arc::new(*record), sinks, dedup).map_err(|error| error.to_string())
        };
        let count = match verdict {
            Verdict::Drop if remove()? > 0 => &mut report.dropped,
            Verdict::Ignore if remove()? > 0 => &mut report.ignored,
            Verdict::Drop | Verdict::Ignore => return Ok(None),
            Verdict::Skip(why) => {
                report.note(why);
                &mut report.skipped
            }
            Verdict::StillDead(error) => {
                report.note(format!("{}: {error}", letter.dead_letter.reason));
                dead.still_dead_blocking(letter.id, error).map_err(|error| error.to_string())?;
                &mut report.failed
            }
            // Stored before the letter leaves: a crash in between leaves both.
            Verdict::Redeliver { record, sink } => {
                let Some(state) = self.log.sink(&sink) else { return Ok(None) };
                append(record, SinkSet::new([state.number]), false)?;
                remove()?;
                &mut report.queued
            }
            Verdict::Accept { record, dedup } => {
                let sinks = self.sinks_of(&record.connector);
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

    /// The sinks that the events of a connector go to.
    fn sinks_of(&self, connector: &str) -> SinkSet {
        let known = self.known();
        let named = known.connectors.get(connector).and_then(|connector| connector.sinks.as_ref());
        let is_meant = |name: &str| match named {
            Some(named) => named.iter().any(|known| known == name),
            None => known.running.is_empty() || known.running.contains(name),
        };
        SinkSet::new(self.log.sinks().iter().filter(|sink| is_meant(&sink.name)).map(|sink| sink.number))
    }

    /// What a replay makes of a letter.
    fn judge(&self, letter: &StoredDeadLetter, reverify: bool, ignore_required_headers: bool) -> Verdict {
        match &letter.dead_letter.reason {
            Reason::Rejected { sink } if !self.takes_letters(sink) => {
                Verdict::Skip(format!("rejected: there is no sink {sink} any more"))
            }
            Reason::Rejected { sink } => match letter.record() {
                Some(record) => Verdict::Redeliver { record: Box::new(record), sink: sink.to_string() },
                None => Verdict::Skip("rejected: what is stored of it is not what was written".to_owned()),
            },
            Reason::Refused if !reverify => {
                Verdict::Skip("refused: only --reverify lets refused requests in".to_owned())
            }
            Reason::Refused
                if !ignore_required_headers && letter.dead_letter.error.starts_with(HEADER_MISMATCH) =>
            {
                Verdict::Skip(
                    "refused: a required header was missing or had another value, and it was not kept; \
                     --ignore-required-headers goes by the signature alone"
                        .to_owned(),
                )
            }
            Reason::Expired | Reason::Unreadable | Reason::Refused | Reason::Damaged => self.let_in(letter),
        }
    }

    fn takes_letters(&self, sink: &str) -> bool {
        let running = &self.known().running;
        running.contains(sink) || (running.is_empty() && self.log.sink(sink).is_some())
    }

    /// The normal way in, for a request that was kept: verified for the time when it could be, then read and stored.
    fn let_in(&self, letter: &StoredDeadLetter) -> Verdict {
        let (stored, letter) = (letter, &letter.dead_letter);
        let known = self.known();
        let Some(connector) = known.connectors.get(&letter.connector) else {
            return Verdict::Skip(format!(
                "{}: no connector {} is configured, so there is no secret to verify with",
                letter.reason, letter.connector
            ));
        };
        let headers = stored.headers();
        let live = known.verifiers.get(&letter.connector).map(|live| live.get());
        // Of the headers only the signatures were kept.
        let verifier = live.as_deref().unwrap_or(&connector.verifier).without_required_headers();
        let verified = verifier.authenticate(&headers).and_then(|authenticated| {
            let body: Bytes = letter.body.clone();
            // What was damaged had been accepted, and its time of receipt may be what is damaged.
            if matches!(letter.reason, Reason::Expired | Reason::Damaged) {
                authenticated.verify_body_when_issued(body)
            } else {
                authenticated.verify_body(body, letter.received_at.div_euclid(1000))
            }
        });
        let verified = match verified {
            Ok(verified) => verified,
            Err(rejection) => return Verdict::StillDead(format!("{}: {rejection}", rejection.code())),
        };
        let record = match Record::read(&verified, Arc::clone(&connector.name), letter.received_at) {
            Ok(record) => record.with_headers(&headers).with_request_id(letter.request_id),
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
        // A damaged one is known as seen.
        let dedup = known.dedup && connector.dedup && letter.reason != Reason::Damaged;
        Verdict::Accept { record: Box::new(record), dedup }
    }
}
