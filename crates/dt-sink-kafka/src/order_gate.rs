//! Keeps the order of each device across a rejected batch: a new producer sends one record of a device, and the next ones
//! only after the first was acknowledged.
//!
//! A broker rejects batches that follow a rejected one by their sequence numbers, but only if it already knows the producer
//! in that partition. Before, it accepts whichever batch arrives first, which may be the second batch of a device whose
//! first batch it has just rejected.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The largest number of order keys that are kept. A device whose key was removed waits for an acknowledgement once more.
const MAX_ORDER_KEYS: usize = 100_000;

/// The key of records whose order matters: those of one device in one topic, which all go to one partition. `None` if their order
/// does not matter.
pub type OrderKey = Option<u64>;

/// Returns the order key of a device in a topic.
pub fn order_key(topic: &str, device: Option<&str>) -> OrderKey {
    device.map(|device| {
        let mut hasher = DefaultHasher::new();
        (topic, device).hash(&mut hasher);
        hasher.finish()
    })
}

/// The order keys for which a producer has sent records.
#[derive(Debug, Default)]
pub struct OrderGate {
    /// For each order key, whether a record was acknowledged; if not, its first record is in flight.
    acknowledged_keys: HashMap<u64, bool>,
}

impl OrderGate {
    /// Returns whether a record with this key may be sent now.
    pub fn may_send(&self, order_key: OrderKey) -> bool {
        order_key
            .and_then(|order_key| self.acknowledged_keys.get(&order_key))
            .is_none_or(|is_acknowledged| *is_acknowledged)
    }

    /// Records that a record with this key was sent.
    pub fn sent(&mut self, order_key: OrderKey) {
        let Some(order_key) = order_key else { return };
        if self.acknowledged_keys.len() >= MAX_ORDER_KEYS {
            self.acknowledged_keys.retain(|_, is_acknowledged| !*is_acknowledged);
        }
        self.acknowledged_keys.entry(order_key).or_insert(false);
    }

    /// Records that a record with this key was acknowledged. Returns whether it was the first one.
    pub fn acknowledged(&mut self, order_key: OrderKey) -> bool {
        match order_key.and_then(|order_key| self.acknowledged_keys.get_mut(&order_key)) {
            Some(is_acknowledged) => !std::mem::replace(is_acknowledged, true),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_record_of_a_device_waits_for_the_first() {
        let (one, other) = (order_key("t", Some("one")), order_key("t", Some("other")));
        assert_ne!(one, order_key("u", Some("one")), "another topic is another partition");
        let mut order_gate = OrderGate::default();
        assert!(order_gate.may_send(one));
        order_gate.sent(one);
        assert!(!order_gate.may_send(one) && order_gate.may_send(other) && order_gate.may_send(None));
        assert!(order_gate.acknowledged(one));
        assert!(order_gate.may_send(one));
        order_gate.sent(one);
        assert!(order_gate.may_send(one) && !order_gate.acknowledged(one));
        assert!(!order_gate.acknowledged(other) && !order_gate.acknowledged(None));
    }

    #[test]
    fn the_number_of_keys_is_limited() {
        let mut order_gate = OrderGate::default();
        for device in 0..=MAX_ORDER_KEYS {
            let order_key = order_key("t", Some(&device.to_string()));
            order_gate.sent(order_key);
            order_gate.acknowledged(order_key);
        }
        assert_eq!(order_gate.acknowledged_keys.len(), 1);
    }
}
