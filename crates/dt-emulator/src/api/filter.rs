//! The filter of a list of devices or a stream.

use std::collections::BTreeSet;

use super::query::Query;
use crate::state::Labels;

/// Selects devices by id, type, labels and words (documentation of `Device.list_devices` and `Stream.event_stream` in DT's
/// Python client). In a list a device needs all of the labels, in a stream any of them.
pub struct Filter {
    any_label: bool,
    ids: BTreeSet<String>,
    types: BTreeSet<String>,
    labels: Vec<LabelFilter>,
    words: Vec<String>,
}

/// A condition on a label: `key=value`; `key=` or `key` matches any value.
struct LabelFilter {
    key: String,
    value: Option<String>,
}

impl LabelFilter {
    fn read(text: &str) -> Self {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        Self { key: key.to_owned(), value: Some(value.to_owned()).filter(|value| !value.is_empty()) }
    }

    fn fits(&self, labels: &Labels) -> bool {
        labels.get(&self.key).is_some_and(|found| self.value.as_ref().is_none_or(|value| value == found))
    }
}

impl Filter {
    pub fn read(query: &Query, any_label: bool) -> Self {
        let set = |name| query.all(name).map(str::to_owned).collect();
        let words = query.last("query").unwrap_or_default().split_whitespace();
        Self {
            any_label,
            ids: set("deviceIds"),
            types: set("deviceTypes"),
            labels: query.whole("labelFilters").map(LabelFilter::read).collect(),
            words: words.map(str::to_lowercase).collect(),
        }
    }

    pub fn wants(&self, id: &str, device_type: &str, labels: &Labels) -> bool {
        let fits = |filter: &LabelFilter| filter.fits(labels);
        (self.ids.is_empty() || self.ids.contains(id))
            && (self.types.is_empty() || self.types.contains(device_type))
            && match self.any_label {
                true => self.labels.is_empty() || self.labels.iter().any(fits),
                false => self.labels.iter().all(fits),
            }
            && self.words.iter().all(|word| has_word(word, id, device_type, labels))
    }
}

/// Returns whether a word in lower case is part of the type, the id, or the key or value of a label.
fn has_word(word: &str, id: &str, device_type: &str, labels: &Labels) -> bool {
    let mut texts = labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
    contains(id, word) || contains(device_type, word) || texts.any(|text| contains(text, word))
}

/// Returns whether a text, in lower case, contains a part, which is in lower case.
pub fn contains(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(part)
}
