//! The events of the past: one ring for all devices, so that its size has one bound.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::StoredEvent;

/// How many events are remembered at most; the oldest go first. About 600 bytes each. DT forgets after 31 days; here an
/// event may be published with a time of long ago, so age does not count.
pub(crate) const MAX_EVENTS: usize = 40_000;

/// The events of all devices, in the order in which they were published.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct History(VecDeque<Arc<StoredEvent>>);

impl History {
    pub(crate) fn push(&mut self, event: Arc<StoredEvent>) {
        if self.0.len() >= MAX_EVENTS {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    /// The events that `wanted` says yes to, the newest first, from those before the number `before`.
    pub(crate) fn newest_first<'a>(
        &'a self,
        before: Option<u64>,
        wanted: impl Fn(&StoredEvent) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Arc<StoredEvent>> {
        self.0
            .iter()
            .rev()
            .skip_while(move |event| before.is_some_and(|before| event.number >= before))
            .filter(move |event| wanted(event))
    }

    /// Forgets the events of a device that is deleted.
    pub(crate) fn forget(&mut self, project: &str, device: &str) {
        self.0.retain(|event| (&*event.project, &*event.device) != (project, device));
    }
}
