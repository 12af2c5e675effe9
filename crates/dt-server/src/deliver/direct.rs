//! Mode `direct`: a request is answered once every sink of its connector has its event.

use std::sync::Arc;

use super::from_requests::{Lane, Offered, Undelivered};
use dt_sink::record::Record;

/// How a record came to be where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// At least one sink took it just now.
    Now,
    /// Every sink had it already, or was about to.
    Before,
}

/// The lanes of all sinks.
#[derive(Debug, Default)]
pub struct Direct {
    lanes: Vec<Arc<Lane>>,
}

impl Direct {
    /// Takes the lanes; [`submit`](Self::submit) names them by their place here.
    #[must_use]
    pub const fn new(lanes: Vec<Arc<Lane>>) -> Self {
        Self { lanes }
    }

    /// The lanes, in the order in which they were given.
    #[must_use]
    pub fn lanes(&self) -> &[Arc<Lane>] {
        &self.lanes
    }

    /// Gives a record to the sinks at the given places, and waits until all have it. Dropping the future does not take
    /// the record back: a late delivery is remembered, and the retry that follows is a copy.
    ///
    /// # Errors
    ///
    /// The first sink's reason for not having it. Others may have it; they are not sent the retry.
    pub async fn submit(
        &self,
        record: &Arc<Record>,
        sinks: &[usize],
        remember: bool,
    ) -> Result<Stored, Undelivered> {
        let mut stored = Stored::Before;
        let mut waiters = Vec::with_capacity(sinks.len());
        let mut failed = None;
        for lane in sinks.iter().filter_map(|place| self.lanes.get(*place)) {
            match lane.offer(record, remember) {
                Ok(Offered::Known) => {}
                Ok(Offered::Waiting { waiter, new }) => {
                    if new {
                        stored = Stored::Now;
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
