//! Mode `direct`: a request is answered when every sink of its connector has stored its event.

use std::sync::Arc;

use super::from_requests::{DirectWorker, Offered, Undelivered};
use dt_sink::record::Record;

/// The result of [`Direct::submit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// At least one sink took the record now.
    New,
    /// Every sink had the record already, or had it in progress.
    Duplicate,
}

/// Delivers records to the workers of all sinks.
#[derive(Debug, Default)]
pub struct Direct {
    workers: Vec<Arc<DirectWorker>>,
}

impl Direct {
    /// Creates the set of workers. [`submit`](Self::submit) takes their indices in this list.
    #[must_use]
    pub const fn new(workers: Vec<Arc<DirectWorker>>) -> Self {
        Self { workers }
    }

    /// Returns the workers, in the order given to [`new`](Self::new).
    #[must_use]
    pub fn workers(&self) -> &[Arc<DirectWorker>] {
        &self.workers
    }

    /// Delivers a record to the sinks with these indices and waits until all of them have it. With `remember`, each sink
    /// recognises later copies of the record.
    ///
    /// Dropping the future does not cancel the delivery: a sink that takes the record later recognises the retry as a
    /// copy.
    ///
    /// # Errors
    ///
    /// Returns the reason of the first sink that does not have the record. The other sinks may have it; with `remember`
    /// they do not get the retry again.
    pub async fn submit(
        &self,
        record: &Arc<Record>,
        sinks: &[usize],
        remember: bool,
    ) -> Result<Submitted, Undelivered> {
        let mut stored = Submitted::Duplicate;
        let mut waiters = Vec::with_capacity(sinks.len());
        let mut failed = None;
        for worker in sinks.iter().filter_map(|index| self.workers.get(*index)) {
            match worker.offer(record, remember) {
                Ok(Offered::Duplicate) => {}
                Ok(Offered::Waiting { waiter, new }) => {
                    if new {
                        stored = Submitted::New;
                    }
                    waiters.push(waiter);
                }
                Err(undelivered) => failed = failed.or(Some(undelivered)),
            }
        }
        for waiter in waiters {
            let gone = || Err(Undelivered::SinkUnavailable { error: "its worker has stopped".to_owned() });
            if let Err(undelivered) = waiter.await.unwrap_or_else(|_| gone()) {
                failed = failed.or(Some(undelivered));
            }
        }
        failed.map_or(Ok(stored), Err)
    }
}
