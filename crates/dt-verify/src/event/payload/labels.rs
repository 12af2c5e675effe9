//! Changed labels: the one payload that DT does not key by its event type, and that has no `updateTime`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::{Fields, Unfit};
use crate::event::delivery::labels;
use crate::event::timestamp::Timestamp;

/// `labelsChanged`: sent when labels of a device are set, changed or removed.
///
/// Its members stand in `data` itself. A keyed one, as all other types are, is accepted too.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LabelsChanged {
    /// New labels and their values. A value that is not a string is here as its JSON text.
    pub added: BTreeMap<String, String>,
    /// Labels with another value than before; the same holds for them.
    pub modified: BTreeMap<String, String>,
    /// Keys of labels that are gone.
    pub removed: Vec<String>,
    /// DT sends none: the event's own time counts.
    pub update_time: Option<Timestamp>,
    /// Members not known here, or not of the documented type.
    pub extra: Map<String, Value>,
}

impl LabelsChanged {
    pub(super) fn read(mut fields: Fields<'_>) -> Result<Self, Unfit> {
        Ok(Self {
            added: fields.right_if_there("added", "an object", labels)?,
            modified: fields.right_if_there("modified", "an object", labels)?,
            removed: fields.right_if_there("removed", "a list of texts", |value| {
                value.as_array()?.iter().map(|key| key.as_str().map(str::to_owned)).collect()
            })?,
            update_time: fields.time("updateTime"),
            extra: fields.rest(),
        })
    }
}
