//! The ledger: what became of every event for every connector, to be held against what a receiver says it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::state::StoredEvent;

/// What became of an event on its way to one connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fate {
    /// It is in the queue.
    Pending,
    /// The receiver has answered 2xx.
    Acknowledged,
    /// It was not acknowledged within the retention (12 hours).
    Expired,
    /// The connector was disabled or deleted before it was acknowledged.
    Dropped,
    /// The queue was full.
    Overflowed,
}

/// One event for one connector.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LedgerEntry {
    /// The connector's id.
    pub connector: Box<str>,
    /// `event.eventId`.
    pub event_id: Box<str>,
    /// The device's id.
    pub device: Box<str>,
    /// `event.eventType`.
    pub event_type: Box<str>,
    /// How often it was sent, copies and faults included.
    pub attempts: u32,
    /// How often that was answered 2xx.
    pub acknowledged: u32,
    /// How often a receiver acknowledged what it should have refused: a changed body, a wrong secret, an expired token.
    pub wrongly_acknowledged: u32,
    /// What became of it.
    pub fate: Fate,
    /// How the last attempt ended, such as `status_200` or `timeout`; empty before the first.
    pub last: Box<str>,
    /// When it was queued, in Unix milliseconds of the emulated clock.
    pub queued_at: i64,
    /// When its fate was decided, likewise.
    pub decided_at: Option<i64>,
}

/// One event for one connector, as it is kept: it shares the event with the history.
#[derive(Debug)]
struct Row {
    connector: Box<str>,
    event: Arc<StoredEvent>,
    attempts: u32,
    acknowledged: u32,
    wrongly_acknowledged: u32,
    fate: Fate,
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
            fate: self.fate,
            last: self.last.clone(),
            queued_at: self.queued_at,
            decided_at: self.decided_at,
        }
    }
}

/// The entries, oldest first; a bounded number.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    next: u64,
    most: usize,
    rows: BTreeMap<u64, Row>,
}

impl Ledger {
    pub(crate) fn new(most: usize) -> Self {
        Self { next: 0, most, rows: BTreeMap::new() }
    }

    /// Opens an entry for an event that is queued; the oldest goes when there are too many.
    pub(crate) fn open(&mut self, connector: &str, event: &Arc<StoredEvent>, queued_at: i64) -> u64 {
        let number = self.next;
        self.next = number.saturating_add(1);
        let row = Row {
            connector: connector.into(),
            event: Arc::clone(event),
            attempts: 0,
            acknowledged: 0,
            wrongly_acknowledged: 0,
            fate: Fate::Pending,
            last: "".into(),
            queued_at,
            decided_at: None,
        };
        self.rows.insert(number, row);
        while self.rows.len() > self.most {
            self.rows.pop_first();
        }
        number
    }

    /// Notes the end of an attempt that should have been accepted, or (`fair` is false) refused.
    pub(crate) fn attempted(&mut self, number: u64, how: &str, accepted: bool, fair: bool, now: i64) {
        let Some(row) = self.rows.get_mut(&number) else { return };
        row.attempts = row.attempts.saturating_add(1);
        row.last = how.into();
        if accepted {
            row.acknowledged = row.acknowledged.saturating_add(1);
            if !fair {
                row.wrongly_acknowledged = row.wrongly_acknowledged.saturating_add(1);
            }
            row.fate = Fate::Acknowledged;
            row.decided_at.get_or_insert(now);
        }
    }

    /// Notes a fate, unless it is acknowledged already: one copy of it is enough.
    pub(crate) fn decide(&mut self, number: u64, fate: Fate, now: i64) {
        if let Some(row) = self.rows.get_mut(&number)
            && row.fate == Fate::Pending
        {
            row.fate = fate;
            row.decided_at = Some(now);
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = LedgerEntry> {
        self.rows.values().map(Row::show)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_acknowledged_copy_is_enough_and_the_oldest_entries_go() {
        let event = Arc::new(StoredEvent::new(0, "e".into(), ("p", "d"), "touch", "{}", ("", 0)));
        let mut ledger = Ledger::new(2);
        let numbers: Vec<u64> = (0..3).map(|at| ledger.open("c", &event, at)).collect();
        ledger.attempted(numbers[0], "status_200", true, true, 5);
        ledger.attempted(numbers[1], "status_500", false, true, 5);
        ledger.attempted(numbers[1], "status_200", true, false, 6);
        ledger.decide(numbers[1], Fate::Expired, 7);
        ledger.decide(numbers[2], Fate::Dropped, 8);
        ledger.decide(numbers[2], Fate::Expired, 9);
        let entries: Vec<_> = ledger.entries().collect();
        assert_eq!(entries.len(), 2, "the first has gone");
        let seen = entries.iter().map(|e| (e.fate, e.attempts, e.wrongly_acknowledged, e.decided_at));
        assert_eq!(
            seen.collect::<Vec<_>>(),
            [(Fate::Acknowledged, 2, 1, Some(6)), (Fate::Dropped, 0, 0, Some(8))]
        );
    }
}
