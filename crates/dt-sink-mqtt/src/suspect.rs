//! A record because of which the broker may have closed the connection, and rejections in a row.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use dt_sink::Fate;
use dt_sink::record::Record;

use crate::{MAX_REJECTED, MAX_STRIKES};

/// The record that was the first without an acknowledgement when the broker closed the connection. It is published alone, which
/// shows whether it is the cause.
#[derive(Debug, Default)]
pub struct Suspect {
    /// The body of the record: its memory identifies the record.
    body: Option<Bytes>,
    /// How often the broker closed the connection while it was alone.
    strikes: u32,
}

impl Suspect {
    /// Returns the parts in which a batch is published: the suspect is a part of its own.
    pub fn parts(&self, batch: &[Arc<Record>]) -> Vec<Range<usize>> {
        let is_suspect = |record: &Arc<Record>| self.body.as_ref().is_some_and(|body| *body == record.body);
        let end = batch.len();
        let at = batch.iter().position(is_suspect).unwrap_or(end);
        let after = at.saturating_add(1).min(end);
        [0..at, at..after, after..end].into_iter().filter(|part| !part.is_empty()).collect()
    }

    /// Notes that the broker closed the connection when `record` was the first without an acknowledgement, in a part of
    /// `count` records. Returns `true` if the record is the cause.
    pub fn closed_at(&mut self, record: &Record, count: usize) -> bool {
        let is_same = self.body.as_ref().is_some_and(|body| *body == record.body);
        if !is_same {
            *self = Self { body: Some(record.body.clone()), strikes: 0 };
        }
        if is_same && count == 1 {
            self.strikes = self.strikes.saturating_add(1);
        }
        self.strikes >= MAX_STRIKES
    }

    /// Notes that a record has a result.
    pub fn done(&mut self, record: &Record) {
        if self.body.as_ref().is_some_and(|body| *body == record.body) {
            *self = Self::default();
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

    fn batch(ids: &[&str]) -> Vec<Arc<Record>> {
        let record = |id: &&str| Record { body: Bytes::copy_from_slice(id.as_bytes()), ..Record::sample(id) };
        ids.iter().map(|id| Arc::new(record(id))).collect()
    }

    #[test]
    fn a_record_is_the_cause_if_the_broker_closes_each_time_it_is_alone() {
        let batch = batch(&["a", "b", "c"]);
        let mut suspect = Suspect::default();
        assert_eq!(suspect.parts(&batch).len(), 1);
        assert!(!suspect.closed_at(&batch[1], 3));
        assert_eq!(suspect.parts(&batch), [0..1, 1..2, 2..3]);
        assert_eq!(suspect.parts(&batch[1..]), [0..1, 1..2]);
        for _ in 1..MAX_STRIKES {
            assert!(!suspect.closed_at(&batch[1], 1));
        }
        assert!(suspect.closed_at(&batch[1], 1));
        suspect.done(&batch[0]);
        assert_eq!(suspect.parts(&batch).len(), 3);
        suspect.done(&batch[1]);
        assert_eq!(suspect.parts(&batch).len(), 1);
    }

    #[test]
    fn another_suspect_starts_without_strikes() {
        let batch = batch(&["a", "b"]);
        let mut suspect = Suspect::default();
        for _ in 0..=MAX_STRIKES {
            suspect.closed_at(&batch[0], 1);
        }
        assert!(!suspect.closed_at(&batch[1], 1));
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
