//! The records that are on their way, known by their [`Arc`]s: the worker gives a record again until it is settled, and it
//! must not be sent twice for that. Tickets grow in the order in which records were first given, which is their order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::proven::Lane;
use dt_sink::record::Record;

/// How many batches an entry outlives that has become nobody's.
const FORGET_AFTER: u64 = 64;

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Not given to Kafka.
    Unsent,
    /// Given to Kafka; there is no report yet.
    Sent,
    /// Acknowledged.
    Delivered,
    /// Refused alone, for good.
    Rejected(String),
    /// Not delivered in the time there was.
    Failed(String),
}

impl State {
    const fn is_settled(&self) -> bool {
        matches!(self, Self::Delivered | Self::Rejected(_) | Self::Failed(_))
    }
}

#[derive(Debug)]
struct Entry {
    record: Arc<Record>,
    state: State,
    /// The batch that it was in last.
    batch: u64,
    /// How large it is for Kafka.
    size: usize,
    lane: Lane,
}

/// See the module's own words.
#[derive(Debug, Default)]
pub(super) struct Window {
    entries: BTreeMap<u64, Entry>,
    /// The ticket of a record, by the address of its `Arc`, which is not used again while the entry holds one.
    tickets: HashMap<usize, u64>,
    last_ticket: u64,
    /// The number of the batch that was given last.
    batch: u64,
    unsent: BTreeSet<u64>,
    /// Those that were refused in a batch with others, and have to be tried alone.
    suspects: BTreeSet<u64>,
    in_flight: usize,
    /// How many records of the last batch are not settled.
    open: usize,
}

impl Window {
    /// Takes a batch, and gives the ticket of each record; one that is new is asked for its lane. What the last batch had
    /// and this one has not is not sent any more.
    pub(super) fn present(
        &mut self,
        batch: &[Arc<Record>],
        mut lane: impl FnMut(&Record) -> Lane,
    ) -> Vec<u64> {
        self.batch = self.batch.saturating_add(1);
        let tickets: Vec<u64> = batch.iter().map(|record| self.ticket_of(record, &mut lane)).collect();
        self.open = tickets.iter().filter(|ticket| self.is_unsettled(**ticket)).count();
        let (now, unsent, suspects) = (self.batch, &mut self.unsent, &mut self.suspects);
        let known = &mut self.tickets;
        self.entries.retain(|ticket, entry| {
            let is_nobodys = entry.batch < now
                && (entry.state == State::Unsent
                    || (entry.state.is_settled() && entry.batch.saturating_add(FORGET_AFTER) < now));
            if is_nobodys {
                unsent.remove(ticket);
                suspects.remove(ticket);
                known.remove(&address(&entry.record));
            }
            !is_nobodys
        });
        tickets
    }

    fn ticket_of(&mut self, record: &Arc<Record>, lane: &mut impl FnMut(&Record) -> Lane) -> u64 {
        let batch = self.batch;
        if let Some(ticket) = self.tickets.get(&address(record))
            && let Some(entry) = self.entries.get_mut(ticket)
        {
            entry.batch = batch;
            return *ticket;
        }
        self.last_ticket = self.last_ticket.saturating_add(1);
        let ticket = self.last_ticket;
        let entry =
            Entry { record: Arc::clone(record), state: State::Unsent, batch, size: 0, lane: lane(record) };
        self.entries.insert(ticket, entry);
        self.tickets.insert(address(record), ticket);
        self.unsent.insert(ticket);
        ticket
    }

    /// How many records of the last batch are not settled.
    pub(super) const fn open(&self) -> usize {
        self.open
    }

    /// How many records have no report yet.
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn record(&self, ticket: u64) -> Option<Arc<Record>> {
        self.entries.get(&ticket).map(|entry| Arc::clone(&entry.record))
    }

    pub(super) fn is_unsettled(&self, ticket: u64) -> bool {
        self.entries.get(&ticket).is_some_and(|entry| !entry.state.is_settled())
    }

    pub(super) fn is_sent(&self, ticket: u64) -> bool {
        self.entries.get(&ticket).is_some_and(|entry| entry.state == State::Sent)
    }

    /// The first record that was not given to Kafka.
    pub(super) fn first_unsent(&self) -> Option<u64> {
        self.unsent.first().copied()
    }

    /// The first one after this ticket.
    pub(super) fn next_unsent(&self, after: u64) -> Option<u64> {
        self.unsent.range(after.saturating_add(1)..).next().copied()
    }

    /// Whose record it is.
    pub(super) fn lane(&self, ticket: u64) -> Lane {
        self.entries.get(&ticket).and_then(|entry| entry.lane)
    }

    /// Whether records have to be tried alone.
    pub(super) fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    pub(super) fn sent(&mut self, ticket: u64, size: usize) {
        self.unsent.remove(&ticket);
        if let Some(entry) = self.entries.get_mut(&ticket)
            && entry.state != State::Sent
        {
            (entry.state, entry.size) = (State::Sent, size);
            self.in_flight = self.in_flight.saturating_add(1);
        }
    }

    /// Notes the end of a record.
    pub(super) fn settle(&mut self, ticket: u64, state: State) {
        let of_last = self.entries.get(&ticket).is_some_and(|entry| entry.batch == self.batch);
        if of_last && self.is_unsettled(ticket) {
            self.open = self.open.saturating_sub(1);
        }
        self.change(ticket, state);
        self.suspects.remove(&ticket);
    }

    /// It has to be sent again.
    pub(super) fn unsent(&mut self, ticket: u64) {
        self.change(ticket, State::Unsent);
        self.unsent.insert(ticket);
    }

    /// It has to be sent again, alone. Gives how large it is for Kafka.
    pub(super) fn suspect(&mut self, ticket: u64) -> usize {
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

    /// Whatever has no report has to be sent again.
    pub(super) fn unsend_all(&mut self) {
        let sent = self.entries.iter().filter(|(_, entry)| entry.state == State::Sent);
        for ticket in sent.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
            self.unsent(ticket);
        }
    }

    /// Takes a record out if it is settled.
    pub(super) fn take_settled(&mut self, ticket: u64) -> Option<State> {
        if !self.entries.get(&ticket)?.state.is_settled() {
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
                verified_by: VerifiedBy::Secret { label: Arc::from("a") },
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
    fn a_record_that_is_given_again_keeps_its_ticket_and_is_not_sent_again() {
        let records = records(3);
        let mut window = Window::default();
        let tickets = window.present(&records, |_| None);
        tickets.iter().for_each(|ticket| window.sent(*ticket, 10));
        assert_eq!((window.in_flight(), window.first_unsent()), (3, None));
        window.settle(tickets[1], State::Delivered);
        window.settle(tickets[1], State::Delivered);
        assert_eq!(window.open(), 2);
        assert_eq!(window.take_settled(tickets[1]), Some(State::Delivered));
        assert_eq!(window.take_settled(tickets[0]), None, "it is on its way");
        let left = [Arc::clone(&records[0]), Arc::clone(&records[2])];
        assert_eq!(window.present(&left, |_| None), [tickets[0], tickets[2]]);
        assert_eq!((window.in_flight(), window.first_unsent()), (2, None));
    }

    #[test]
    fn what_comes_back_is_sent_in_its_order() {
        let records = records(4);
        let mut window = Window::default();
        let tickets = window.present(&records, |_| None);
        tickets.iter().for_each(|ticket| window.sent(*ticket, 10));
        window.settle(tickets[2], State::Delivered);
        assert_eq!(window.suspect(tickets[1]), 10);
        window.unsend_all();
        assert_eq!((window.in_flight(), window.first_unsent()), (0, Some(tickets[0])));
        assert!(window.has_suspects());
        window.settle(tickets[1], State::Rejected("no".to_owned()));
        assert!(!window.has_suspects());
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_not_sent_and_goes() {
        let records = records(3);
        let mut window = Window::default();
        let tickets = window.present(&records, |_| None);
        window.sent(tickets[0], 10);
        let other = self::records(1);
        for _ in 0..FORGET_AFTER + 2 {
            window.present(&other, |_| None);
        }
        assert_eq!(window.entries.len(), 2, "what is on its way is waited for");
        window.unsent(tickets[0]);
        window.present(&other, |_| None);
        assert_eq!((window.entries.len(), window.tickets.len()), (1, 1));
        assert_ne!(window.first_unsent(), Some(tickets[0]));
        assert!(!window.has_suspects());
    }
}
