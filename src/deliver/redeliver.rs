//! Dead letters that a sink is given again: beside the records, outside the order, and with pauses of their own, so that
//! a letter that the sink does not take holds nothing up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::worker::Worker;
use crate::record::Record;
use crate::sink::{Fate, Outcome};
use crate::spool::{Progress, Stored};

/// How many letters are read and delivered at once.
const MAX_BATCH: usize = 64;
/// How long letters may be on their way while the records wait.
const PENDING_WAIT: Duration = Duration::from_secs(5);

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
        match self.try_redeliver() {
            // With nothing else to deliver, this is where a sink that was down shows that it works again.
            Ok(()) if !self.redeliveries.failed && self.attempts == 0 => self.recovered(),
            Ok(()) => {}
            Err(error) => {
                self.failed(&error);
                self.redeliveries.failed = true;
                self.redeliveries.round_is_over();
            }
        }
    }

    fn try_redeliver(&mut self) -> Result<(), String> {
        self.store_progress()?;
        self.open()?;
        let after = self.redeliveries.after;
        let letters = self.reader.to_redeliver(&self.name, after, MAX_BATCH).map_err(|e| e.to_string())?;
        let Some(last) = letters.last().map(|letter| letter.seq) else {
            self.redeliveries.round_is_over();
            return Ok(());
        };
        let mut progress = Progress { from: Some(self.cursor), cursor: self.cursor, ..Progress::default() };
        let (mut due, mut records): (Vec<i64>, Vec<Arc<Record>>) = (Vec::new(), Vec::new());
        for Stored { seq, record } in letters {
            match record {
                Ok(record) => {
                    due.push(seq);
                    records.push(record);
                }
                Err(letter) => progress.rejected_again.push((seq, letter.error)),
            }
        }
        let (mut error, mut retries, given) = (None, 0_u64, due.len());
        // Records wait meanwhile, so what takes too long is left for the next round.
        let give_up = Instant::now().checked_add(PENDING_WAIT);
        while !records.is_empty() {
            let Outcome { fates, checkpoint, .. } = self.give(&records);
            progress.checkpoint = checkpoint.or(progress.checkpoint);
            let mut fates = fates.into_iter();
            let is_over = give_up.is_none_or(|until| until <= Instant::now());
            let (mut still_due, mut still) = (Vec::new(), Vec::new());
            for (seq, record) in due.into_iter().zip(records) {
                match fates.next() {
                    Some(Fate::Delivered) => progress.redelivered.push(seq),
                    Some(Fate::Rejected { error }) => progress.rejected_again.push((seq, error)),
                    Some(Fate::Pending { .. }) if !is_over => {
                        still_due.push(seq);
                        still.push(record);
                    }
                    fate => {
                        retries = retries.saturating_add(1);
                        let text = match fate {
                            Some(Fate::Retry { error }) => error,
                            Some(Fate::Pending { trouble }) => {
                                trouble.unwrap_or_else(|| "it takes too long".to_owned())
                            }
                            _ => "the sink did not say what became of it".to_owned(),
                        };
                        error = error.or(Some(text));
                    }
                }
            }
            (due, records) = (still_due, still);
        }
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let (delivered, rejected) = (count(progress.redelivered.len()), count(progress.rejected_again.len()));
        self.unstored = Some(progress);
        self.store_progress()?;
        self.telemetry.sink_batch(&self.name, count(given), delivered, rejected);
        self.redeliveries.after = last;
        self.telemetry.sink_retries(&self.name, retries);
        if let Some(error) = error {
            tracing::debug!(sink = &*self.name, error, "a dead letter was not taken; it is tried again");
            self.redeliveries.failed = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    use parking_lot::Mutex;

    use crate::clock::SystemClock;
    use crate::deliver::WorkerHandle;
    use crate::sink::{OpenError, Sink};
    use crate::spool::{Change, Filter, Spool, SpoolOptions, StartAt};
    use crate::telemetry::Telemetry;

    /// Rejects "odd" as often as it is told to, then asks for retries, then takes it; takes everything else.
    struct Picky {
        fates: VecDeque<Fate>,
        got: Arc<Mutex<Vec<String>>>,
    }

    impl Sink for Picky {
        fn open(&mut self, _checkpoint: Option<&[u8]>) -> Result<(), OpenError> {
            Ok(())
        }

        fn deliver(&mut self, batch: &[Arc<Record>]) -> Outcome {
            let fate = |record: &Arc<Record>| {
                let fate = match &*record.event_id {
                    "odd" => self.fates.pop_front().unwrap_or(Fate::Delivered),
                    _ => Fate::Delivered,
                };
                if fate == Fate::Delivered {
                    self.got.lock().push(record.event_id.to_string());
                }
                fate
            };
            Outcome {
                fates: batch.iter().map(fate).collect(),
                checkpoint: Some(b"here".to_vec()),
                ..Outcome::default()
            }
        }
    }

    fn record(id: &str) -> Arc<Record> {
        Arc::new(Record::sample(id))
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < Duration::from_secs(10), "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_letter_goes_to_its_sink_until_it_is_taken_and_holds_nothing_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = SpoolOptions { min_free: 0, ..SpoolOptions::default() };
        let spool = Arc::new(Spool::open(folder.path(), options, Arc::new(SystemClock)).expect("opens"));
        let append = |id: &str| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(spool.append(record(id), true)).expect("stored");
        };
        let (rejected, retry) =
            (|| Fate::Rejected { error: "no".to_owned() }, || Fate::Retry { error: "not now".to_owned() });
        let fates = VecDeque::from([rejected(), rejected(), retry(), retry()]);
        let got = Arc::new(Mutex::new(Vec::new()));
        let sink = Picky { fates, got: Arc::clone(&got) };
        let (least, most) = (Duration::from_millis(100), Duration::from_millis(200));
        let backoff = Backoff::new(least, most, 1).expect("good bounds");
        let telemetry = Arc::new(Telemetry::new(Arc::new(SystemClock)));
        let worker = WorkerHandle::start(
            Arc::from("picky"),
            Box::new(sink),
            crate::deliver::Skips::new(),
            StartAt::Retained,
            backoff,
            Arc::clone(&spool),
            telemetry,
        )
        .expect("starts");
        append("odd");
        let reader = spool.reader().expect("opens");
        let letters = || reader.dead(&Filter::default(), 0, 10, false).expect("read");
        until("it is buried", || letters().len() == 1);
        let id = letters()[0].id;
        let replay = || spool.change(vec![Change::Redeliver { id }]).expect("changed");
        replay();
        until("it is rejected again", || letters()[0].replays == 1);
        assert_eq!(letters()[0].replay_at, None);
        replay();
        // Two retries are due; what comes meanwhile does not wait for them.
        append("next");
        until("the next one is there", || got.lock().as_slice() == ["next"]);
        until("it is taken", || letters().is_empty());
        assert_eq!(*got.lock(), ["next", "odd"]);
        assert_eq!(worker.trouble(), None);
        spool.tail().stop(Instant::now());
        worker.join();
    }
}
