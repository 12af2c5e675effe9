//! The ledger: the delivery status of every event for every connector. Tests compare it with what a receiver has.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::attempt::AttemptResult;
use crate::sequence::Sequence;
use crate::state::StoredEvent;

/// The default of the largest number of entries in the ledger.
pub const DEFAULT_ENTRIES: usize = 40_000;

/// The delivery status of an event for one connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeliveryStatus {
    /// The event is in the queue.
    Pending,
    /// The receiver answered 2xx.
    Acknowledged,
    /// The event was not acknowledged within the retention (12 hours).
    Expired,
    /// The connector was disabled or deleted before the event was acknowledged.
    Dropped,
    /// The queue was full.
    Overflowed,
}

/// The entry of an event in the ledger: its deliveries to one connector.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LedgerEntry {
    /// The id of the connector.
    pub connector: Box<str>,
    /// The id of the event: `event.eventId`.
    pub event_id: Box<str>,
    /// The id of the device.
    pub device: Box<str>,
    /// The type of the event: `event.eventType`.
    pub event_type: Box<str>,
    /// The number of delivery attempts, including those of copies and those with faults.
    pub attempts: u32,
    /// The number of attempts that were answered 2xx.
    pub acknowledged: u32,
    /// The number of attempts that a receiver acknowledged although it should have rejected them: with a changed body, a wrong
    /// secret or an expired token.
    pub wrongly_acknowledged: u32,
    /// The delivery status.
    pub fate: DeliveryStatus,
    /// The outcome of the last attempt, such as `status_200` or `timeout`; empty before the first attempt.
    pub last: Box<str>,
    /// When the event was queued, in Unix milliseconds of the emulated clock.
    pub queued_at: i64,
    /// When the status became final, in Unix milliseconds of the emulated clock; `None` while it is pending.
    pub decided_at: Option<i64>,
}

/// A stored entry. It shares the event with the event history.
#[derive(Debug)]
struct Row {
    connector: Box<str>,
    event: Arc<StoredEvent>,
    attempts: u32,
    acknowledged: u32,
    wrongly_acknowledged: u32,
    status: DeliveryStatus,
    last: Box<str>,
    queued_at: i64,
    decided_at: Option<i64>,
}

impl Row {
    fn show(&self) -> LedgerEntry {
        LedgerEntry {
            connector: self.connector.clone(),
            event_id: self.event.id.clone(),
            device: self.event.device.clone(),
            event_type: self.event.event_type.clone(),
            attempts: self.attempts,
            acknowledged: self.acknowledged,
            wrongly_acknowledged: self.wrongly_acknowledged,
            fate: self.status,
            last: self.last.clone(),
            queued_at: self.queued_at,
            decided_at: self.decided_at,
        }
    }
}

/// The newest entries of the ledger, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    next: Sequence,
    /// The largest number of entries that are kept.
    capacity: usize,
    rows: BTreeMap<u64, Row>,
}

impl Ledger {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { next: Sequence::default(), capacity, rows: BTreeMap::new() }
    }

    /// Adds an entry for a queued event and returns its number. Removes the oldest entry if there are too many.
    pub(crate) fn open(&mut self, connector: &str, event: &Arc<StoredEvent>, queued_at: i64) -> u64 {
        let number = self.next.next();
        let row = Row {
            connector: connector.into(),
            event: Arc::clone(event),
            attempts: 0,
            acknowledged: 0,
            wrongly_acknowledged: 0,
            status: DeliveryStatus::Pending,
            last: "".into(),
            queued_at,
            decided_at: None,
        };
        self.rows.insert(number, row);
        while self.rows.len() > self.capacity {
            self.rows.pop_first();
        }
        number
    }

    /// Records the result of an attempt that a receiver should have accepted, or (if `is_valid` is false) rejected.
    pub(super) fn attempted(&mut self, number: u64, result: &AttemptResult, is_valid: bool, now: i64) {
        let Some(row) = self.rows.get_mut(&number) else { return };
        row.attempts = row.attempts.saturating_add(1);
        row.last = result.outcome.as_str().into();
        if result.is_accepted {
            row.acknowledged = row.acknowledged.saturating_add(1);
            if !is_valid {
                row.wrongly_acknowledged = row.wrongly_acknowledged.saturating_add(1);
            }
            row.status = DeliveryStatus::Acknowledged;
            row.decided_at.get_or_insert(now);
        }
    }

    /// Sets the final status of a pending event. An event of which one copy was acknowledged stays acknowledged.
    pub(crate) fn decide(&mut self, number: u64, status: DeliveryStatus, now: i64) {
        if let Some(row) = self.rows.get_mut(&number)
            && row.status == DeliveryStatus::Pending
        {
            row.status = status;
            row.decided_at = Some(now);
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = LedgerEntry> {
        self.rows.values().map(Row::show)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::state::{DeviceRef, NewEvent};
    use dt_verify::event::EventType;

    #[test]
    fn one_acknowledged_copy_is_enough_and_the_oldest_entries_go() {
        let new = NewEvent {
            device: DeviceRef { project: "p", device: "d" },
            event_type: &EventType::Touch,
            data: "{}",
        };
        let event = Arc::new(StoredEvent::new(0, "e".into(), new, ("", 0)));
        let result = |status: u16| AttemptResult {
            outcome: format!("status_{status}"),
            is_accepted: status == 200,
            duration: Duration::ZERO,
        };
        let mut ledger = Ledger::new(2);
        let numbers: Vec<u64> = (0..3).map(|at| ledger.open("c", &event, at)).collect();
        ledger.attempted(numbers[0], &result(200), true, 5);
        ledger.attempted(numbers[1], &result(500), true, 5);
        ledger.attempted(numbers[1], &result(200), false, 6);
        ledger.decide(numbers[1], DeliveryStatus::Expired, 7);
        ledger.decide(numbers[2], DeliveryStatus::Dropped, 8);
        ledger.decide(numbers[2], DeliveryStatus::Expired, 9);
        let entries: Vec<_> = ledger.entries().collect();
        assert_eq!(entries.len(), 2, "the first was removed");
        let seen = entries.iter().map(|e| (e.fate, e.attempts, e.wrongly_acknowledged, e.decided_at));
        assert_eq!(
            seen.collect::<Vec<_>>(),
            [(DeliveryStatus::Acknowledged, 2, 1, Some(6)), (DeliveryStatus::Dropped, 0, 0, Some(8))]
        );
    }
}
