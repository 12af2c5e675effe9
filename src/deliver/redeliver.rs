//! Dead letters that a sink is given again: beside the records, outside the order, and with pauses of their own, so that
//! a letter that the sink does not take holds nothing up.

use std::sync::Arc;
use std::time::Instant;

use super::backoff::Backoff;
use super::worker::Worker;
use crate::record::Record;
use crate::sink::{Fate, Outcome};
use crate::spool::Progress;

/// How many letters are read and delivered at once.
const MAX_BATCH: usize = 64;

/// When a worker looks for letters next, and where.
pub(super) struct Redeliveries {
    due: Option<Instant>,
    /// The last letter of this round; a round begins at 0 and ends when there are no more.
    after: i64,
    /// Whether a letter of this round has to be tried again.
    failed: bool,
    attempts: u32,
    backoff: Backoff,
}

impl Redeliveries {
    /// What an earlier process left is looked at right away.
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { due: Some(Instant::now()), after: 0, failed: false, attempts: 0, backoff }
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn look_now(&mut self) {
        self.due = Some(Instant::now());
        self.after = 0;
    }

    /// All letters of a round were given to the sink.
    fn round_is_over(&mut self) {
        self.after = 0;
        if self.failed {
            self.attempts = self.attempts.saturating_add(1);
            self.due = Instant::now().checked_add(self.backoff.pause(self.attempts));
        } else {
            self.attempts = 0;
            self.due = None;
        }
        self.failed = false;
    }
}

impl Worker {
    /// Gives the sink some of the letters that wait for it. Those that it took leave in the same transaction that
    /// stores its checkpoint.
    pub(super) fn redeliver_some(&mut self) {
        if let Err(error) = self.try_redeliver() {
            self.failed(&error);
            self.redeliveries.failed = true;
            self.redeliveries.round_is_over();
        }
    }

    fn try_redeliver(&mut self) -> Result<(), String> {
        let after = self.redeliveries.after;
        let letters = self.reader.to_redeliver(&self.name, after, MAX_BATCH).map_err(|e| e.to_string())?;
        let Some(last) = letters.last().map(|letter| letter.seq) else {
            self.redeliveries.round_is_over();
            return Ok(());
        };
        let records: Vec<Arc<Record>> = letters.iter().map(|letter| Arc::clone(&letter.record)).collect();
        let Outcome { fates, checkpoint } = self.give(&records);
        let stored = checkpoint.clone();
        let mut progress =
            Progress { from: Some(self.cursor), cursor: self.cursor, checkpoint, ..Progress::default() };
        let (mut fates, mut error) = (fates.into_iter(), None);
        for letter in &letters {
            match fates.next() {
                Some(Fate::Delivered) => progress.redelivered.push(letter.seq),
                Some(Fate::Rejected { error }) => progress.rejected_again.push((letter.seq, error)),
                Some(Fate::Retry { error: text }) => error = error.or(Some(text)),
                None => error = error.or_else(|| Some("the sink did not say what became of it".to_owned())),
            }
        }
        let delivered = u64::try_from(progress.redelivered.len()).unwrap_or(u64::MAX);
        self.spool.advance(Arc::clone(&self.name), progress).map_err(|error| error.to_string())?;
        if stored.is_some() {
            self.checkpoint = stored;
        }
        self.telemetry.sink_batch(&self.name, u64::try_from(letters.len()).unwrap_or(u64::MAX), delivered);
        self.redeliveries.after = last;
        if let Some(error) = error {
            tracing::debug!(sink = &*self.name, error, "a dead letter was not taken; it is tried again");
            self.redeliveries.failed = true;
        }
        Ok(())
    }
}
