//! Stores events that were fetched from DT's API, for the sinks of the connector to which they belong.
//!
//! An event belongs to the connector whose `projects` contains the event's project, or else to the only connector without
//! `projects`. The connector's `events` filter and dedup key apply. Filling never causes a 503 for a pushed event: nothing is
//! stored while the log is half full, the disk is nearly full, or a sink is far behind.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::accepting::Accepting;
use super::record;
use super::repair::{Configured, Repair, RepairError};
use dt_log::{Appended, LogError};
use dt_sink::record::{ApiSource, Record};
use dt_verify::event::{Envelope, Timestamp};

/// The largest size of a delivery that can be stored, in bytes. An event of DT has about 500 bytes.
pub const MAX_DELIVERY: usize = 384 << 10;

/// The largest number of events that one request stores. It is a small part of the log's queue.
pub const MAX_FILL_EVENTS: usize = 256;

/// The number of undelivered events of a sink above which nothing is filled.
const MAX_BACKLOG: i64 = 10_000;

/// The largest number of names of connectors under which an event may have been received.
const MAX_NAMES: usize = 64;

/// The largest number of notes in a report.
const MAX_NOTES: usize = 5;

/// Events of DT's API that are to be stored, at most 256.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FillRequest {
    /// The bodies of deliveries, in the order in which they are stored; together at most 384 KiB.
    pub deliveries: Vec<String>,
    /// Whether events are stored that are older than the ids that are kept, and so may be stored a second time.
    pub allow_duplicates: bool,
    /// Whether events are only compared with those that were received.
    pub dry_run: bool,
    /// Whether the events are of the stream of a project, which DT sends once: they are stored as long as the log accepts events,
    /// also if they are late. Only within the server.
    #[serde(skip)]
    pub is_streamed: bool,
}

/// The result of a [`FillRequest`]: counts of events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct FillReport {
    /// Events that were stored, or with `dry_run` would be.
    pub filled: u64,
    /// Events that were received before.
    pub known: u64,
    /// Events of a type that their connector does not forward.
    pub filtered: u64,
    /// Events of a project to which no connector, or not exactly one, belongs.
    pub elsewhere: u64,
    /// Events that are older than the ids that are kept, so that they may have been received before.
    pub too_old: u64,
    /// Events that cannot be stored.
    pub refused: u64,
    /// Why events were not stored; each reason once, at most 5.
    pub notes: BTreeSet<String>,
    /// Why nothing was stored now: the same request has to be sent again later. `None` if the request was carried out.
    pub busy: Option<String>,
}

impl FillReport {
    fn note(&mut self, note: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.insert(note);
        }
    }
}

/// The decision about an event.
enum Decision {
    Store(Box<Record>),
    Known,
    Filtered,
    Elsewhere(String),
    TooOld,
    Refused(String),
    /// Nothing can be decided now.
    Failed(LogError),
}

impl FillRequest {
    /// Returns a request that stores the deliveries with these bodies.
    #[must_use]
    pub fn new(deliveries: Vec<String>) -> Self {
        Self { deliveries, ..Self::default() }
    }
}

impl Repair {
    /// Stores events of DT's API in their order, and returns after they are durable. An event that was received before is only
    /// counted, so a request may be repeated. Blocks.
    ///
    /// # Errors
    ///
    /// [`RepairError`] if the log fails. Some of the events may be stored.
    pub fn fill(&self, request: &FillRequest) -> Result<FillReport, RepairError> {
        let configured = self.configured();
        let mut report = FillReport::default();
        if !request.dry_run && !request.is_streamed {
            report.busy = self.busy(&configured);
            if report.busy.is_some() {
                return Ok(report);
            }
        }
        let now = self.clock.unix_millis();
        let source = if request.is_streamed { ApiSource::Stream } else { ApiSource::Backfill };
        let known_since = match self.log.ids_complete_since() {
            _ if request.allow_duplicates || request.is_streamed => None,
            Some(since) => Some(since),
            None => {
                report.busy = Some("the ids of received events are not all known yet".to_owned());
                return Ok(report);
            }
        };
        let mut names = self.log.connectors();
        names.truncate(MAX_NAMES);
        let mut events = Vec::with_capacity(request.deliveries.len().min(MAX_FILL_EVENTS));
        for delivery in request.deliveries.iter().take(MAX_FILL_EVENTS) {
            match self.decide_fill((&configured, source, &names), delivery, (now, known_since)) {
                Decision::Store(_) if request.dry_run => report.filled = report.filled.saturating_add(1),
                Decision::Store(record) => match self.sinks_of(&record.connector) {
                    Ok(sinks) => events.push((Arc::from(record), sinks)),
                    Err(missing) => {
                        report.refused = report.refused.saturating_add(1);
                        report.note(format!("{missing}; start the server once with this configuration"));
                    }
                },
                Decision::Failed(error) => return busy_with(error),
                Decision::Known => report.known = report.known.saturating_add(1),
                Decision::Filtered => report.filtered = report.filtered.saturating_add(1),
                Decision::TooOld => report.too_old = report.too_old.saturating_add(1),
                Decision::Elsewhere(why) => {
                    report.elsewhere = report.elsewhere.saturating_add(1);
                    report.note(why);
                }
                Decision::Refused(why) => {
                    report.refused = report.refused.saturating_add(1);
                    report.note(why);
                }
            }
        }
        // What is stored already is known when the request is repeated.
        let appended = match self.log.append_all_blocking(events) {
            Ok(appended) => appended,
            Err(error) => return busy_with(error),
        };
        for appended in appended {
            let count = match appended {
                Appended::New(_) => &mut report.filled,
                Appended::Duplicate => &mut report.known,
            };
            *count = count.saturating_add(1);
        }
        Ok(report)
    }

    /// Decides about one event. `names` are the connectors under which it may have been received: under another one than today, if a
    /// connector was renamed, or DT delivers to another one than fetched events belong to. `now` is the time of receipt; an event whose `timestamp` is before `since` may have been received
    /// before; with `None`, that does not matter. Both in Unix milliseconds.
    fn decide_fill(
        &self,
        (configured, source, names): (&Configured, ApiSource, &[Arc<str>]),
        delivery: &str,
        (now, since): (i64, Option<i64>),
    ) -> Decision {
        if delivery.len() > MAX_DELIVERY {
            return Decision::Refused(format!("an event of {} bytes is larger than 384 KiB", delivery.len()));
        }
        let body = Bytes::copy_from_slice(delivery.as_bytes());
        let envelope = match Envelope::parse_stored(&body) {
            Ok(envelope) => envelope,
            Err(error) => return Decision::Refused(error.to_string()),
        };
        let Some(project) = envelope.project() else {
            return Decision::Refused("an event without a project in `targetName`".to_owned());
        };
        let candidates = match connectors_of(configured, project) {
            Ok(candidates) => candidates,
            Err(why) => return Decision::Elsewhere(why),
        };
        // Those to which it belongs may not have accepted an event that is durable yet.
        let current = candidates.iter().map(|connector| &connector.name);
        for name in current.chain(names) {
            match self.log.find_received(name, &envelope.event_id) {
                Ok(true) => return Decision::Known,
                Ok(false) => {}
                Err(error) => return Decision::Failed(error),
            }
        }
        let wants = |connector: &&&Accepting| {
            connector.events.is_empty() || connector.events.contains(&*envelope.event_type)
        };
        let Some(connector) = candidates.iter().find(wants) else { return Decision::Filtered };
        // Without de-duplication, no ids of pushed events are kept.
        let has_ids = configured.dedup && connector.dedup;
        let timestamp = || envelope.timestamp.as_deref().and_then(unix_millis).unwrap_or(i64::MIN);
        if since.is_some_and(|since| !has_ids || timestamp() < since) {
            return Decision::TooOld;
        }
        match record::record(body.clone(), Arc::clone(&connector.name), now, source) {
            Ok(record) => Decision::Store(Box::new(record)),
            Err(error) => Decision::Refused(error.to_string()),
        }
    }

    /// Returns why nothing may be filled now; `None` if it may.
    fn busy(&self, configured: &Configured) -> Option<String> {
        if let Some(error) = self.log.shortage() {
            return Some(format!("the log cannot grow: {error}"));
        }
        // What only `retain` keeps makes room for new events.
        let used = self.log.used_bytes().saturating_sub(self.log.removable_bytes());
        if used > configured.spool.max_size / 2 {
            return Some(format!(
                "undelivered events, spare segments and dead letters have {used} bytes, more than half of `spool.max_size`"
            ));
        }
        let (free, least) = (self.log.free_bytes(), configured.spool.min_free.saturating_mul(2));
        if free < least {
            return Some(format!("the disk has {free} bytes free, less than twice `spool.min_free`"));
        }
        if !configured.is_served {
            return None;
        }
        let last = self.log.tail().last_seq();
        let is_behind = |cursor: i64| last.saturating_sub(cursor) > MAX_BACKLOG;
        let behind = self.log.sinks().into_iter().find(|sink| is_behind(sink.cursor))?;
        Some(format!("sink {} has more than {MAX_BACKLOG} undelivered events", behind.name))
    }
}

/// Returns the answer to a request that the log could not carry out: the same request has to be sent again if it can later.
///
/// # Errors
///
/// [`RepairError`] with the error of the log, if a person has to act first.
fn busy_with(error: LogError) -> Result<FillReport, RepairError> {
    let busy = match error {
        LogError::Overloaded => "the log receives more events than it can store".to_owned(),
        // Stored without a look-up, an event could be delivered twice.
        LogError::Ids(error) => format!("the ids of received events cannot be looked up: {error}"),
        error => return Err(error.into()),
    };
    Ok(FillReport { busy: Some(busy), ..FillReport::default() })
}

/// Returns the connectors, or the source, to which the events of a project belong; more than one only if all name the project.
///
/// # Errors
///
/// Why there is none, or why it is not known which one it is.
fn connectors_of<'a>(configured: &'a Configured, project: &str) -> Result<Vec<&'a Accepting>, String> {
    let connectors = || configured.accepting.values();
    let named: Vec<_> = connectors().filter(|connector| connector.projects.contains(project)).collect();
    if !named.is_empty() {
        return Ok(named);
    }
    let open: Vec<_> = connectors().filter(|connector| connector.projects.is_empty()).collect();
    let project = project.escape_debug();
    match open.len() {
        0 => Err(format!("no connector accepts events of project {project}")),
        1 => Ok(open),
        _ => Err(format!(
            "several connectors accept events of project {project}; name it in the `projects` of one of them"
        )),
    }
}

/// Returns a time in RFC 3339 as Unix milliseconds; `None` for another text.
fn unix_millis(text: &str) -> Option<i64> {
    Timestamp::new(text).instant().map(|instant| instant.as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConnectorConfig, SourceConfig, SourceType};
    use dt_log::{Bounds, Log, LogOptions, StartAt};
    use dt_sink::clock::SystemClock;
    use dt_verify::{Secret, Verifier};

    fn connector(name: &str, projects: &[&str], events: &[&str]) -> ConnectorConfig {
        let secret = Secret::new("a-good-secret").expect("good");
        let verifier = Verifier::builder().secret("a", secret).build().expect("good");
        let set = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let path = format!("/{name}");
        ConnectorConfig {
            projects: set(projects),
            events: set(events),
            ..ConnectorConfig::new(name, &*path, verifier)
        }
    }

    fn config(connectors: Vec<ConnectorConfig>) -> Config {
        let mut config = Config::empty();
        config.connectors = connectors;
        config.spool.min_free = 0;
        config
    }

    fn repair(folder: &tempfile::TempDir, config: &Config) -> Repair {
        let bounds = Bounds { min_free: 0, ..LogOptions::default().bounds };
        let options = LogOptions { bounds, ..LogOptions::default() };
        let log = Arc::new(Log::open(folder.path(), options, Arc::new(SystemClock)).expect("opens"));
        log.register(&Arc::from("out"), StartAt::Now, Vec::new()).expect("registered");
        Repair::new(log, config, BTreeSet::new())
    }

    fn body(project: &str, event_type: &str, id: u32) -> String {
        format!(
            r#"{{"event":{{"eventId":"e{id}","eventType":"{event_type}","targetName":"projects/{project}/devices/d",
                "timestamp":"2026-01-01T00:00:00Z"}},"labels":{{}}}}"#
        )
    }

    fn fill(repair: &Repair, deliveries: &[String]) -> FillReport {
        let request = FillRequest { allow_duplicates: true, ..FillRequest::new(deliveries.to_vec()) };
        repair.fill(&request).expect("carried out")
    }

    #[test]
    fn events_are_stored_once_in_their_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let repair = repair(&folder, &config(vec![connector("plant", &[], &[])]));
        let events: Vec<_> = [3, 1, 2].map(|id| body("p", "touch", id)).into();
        let dry = FillRequest { dry_run: true, allow_duplicates: true, ..FillRequest::new(events.clone()) };
        assert_eq!(repair.fill(&dry).expect("compared").filled, 3);
        let report = fill(&repair, &events);
        assert_eq!((report.filled, report.known), (3, 0), "{report:?}");
        let report = fill(&repair, &[&events[..], &[body("p", "touch", 4), body("p", "touch", 4)]].concat());
        assert_eq!((report.filled, report.known), (1, 4), "{report:?}");
        assert_eq!(repair.fill(&dry).expect("compared").known, 3);
        let mut source = repair.log.source(repair.log.sink("out").expect("registered"));
        let read = source.read(10, i64::MAX).expect("read");
        let ids: Vec<_> = read.iter().map(|event| &*event.record.as_ref().expect("whole").event_id).collect();
        assert_eq!(ids, ["e3", "e1", "e2", "e4"]);
    }

    #[test]
    fn an_event_belongs_to_the_connector_of_its_project() {
        let folder = tempfile::tempdir().expect("a folder");
        let connectors = vec![
            connector("a", &["p"], &["touch"]),
            connector("b", &["p"], &["temperature"]),
            connector("c", &[], &[]),
        ];
        let repair = repair(&folder, &config(connectors));
        let decide = |body: &str| {
            let configured = repair.configured();
            match repair.decide_fill((&configured, ApiSource::Backfill, &[]), body, (0, None)) {
                Decision::Store(record) => record.connector.to_string(),
                Decision::Filtered => "filtered".to_owned(),
                Decision::Elsewhere(why) | Decision::Refused(why) => why,
                Decision::Known | Decision::TooOld | Decision::Failed(_) => {
                    "not decided by the project".to_owned()
                }
            }
        };
        assert_eq!(decide(&body("p", "touch", 1)), "a");
        assert_eq!(decide(&body("p", "temperature", 1)), "b");
        assert_eq!(decide(&body("p", "humidity", 1)), "filtered");
        assert_eq!(decide(&body("q", "humidity", 1)), "c");
        assert!(decide(r#"{"event":{"eventId":"e","eventType":"t"}}"#).contains("without a project"));
        assert!(decide("{").contains("JSON"), "{}", decide("{"));
        let large = body("p", &"x".repeat(MAX_DELIVERY), 1);
        assert!(decide(&large).contains("larger than 384 KiB"));
        // Received by the other connector of the project.
        fill(&repair, &[body("p", "temperature", 7)]);
        let other = body("p", "touch", 7);
        let decided = repair.decide_fill((&repair.configured(), ApiSource::Backfill, &[]), &other, (0, None));
        assert!(matches!(decided, Decision::Known));

        repair.set_config(
            &config(vec![connector("c", &[], &[]), connector("d", &[], &[])]),
            &[],
            BTreeSet::new(),
        );
        assert!(decide(&body("q", "touch", 1)).contains("several connectors accept events of project q"));
        repair.set_config(&config(vec![connector("a", &["p"], &[])]), &[], BTreeSet::new());
        assert!(decide(&body("q", "touch", 1)).contains("no connector accepts events of project q"));
    }

    #[test]
    fn an_old_event_may_have_been_received_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut without = connector("without", &["q"], &[]);
        without.dedup = false;
        let repair = repair(&folder, &config(vec![connector("plant", &["p"], &[]), without]));
        let at = 1_767_225_600_000; // 2026-01-01T00:00:00Z
        let is_too_old = |project: &str, since| {
            let (configured, body) = (repair.configured(), body(project, "touch", 1));
            let decision =
                repair.decide_fill((&configured, ApiSource::Backfill, &[]), &body, (at + 1, since));
            matches!(decision, Decision::TooOld)
        };
        assert!(!is_too_old("p", Some(at)));
        assert!(is_too_old("p", Some(at + 1)));
        assert!(!is_too_old("p", None));
        // The ids of a connector without de-duplication are not kept.
        assert!(is_too_old("q", Some(at)));
        assert!(!is_too_old("q", None));
    }

    #[test]
    fn an_event_is_known_under_every_name_of_a_connector() {
        let folder = tempfile::tempdir().expect("a folder");
        let events = [body("p", "touch", 1), body("p", "touch", 2)];
        let repair = repair(&folder, &config(vec![connector("plant", &[], &[])]));
        assert_eq!(fill(&repair, &events).filled, 2);
        for connectors in [
            vec![connector("plant-1", &[], &[])],
            // DT delivers to `open`, and fetched events belong to `named`.
            vec![connector("named", &["p"], &[]), connector("open", &[], &[])],
        ] {
            repair.set_config(&config(connectors), &[], BTreeSet::new());
            let report = fill(&repair, &events);
            assert_eq!((report.filled, report.known), (0, 2), "{report:?}");
        }
        repair.log.close();
    }

    #[test]
    fn what_only_retain_keeps_does_not_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || {
            let retain = std::time::Duration::from_secs(1 << 30);
            let bounds = Bounds { min_free: 0, retain, ..LogOptions::default().bounds };
            let options = LogOptions { bounds, segment_bytes: 64 << 10, ..LogOptions::default() };
            Arc::new(Log::open(folder.path(), options, Arc::new(SystemClock)).expect("opens"))
        };
        let log = open();
        let sink = log.register(&Arc::from("out"), StartAt::Now, Vec::new()).expect("registered");
        let mut config = config(vec![connector("plant", &[], &[])]);
        let events: Vec<_> = (0..1000).map(|id| body("p", "touch", id)).collect();
        let before = Repair::new(Arc::clone(&log), &config, BTreeSet::new());
        events.chunks(200).for_each(|events| assert_eq!(fill(&before, events).filled, 200));
        config.spool.max_size = log.used_bytes();
        before.set_config(&config, &[], BTreeSet::new());
        let busy = fill(&before, &events[..1]).busy.expect("the sink has received nothing");
        assert!(busy.contains("more than half of `spool.max_size`"), "{busy}");
        let progress =
            dt_log::Progress { sink: sink.number, cursor: 1000, checkpoint: None, ends_replay: false };
        log.advance(progress, true).expect("stored");
        // Stores the ids.
        log.close();
        drop((before, log));
        let log = open();
        assert!(log.used_bytes() > config.spool.max_size / 2);
        let report = fill(&Repair::new(Arc::clone(&log), &config, BTreeSet::new()), &events[..1]);
        assert_eq!((report.busy, report.known), (None, 1));
        log.close();
    }

    #[test]
    fn nothing_is_filled_while_ids_cannot_be_looked_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(vec![connector("plant", &[], &[])]);
        let before = repair(&folder, &config);
        fill(&before, &[body("p", "touch", 1)]);
        before.log.close();
        drop(before);
        let file = rusqlite::Connection::open(folder.path().join("ids.db")).expect("opens");
        assert!(file.execute("UPDATE pages_1 SET crc = crc + 1", []).expect("changed") > 0);
        drop(file);
        let repair = repair(&folder, &config);
        let report = fill(&repair, &[body("p", "touch", 1)]);
        let busy = report.busy.expect("nothing is filled");
        assert!(busy.contains("cannot be looked up"), "{busy}");
        assert_eq!((report.filled, repair.log.tail().last_seq()), (0, 1));
        repair.log.close();
    }

    #[test]
    fn nothing_is_filled_while_there_is_no_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let good = config(vec![connector("plant", &[], &[])]);
        let repair = repair(&folder, &good);
        let busy = || {
            let report = fill(&repair, &[body("p", "touch", 1)]);
            assert!(report.busy.is_none() || report.filled + report.known == 0, "{report:?}");
            report.busy.unwrap_or_default()
        };
        let mut full = good.clone();
        full.spool.max_size = 1;
        repair.set_config(&full, &[], BTreeSet::new());
        assert!(busy().contains("more than half of `spool.max_size`"));
        let mut small = good.clone();
        small.spool.min_free = u64::MAX / 4;
        repair.set_config(&small, &[], BTreeSet::new());
        assert!(busy().contains("less than twice `spool.min_free`"));
        repair.set_config(&good, &[], BTreeSet::new());
        assert_eq!(busy(), "");
        for part in 0..40 {
            let ids = (2 + part * 256)..(2 + (part + 1) * 256);
            fill(&repair, &ids.map(|id| body("p", "touch", id)).collect::<Vec<_>>());
        }
        assert_eq!(busy(), "sink out has more than 10000 undelivered events");
        repair.log.close();
    }

    #[test]
    fn streamed_events_are_stored_also_late_and_while_there_is_little_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config(Vec::new());
        config.sources.push(SourceConfig::with_defaults(
            Arc::from("src"),
            SourceType::Stream,
            "p".to_owned(),
        ));
        config.spool.max_size = 1;
        let repair = repair(&folder, &config);
        let stream = |ids: &[u32]| {
            let deliveries = ids.iter().map(|id| body("p", "touch", *id)).collect();
            repair.fill(&FillRequest { is_streamed: true, ..FillRequest::new(deliveries) }).expect("stored")
        };
        let report = stream(&[1, 2, 1]);
        assert_eq!((report.filled, report.known, report.busy), (2, 1, None), "the events are of last year");
        let report = stream(&[2, 3]);
        assert_eq!((report.filled, report.known), (1, 1));
        let mut source = repair.log.source(repair.log.sink("out").expect("registered"));
        let read = source.read(10, i64::MAX).expect("read");
        let read: Vec<_> = read.iter().map(|event| event.record.as_ref().expect("whole")).collect();
        assert_eq!(read.iter().map(|record| &*record.event_id).collect::<Vec<_>>(), ["e1", "e2", "e3"]);
        assert!(read.iter().all(
            |record| &*record.connector == "src" && record.provenance.source() == Some(ApiSource::Stream)
        ));
    }
}
