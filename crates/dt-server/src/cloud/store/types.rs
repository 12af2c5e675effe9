//! The event types that the Data Connectors of a project deliver here, and since when.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension, params};

use super::{CloudError, CloudStore};

/// The name that stands for all event types.
pub const ALL_TYPES: &str = "*";

/// The event types that are delivered, each with the time since when, in Unix milliseconds. [`ALL_TYPES`] stands for those that
/// are not named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveredSince(BTreeMap<String, i64>);

impl DeliveredSince {
    /// Returns since when a type is delivered, in Unix milliseconds; `None` if it is not.
    #[must_use]
    pub fn since(&self, event_type: &str) -> Option<i64> {
        self.0.get(event_type).or_else(|| self.0.get(ALL_TYPES)).copied()
    }

    /// Returns the names of the types; `None` if all are delivered.
    #[must_use]
    pub fn names(&self) -> Option<impl Iterator<Item = &str>> {
        (!self.0.contains_key(ALL_TYPES)).then(|| self.0.keys().map(String::as_str))
    }

    /// Returns the types that are delivered from now on. A type that was not among the earlier ones is delivered since `now`; if
    /// none were known, since `baseline`.
    fn next(before: Option<&Self>, types: &BTreeSet<String>, (baseline, now): (i64, i64)) -> Self {
        let since = |name: &str| match before {
            None => baseline,
            // A time after this one is of a clock that was set back.
            Some(before) => before.since(name).unwrap_or(now).min(now),
        };
        let mut next: BTreeMap<_, _> = types.iter().map(|name| (name.clone(), since(name))).collect();
        if let (Some(all), Some(before)) = (next.get(ALL_TYPES).copied(), before) {
            let earlier = before.0.iter().filter(|(_, since)| **since < all);
            next.extend(earlier.map(|(name, since)| (name.clone(), *since)));
        }
        Self(next)
    }
}

impl CloudStore {
    /// Returns the event types that are delivered for a project; `None` if they are not known. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be read.
    pub fn delivered_types(&self, project: &str) -> Result<Option<DeliveredSince>, CloudError> {
        self.read("reading the event types", |file| {
            let mut select = file.prepare_cached("SELECT types FROM projects WHERE project = ?1")?;
            let types: Option<String> =
                select.query_row([project], |row| row.get(0)).optional().map(Option::flatten)?;
            let types = types.map(|types| serde_json::from_str(&types)).transpose().map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
            })?;
            Ok(types.map(DeliveredSince))
        })
    }

    /// Stores the event types that are delivered for a project from now on, each since it is delivered without interruption.
    /// [`ALL_TYPES`] stands for all. `now` is in Unix milliseconds. Blocks.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if the database cannot be changed. Nothing has changed then.
    pub fn set_delivered_types(
        &self,
        project: &str,
        types: &BTreeSet<String>,
        now: i64,
    ) -> Result<(), CloudError> {
        let baseline = self.baseline(project, now)?;
        let before = self.delivered_types(project)?;
        let next = DeliveredSince::next(before.as_ref(), types, (baseline, now));
        if before.as_ref() == Some(&next) {
            return Ok(());
        }
        let json = serde_json::json!(next.0).to_string();
        self.change("storing the event types", |change| {
            change
                .execute("UPDATE projects SET types = ?2 WHERE project = ?1", params![project, json])
                .map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_delivered_since_it_was_added() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = CloudStore::open(folder.path()).expect("opened");
        let set = |types: &[&str], now: i64| {
            let types = types.iter().map(ToString::to_string).collect();
            store.set_delivered_types("p", &types, now).expect("stored");
            store.delivered_types("p").expect("read").expect("known")
        };
        assert_eq!(store.delivered_types("p").expect("read"), None);
        store.baseline("p", 10).expect("stored");
        let first = set(&["touch"], 20);
        assert_eq!((first.since("touch"), first.since("ccon")), (Some(10), None));
        assert_eq!(first.names().map(|names| names.collect::<Vec<_>>()), Some(vec!["touch"]));
        let all = set(&[ALL_TYPES], 30);
        assert_eq!((all.since("touch"), all.since("temperature")), (Some(10), Some(30)));
        assert!(all.names().is_none());
        let two = set(&["temperature", "touch"], 40);
        assert_eq!((two.since("touch"), two.since("temperature")), (Some(10), Some(30)));
        set(&["temperature"], 50);
        let again = set(&["temperature", "touch"], 60);
        assert_eq!((again.since("touch"), again.since("temperature")), (Some(60), Some(30)));
        // The clock was set back.
        assert_eq!(set(&["temperature", "touch"], 35).since("touch"), Some(35));
    }
}
