//! Finds a record because of which the broker may have closed the connection, and counts consecutive rejections.
//!
//! A connection may end because of a message, and may end for any other reason: a broker that restarts, a network that fails. Only
//! the first is a reason to give a record up, and MQTT 3.1.1 has no packet that tells the two apart. So a record is the cause only
//! if the connection ended three times while this record alone was in flight, and, unless the broker stated a fault of the message,
//! events of other devices were published in between, on connections that did not end.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use dt_sink::Fate;
use dt_sink::record::Record;

use crate::failure::Blame;
use crate::{MAX_REJECTED, MAX_STRIKES};

/// The records of a batch that are published now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// All records.
    All,
    /// Only the suspect, the record at this position, on a new connection.
    Suspect(usize),
    /// Only the records of other devices than the suspect's.
    Others,
}

/// Finds the record because of which the broker closes the connection.
///
/// After the end of a connection, the records that were in flight are published one at a time. The record at which the connection
/// ends again is the suspect. From then on, the suspect alone and events of other devices are published in turn.
///
/// In mode `spool` these records are the first of the next batch. In mode `direct` each returns when DT sends it again, and batches
/// without it come in between.
#[derive(Debug, Default)]
pub struct Suspicion {
    /// The ids of the events that are published one message at a time: those that were in flight when the last connection ended.
    alone: HashSet<Box<str>>,
    suspect: Option<Suspect>,
}

/// The record that was in flight alone when the connection ended.
#[derive(Debug)]
struct Suspect {
    /// The body of the record, which identifies it, also when DT sends it again in mode `direct`.
    body: Bytes,
    device: Option<ByteString>,
    /// The number of connections that ended while this record was in flight alone.
    strikes: u32,
    /// Whether events of other devices must be published before the next strike counts.
    awaits_others: bool,
}

impl Suspect {
    fn is(&self, record: &Record) -> bool {
        self.body == record.body
    }
}

impl Suspicion {
    /// Returns the number of records, from the first one of a batch on, that are published one message at a time.
    pub fn alone(&self, batch: &[Arc<Record>]) -> usize {
        let last = batch.iter().rposition(|record| self.alone.contains(&*record.event_id));
        last.map_or(0, |last| last.saturating_add(1))
    }

    /// Returns which records of a batch are published now.
    pub fn turn(&self, batch: &[Arc<Record>]) -> Turn {
        let Some(suspect) = &self.suspect else { return Turn::All };
        match batch.iter().position(|record| suspect.is(record)) {
            Some(position) if !suspect.awaits_others => Turn::Suspect(position),
            Some(_) if batch.iter().any(|record| record.device != suspect.device) => Turn::Others,
            // Without events of other devices the suspect is tried again, since the network may be back.
            _ => Turn::All,
        }
    }

    /// Returns whether a record is published now.
    pub fn has_turn(&self, turn: Turn, position: usize, record: &Record) -> bool {
        match turn {
            Turn::All => true,
            Turn::Suspect(suspect) => position == suspect,
            Turn::Others => self.suspect.as_ref().is_none_or(|suspect| record.device != suspect.device),
        }
    }

    /// Records that the connection ended with these records in flight. `was_alone` says that they were published one message at a
    /// time. Returns `true` if the first of them is the cause.
    pub fn ended_at(&mut self, in_flight: &[&Arc<Record>], was_alone: bool, blame: Blame) -> bool {
        self.alone = in_flight.iter().map(|record| Box::from(&*record.event_id)).collect();
        let Some(record) = in_flight.first() else { return false };
        if !was_alone {
            // Other records do not go through either.
            self.suspect = None;
            return false;
        }
        let suspect = match self.suspect.take().filter(|suspect| suspect.is(record)) {
            // Nothing shows that the connection did not end for another reason.
            Some(suspect) if suspect.awaits_others && blame != Blame::Message => suspect,
            suspect => Suspect {
                body: record.body.clone(),
                device: record.device.clone(),
                strikes: suspect.map_or(0, |suspect| suspect.strikes).saturating_add(1),
                awaits_others: blame != Blame::Message,
            },
        };
        self.suspect.insert(suspect).strikes >= MAX_STRIKES
    }

    /// Records that a record was published on a connection that did not end. `is_delivered` says that the broker accepted it.
    pub fn published(&mut self, record: &Record, is_delivered: bool) {
        self.alone.remove(&*record.event_id);
        if let Some(suspect) =
            self.suspect.as_mut().filter(|suspect| is_delivered && record.device != suspect.device)
        {
            suspect.awaits_others = false;
        }
    }

    /// Records that a record has a result.
    pub fn done(&mut self, record: &Record) {
        self.suspect.take_if(|suspect| suspect.is(record));
    }
}

/// Counts consecutive rejections. A broker that rejects everything must not cause all events to be dead-lettered.
#[derive(Debug, Default)]
pub struct Rejections(u32);

impl Rejections {
    /// Records that a record was delivered, which ends a series of rejections.
    pub fn delivered(&mut self) {
        self.0 = 0;
    }

    /// Returns the fate of a record that the broker rejects.
    pub fn rejected(&mut self, error: String) -> Fate {
        if self.0 >= MAX_REJECTED {
            let error = format!("{error}; {MAX_REJECTED} records in a row were rejected; check the broker");
            return Fate::Retry { error };
        }
        self.0 = self.0.saturating_add(1);
        Fate::Rejected { error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records with these ids, each of the device whose name is the first character.
    fn batch(ids: &[&str]) -> Vec<Arc<Record>> {
        let record = |id: &&str| Record {
            body: Bytes::copy_from_slice(id.as_bytes()),
            device: Some(id.get(..1).unwrap_or_default().into()),
            ..Record::sample(id)
        };
        ids.iter().map(|id| Arc::new(record(id))).collect()
    }

    /// Ends the connection in a batch from a position on.
    fn end(suspicion: &mut Suspicion, batch: &[Arc<Record>], position: usize, blame: Blame) -> bool {
        let was_alone = position < suspicion.alone(batch);
        suspicion.ended_at(&batch.iter().skip(position).collect::<Vec<_>>(), was_alone, blame)
    }

    /// Publishes a batch to the end.
    fn publish(suspicion: &mut Suspicion, batch: &[Arc<Record>]) {
        batch.iter().for_each(|record| suspicion.published(record, true));
        batch.iter().for_each(|record| suspicion.done(record));
    }

    #[test]
    fn a_record_is_the_cause_if_each_connection_ends_at_it_and_others_go_through() {
        let batch = batch(&["a", "b", "c", "b2"]);
        let (suspect, others) = (&batch[1..2], [0, 2].map(|position| Arc::clone(&batch[position])));
        let mut suspicion = Suspicion::default();
        assert_eq!((suspicion.alone(&batch), suspicion.turn(&batch)), (0, Turn::All));
        // With others in flight, none of them is suspected yet.
        assert!(!end(&mut suspicion, &batch[..3], 0, Blame::Unknown));
        assert_eq!((suspicion.alone(&batch), suspicion.turn(&batch)), (3, Turn::All));
        // The one before it was acknowledged.
        assert!(!end(&mut suspicion, &batch[..3], 1, Blame::Unknown));
        suspicion.done(&batch[0]);
        for strike in 2..=MAX_STRIKES {
            assert_eq!(suspicion.turn(&batch), Turn::Others);
            let has_turn = |position: usize| suspicion.has_turn(Turn::Others, position, &batch[position]);
            assert_eq!([0, 1, 2, 3].map(has_turn), [true, false, true, false]);
            publish(&mut suspicion, &others);
            assert_eq!((suspicion.alone(suspect), suspicion.turn(&batch)), (1, Turn::Suspect(1)));
            assert_eq!(end(&mut suspicion, suspect, 0, Blame::Unknown), strike == MAX_STRIKES);
        }
        suspicion.done(&batch[1]);
        assert_eq!(suspicion.turn(&batch), Turn::All);
    }

    #[test]
    fn a_record_that_returns_after_batches_without_it_keeps_its_count() {
        for blame in [Blame::Unknown, Blame::Message] {
            let (suspect, others) = (batch(&["a"]), batch(&["b", "c"]));
            let mut suspicion = Suspicion::default();
            // The connection may have ended before.
            assert!(!end(&mut suspicion, &suspect, 0, blame));
            for strike in 1..=MAX_STRIKES {
                publish(&mut suspicion, &others);
                assert_eq!(suspicion.alone(&others), 0);
                assert_eq!(suspicion.alone(&suspect), 1, "{strike}");
                assert_eq!(end(&mut suspicion, &suspect, 0, blame), strike == MAX_STRIKES, "{strike}");
            }
        }
    }

    #[test]
    fn without_others_that_go_through_no_record_is_the_cause() {
        let batch = batch(&["a", "b", "a2"]);
        let mut suspicion = Suspicion::default();
        assert!(!end(&mut suspicion, &batch[..1], 0, Blame::Unknown));
        for _ in 0..100 {
            assert!(!end(&mut suspicion, &batch[..1], 0, Blame::Unknown));
            // There are no others.
            assert_eq!(suspicion.turn(&batch[..1]), Turn::All);
            // The device's own events show nothing.
            publish(&mut suspicion, &batch[2..]);
        }
        for _ in 0..100 {
            // The broker took none of the others.
            suspicion.published(&batch[1], false);
            assert_eq!(suspicion.turn(&batch[..2]), Turn::Others);
        }
        for _ in 0..100 {
            // Connections also end at the others.
            assert!(!end(&mut suspicion, &batch[1..2], 0, Blame::Unknown));
            assert!(!end(&mut suspicion, &batch[..1], 0, Blame::Unknown));
        }
    }

    #[test]
    fn a_fault_that_the_broker_states_needs_no_others() {
        let batch = batch(&["a"]);
        let mut suspicion = Suspicion::default();
        assert!(!end(&mut suspicion, &batch, 0, Blame::Message));
        for strike in 1..=MAX_STRIKES {
            assert_eq!(end(&mut suspicion, &batch, 0, Blame::Message), strike == MAX_STRIKES);
        }
    }

    #[test]
    fn a_broker_that_rejects_everything_is_waited_for() {
        let mut rejections = Rejections::default();
        for _ in 0..MAX_REJECTED {
            assert!(matches!(rejections.rejected("no".to_owned()), Fate::Rejected { .. }));
        }
        for _ in 0..3 {
            let Fate::Retry { error } = rejections.rejected("no".to_owned()) else { panic!("rejected") };
            assert!(error.contains("10 records in a row"), "{error}");
        }
        rejections.delivered();
        assert!(matches!(rejections.rejected("no".to_owned()), Fate::Rejected { .. }));
    }
}
