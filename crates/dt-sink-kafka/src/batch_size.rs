//! The size limit of a batch. Kafka's `max.message.bytes` limits a whole batch, so records that are small enough individually can
//! be too large together. The limit is halved if no record of a rejected batch is rejected when it is sent alone.

use std::time::{Duration, Instant};

use crate::producer::BATCH_BYTES;

/// The lower bound of the limit, in bytes. librdkafka sends at least one record, whatever its size.
const MIN_BYTES: usize = 1024;
/// How long a lowered limit applies: the limit of the topic may have been raised meanwhile.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// The current size limit, and the state of the records that are sent alone after their batch was rejected.
#[derive(Debug, Default)]
pub struct BatchSize {
    /// The lowered limit in bytes, and when it was set; `None` if the default applies.
    lowered: Option<(usize, Instant)>,
    /// The records that were rejected together, until each of them was sent alone; `None` if there are none.
    rejected: Option<Rejected>,
}

#[derive(Debug, Default)]
struct Rejected {
    records: usize,
    bytes: usize,
    /// Whether one of these records was rejected alone as well, so that the batch was not too large.
    has_bad_record: bool,
}

impl BatchSize {
    /// Returns the largest size of a batch, in bytes.
    pub fn bytes(&self) -> usize {
        self.lowered.map_or(BATCH_BYTES, |(bytes, _)| bytes)
    }

    /// Removes a lowered limit that has expired. Returns whether there was one: a producer with larger batches can then be
    /// created.
    pub fn take_expired(&mut self) -> bool {
        self.lowered.take_if(|(_, since)| since.elapsed() >= MAX_AGE).is_some()
    }

    /// Counts a record of `bytes` bytes whose batch was rejected as too large.
    pub fn rejected(&mut self, bytes: usize) {
        let rejected = self.rejected.get_or_insert_default();
        rejected.records = rejected.records.saturating_add(1);
        rejected.bytes = rejected.bytes.saturating_add(bytes);
    }

    /// Records that a record was rejected when it was sent alone.
    pub fn rejected_alone(&mut self) {
        if let Some(rejected) = &mut self.rejected {
            rejected.has_bad_record = true;
        }
    }

    /// Lowers the limit if no record was rejected alone. Call this after each record was sent alone.
    pub fn conclude(&mut self) {
        let Some(Rejected { records, bytes, has_bad_record }) = self.rejected.take() else { return };
        if records > 1 && !has_bad_record {
            // How librdkafka divided the records into batches is unknown, so one halving may not be enough.
            let half = bytes.checked_div(2).unwrap_or(0).min(self.bytes());
            self.lowered = Some((half.max(MIN_BYTES), Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_was_too_large_is_halved_and_one_with_a_bad_record_is_not() {
        let mut size = BatchSize::default();
        assert_eq!(size.bytes(), BATCH_BYTES);
        let reject = |size: &mut BatchSize, records: usize| (0..records).for_each(|_| size.rejected(1000));
        reject(&mut size, 10);
        size.rejected_alone();
        size.conclude();
        assert_eq!(size.bytes(), BATCH_BYTES, "a record was rejected alone");
        reject(&mut size, 1);
        size.conclude();
        assert_eq!(size.bytes(), BATCH_BYTES, "there was only one record");
        for (records, bytes) in [(10, 5000), (20, 5000), (3, 1500), (2, MIN_BYTES), (2, MIN_BYTES)] {
            reject(&mut size, records);
            size.conclude();
            assert_eq!(size.bytes(), bytes);
        }
        size.conclude();
        assert!(!size.take_expired());
        size.lowered = Instant::now().checked_sub(MAX_AGE).map(|since| (MIN_BYTES, since));
        assert!(size.take_expired());
        assert_eq!(size.bytes(), BATCH_BYTES);
    }
}
