//! The ledger: what became of every event for every connector, to be held against what a receiver says it has.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;

use serde::Serialize;

use crate::emulator::state::StoredEvent;

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

impl LedgerEntry {
    /// An event that was queued for a connector.
    pub(crate) fn new(connector: &str, event: &StoredEvent, queued_at: i64) -> Self {
        Self {
            connector: connector.into(),
            event_id: event.id.clone(),
            device: event.device.clone(),
            event_type: event.event_type.clone(),
            attempts: 0,
            acknowledged: 0,
            wrongly_acknowledged: 0,
            fate: Fate::Pending,
            last: "".into(),
            queued_at,
            decided_at: None,
        }
    }
}

/// The entries, oldest first; a bounded number.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    next: u64,
    most: usize,
    entries: BTreeMap<u64, LedgerEntry>,
}

impl Ledger {
    pub(crate) fn new(most: usize) -> Self {
        Self { next: 0, most, entries: BTreeMap::new() }
    }

    /// Opens an entry; the oldest goes when there are too many.
    pub(crate) fn open(&mut self, entry: LedgerEntry) -> u64 {
        let number = self.next;
        self.next = number.saturating_add(1);
        self.entries.insert(number, entry);
        while self.entries.len() > self.most {
            self.entries.pop_first();
        }
        number
    }

    /// Notes the end of an attempt that should have been accepted, or (`fair` is false) refused.
    pub(crate) fn attempted(&mut self, number: u64, how: &str, accepted: bool, fair: bool, now: i64) {
        let Place::Occupied(mut place) = self.entries.entry(number) else { return };
        let entry = place.get_mut();
        entry.attempts = entry.attempts.saturating_add(1);
        entry.last = how.into();
        if accepted {
            entry.acknowledged = entry.acknowledged.saturating_add(1);
            if !fair {
                entry.wrongly_acknowledged = entry.wrongly_acknowledged.saturating_add(1);
            }
            entry.fate = Fate::Acknowledged;
            entry.decided_at.get_or_insert(now);
        }
    }

    /// Notes a fate, unless it is acknowledged already: one copy of it is enough.
    pub(crate) fn decide(&mut self, number: u64, fate: Fate, now: i64) {
        if let Some(entry) = self.entries.get_mut(&number)
            && entry.fate == Fate::Pending
        {
            entry.fate = fate;
            entry.decided_at = Some(now);
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &LedgerEntry> {
        self.entries.values()
    }
}
