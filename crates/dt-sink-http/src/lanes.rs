//! The schedule of a batch: one lane for each device, and of each lane one request at a time, so that order holds.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use dt_sink::{Fate, Record};

use crate::exchange::{Failure, Sent};

/// How many devices may fail before no further request of the batch is started.
const MAX_FAILED_LANES: usize = 10;

/// Returns the address of a record, by which the sink recognises it in the next batch.
pub fn address(record: &Arc<Record>) -> usize {
    Arc::as_ptr(record).addr()
}

/// The state of the records of one device.
#[derive(Debug, Default)]
struct Lane {
    /// The indices of the records that were not sent, in order.
    waiting: VecDeque<usize>,
    /// Whether a request with records of this lane is in flight.
    is_busy: bool,
    /// Why the lane waits for the next batch.
    error: Option<String>,
}

/// Schedules the records of one batch.
pub struct Lanes<'a> {
    batch: &'a [Arc<Record>],
    /// The index of each record, by its address.
    index: HashMap<usize, usize>,
    lane_of: Vec<usize>,
    lanes: Vec<Lane>,
    /// The lanes from which records may be sent.
    ready: VecDeque<usize>,
    fates: Vec<Option<Fate>>,
    finished: usize,
    failed_lanes: usize,
    /// Why no further request is started.
    stopped: Option<String>,
}

impl<'a> Lanes<'a> {
    /// Sorts the records of a batch into lanes. `in_flight` are the addresses of those that were sent.
    pub fn new(batch: &'a [Arc<Record>], in_flight: &HashSet<usize>) -> Self {
        let mut by_device: HashMap<Option<&str>, usize> = HashMap::new();
        let mut lanes: Vec<Lane> = Vec::new();
        let (mut index, mut lane_of) = (HashMap::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for (at, record) in batch.iter().enumerate() {
            // Records without a device share a lane.
            let number = *by_device.entry(record.device.as_deref()).or_insert(lanes.len());
            if number == lanes.len() {
                lanes.push(Lane::default());
            }
            lane_of.push(number);
            let address = address(record);
            index.insert(address, at);
            if let Some(lane) = lanes.get_mut(number) {
                match in_flight.contains(&address) {
                    true => lane.is_busy = true,
                    false => lane.waiting.push_back(at),
                }
            }
        }
        let is_ready = |(number, lane): (usize, &Lane)| (!lane.is_busy).then_some(number);
        let ready = lanes.iter().enumerate().filter_map(is_ready).collect();
        let (fates, finished) = (vec![None; batch.len()], 0);
        Self { batch, index, lane_of, lanes, ready, fates, finished, failed_lanes: 0, stopped: None }
    }

    /// Takes the records of the next request, at most `most`; none if no request may be started. A lane that contributes
    /// waits until [`finish`](Self::finish).
    pub fn next(&mut self, most: usize) -> Vec<Arc<Record>> {
        let mut records = Vec::new();
        while records.len() < most && !self.is_stopped() {
            let Some(lane) = self.ready.pop_front().and_then(|number| self.lanes.get_mut(number)) else {
                break;
            };
            while records.len() < most
                && let Some(record) = lane.waiting.pop_front().and_then(|at| self.batch.get(at))
            {
                records.push(Arc::clone(record));
                lane.is_busy = true;
            }
        }
        records
    }

    /// Notes the result of a request.
    pub fn finish(&mut self, addresses: &[usize], sent: Sent) {
        let mut freed: Vec<usize> = Vec::new();
        for (address, fate) in addresses.iter().zip(sent.fates) {
            let Some(at) = self.index.get(address).copied() else { continue };
            let Some(number) = self.lane_of.get(at).copied() else { continue };
            let Some(lane) = self.lanes.get_mut(number) else { continue };
            if lane.is_busy {
                lane.is_busy = false;
                freed.push(number);
            }
            match &fate {
                Some(Fate::Retry { error }) if lane.error.is_none() => {
                    lane.error = Some(error.clone());
                    self.failed_lanes = self.failed_lanes.saturating_add(1);
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
            self.lanes.get(*number).is_some_and(|lane| lane.error.is_none() && !lane.waiting.is_empty())
        };
        self.ready.extend(freed.into_iter().filter(has_more));
        if let Some(Failure { error, is_of_target, .. }) = sent.failure
            && (is_of_target || self.failed_lanes >= MAX_FAILED_LANES)
        {
            self.stopped.get_or_insert(error);
        }
    }

    /// Returns whether at least so many records may be sent now.
    pub fn has_ready(&self, least: usize) -> bool {
        let mut count = 0_usize;
        let waiting =
            self.ready.iter().filter_map(|number| self.lanes.get(*number)).map(|lane| lane.waiting.len());
        waiting.into_iter().any(|waiting| {
            count = count.saturating_add(waiting);
            count >= least
        })
    }

    /// Returns whether no further request is started, because the target does not work.
    pub const fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// Returns whether a record failed.
    pub const fn has_failed(&self) -> bool {
        self.failed_lanes > 0
    }

    /// Returns how many records have a result.
    pub const fn finished(&self) -> usize {
        self.finished
    }

    /// Returns how many records the batch has.
    pub const fn len(&self) -> usize {
        self.batch.len()
    }

    /// Returns the result of each record. One without a result is pending, with `last_error`; but after a failure, it waits
    /// for the next attempt like the one that failed.
    pub fn into_fates(self, last_error: Option<&str>) -> Vec<Fate> {
        let Self { fates, lane_of, lanes, stopped, .. } = self;
        let missing = |number: usize| {
            let lane = lanes.get(number);
            let error = lane.and_then(|lane| lane.error.as_ref()).or(stopped.as_ref());
            match error {
                Some(error) => Fate::Retry { error: error.clone() },
                None => Fate::Pending { last_error: last_error.map(str::to_owned) },
            }
        };
        fates.into_iter().zip(lane_of).map(|(fate, number)| fate.unwrap_or_else(|| missing(number))).collect()
    }
}
