//! What a worker holds: the records that were read and are not done.

use std::sync::Arc;

use crate::record::Record;

/// Records with their numbers, in order. What was delivered beyond the first record that was not is not here any more,
/// so it is not sent again.
#[derive(Default)]
pub(super) struct Window {
    pub(super) seqs: Vec<i64>,
    /// As many, in the same order: apart from their numbers, as sinks take them.
    pub(super) records: Vec<Arc<Record>>,
}

impl Window {
    pub(super) fn push(&mut self, seq: i64, record: Arc<Record>) {
        self.seqs.push(seq);
        self.records.push(record);
    }

    /// Goes through all, and keeps those of which `stays` says so.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(i64, &Arc<Record>) -> bool) {
        let mut seqs = std::mem::take(&mut self.seqs).into_iter();
        let mut kept = Vec::new();
        self.records.retain(|record| {
            // There are as many numbers.
            let seq = seqs.next().unwrap_or(i64::MAX);
            let stays = stays(seq, record);
            if stays {
                kept.push(seq);
            }
            stays
        });
        self.seqs = kept;
    }
}
