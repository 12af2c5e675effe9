//! An internal sink of the log: keeps the newest event of each device and event type in `cloud.db`, and removes events that have
//! come back from the list of missing ones.
//!
//! Its worker reads every accepted event as that of any sink does, so nothing is added to the way of a request, and the database
//! is complete up to the sink's cursor in the log. A process that is killed between the transaction and the cursor takes the same
//! events over again, which changes nothing. Its delivery never fails for good: while the database cannot be written, events
//! wait in the log, as long as there is room for new ones ([`LogOptions::gives_way`](dt_log::LogOptions::gives_way)). What was
//! missed meanwhile was not found, so afterwards that time is fetched.

use std::collections::HashMap;
use std::sync::Arc;

use super::store::{CloudError, CloudStore, HISTORY_MILLIS, NewWindow, NewestEvent};
pub use crate::spool_admin::NEWEST_SINK;
use dt_log::Log;
use dt_sink::clock::Clock;
use dt_sink::{OpenError, Outcome, Record, Sink};
use dt_verify::event::{Envelope, Timestamp};

/// How long the database may be unwritable before that time is fetched, in milliseconds: events that DT has had for as long, and
/// that have not arrived, are found otherwise.
const UNWRITTEN: i64 = 15 * 60_000;
/// How much earlier than the latest event that was taken over such a window begins, in milliseconds.
const EARLIER: i64 = 3_600_000;
/// The cause of such a window.
const UNRECORDED: &str = "unrecorded";

/// The sink.
#[derive(Debug)]
pub struct NewestSink {
    store: Arc<CloudStore>,
    clock: Arc<dyn Clock>,
    /// Since when the database cannot be written, in Unix milliseconds; `None` if it can.
    failing_since: Option<i64>,
}

impl NewestSink {
    /// Creates the sink for an open database.
    #[must_use]
    pub const fn new(store: Arc<CloudStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, failing_since: None }
    }

    /// Takes events over. If the database could not be written for a while, first opens windows for that time.
    fn take_over(&mut self, events: &[NewestEvent], accepted: &[(&str, &str)]) -> Result<(), CloudError> {
        let now = self.clock.unix_millis();
        let has_failed_long = self.failing_since.is_some_and(|since| now.saturating_sub(since) >= UNWRITTEN);
        let opened = if has_failed_long { fetch_since_latest(&self.store, now) } else { Ok(()) };
        let taken_over = opened.and_then(|()| self.store.take_over(events, accepted));
        match &taken_over {
            Ok(()) => self.failing_since = None,
            Err(_) => drop(self.failing_since.get_or_insert(now)),
        }
        taken_over
    }
}

/// Prepares the database for an opened log, before the sink is registered there. Without a position of the sink, the monitor was
/// off, and the database begins again. If the log has removed events that were not taken over, their time is fetched. `now` is in
/// Unix milliseconds. Blocks.
///
/// # Errors
///
/// [`CloudError`] if the database cannot be changed.
pub fn prepare(store: &CloudStore, log: &Log, now: i64) -> Result<(), CloudError> {
    match log.sink(NEWEST_SINK) {
        None if store.is_new() => Ok(()),
        None => store.begin_again(),
        Some(sink) if sink.cursor < log.before_oldest() => fetch_since_latest(store, now),
        Some(_) => Ok(()),
    }
}

/// Opens a window for each watched project, from its latest event that was taken over until `now`, in Unix milliseconds. Blocks.
fn fetch_since_latest(store: &CloudStore, now: i64) -> Result<(), CloudError> {
    for (project, baseline, latest) in store.latest()? {
        let history = now.saturating_sub(HISTORY_MILLIS);
        let from = latest.min(now).saturating_sub(EARLIER).max(baseline).max(history);
        let window = NewWindow { project, from, until: now, cause: UNRECORDED.to_owned(), devices: None };
        // The same window may have been opened before a failure.
        if from < now && store.find_open_window(&window, None)?.is_none() {
            store.add_window(&window, now)?;
            let project = &window.project;
            tracing::warn!(%project, "cloud.db did not have all accepted events; events that were missed meanwhile are fetched");
        }
    }
    Ok(())
}

impl Sink for NewestSink {
    fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
        Ok(())
    }

    fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
        let mut newest: HashMap<_, (i64, &Record)> = HashMap::new();
        for record in batch {
            let Some((key, timestamp)) = key_and_time(record) else { continue };
            let newer = newest.entry(key).or_insert((timestamp, record));
            if newer.0 < timestamp {
                *newer = (timestamp, record);
            }
        }
        let events: Vec<NewestEvent> =
            newest.into_iter().map(|(key, event)| newest_event(key, event)).collect();
        let accepted: Vec<(&str, &str)> =
            batch.iter().map(|record| (&*record.connector, &*record.event_id)).collect();
        match self.take_over(&events, &accepted) {
            Ok(()) => Outcome::delivered(batch.len()),
            Err(error) => Outcome::retry(batch.len(), &error.to_string()),
        }
    }

    fn max_batch(&self) -> usize {
        1024
    }
}

/// The project, the device and the type of an event.
type Key<'a> = (&'a str, &'a str, &'a str);

/// Returns the key of an event and its `timestamp` in Unix milliseconds; `None` if it has no device, no project or no time.
fn key_and_time(record: &Record) -> Option<(Key<'_>, i64)> {
    let (project, device) = (record.project.as_ref()?, record.device.as_ref()?);
    let envelope = Envelope::parse_stored(&record.body).ok()?;
    let timestamp = Timestamp::new(envelope.timestamp.as_deref()?).instant()?.as_millisecond();
    Some(((project, device, &record.event_type), timestamp))
}

fn newest_event((project, device, event_type): Key<'_>, (timestamp, record): (i64, &Record)) -> NewestEvent {
    NewestEvent {
        project: project.to_owned(),
        device: device.to_owned(),
        event_type: event_type.to_owned(),
        timestamp,
        event_id: record.event_id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::store::MissingEvent;
    use crate::spool_admin::record::record;
    use dt_log::{Bounds, Log, LogOptions, Progress, SinkSet, StartAt};
    use dt_sink::clock::{ManualClock, SystemClock};
    use dt_sink::record::ApiSource;

    fn event(number: u32) -> Arc<Record> {
        let body = format!(
            r#"{{"event":{{"eventId":"e{number}","eventType":"touch","targetName":"projects/p/devices/d",
                "timestamp":"2026-01-01T00:00:{number:02}Z"}}}}"#
        );
        Arc::new(record(body.into(), Arc::from("plant"), 0, ApiSource::Backfill).expect("a delivery"))
    }

    fn newest(store: &CloudStore) -> Option<String> {
        store.newest("p", "d", "touch").expect("read").map(|event| event.event_id)
    }

    /// The process dies after the transaction, and before the cursor is stored.
    #[test]
    fn a_batch_that_is_taken_over_twice_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let bounds = Bounds { min_free: 0, ..LogOptions::default().bounds };
        let options = || LogOptions { bounds: bounds.clone(), ..LogOptions::default() };
        let open = || Log::open(folder.path(), options(), Arc::new(SystemClock)).expect("opens");
        let missing = |number: u32| MissingEvent {
            connector: "plant".to_owned(),
            event_id: format!("e{number}"),
            project: "p".to_owned(),
            device: "d".to_owned(),
            timestamp: 0,
            at: 0,
        };
        let log = open();
        let state = log.register(&Arc::from(NEWEST_SINK), StartAt::Now, Vec::new()).expect("registered");
        let first = state.cursor;
        for number in [1, 3, 2] {
            let sinks = SinkSet::new([state.number]);
            log.append_blocking(event(number), sinks, true).expect("stored");
        }
        let store = Arc::new(CloudStore::open(folder.path()).expect("opened"));
        store.add_missing(&[missing(1), missing(9)], 0).expect("stored");
        let batch = [event(1), event(3), event(2)];
        let mut sink = NewestSink::new(Arc::clone(&store), Arc::new(SystemClock));
        assert_eq!(sink.deliver(&batch), Outcome::delivered(3));
        log.close();
        drop((sink, store, log));

        let log = open();
        let state = log.sink(NEWEST_SINK).expect("registered");
        assert_eq!(state.cursor, first, "the same events come again");
        let store = Arc::new(CloudStore::open(folder.path()).expect("opened"));
        assert_eq!(newest(&store).as_deref(), Some("e3"));
        let mut sink = NewestSink::new(Arc::clone(&store), Arc::new(SystemClock));
        assert_eq!(sink.deliver(&batch), Outcome::delivered(3));
        let cursor = log.tail().last_seq();
        let progress = Progress { sink: state.number, cursor, checkpoint: None, ends_replay: false };
        log.advance(progress, true).expect("stored");
        assert_eq!(newest(&store).as_deref(), Some("e3"));
        assert_eq!(store.missing_before(i64::MAX, 10).expect("read"), [missing(9)]);
        log.close();
    }

    #[test]
    fn an_event_without_device_or_time_is_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(CloudStore::open(folder.path()).expect("opened"));
        let odd = |event: &str| {
            let body = format!(r#"{{"event":{{"eventId":"x","eventType":"touch"{event}}}}}"#);
            Arc::new(record(body.into(), Arc::from("plant"), 0, ApiSource::Backfill).expect("a delivery"))
        };
        let batch = [
            odd(""),
            odd(r#","targetName":"projects/p/devices/d""#),
            odd(r#","targetName":"projects/p/devices/d","timestamp":"yesterday""#),
            odd(r#","timestamp":"2026-01-01T00:00:00Z""#),
        ];
        let mut sink = NewestSink::new(Arc::clone(&store), Arc::new(SystemClock));
        assert_eq!(sink.deliver(&batch), Outcome::delivered(4));
        assert_eq!(newest(&store), None);
    }

    #[test]
    fn what_was_missed_while_the_database_could_not_be_written_is_fetched() {
        const START: i64 = 1_767_225_600_000; // 2026-01-01T00:00:00Z
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(CloudStore::open(folder.path()).expect("opened"));
        store.baseline("p", START - 2 * EARLIER).expect("stored");
        let clock = Arc::new(ManualClock::at(START + 60_000));
        let mut sink = NewestSink::new(Arc::clone(&store), Arc::clone(&clock) as Arc<dyn Clock>);
        assert_eq!(sink.deliver(&[event(1)]), Outcome::delivered(1));
        let file = rusqlite::Connection::open(store.path()).expect("opens");
        let mut fails_for = |millis: i64, number: u32| {
            file.execute_batch("ALTER TABLE newest RENAME TO away").expect("renamed");
            assert_ne!(sink.deliver(&[event(number)]), Outcome::delivered(1));
            clock.set(clock.unix_millis() + millis);
            assert_ne!(sink.deliver(&[event(number)]), Outcome::delivered(1));
            file.execute_batch("ALTER TABLE away RENAME TO newest").expect("renamed");
            assert_eq!(sink.deliver(&[event(number)]), Outcome::delivered(1));
            store.open_windows(10).expect("read")
        };
        assert_eq!(fails_for(UNWRITTEN - 1, 2), []);
        let windows = fails_for(UNWRITTEN, 3);
        let [window] = &windows[..] else { panic!("{windows:?}") };
        assert_eq!((&*window.project, &*window.cause, &window.devices), ("p", UNRECORDED, &None));
        assert_eq!((window.from, window.until), (START + 2000 - EARLIER, clock.unix_millis()));
        assert_eq!(newest(&store).as_deref(), Some("e3"));
        assert_eq!(fails_for(UNWRITTEN - 1, 4).len(), 1);
    }

    #[test]
    fn the_database_begins_again_if_the_log_does_not_know_the_sink() {
        let folder = tempfile::tempdir().expect("a folder");
        let bounds = Bounds { min_free: 0, ..LogOptions::default().bounds };
        let options = LogOptions { bounds, ..LogOptions::default() };
        let log = Log::open(folder.path(), options, Arc::new(SystemClock)).expect("opens");
        let open = || CloudStore::open(folder.path()).expect("opened");
        let store = open();
        store.baseline("p", 10).expect("stored");
        prepare(&store, &log, 15).expect("prepared");
        assert_eq!(store.baseline("p", 20).expect("read"), 10, "the file is new");
        drop(store);
        let store = open();
        // Also a second time, if the first start ends before the sink is registered.
        for now in [20, 30] {
            prepare(&store, &log, now).expect("prepared");
            assert_eq!(store.baseline("p", now).expect("read"), now);
        }
        log.register(&Arc::from(NEWEST_SINK), StartAt::Now, Vec::new()).expect("registered");
        prepare(&store, &log, 40).expect("prepared");
        assert_eq!(store.baseline("p", 40).expect("read"), 30);
        log.close();
    }
}
