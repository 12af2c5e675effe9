//! Reads the ids of events from the log, to add them to an index that lacks them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::LogError;
use super::ids::{Key, RECEIPT_SPREAD};
use super::maintenance::{Maintenance, STORE_IDS_AT};
use super::reader::received_after;
use super::shared::{Shared, first_seq_after, number_of};
use super::source::Walk;
use super::{Log, RECOVERED_TICKET};

/// The smallest number of ids that a start stores in the index. After a kill under load there are fewer, so that the start is not
/// delayed.
const MANY: usize = 2 * STORE_IDS_AT;

impl Log {
    /// Returns the time since which every accepted event is recognised as a duplicate, in Unix milliseconds: one that was received
    /// at or after it. `None` while the index lacks ids that are still being read from the log, or look-ups fail.
    #[must_use]
    pub fn ids_complete_since(&self) -> Option<i64> {
        let lacks_earlier = self.shared.queue.lock().lacks_earlier;
        let is_usable = !lacks_earlier
            && !self.shared.lookups_fail.load(Ordering::Relaxed)
            && self.shared.ids.damage().is_none();
        self.shared.ids.complete_since().filter(|_| is_usable)
    }
}

/// Sets the time since which the index has all ids, if it is unknown, or if the log no longer has events whose ids were not stored.
/// Call it before ids that are read from the log are stored. `last` is the last sequence number of the log.
///
/// # Errors
///
/// [`LogError`] if a segment cannot be read.
pub fn note_lost_ids(shared: &Shared, last: i64) -> Result<(), LogError> {
    let before = shared.before(0);
    if shared.ids.complete_since().is_some() && shared.ids.stored_up_to() >= before {
        return Ok(());
    }
    let oldest = received_after(shared, before, last)?;
    let spread = if before > 0 { RECEIPT_SPREAD } else { 0 };
    let received_last = shared.received_last.load(Ordering::Relaxed);
    let since = match oldest {
        Some(oldest) => oldest.saturating_add(spread),
        // The log has had no event yet.
        None if received_last == i64::MIN => shared.clock.unix_millis(),
        // All events are removed. The system clock may have been set back since.
        None => received_last.saturating_add(RECEIPT_SPREAD),
    };
    shared.ids.set_complete_since(since);
    Ok(())
}

/// Reads the ids of retained events after a sequence number, up to `to` or to the end of a segment. Returns the ids, and the
/// sequence number up to which they are complete.
///
/// # Errors
///
/// [`LogError`] if a segment cannot be read.
pub fn next_ids(shared: &Shared, after: i64, to: i64) -> Result<(Vec<Key>, i64), LogError> {
    let after = after.max(shared.before(0));
    let to = {
        let files = shared.files.lock();
        let number = number_of(&files.segments, after.saturating_add(1));
        number.map_or(to, |number| first_seq_after(&files.segments, number).saturating_sub(1).min(to))
    };
    let (mut keys, mut walk) = (Vec::new(), Walk::new(after));
    while walk.position < to {
        walk.step(shared, to, |_, event| {
            keys.extend(event.ok().map(|event| Key::new(event.connector(), event.event_id())));
        })?;
    }
    Ok((keys, walk.position))
}

/// Loads the ids of the events that are not in the index, at a start. If there are many, as for a new index, stores them in the
/// index.
///
/// # Errors
///
/// [`LogError`] if a segment cannot be read.
pub fn recall_ids(shared: &Arc<Shared>, durable_to: i64, last: i64) -> Result<(), LogError> {
    note_lost_ids(shared, last)?;
    let mut maintenance = Maintenance::new(shared);
    let mut position = shared.ids.stored_up_to();
    while position < durable_to {
        let (keys, up_to) = next_ids(shared, position, durable_to)?;
        position = up_to;
        let mut queue = shared.queue.lock();
        queue.recent.extend(keys.iter().map(|key| (*key, 0)));
        queue.unstored.extend(keys);
        queue.unstored_to = position;
        let are_many = queue.unstored.len() >= MANY;
        drop(queue);
        if are_many {
            // After a failure, the maintenance thread continues, and reads from the log what is not in memory.
            maintenance.store_ids();
        }
    }
    let (recovered, _) = next_ids(shared, durable_to, last)?;
    let mut queue = shared.queue.lock();
    queue.unstored_to = durable_to;
    queue.recent.extend(recovered.into_iter().map(|key| (key, RECOVERED_TICKET)));
    Ok(())
}
