//! A record because of which the broker may have closed the connection, and rejections in a row.

use bytes::Bytes;
use dt_sink::Fate;
use dt_sink::record::Record;

use crate::{MAX_REJECTED, MAX_STRIKES};

/// After a broker closed the connection, the records that were in flight are published one message at a time. So when it closes
/// the connection again, one record alone may be the cause.
#[derive(Debug, Default)]
pub struct Suspect {
    /// How many of the next records are published one message at a time.
    alone: usize,
    /// The body of the record that was alone when the broker closed the connection: it identifies the record.
    body: Option<Bytes>,
    /// How often the broker closed the connection while this record was alone.
    strikes: u32,
}

impl Suspect {
    /// Returns how many of the first records of a batch are published one message at a time.
    pub const fn alone(&self) -> usize {
        self.alone
    }

    /// Notes that the broker closed the connection with `in_flight` records in flight, of which `record` was the first, the
    /// one at `position` of its batch. Returns `true` if the record is the cause.
    pub fn closed_at(&mut self, record: &Record, position: usize, in_flight: usize) -> bool {
        let was_alone = position < self.alone;
        self.alone = in_flight;
        if !was_alone {
            return false;
        }
        if self.body.as_ref().is_none_or(|body| *body != record.body) {
            (self.body, self.strikes) = (Some(record.body.clone()), 0);
        }
        self.strikes = self.strikes.saturating_add(1);
        self.strikes >= MAX_STRIKES
    }

    /// Notes that a batch was published to its end.
    pub fn published(&mut self) {
        self.alone = 0;
    }

    /// Notes that a record has a result.
    pub fn done(&mut self, record: &Record) {
        if self.body.as_ref().is_some_and(|body| *body == record.body) {
            (self.body, self.strikes) = (None, 0);
        }
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

    use std::sync::Arc;

    fn batch(ids: &[&str]) -> Vec<Arc<Record>> {
        let record = |id: &&str| Record { body: Bytes::copy_from_slice(id.as_bytes()), ..Record::sample(id) };
        ids.iter().map(|id| Arc::new(record(id))).collect()
    }

    #[test]
    fn a_record_is_the_cause_if_the_broker_closes_each_time_it_is_alone() {
        let batch = batch(&["a", "b", "c"]);
        let mut suspect = Suspect::default();
        assert_eq!(suspect.alone(), 0);
        // With others in flight, none of them is suspected yet.
        assert!(!suspect.closed_at(&batch[0], 0, 3));
        assert_eq!(suspect.alone(), 3);
        // The one before it was acknowledged.
        assert!(!suspect.closed_at(&batch[1], 1, 2));
        for _ in 2..MAX_STRIKES {
            assert!(!suspect.closed_at(&batch[1], 0, 2));
        }
        suspect.done(&batch[0]);
        assert!(suspect.closed_at(&batch[1], 0, 1));
        suspect.done(&batch[1]);
        assert!(!suspect.closed_at(&batch[1], 0, 1));
        suspect.published();
        assert_eq!(suspect.alone(), 0);
    }

    #[test]
    fn another_suspect_starts_without_strikes() {
        let batch = batch(&["a", "b"]);
        let mut suspect = Suspect::default();
        for _ in 0..MAX_STRIKES {
            assert!(!suspect.closed_at(&batch[0], 0, 1));
        }
        assert!(!suspect.closed_at(&batch[1], 0, 1));
        assert!(!suspect.closed_at(&batch[0], 0, 1));
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
