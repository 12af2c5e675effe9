//! A record because of which the broker may have closed the connection, and rejections in a row.
//!
//! A connection may end because of a message, and may end for any other reason: a broker that restarts, a network that fails. Only
//! the first is a reason to give a record up, and MQTT 3.1.1 has no packet that tells the two apart. So a record is the cause only
//! if the connection ended three times while this record alone was in flight, and, unless the broker stated a fault of the message,
//! events of other devices were published in between, on connections that did not end.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use dt_sink::Fate;
use dt_sink::record::Record;

use crate::failure::Blame;
use crate::{MAX_REJECTED, MAX_STRIKES};

/// The records of a batch that are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// All of them.
    All,
    /// Only the suspect, the record at this position, on a new connection.
    Suspect(usize),
    /// Only those of other devices than the suspect's.
    Others,
}

/// Finds the record because of which the broker closes the connection.
///
/// After the end of a connection, the records that were in flight are published one at a time. The record at which the connection
/// ends again is the suspect. From then on, the suspect alone and events of other devices are published in turn.
#[derive(Debug, Default)]
pub struct Suspicion {
    /// How many of the next records are published one message at a time.
    alone: usize,
    suspect: Option<Suspect>,
}

/// The record that was alone when the connection ended.
#[derive(Debug)]
struct Suspect {
    /// The body identifies the record, also when it is sent again in mode `direct`.
    body: Bytes,
    device: Option<ByteString>,
    /// How often the connection ended while this record was alone.
    strikes: u32,
    /// Whether events of other devices are to be published before the next strike counts.
    awaits_others: bool,
}

impl Suspect {
    fn is(&self, record: &Record) -> bool {
        self.body == record.body
    }
}

impl Suspicion {
    /// Returns how many of the first records of a batch are published one message at a time.
    pub const fn alone(&self) -> usize {
        self.alone
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

    /// Returns whether a record has its turn.
    pub fn has_turn(&self, turn: Turn, position: usize, record: &Record) -> bool {
        match turn {
            Turn::All => true,
            Turn::Suspect(suspect) => position == suspect,
            Turn::Others => self.suspect.as_ref().is_none_or(|suspect| record.device != suspect.device),
        }
    }

    /// Notes that the connection ended with `in_flight` records in flight, of which `record` was the first, the one at `position`
    /// of those that were published. Returns `true` if the record is the cause.
    pub fn ended_at(&mut self, record: &Record, position: usize, in_flight: usize, blame: Blame) -> bool {
        let was_alone = position < self.alone;
        self.alone = in_flight;
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

    /// Notes that records were published to the end; `is_any_delivered` unless the broker took none of them.
    pub fn published(&mut self, turn: Turn, is_any_delivered: bool) {
        self.alone = 0;
        if let Some(suspect) = self.suspect.as_mut().filter(|_| turn == Turn::Others && is_any_delivered) {
            suspect.awaits_others = false;
            self.alone = 1;
        }
    }

    /// Notes that a record has a result.
    pub fn done(&mut self, record: &Record) {
        self.suspect.take_if(|suspect| suspect.is(record));
    }
}

/// Counts rejections in a row. A broker that rejects everything must not move the whole stream to the dead letters.
#[derive(Debug, Default)]
pub struct Rejections(u32);

impl Rejections {
    /// Notes a delivered record.
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

    #[test]
    fn a_record_is_the_cause_if_each_connection_ends_at_it_and_others_go_through() {
        let batch = batch(&["a", "b", "c", "b2"]);
        let mut suspicion = Suspicion::default();
        assert_eq!((suspicion.alone(), suspicion.turn(&batch)), (0, Turn::All));
        // With others in flight, none of them is suspected yet.
        assert!(!suspicion.ended_at(&batch[0], 0, 3, Blame::Unknown));
        assert_eq!((suspicion.alone(), suspicion.turn(&batch)), (3, Turn::All));
        // The one before it was acknowledged.
        assert!(!suspicion.ended_at(&batch[1], 1, 2, Blame::Unknown));
        suspicion.done(&batch[0]);
        for strike in 2..=MAX_STRIKES {
            assert_eq!(suspicion.turn(&batch), Turn::Others);
            let has_turn = |position: usize| suspicion.has_turn(Turn::Others, position, &batch[position]);
            assert_eq!([0, 1, 2, 3].map(has_turn), [true, false, true, false]);
            suspicion.published(Turn::Others, true);
            assert_eq!((suspicion.alone(), suspicion.turn(&batch)), (1, Turn::Suspect(1)));
            assert_eq!(suspicion.ended_at(&batch[1], 0, 1, Blame::Unknown), strike == MAX_STRIKES);
        }
        suspicion.done(&batch[1]);
        assert_eq!(suspicion.turn(&batch), Turn::All);
    }

    #[test]
    fn without_others_that_go_through_no_record_is_the_cause() {
        let batch = batch(&["a", "b"]);
        let mut suspicion = Suspicion::default();
        assert!(!suspicion.ended_at(&batch[0], 0, 1, Blame::Unknown));
        for _ in 0..100 {
            assert!(!suspicion.ended_at(&batch[0], 0, 1, Blame::Unknown));
            // There are no others.
            assert_eq!(suspicion.turn(&batch[..1]), Turn::All);
        }
        for _ in 0..100 {
            // The broker took none of the others.
            suspicion.published(Turn::Others, false);
            assert_eq!(suspicion.turn(&batch), Turn::Others);
        }
        for _ in 0..100 {
            // Connections also end at the others.
            assert!(!suspicion.ended_at(&batch[1], 0, 1, Blame::Unknown));
            assert!(!suspicion.ended_at(&batch[0], 0, 1, Blame::Unknown));
        }
    }

    #[test]
    fn a_fault_that_the_broker_states_needs_no_others() {
        let batch = batch(&["a"]);
        let mut suspicion = Suspicion::default();
        assert!(!suspicion.ended_at(&batch[0], 0, 1, Blame::Message));
        for strike in 1..=MAX_STRIKES {
            assert_eq!(suspicion.ended_at(&batch[0], 0, 1, Blame::Message), strike == MAX_STRIKES);
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
