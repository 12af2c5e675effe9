//! What an operator asks for: letters that are dropped or tried again, sinks that see records again or are forgotten.
//! A running server does it on request (`control.rs`); without one, the command line does it with the same code.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use crate::config::{Config, ConnectorConfig};
use crate::keys::LiveVerifier;
use crate::record::Record;
use crate::spool::{Change, Changed, Filter, Letter, Reader, Spool, SpoolError};

/// How many letters one request looks at: an answer must not take long. Whoever asks goes on after the last.
const STEP: usize = 256;
/// How many different notes a report has.
const MAX_NOTES: usize = 5;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum RepairRequest {
    /// Bring everything that was accepted to the database, for somebody who reads it.
    Settle,
    /// Try dead letters again.
    ReplayDead {
        /// Which.
        filter: Filter,
        /// Whether refused ones are verified again.
        reverify: bool,
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
    /// Let a sink see again what comes after a number.
    Rewind {
        /// Its name.
        sink: String,
        /// The number.
        cursor: i64,
    },
    /// Forget a sink that was removed from the configuration.
    DropSink {
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

/// Repairs a spool.
#[derive(Debug)]
pub struct Repair {
    spool: Arc<Spool>,
    reader: Mutex<Reader>,
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
    Change(Change),
    /// It is of a type that the connector does not pass on.
    Ignore,
    Skip(String),
}

impl Repair {
    /// Takes an open spool, and the connectors that letters are verified for. `running` are the sinks with a worker.
    ///
    /// # Errors
    ///
    /// [`SpoolError`] when the spool cannot be read.
    pub fn new(spool: Arc<Spool>, config: &Config, running: BTreeSet<Arc<str>>) -> Result<Self, SpoolError> {
        let reader = Mutex::new(spool.reader()?);
        Ok(Self { spool, reader, known: RwLock::new(Arc::new(Known::new(config, &[], running))) })
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
            RepairRequest::Settle => {
                self.spool.settle().map_err(|error| error.to_string())?;
                Ok(RepairReport::default())
            }
            RepairRequest::ReplayDead { filter, reverify, after } => {
                self.each_letter(filter, *after, true, |letter| self.judge(letter, *reverify))
            }
            RepairRequest::DropDead { filter, after } => self
                .each_letter(filter, *after, false, |letter| Verdict::Change(Change::Drop { id: letter.id })),
            RepairRequest::Rewind { sink, cursor } => {
                self.one(Change::Rewind { sink: sink.clone(), cursor: *cursor }, sink)
            }
            RepairRequest::DropSink { sink } if self.known().running.contains(&**sink) => Err(format!(
                "sink {sink} is in the configuration of the running server; remove it there and restart, then drop it"
            )),
            RepairRequest::DropSink { sink } => self.one(Change::ForgetSink { sink: sink.clone() }, sink),
        }
    }

    fn one(&self, change: Change, sink: &str) -> Result<RepairReport, String> {
        let changed = self.spool.change(vec![change]).map_err(|error| error.to_string())?;
        match changed.first() {
            Some(Changed::Rewound(records)) => {
                Ok(RepairReport { records: *records, ..RepairReport::default() })
            }
            Some(Changed::Done) => Ok(RepairReport::default()),
            _ => Err(format!(
                "the spool knows no sink {sink}; `dt-receiver spool status` shows those it knows"
            )),
        }
    }

    fn each_letter(
        &self,
        filter: &Filter,
        after: i64,
        bodies: bool,
        judge: impl Fn(&Letter) -> Verdict,
    ) -> Result<RepairReport, String> {
        let letters =
            self.reader.lock().dead(filter, after, STEP, bodies).map_err(|error| error.to_string())?;
        let mut report =
            RepairReport { next: letters.last().map(|letter| letter.id), ..RepairReport::default() };
        let (mut changes, mut ignored) = (Vec::new(), 0_u64);
        for letter in &letters {
            match judge(letter) {
                Verdict::Change(change) => {
                    if let Change::StillDead { error, .. } = &change {
                        report.note(format!("{}: {error}", letter.reason));
                    }
                    changes.push(change);
                }
                Verdict::Ignore => {
                    ignored = ignored.saturating_add(1);
                    changes.push(Change::Drop { id: letter.id });
                }
                Verdict::Skip(why) => {
                    report.skipped = report.skipped.saturating_add(1);
                    report.note(why);
                }
            }
        }
        // The kinds are looked at before the changes are given away.
        let kinds: Vec<fn(&mut RepairReport) -> &mut u64> = changes.iter().map(counter).collect();
        let changed = if changes.is_empty() {
            Vec::new()
        } else {
            self.spool.change(changes).map_err(|error| error.to_string())?
        };
        for (kind, changed) in kinds.into_iter().zip(changed) {
            let count = match changed {
                Changed::Duplicate => &mut report.duplicate,
                Changed::Gone => continue,
                Changed::Done | Changed::Rewound(_) => kind(&mut report),
            };
            *count = count.saturating_add(1);
        }
        if bodies {
            // Whoever replays drops only what is ignored.
            report.ignored = ignored.min(report.dropped);
            report.dropped = report.dropped.saturating_sub(report.ignored);
        }
        Ok(report)
    }

    /// What a replay makes of a letter.
    fn judge(&self, letter: &Letter, reverify: bool) -> Verdict {
        let id = letter.id;
        match letter.reason.as_str() {
            "rejected" => match &letter.sink {
                Some(sink) if self.takes_letters(sink) => Verdict::Change(Change::Redeliver { id }),
                sink => {
                    let sink = sink.as_deref().unwrap_or("?");
                    Verdict::Skip(format!("rejected: there is no sink {sink} any more"))
                }
            },
            "refused" if !reverify => {
                Verdict::Skip("refused: only --reverify lets refused requests in".to_owned())
            }
            "expired" | "unreadable" | "refused" | "damaged" => self.let_in(letter),
            other => Verdict::Skip(format!("{other}: not a reason that this version knows")),
        }
    }

    fn takes_letters(&self, sink: &str) -> bool {
        let running = &self.known().running;
        running.contains(sink)
            || (running.is_empty() && matches!(self.reader.lock().cursor(sink), Ok(Some(_))))
    }

    /// The normal way in, for a request that was kept: verified for the time when it could be, then read and stored.
    fn let_in(&self, letter: &Letter) -> Verdict {
        let id = letter.id;
        let still_dead = |error: String| Verdict::Change(Change::StillDead { id, error });
        let known = self.known();
        let Some(connector) = known.connectors.get(&letter.connector) else {
            return Verdict::Skip(format!(
                "{}: no connector {} is configured, so there is no secret to verify with",
                letter.reason, letter.connector
            ));
        };
        let headers = letter.headers();
        let live = known.verifiers.get(&letter.connector).map(|live| live.get());
        // Of the headers only the signatures were kept.
        let verifier = live.as_deref().unwrap_or(&connector.verifier).without_required_headers();
        let verified = verifier.authenticate(&headers).and_then(|authenticated| {
            let body: Bytes = letter.body.clone();
            // What was damaged had been accepted, and its time of receipt may be what is damaged.
            if matches!(letter.reason.as_str(), "expired" | "damaged") {
                authenticated.verify_body_when_issued(body)
            } else {
                authenticated.verify_body(body, letter.received_at.div_euclid(1000))
            }
        });
        let verified = match verified {
            Ok(verified) => verified,
            Err(rejection) => return still_dead(format!("{}: {rejection}", rejection.code())),
        };
        let record = match Record::read(&verified, Arc::clone(&connector.name), letter.received_at) {
            Ok(record) => record.with_headers(&headers).with_request_id(letter.request_id),
            Err(reason) => return still_dead(reason.to_string()),
        };
        if !connector.projects.is_empty()
            && !record.project.as_ref().is_some_and(|project| connector.projects.contains(&**project))
        {
            return still_dead("its project is not among those that the connector allows".to_owned());
        }
        if !connector.events.is_empty() && !connector.events.contains(&*record.event_type) {
            return Verdict::Ignore;
        }
        // A damaged one is known as seen.
        let dedup = known.dedup && connector.dedup && letter.reason != "damaged";
        Verdict::Change(Change::Accept { id, record: Arc::new(record), dedup })
    }
}

/// What counts a change once it is made.
const fn counter(change: &Change) -> fn(&mut RepairReport) -> &mut u64 {
    match change {
        Change::Redeliver { .. } => |report| &mut report.queued,
        Change::Accept { .. } => |report| &mut report.accepted,
        Change::StillDead { .. } => |report| &mut report.failed,
        Change::Drop { .. } | Change::Rewind { .. } | Change::ForgetSink { .. } => {
            |report| &mut report.dropped
        }
    }
}
