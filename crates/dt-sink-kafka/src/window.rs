//! Tracks the records between `deliver` and their delivery reports. The worker passes a record again until its state is final.
//! The record is recognised by its [`Arc`], and is not sent twice. Tickets are numbered in the order of the records.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::order_gate::OrderKey;
use dt_sink::record::Record;

/// The number of batches without a record after which the record's final entry is removed.
const FORGET_AFTER: u64 = 64;

/// The state of a record in the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The record was not sent, or is to be sent again.
    Unsent,
    /// The record was sent, and has no report yet.
    Sent,
    /// The record was acknowledged.
    Delivered,
    /// The record was rejected when it was sent alone. Contains the reason.
    Rejected(String),
    /// The record was not acknowledged before the timeout. Contains the reason.
    Failed(String),
}

impl State {
    /// Returns whether the state is final, so that the record is not sent again.
    const fn is_final(&self) -> bool {
        matches!(self, Self::Delivered | Self::Rejected(_) | Self::Failed(_))
    }
}

#[derive(Debug)]
struct Entry {
    record: Arc<Record>,
    state: State,
    /// The number of the last batch that contained this record.
    batch: u64,
    /// The approximate size of the record in a Kafka batch, in bytes.
    size: usize,
    order_key: OrderKey,
}

/// The records of the current batch, and earlier records without a report.
#[derive(Debug, Default)]
pub struct Window {
    entries: BTreeMap<u64, Entry>,
    /// The tickets of the records, by the address of a record's `Arc`. The entry of the record keeps the `Arc` alive, so the
    /// address stays unique.
    tickets: HashMap<usize, u64>,
    last_ticket: u64,
    /// The number of the current batch.
    batch: u64,
    unsent: BTreeSet<u64>,
    /// The tickets of records whose batch was rejected. Each of them is sent alone, to find the record that is the cause.
    suspects: BTreeSet<u64>,
    in_flight: usize,
    /// The number of records of the current batch whose state is not final.
    pending: usize,
}

impl Window {
    /// Begins a batch, and returns the ticket of each record. Calls `order_key` for each new record. Unsent records that are not
    /// in the batch are removed.
    pub fn present(
        &mut self,
        batch: &[Arc<Record>],
        mut order_key: impl FnMut(&Record) -> OrderKey,
    ) -> Vec<u64> {
        self.batch = self.batch.saturating_add(1);
        let tickets: Vec<u64> = batch.iter().map(|record| self.ticket_of(record, &mut order_key)).collect();
        self.pending = tickets.iter().filter(|ticket| self.is_pending(**ticket)).count();
        let (now, unsent, suspects) = (self.batch, &mut self.unsent, &mut self.suspects);
        let known = &mut self.tickets;
        self.entries.retain(|ticket, entry| {
            let is_obsolete = entry.batch < now
                && (entry.state == State::Unsent
                    || (entry.state.is_final() && entry.batch.saturating_add(FORGET_AFTER) < now));
            if is_obsolete {
                unsent.remove(ticket);
                suspects.remove(ticket);
                known.remove(&address(&entry.record));
            }
            !is_obsolete
        });
        tickets
    }

    fn ticket_of(&mut self, record: &Arc<Record>, order_key: &mut impl FnMut(&Record) -> OrderKey) -> u64 {
        let batch = self.batch;
        if let Some(ticket) = self.tickets.get(&address(record))
            && let Some(entry) = self.entries.get_mut(ticket)
        {
            entry.batch = batch;
            return *ticket;
        }
        self.last_ticket = self.last_ticket.saturating_add(1);
        let ticket = self.last_ticket;
        let entry = Entry {
            record: Arc::clone(record),
            state: State::Unsent,
            batch,
            size: 0,
            order_key: order_key(record),
        };
        self.entries.insert(ticket, entry);
        self.tickets.insert(address(record), ticket);
        self.unsent.insert(ticket);
        ticket
    }

    /// Returns the number of records of the current batch whose state is not final.
    pub const fn pending(&self) -> usize {
        self.pending
    }

    /// Returns the number of records that were sent and have no report yet.
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns the record with this ticket; `None` if it is unknown.
    pub fn record(&self, ticket: u64) -> Option<Arc<Record>> {
        self.entries.get(&ticket).map(|entry| Arc::clone(&entry.record))
    }

    /// Returns whether the record with this ticket is known, and its state is not final.
    pub fn is_pending(&self, ticket: u64) -> bool {
        self.entries.get(&ticket).is_some_and(|entry| !entry.state.is_final())
    }

    /// Returns whether the record with this ticket was sent, and has no report yet.
    pub fn is_sent(&self, ticket: u64) -> bool {
        self.entries.get(&ticket).is_some_and(|entry| entry.state == State::Sent)
    }

    /// Returns the ticket of the first unsent record; `None` if there is none.
    pub fn first_unsent(&self) -> Option<u64> {
        self.unsent.first().copied()
    }

    /// Returns the ticket of the first unsent record after the one with the ticket `after`; `None` if there is none.
    pub fn next_unsent(&self, after: u64) -> Option<u64> {
        self.unsent.range(after.saturating_add(1)..).next().copied()
    }

    /// Returns the order key of the record with this ticket.
    pub fn order_key(&self, ticket: u64) -> OrderKey {
        self.entries.get(&ticket).and_then(|entry| entry.order_key)
    }

    /// Returns whether records have to be sent alone.
    pub fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// Records that a record was sent, with its size in bytes.
    pub fn sent(&mut self, ticket: u64, size: usize) {
        self.unsent.remove(&ticket);
        if let Some(entry) = self.entries.get_mut(&ticket)
            && entry.state != State::Sent
        {
            (entry.state, entry.size) = (State::Sent, size);
            self.in_flight = self.in_flight.saturating_add(1);
        }
    }

    /// Sets the final state of the record with this ticket.
    pub fn finish(&mut self, ticket: u64, state: State) {
        let of_last = self.entries.get(&ticket).is_some_and(|entry| entry.batch == self.batch);
        if of_last && self.is_pending(ticket) {
            self.pending = self.pending.saturating_sub(1);
        }
        self.change(ticket, state);
        self.suspects.remove(&ticket);
    }

    /// Marks the record with this ticket to be sent again.
    pub fn unsent(&mut self, ticket: u64) {
        self.change(ticket, State::Unsent);
        self.unsent.insert(ticket);
    }

    /// Marks the record with this ticket to be sent again, alone. Returns its approximate size in bytes.
    pub fn suspect(&mut self, ticket: u64) -> usize {
        self.unsent(ticket);
        self.suspects.insert(ticket);
        self.entries.get(&ticket).map_or(0, |entry| entry.size)
    }

    fn change(&mut self, ticket: u64, state: State) {
        if let Some(entry) = self.entries.get_mut(&ticket) {
            if entry.state == State::Sent {
                self.in_flight = self.in_flight.saturating_sub(1);
            }
            entry.state = state;
            self.unsent.remove(&ticket);
        }
    }

    /// Marks all records without a report to be sent again.
    pub fn unsend_all(&mut self) {
        let sent = self.entries.iter().filter(|(_, entry)| entry.state == State::Sent);
        for ticket in sent.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
            self.unsent(ticket);
        }
    }

    /// Removes the entry of a record whose state is final, and returns the state; `None` if it is not final.
    pub fn take_final(&mut self, ticket: u64) -> Option<State> {
        if !self.entries.get(&ticket)?.state.is_final() {
            return None;
        }
        let entry = self.entries.remove(&ticket)?;
        self.tickets.remove(&address(&entry.record));
        self.suspects.remove(&ticket);
        Some(entry.state)
    }
}

fn address(record: &Arc<Record>) -> usize {
    Arc::as_ptr(record).addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    use bytes::Bytes;

    use dt_sink::record::KeptHeaders;
    use dt_verify::VerifiedBy;

    fn records(count: usize) -> Vec<Arc<Record>> {
        let record = |number: usize| {
            Arc::new(Record {
                connector: Arc::from("c"),
                received_at: 0,
                provenance: VerifiedBy::Secret { label: Arc::from("a") }.into(),
                event_id: number.to_string().into(),
                event_type: "touch".into(),
                project: None,
                device: None,
                request_id: None,
                headers: KeptHeaders::default(),
                body: Bytes::new(),
            })
        };
        (0..count).map(record).collect()
    }

    #[test]
    fn a_repeated_record_keeps_its_ticket_and_is_not_sent_again() {
        let records = records(3);
        let mut window = Window::default();
        let tickets = window.present(&records, |_| None);
        tickets.iter().for_each(|ticket| window.sent(*ticket, 10));
        assert_eq!((window.in_flight(), window.first_unsent()), (3, None));
        window.finish(tickets[1], State::Delivered);
        window.finish(tickets[1], State::Delivered);
        assert_eq!(window.pending(), 2);
        assert_eq!(window.take_final(tickets[1]), Some(State::Delivered));
        assert_eq!(window.take_final(tickets[0]), None, "it is in flight");
        let left = [Arc::clone(&records[0]), Arc::clone(&records[2])];
        assert_eq!(window.present(&left, |_| None), [tickets[0], tickets[2]]);
        assert_eq!((window.in_flight(), window.first_unsent()), (2, None));
    }

    #[test]
    fn purged_records_are_sent_again_in_order() {
        let records = records(4);
        let mut window = Window::default();
        let tickets = window.present(&records, |_| None);
        tickets.iter().for_each(|ticket| window.sent(*ticket, 10));
        window.finish(tickets[2], State::Delivered);
        assert_eq!(window.suspect(tickets[1]), 10);
        window.unsend_all();
        assert_eq!((window.in_flight(), window.first_unsent()), (0, Some(tickets[0])));
        assert!(window.has_suspects());
        window.finish(tickets[1], State::Rejected("no".to_owned()));
        assert!(!window.has_suspects());
    }

    #[test]
    fn abandoned_records_are_removed_and_not_sent() {
        let records = records(3);
        let mut window = Window::default();
        let tickets = window.present(&records, |_| None);
        window.sent(tickets[0], 10);
        let other = self::records(1);
        for _ in 0..FORGET_AFTER + 2 {
            window.present(&other, |_| None);
        }
        assert_eq!(window.entries.len(), 2, "records in flight are kept");
        window.unsent(tickets[0]);
        window.present(&other, |_| None);
        assert_eq!((window.entries.len(), window.tickets.len()), (1, 1));
        assert_ne!(window.first_unsent(), Some(tickets[0]));
        assert!(!window.has_suspects());
    }
}
