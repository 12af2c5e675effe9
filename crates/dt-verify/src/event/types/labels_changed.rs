//! `labelsChanged`: the one payload that DT does not key by its event type, and that has no `updateTime` (DT's page
//! "Events", and what its Python client reads). It cannot be published: changing the labels of a device makes one.

use std::collections::BTreeMap;

use serde_json::Map;

use crate::event::event_type::{KnownType, Others, Sent, When};
use crate::event::members::object;
use crate::event::reading::Readings;
use crate::event::simulation::Moment;
use crate::event::timestamp::Timestamp;

object! {
    /// `labelsChanged`: sent when labels of a device are set, changed or removed.
    ///
    /// The members of the payload are in `data` itself. The keyed form of all other types is accepted too.
    LabelsChanged {
        /// New labels and their values. A value that is not a string is converted to its JSON text.
        checked "added" added: BTreeMap<String, String>,
        /// Labels whose value has changed. A value that is not a string is converted to its JSON text.
        checked "modified" modified: BTreeMap<String, String>,
        /// The keys of removed labels.
        checked "removed" removed: Vec<String>,
        /// Absent in DT's events; use the time of the event.
        optional "updateTime" update_time: Option<Timestamp>,
    }
}

impl KnownType for LabelsChanged {
    const NAME: &'static str = "labelsChanged";
    const IS_KEYED: bool = false;
    const SENT: Sent = Sent { by: &[], others: Others::All, when: When::ByHand };

    fn sample(moment: &mut Moment<'_>) -> Self {
        let room = moment.rng.below(400).to_string();
        let labels = |value: String| BTreeMap::from([("room".to_owned(), value)]);
        let none = BTreeMap::new;
        match moment.rng.below(3) {
            0 => Self::of(labels(room), none(), &[]),
            1 => Self::of(none(), labels(room), &["floor"]),
            _ => Self::of(none(), none(), &["room"]),
        }
    }

    fn next(_last: Option<&Self>, moment: &mut Moment<'_>) -> Self {
        Self::sample(moment)
    }

    fn report<'a>(&'a self, _readings: &mut Readings<'a>) {}
}

/// The payload without changes.
impl Default for LabelsChanged {
    fn default() -> Self {
        Self::of(BTreeMap::new(), BTreeMap::new(), &[])
    }
}

impl LabelsChanged {
    fn of(added: BTreeMap<String, String>, modified: BTreeMap<String, String>, removed: &[&str]) -> Self {
        let removed = removed.iter().map(|key| (*key).to_owned()).collect();
        Self { added, modified, removed, update_time: None, extra: Map::new() }
    }
}
