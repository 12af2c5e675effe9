//! The schedule of a batch: one queue per device, with at most one request in flight for each queue, so that the order of a
//! device's events is kept.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use dt_sink::{Fate, Record};

use crate::exchange::{Failure, Sent};

/// The number of failed devices after which no further request of the batch is started.
const MAX_FAILED_DEVICES: usize = 10;

/// Returns the memory address of a record, by which the sink recognises the record in the next batch.
pub fn address(record: &Arc<Record>) -> usize {
    Arc::as_ptr(record).addr()
}

/// The records of one device in the batch, and their state.
#[derive(Debug, Default)]
struct DeviceQueue {
    /// The indexes of the records that were not sent yet, in order.
    waiting: VecDeque<usize>,
    /// Whether a request with records of this queue is in flight.
    is_busy: bool,
    /// Why the remaining records of the device wait for the next batch; `None` if they can be sent.
    error: Option<String>,
}

/// Schedules the records of one batch.
pub struct Schedule<'a> {
    batch: &'a [Arc<Record>],
    /// The index of each record in the batch, by the record's address.
    index: HashMap<usize, usize>,
    queue_of: Vec<usize>,
    queues: Vec<DeviceQueue>,
    /// The indexes of the queues from which records may be sent.
    ready: VecDeque<usize>,
    fates: Vec<Option<Fate>>,
    finished: usize,
    failed_devices: usize,
    /// Why no further request is started; `None` if requests may be started.
    stopped: Option<String>,
}

impl<'a> Schedule<'a> {
    /// Sorts the records of a batch into queues. `in_flight` are the addresses of the records whose requests are in flight.
    pub fn new(batch: &'a [Arc<Record>], in_flight: &HashSet<usize>) -> Self {
        let mut by_device: HashMap<Option<&str>, usize> = HashMap::new();
        let mut queues: Vec<DeviceQueue> = Vec::new();
        let (mut index, mut queue_of) =
            (HashMap::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for (at, record) in batch.iter().enumerate() {
            // Records without a device share a queue.
            let number = *by_device.entry(record.device.as_deref()).or_insert(queues.len());
            if number == queues.len() {
                queues.push(DeviceQueue::default());
            }
            queue_of.push(number);
            let address = address(record);
            index.insert(address, at);
            if let Some(queue) = queues.get_mut(number) {
                match in_flight.contains(&address) {
                    true => queue.is_busy = true,
                    false => queue.waiting.push_back(at),
                }
            }
        }
        let is_ready = |(number, queue): (usize, &DeviceQueue)| (!queue.is_busy).then_some(number);
        let ready = queues.iter().enumerate().filter_map(is_ready).collect();
        let (fates, finished) = (vec![None; batch.len()], 0);
        Self { batch, index, queue_of, queues, ready, fates, finished, failed_devices: 0, stopped: None }
    }

    /// Returns the records of the next request, at most `most`; empty if no request may be started. A queue whose records are in
    /// the request waits until [`finish`](Self::finish).
    pub fn next(&mut self, most: usize) -> Vec<Arc<Record>> {
        let mut records = Vec::new();
        while records.len() < most && !self.is_stopped() {
            let Some(queue) = self.ready.pop_front().and_then(|number| self.queues.get_mut(number)) else {
                break;
            };
            while records.len() < most
                && let Some(record) = queue.waiting.pop_front().and_then(|at| self.batch.get(at))
            {
                records.push(Arc::clone(record));
                queue.is_busy = true;
            }
        }
        records
    }

    /// Records the results of a request for its records, which have these addresses.
    pub fn finish(&mut self, addresses: &[usize], sent: Sent) {
        let mut freed: Vec<usize> = Vec::new();
        for (address, fate) in addresses.iter().zip(sent.fates) {
            let Some(at) = self.index.get(address).copied() else { continue };
            let Some(number) = self.queue_of.get(at).copied() else { continue };
            let Some(queue) = self.queues.get_mut(number) else { continue };
            if queue.is_busy {
                queue.is_busy = false;
                freed.push(number);
            }
            match &fate {
                Some(Fate::Retry { error }) if queue.error.is_none() => {
                    queue.error = Some(error.clone());
                    self.failed_devices = self.failed_devices.saturating_add(1);
                }
                // It was not sent; no request is started any more, so nothing overtakes it.
                None => continue,
                Some(_) => {}
            }
            if let Some(place) = self.fates.get_mut(at) {
                *place = fate;
                self.finished = self.finished.saturating_add(1);
            }
        }
        let has_more = |number: &usize| {
            self.queues.get(*number).is_some_and(|queue| queue.error.is_none() && !queue.waiting.is_empty())
        };
        self.ready.extend(freed.into_iter().filter(has_more));
        if let Some(Failure { error, is_of_target, .. }) = sent.failure
            && (is_of_target || self.failed_devices >= MAX_FAILED_DEVICES)
        {
            self.stopped.get_or_insert(error);
        }
    }

    /// Returns whether at least `least` records may be sent now.
    pub fn has_ready(&self, least: usize) -> bool {
        let mut count = 0_usize;
        let waiting =
            self.ready.iter().filter_map(|number| self.queues.get(*number)).map(|queue| queue.waiting.len());
        waiting.into_iter().any(|waiting| {
            count = count.saturating_add(waiting);
            count >= least
        })
    }

    /// Returns whether no further request is started, since the target does not work.
    pub const fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// Returns whether a record failed.
    pub const fn has_failed(&self) -> bool {
        self.failed_devices > 0
    }

    /// Returns the number of records with a result.
    pub const fn finished(&self) -> usize {
        self.finished
    }

    /// Returns the number of records in the batch.
    pub const fn len(&self) -> usize {
        self.batch.len()
    }

    /// Returns the result of each record. A record without a result is pending, with `last_error`; after a failure of its device
    /// or of the target, it is retried instead.
    pub fn into_fates(self, last_error: Option<&str>) -> Vec<Fate> {
        let Self { fates, queue_of, queues, stopped, .. } = self;
        let missing = |number: usize| {
            let queue = queues.get(number);
            let error = queue.and_then(|queue| queue.error.as_ref()).or(stopped.as_ref());
            match error {
                Some(error) => Fate::Retry { error: error.clone() },
                None => Fate::Pending { last_error: last_error.map(str::to_owned) },
            }
        };
        fates
            .into_iter()
            .zip(queue_of)
            .map(|(fate, number)| fate.unwrap_or_else(|| missing(number)))
            .collect()
    }
}
