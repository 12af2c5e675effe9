//! Appends events to the log: looks for copies, and queues what is new for the writer.

use std::sync::Arc;

use super::ids::{self, Key};
use super::shared::Append;
use super::{Appended, Log, LogError, SinkSet};
use crate::sync::atomic::Ordering;
use crate::sync::oneshot;
use dt_sink::record::Record;

impl Log {
    /// Stores an event durably for these sinks. With `dedup`, an event that its connector received before is skipped.
    ///
    /// # Errors
    ///
    /// [`LogError`] if the event is not stored.
    pub async fn append(
        &self,
        record: Arc<Record>,
        sinks: SinkSet,
        dedup: bool,
    ) -> Result<Appended, LogError> {
        let key = dedup.then(|| Key::new(&record.connector, &record.event_id));
        let (reply, answer) = oneshot::channel();
        let mut append = Append { event: Some((record, sinks)), key, ticket: 0, reply };
        loop {
            let epoch = self.shared.ids_epoch.load(Ordering::Acquire);
            if let Some(key) = key
                && self.shared.ids.may_contain(key)
                && self.known(self.shared.ids.is_stored(key).await)
            {
                return Ok(Appended::Duplicate);
            }
            match self.enqueue(append, epoch)? {
                Enqueued::Waiting => break,
                Enqueued::Durable => return Ok(Appended::Duplicate),
                // Ids were moved to the index in between.
                Enqueued::Again(back) => append = back,
            }
        }
        answer.await.map_err(|_| LogError::Closed)?
    }

    /// Stores an event like [`append`](Self::append), and blocks until it is durable.
    ///
    /// # Errors
    ///
    /// [`LogError`] if the event is not stored.
    pub fn append_blocking(
        &self,
        record: Arc<Record>,
        sinks: SinkSet,
        dedup: bool,
    ) -> Result<Appended, LogError> {
        let key = dedup.then(|| Key::new(&record.connector, &record.event_id));
        match self.begin_append((record, sinks), key, |found| Ok(self.known(found)))? {
            StartedAppend::Done(appended) => Ok(appended),
            StartedAppend::Waiting(answer) => answer.blocking_recv().map_err(|_| LogError::Closed)?,
        }
    }

    /// Stores events in their order, each unless its connector received it before, and blocks until all are durable. The queue
    /// of the log limits their number. An event whose id cannot be looked up is not stored: unlike a pushed event, it can be
    /// fetched again.
    ///
    /// # Errors
    ///
    /// [`LogError`] if an event is not stored. Events before it may be stored.
    pub fn append_all_blocking(
        &self,
        events: Vec<(Arc<Record>, SinkSet)>,
    ) -> Result<Vec<Appended>, LogError> {
        let mut started = Vec::with_capacity(events.len());
        for (record, sinks) in events {
            let key = Key::new(&record.connector, &record.event_id);
            started.push(self.begin_append((record, sinks), Some(key), |found| Ok(found?))?);
        }
        let wait = |started| match started {
            StartedAppend::Done(appended) => Ok(appended),
            StartedAppend::Waiting(answer) => answer.blocking_recv().map_err(|_| LogError::Closed)?,
        };
        started.into_iter().map(wait).collect()
    }

    /// Queues an event, after its id was looked up in the index. `is_known` decides what the result of the look-up means. Blocks.
    fn begin_append(
        &self,
        event: (Arc<Record>, SinkSet),
        key: Option<Key>,
        is_known: impl Fn(Result<bool, ids::IdsError>) -> Result<bool, LogError>,
    ) -> Result<StartedAppend, LogError> {
        let (reply, answer) = oneshot::channel();
        let mut append = Append { event: Some(event), key, ticket: 0, reply };
        loop {
            let epoch = self.shared.ids_epoch.load(Ordering::Acquire);
            if let Some(key) = key
                && self.shared.ids.may_contain(key)
                && is_known(self.shared.ids.contains(key))?
            {
                return Ok(StartedAppend::Done(Appended::Duplicate));
            }
            match self.enqueue(append, epoch)? {
                Enqueued::Waiting => return Ok(StartedAppend::Waiting(answer)),
                Enqueued::Durable => return Ok(StartedAppend::Done(Appended::Duplicate)),
                Enqueued::Again(back) => append = back,
            }
        }
    }

    /// Returns whether a connector has received an event, as far as ids are kept and can be looked up. Blocks.
    #[must_use]
    pub fn has_received(&self, connector: &str, event_id: &str) -> bool {
        self.find_received(connector, event_id).unwrap_or(false)
    }

    /// Returns whether a connector has received an event that is durable, as far as ids are kept. Blocks: if an event with this id
    /// is queued, until it is durable or refused.
    ///
    /// # Errors
    ///
    /// [`LogError::Ids`] if the id cannot be looked up; [`LogError::Overloaded`] if an event with this id is still queued.
    pub fn find_received(&self, connector: &str, event_id: &str) -> Result<bool, LogError> {
        let key = Key::new(connector, event_id);
        let mut has_waited = false;
        loop {
            let epoch = self.shared.ids_epoch.load(Ordering::Acquire);
            let is_durable = {
                let queue = self.shared.queue.lock();
                queue.recent.get(&key).map(|ticket| *ticket <= queue.durable_ticket)
            };
            match is_durable {
                Some(true) => return Ok(true),
                Some(false) if has_waited => return Err(LogError::Overloaded),
                Some(false) => {
                    self.flush();
                    has_waited = true;
                    continue;
                }
                None => {}
            }
            if self.shared.ids.may_contain(key) && self.shared.ids.contains(key)? {
                return Ok(true);
            }
            // Otherwise ids were moved to the index in between.
            if self.shared.ids_epoch.load(Ordering::Acquire) == epoch {
                return Ok(false);
            }
        }
    }

    /// Returns whether the index contains an event. After an error, the event counts as new, so that it is not lost.
    fn known(&self, answer: Result<bool, ids::IdsError>) -> bool {
        answer.unwrap_or_else(|error| {
            if !self.shared.lookups_fail.swap(true, Ordering::Relaxed) {
                tracing::warn!(code = error.code(), %error, "looking up an event id failed; copies may be accepted as new");
            }
            false
        })
    }

    fn enqueue(&self, mut append: Append, epoch: u64) -> Result<Enqueued, LogError> {
        let bytes = append.bytes();
        let is_first = {
            let mut queue = self.shared.queue.lock();
            if let Some(key) = append.key {
                if let Some(ticket) = queue.recent.get(&key) {
                    if *ticket <= queue.durable_ticket {
                        return Ok(Enqueued::Durable);
                    }
                    append.event = None;
                } else if self.shared.ids_epoch.load(Ordering::Acquire) != epoch {
                    return Ok(Enqueued::Again(append));
                }
            }
            if queue.is_closed {
                return Err(queue.blocked_by.clone().unwrap_or(LogError::Closed));
            }
            if let Some(blocked_by) = &queue.blocked_by {
                return Err(blocked_by.clone());
            }
            let total = queue.bytes.saturating_add(bytes);
            // A single body that is larger than the limit is accepted.
            let is_too_much = queue.bytes > 0 && total > self.max_queue_bytes;
            if is_too_much || queue.appends.len() >= self.max_queue {
                return Err(LogError::Overloaded);
            }
            #[expect(clippy::arithmetic_side_effects, reason = "one ticket a nanosecond lasts 584 years")]
            {
                queue.next_ticket += 1;
            }
            append.ticket = queue.next_ticket;
            if let (Some(key), Some(_)) = (append.key, &append.event) {
                queue.recent.insert(key, append.ticket);
            }
            queue.bytes = total;
            queue.appends.push(append);
            queue.appends.len() == 1
        };
        if is_first {
            self.shared.has_work.notify_one();
        }
        Ok(Enqueued::Waiting)
    }
}

/// An event that is being stored.
enum StartedAppend {
    Done(Appended),
    /// The event is queued; the answer follows once it is durable.
    Waiting(oneshot::Receiver<Result<Appended, LogError>>),
}

/// The result of queueing an event.
enum Enqueued {
    Waiting,
    /// The event is a copy of an event that is durable.
    Durable,
    Again(Append),
}
