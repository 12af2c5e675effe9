//! The order of a device's events: determines which records wait for an earlier record of their device.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytestring::ByteString;
use dt_sink::Fate;
use dt_sink::record::Record;

/// Sets the fate [`Fate::Retry`] for each record whose device has an earlier record that is retried, even if it was acknowledged:
/// otherwise the earlier record would follow it.
pub fn hold_back(batch: &[Arc<Record>], fates: &mut [Fate]) {
    let mut held: HashSet<Option<&ByteString>> = HashSet::new();
    for (record, fate) in batch.iter().zip(fates) {
        let device = record.device.as_ref();
        match fate {
            Fate::Retry { .. } => {
                held.insert(device);
            }
            Fate::Delivered if held.contains(&device) => {
                let error = "an earlier record of the device is not delivered".to_owned();
                *fate = Fate::Retry { error };
            }
            _ => {}
        }
    }
}

/// Returns the number of each record's device. Records without a device count as one device.
pub fn device_numbers(records: &[Arc<Record>]) -> Vec<usize> {
    let mut numbers: HashMap<Option<&ByteString>, usize> = HashMap::new();
    let mut number = |record| {
        let next = numbers.len();
        *numbers.entry(record).or_insert(next)
    };
    records.iter().map(|record| number(record.device.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_waits_for_the_earlier_ones_of_its_device() {
        let record = |device: Option<&str>| {
            Arc::new(Record { device: device.map(Into::into), ..Record::sample("id") })
        };
        let batch = [Some("a"), Some("b"), Some("a"), None, Some("a"), None].map(record);
        let wait = || Fate::Retry { error: String::new() };
        let rejected = Fate::Rejected { error: String::new() };
        let mut fates =
            [wait(), Fate::Delivered, Fate::Delivered, Fate::Delivered, rejected.clone(), Fate::Delivered];
        hold_back(&batch, &mut fates);
        assert!(
            matches!(fates[0], Fate::Retry { .. }) && matches!(fates[2], Fate::Retry { .. }),
            "{fates:?}"
        );
        assert_eq!((&fates[1], &fates[3], &fates[5]), (&Fate::Delivered, &Fate::Delivered, &Fate::Delivered));
        assert_eq!(fates[4], rejected);
    }
}
