//! Of which devices a producer may send one record after the other without waiting.
//!
//! A batch that is refused must keep those after it from being accepted. A broker does that once it knows the producer in
//! the partition, by the numbers of the batches; before, it takes whatever comes first, which may be the second batch of a
//! device whose first one it has just refused. So the first record of each device has to be acknowledged before the
//! second is sent.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How many devices are remembered at most; one that was forgotten only waits again.
const MAX_LANES: usize = 100_000;

/// Records of one device that go to one topic, and so to one partition; `None` where no order is promised.
pub(super) type Lane = Option<u64>;

/// The lane of a device and a topic.
pub(super) fn lane(topic: &str, device: Option<&str>) -> Lane {
    device.map(|device| {
        let mut hasher = DefaultHasher::new();
        (topic, device).hash(&mut hasher);
        hasher.finish()
    })
}

/// What one producer has proven.
#[derive(Debug, Default)]
pub(super) struct Proven {
    /// Whether something of the lane was acknowledged; if not, its first record is on its way.
    lanes: HashMap<u64, bool>,
}

impl Proven {
    /// Whether a record may be sent now.
    pub(super) fn may_send(&self, lane: Lane) -> bool {
        lane.and_then(|lane| self.lanes.get(&lane)).is_none_or(|is_proven| *is_proven)
    }

    /// A record is on its way.
    pub(super) fn sent(&mut self, lane: Lane) {
        let Some(lane) = lane else { return };
        if self.lanes.len() >= MAX_LANES {
            self.lanes.retain(|_, is_proven| !*is_proven);
        }
        self.lanes.entry(lane).or_insert(false);
    }

    /// A record was acknowledged. Whether that proves what was not proven before.
    pub(super) fn acknowledged(&mut self, lane: Lane) -> bool {
        match lane.and_then(|lane| self.lanes.get_mut(&lane)) {
            Some(is_proven) => !std::mem::replace(is_proven, true),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_record_of_a_device_waits_for_the_first() {
        let (one, other) = (lane("t", Some("one")), lane("t", Some("other")));
        assert_ne!(one, lane("u", Some("one")), "another topic is another partition");
        let mut proven = Proven::default();
        assert!(proven.may_send(one));
        proven.sent(one);
        assert!(!proven.may_send(one) && proven.may_send(other) && proven.may_send(None));
        assert!(proven.acknowledged(one));
        assert!(proven.may_send(one));
        proven.sent(one);
        assert!(proven.may_send(one) && !proven.acknowledged(one));
        assert!(!proven.acknowledged(other) && !proven.acknowledged(None));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut proven = Proven::default();
        for device in 0..=MAX_LANES {
            let lane = lane("t", Some(&device.to_string()));
            proven.sent(lane);
            proven.acknowledged(lane);
        }
        assert_eq!(proven.lanes.len(), 1);
    }
}
