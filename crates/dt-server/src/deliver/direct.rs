//! Mode `direct`: a request is answered when every sink of its connector has stored its event.

use std::sync::Arc;

use super::from_requests::{DirectWorker, Offered, Undelivered};
use dt_sink::record::Record;

/// The result of [`Direct::submit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// At least one sink did not have the record yet: it was delivered now.
    New,
    /// Every sink had received the record before, or was receiving an earlier copy of it.
    Duplicate,
}

/// Delivers records in mode `direct`: a request is answered once every sink of its connector has stored the record. Holds one
/// worker per sink.
#[derive(Debug, Default)]
pub struct Direct {
    workers: Vec<Arc<DirectWorker>>,
}

impl Direct {
    /// Creates the set of workers. [`submit`](Self::submit) identifies a worker by its index in this list.
    #[must_use]
    pub const fn new(workers: Vec<Arc<DirectWorker>>) -> Self {
        Self { workers }
    }

    /// Returns the workers, in the order given to [`new`](Self::new).
    #[must_use]
    pub fn workers(&self) -> &[Arc<DirectWorker>] {
        &self.workers
    }

    /// Delivers a record to the sinks with these indexes, and waits until all of them have stored it. With `remember`, each sink
    /// recognises later copies of the record.
    ///
    /// Dropping the future does not cancel the delivery: with `remember`, a sink that stores the record later recognises the
    /// retry as a copy.
    ///
    /// # Errors
    ///
    /// Returns the error of the first sink that has not stored the record. Other sinks may have stored it; with `remember`, they
    /// do not receive the retry again.
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
