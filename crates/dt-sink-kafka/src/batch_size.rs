//! How large a batch may be: Kafka's limit of a topic is one of batches, so records that are small enough each may be too
//! large together. It is learnt from what is refused together and then taken, each record alone.

use std::time::{Duration, Instant};

use crate::producer::BATCH_BYTES;

/// A batch is never made smaller than this; one record always fits.
const LEAST: usize = 1024;
/// How long a lesson holds: limits are raised, too.
const HOLDS: Duration = Duration::from_secs(3600);

/// See the module's own words.
#[derive(Debug, Default)]
pub(super) struct BatchSize {
    /// What was learnt, and when.
    learnt: Option<(usize, Instant)>,
    /// What was refused together, until each of it was tried alone.
    refused: Option<Refused>,
}

#[derive(Debug, Default)]
struct Refused {
    records: usize,
    bytes: usize,
    /// A record of it was refused alone as well, so it was not the batch.
    was_a_record: bool,
}

impl BatchSize {
    /// The most bytes of a batch.
    pub(super) fn bytes(&self) -> usize {
        self.learnt.map_or(BATCH_BYTES, |(bytes, _)| bytes)
    }

    /// Whether a lesson is over, so that a producer of larger batches may be made. It is forgotten then.
    pub(super) fn is_over(&mut self) -> bool {
        self.learnt.take_if(|(_, since)| since.elapsed() >= HOLDS).is_some()
    }

    /// A record was refused for the size of its batch.
    pub(super) fn refused(&mut self, bytes: usize) {
        let refused = self.refused.get_or_insert_default();
        refused.records = refused.records.saturating_add(1);
        refused.bytes = refused.bytes.saturating_add(bytes);
    }

    /// A record was refused alone.
    pub(super) fn was_a_record(&mut self) {
        if let Some(refused) = &mut self.refused {
            refused.was_a_record = true;
        }
    }

    /// Each record was tried alone.
    pub(super) fn conclude(&mut self) {
        let Some(Refused { records, bytes, was_a_record }) = self.refused.take() else { return };
        if records > 1 && !was_a_record {
            // Nobody says how it was divided into batches, so this may have to be learnt again.
            let half = bytes.checked_div(2).unwrap_or(0).min(self.bytes());
            self.learnt = Some((half.max(LEAST), Instant::now()));
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
        let refuse = |size: &mut BatchSize, records: usize| (0..records).for_each(|_| size.refused(1000));
        refuse(&mut size, 10);
        size.was_a_record();
        size.conclude();
        assert_eq!(size.bytes(), BATCH_BYTES, "it was a record");
        refuse(&mut size, 1);
        size.conclude();
        assert_eq!(size.bytes(), BATCH_BYTES, "it was alone");
        for (records, bytes) in [(10, 5000), (20, 5000), (3, 1500), (2, LEAST), (2, LEAST)] {
            refuse(&mut size, records);
            size.conclude();
            assert_eq!(size.bytes(), bytes);
        }
        size.conclude();
        assert!(!size.is_over());
        size.learnt = Instant::now().checked_sub(HOLDS).map(|since| (LEAST, since));
        assert!(size.is_over());
        assert_eq!(size.bytes(), BATCH_BYTES);
    }
}
