//! The messages that a subscriber read, held against what was sent.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::Message;
use crate::events::{body, id, parse_id};
use crate::load::Ledger;

/// The events among some messages, each of which was exactly as it should be.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How often each event is there.
    copies: BTreeMap<(u64, u64), u64>,
    /// The first copy of each event of a device, in the order of the messages.
    first: BTreeMap<u64, Vec<u64>>,
}

impl Seen {
    /// Compares each message with `expected`, which is the payload of an event.
    pub(crate) fn new(messages: &[Message], is_expected: impl Fn(&Message, u64, u64) -> bool) -> Self {
        let mut seen = Self::default();
        for message in messages {
            let (device, number) =
                parse_id(message.text()).unwrap_or_else(|| panic!("no event of ours: {message:?}"));
            assert!(is_expected(message, device, number), "not as it was sent: {message:?}");
            let copies = seen.copies.entry((device, number)).or_default();
            *copies += 1;
            if *copies == 1 {
                seen.first.entry(device).or_default().push(number);
            }
        }
        seen
    }

    /// The events whose payload is the received body.
    pub(crate) fn of_bodies(messages: &[Message]) -> Self {
        Self::new(messages, |message, device, number| {
            message.topic == format!("dt/p/dev{device}/touch") && message.text() == body(device, number)
        })
    }

    pub(crate) fn events(&self) -> BTreeSet<(u64, u64)> {
        self.copies.keys().copied().collect()
    }

    /// The events of each device are in their order, by first copies. Returns how many copies there are too many.
    pub(crate) fn assert_in_order(&self) -> u64 {
        for (device, numbers) in &self.first {
            let odd = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
            assert_eq!(odd, None, "dev{device} is out of order");
        }
        self.copies.values().map(|copies| copies - 1).sum()
    }

    /// Nothing that was accepted is missing, and each device is in order. Returns how many copies there are too many.
    pub(crate) fn assert_complete(&self, ledger: &Ledger) -> u64 {
        let missing: Vec<_> =
            ledger.accepted.iter().filter(|event| !self.copies.contains_key(event)).collect();
        assert!(missing.is_empty(), "{} accepted events are lost: {missing:?}", missing.len());
        self.assert_in_order()
    }

    /// The same, and nothing else is there, and all of it once.
    pub(crate) fn assert_exact(&self, ledger: &Ledger) {
        assert_eq!(self.assert_complete(ledger), 0, "there are copies");
        assert_eq!(self.copies.len(), ledger.count(), "there is more than was accepted");
    }
}

/// Checks the user properties that each event has in MQTT 5.
pub(crate) fn has_properties(message: &Message, device: u64, number: u64) -> bool {
    message.property("dt-event-id") == id(device, number)
        && message.property("dt-event-type") == "touch"
        && message.property("dt-connector") == "default"
        && message.property("dt-received-at").parse::<jiff::Timestamp>().is_ok()
        && message.content_type.as_deref() == Some("application/json")
}
