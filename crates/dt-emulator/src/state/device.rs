//! A device: its representation in DT's REST API, and the latest event of each type.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::event::StoredEvent;
use dt_verify::event::payload::LabelsChanged;
use dt_verify::event::simulation;

/// The label that marks emulated devices.
const EMULATED_LABEL: &str = "virtual-sensor";

/// The largest number of labels of a device.
pub const MAX_LABELS: usize = 100;

/// The largest length of the key and of the value of a label, in bytes.
const MAX_LABEL: usize = 1_024;

/// Returns whether a label can have this key and this value.
pub fn is_label(key: &str, value: &str) -> bool {
    !key.is_empty() && key.len() <= MAX_LABEL && value.len() <= MAX_LABEL
}

/// The error if a device would have more than [`MAX_LABELS`] labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device has at most {MAX_LABELS} labels")]
pub struct TooManyLabels;

/// Labels, by key.
pub type Labels = BTreeMap<String, String>;

/// A device of a project.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// The id of the device; empty if a state file omits it, until the file is read completely.
    #[serde(default)]
    pub id: String,
    pub device_type: String,
    #[serde(default)]
    pub labels: Labels,
    /// Whether the device sends events by itself. The member of the state file is named `lively`.
    #[serde(default, rename = "lively")]
    pub has_heartbeat: bool,
    /// The latest event of each type.
    #[serde(default)]
    pub latest: BTreeMap<String, Arc<StoredEvent>>,
}

impl Device {
    pub fn new(id: String, device_type: String, mut labels: Labels, has_heartbeat: bool) -> Self {
        labels.entry(EMULATED_LABEL.to_owned()).or_default();
        Self { id, device_type, labels, has_heartbeat, latest: BTreeMap::new() }
    }

    /// Sets and removes labels, and returns what has changed.
    ///
    /// # Errors
    ///
    /// Returns [`TooManyLabels`] if the device would have too many labels. In this case, its labels are not changed.
    pub fn change_labels(
        &mut self,
        set: &Labels,
        remove: &BTreeSet<String>,
    ) -> Result<LabelsChanged, TooManyLabels> {
        let kept = self.labels.keys().filter(|key| !set.contains_key(*key) && !remove.contains(*key)).count();
        let new = set.keys().filter(|key| !remove.contains(*key)).count();
        if kept.saturating_add(new) > MAX_LABELS {
            return Err(TooManyLabels);
        }
        let mut change = LabelsChanged::default();
        for (key, value) in set {
            match self.labels.insert(key.clone(), value.clone()) {
                None => change.added.insert(key.clone(), value.clone()),
                Some(before) if before != *value => change.modified.insert(key.clone(), value.clone()),
                Some(_) => None,
            };
        }
        for key in remove {
            if self.labels.remove(key).is_some() && change.added.remove(key).is_none() {
                change.modified.remove(key);
                change.removed.push(key.clone());
            }
        }
        Ok(change)
    }

    /// Returns the device as DT's REST API shows it. `reported` has the latest payload of each type, `null` before the first.
    pub fn to_json(&self, project: &str) -> Value {
        let mut reported = Map::new();
        for event_type in simulation::sent_by(&self.device_type) {
            reported.insert(event_type.as_str().to_owned(), Value::Null);
        }
        for (event_type, event) in &self.latest {
            // `labelsChanged` has no payload in `reported`: the labels are shown in `labels`.
            if let Some(payload) = event.payload() {
                reported.insert(event_type.clone(), payload);
            }
        }
        json!({
            "name": format!("projects/{project}/devices/{}", self.id),
            "type": self.device_type,
            "productNumber": "",
            "labels": self.labels,
            "reported": reported,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_change_of_labels_says_what_changed() {
        let mut device = Device::new("d".into(), "touch".into(), labels(&[("a", "1"), ("b", "2")]), false);
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<BTreeSet<String>>();
        let change =
            device.change_labels(&labels(&[("a", "1"), ("b", "3"), ("c", "4")]), &keys(&["x"])).unwrap();
        let seen = serde_json::to_value(&change).unwrap();
        assert_eq!(seen, json!({"added": {"c": "4"}, "modified": {"b": "3"}, "removed": []}));
        let change = device.change_labels(&labels(&[("d", "5")]), &keys(&["a", "d"])).unwrap();
        let seen = serde_json::to_value(&change).unwrap();
        assert_eq!(seen, json!({"added": {}, "modified": {}, "removed": ["a"]}));
        assert_eq!(device.change_labels(&Labels::new(), &keys(&["a"])), Ok(LabelsChanged::default()));
    }

    #[test]
    fn what_a_device_has_in_the_end_is_what_counts() {
        let many = |count: usize| (0..count).map(|n| (n.to_string(), String::new())).collect::<Labels>();
        // With the label that marks it, the device is full.
        let mut device = Device::new("d".into(), "touch".into(), many(MAX_LABELS - 1), false);
        let new = labels(&[("new", "")]);
        assert_eq!(device.change_labels(&new, &BTreeSet::new()).err(), Some(TooManyLabels));
        assert!(!device.labels.contains_key("new"), "nothing has changed");
        assert!(device.change_labels(&labels(&[("0", "other")]), &BTreeSet::new()).is_ok());
        assert!(device.change_labels(&new, &BTreeSet::from(["1".to_owned()])).is_ok());
        assert_eq!(device.labels.len(), MAX_LABELS);
    }

    #[test]
    fn a_new_device_has_reported_nothing() {
        let shown = Device::new("d".into(), "co2".into(), Labels::new(), false).to_json("p");
        assert_eq!(shown["name"], "projects/p/devices/d");
        assert_eq!(shown["labels"], json!({"virtual-sensor": ""}));
        assert_eq!(shown["reported"]["pressure"], Value::Null);
        assert!(shown["reported"].as_object().unwrap().contains_key("networkStatus"));
    }
}
