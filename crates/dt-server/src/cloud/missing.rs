//! Notes the authentic events that were answered 503, so that those that do not come back are fetched.
//!
//! The path of a request only puts a note into a queue of limited size, and only if the event was not stored. Events that do not
//! fit into the queue are covered by a window of time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::mpsc;

use super::store::MissingEvent;
use dt_sink::clock::Clock;
use dt_sink::record::Record;
use dt_verify::event::{Envelope, Timestamp};

/// The largest number of notes in the queue.
const MAX_QUEUED: usize = 4096;

/// The receiving end of the notes.
#[derive(Debug)]
pub struct MissingNotes {
    pub notes: mpsc::Receiver<MissingEvent>,
    dropped_since: Arc<AtomicI64>,
}

/// The sending end of the notes.
#[derive(Debug, Clone)]
pub struct MissingSender {
    notes: mpsc::Sender<MissingEvent>,
    /// The time of the first event that did not fit into the queue, in Unix milliseconds; `i64::MAX` if all did.
    dropped_since: Arc<AtomicI64>,
    clock: Arc<dyn Clock>,
}

/// Creates a queue of notes.
pub fn queue(clock: Arc<dyn Clock>) -> (MissingSender, MissingNotes) {
    let (sender, notes) = mpsc::channel(MAX_QUEUED);
    let dropped_since = Arc::new(AtomicI64::new(i64::MAX));
    let sender = MissingSender { notes: sender, dropped_since: Arc::clone(&dropped_since), clock };
    (sender, MissingNotes { notes, dropped_since })
}

impl MissingNotes {
    /// Returns the time of the first event that did not fit into the queue since the last call, in Unix milliseconds; `None` if
    /// all did.
    pub fn take_dropped(&self) -> Option<i64> {
        Some(self.dropped_since.swap(i64::MAX, Ordering::SeqCst)).filter(|at| *at != i64::MAX)
    }

    /// Puts back a time that [`take_dropped`](Self::take_dropped) returned.
    pub fn put_back(&self, at: i64) {
        self.dropped_since.fetch_min(at, Ordering::SeqCst);
    }
}

impl MissingSender {
    fn note(&self, record: &Record) {
        let at = self.clock.unix_millis();
        // An event without a device is in no history.
        let Some(event) = missing_of(record, at) else { return };
        let timestamp = event.timestamp;
        if self.notes.try_send(event).is_err() {
            self.dropped_since.fetch_min(timestamp, Ordering::SeqCst);
        }
    }
}

fn missing_of(record: &Record, at: i64) -> Option<MissingEvent> {
    let (project, device) = (record.project.as_ref()?, record.device.as_ref()?);
    let envelope = Envelope::parse_stored(&record.body).ok()?;
    let timestamp = Timestamp::new(envelope.timestamp.as_deref()?).instant()?.as_millisecond();
    Some(MissingEvent {
        connector: record.connector.to_string(),
        event_id: record.event_id.to_string(),
        project: project.to_string(),
        device: device.to_string(),
        timestamp,
        at,
    })
}

/// An event that is being stored. It is noted as missing if this is dropped before [`disarm`](Self::disarm): the log has
/// failed, or the request has reached its deadline.
#[derive(Debug)]
pub struct Unstored<'a>(Option<(&'a MissingSender, Arc<Record>)>);

impl<'a> Unstored<'a> {
    pub fn new(sender: &'a MissingSender, record: &Arc<Record>) -> Self {
        Self(Some((sender, Arc::clone(record))))
    }

    /// Forgets the event: it is stored, or was before.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Unstored<'_> {
    fn drop(&mut self) {
        if let Some((sender, record)) = self.0.take() {
            sender.note(&record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool_admin::record::record;
    use dt_sink::clock::ManualClock;
    use dt_sink::record::ApiSource;

    fn event(number: usize) -> Arc<Record> {
        let body = format!(
            r#"{{"event":{{"eventId":"e{number}","eventType":"touch","targetName":"projects/p/devices/d",
                "timestamp":"1970-01-01T00:00:07Z"}}}}"#
        );
        Arc::new(record(body.into(), Arc::from("plant"), 0, ApiSource::Backfill).expect("a delivery"))
    }

    #[test]
    fn only_an_event_that_was_not_stored_is_noted() {
        let (sender, mut notes) = queue(Arc::new(ManualClock::at(9_000)));
        Unstored::new(&sender, &event(0)).disarm();
        drop(Unstored::new(&sender, &event(1)));
        let noted = notes.notes.try_recv().expect("a note");
        assert_eq!((&*noted.event_id, noted.timestamp, noted.at), ("e1", 7_000, 9_000));
        assert!(notes.notes.try_recv().is_err());
        assert_eq!(notes.take_dropped(), None);
        for number in 0..=MAX_QUEUED {
            drop(Unstored::new(&sender, &event(number)));
        }
        assert_eq!((notes.take_dropped(), notes.take_dropped()), (Some(7_000), None));
        notes.put_back(5);
        assert_eq!(notes.take_dropped(), Some(5));
    }
}
