//! A second opinion on a delivery's body, by `serde_json` alone: no member is passed over, and each is counted.

use dt_verify::event::{MAX_NAME_LEN, NotADelivery};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The members of one object, in order, those with the same name too.
struct Members(Vec<(String, Box<RawValue>)>);

/// What a body holds.
pub struct Reading {
    /// `None` for a body that is no object; so are the others.
    body: Option<Members>,
    event: Option<Members>,
    metadata: Option<Members>,
    /// `event` and `metadata` as trees, in which the last of the members with one name counts.
    event_tree: Value,
    metadata_tree: Value,
}

impl Reading {
    /// Reads a body; `None` where it is not JSON that a [`Value`] can hold.
    #[must_use]
    pub fn of(body: &[u8]) -> Option<Self> {
        let tree: Value = serde_json::from_slice(body).ok()?;
        let body = tree.is_object().then(|| Members::read(std::str::from_utf8(body).expect("JSON is UTF-8")));
        let inner = |name: &str| {
            let last = body.as_ref()?.last(name)?;
            last.starts_with('{').then(|| Members::read(last))
        };
        let (event, metadata) = (inner("event"), inner("metadata"));
        let (event_tree, metadata_tree) = (tree["event"].clone(), tree["metadata"].clone());
        Some(Self { body, event, metadata, event_tree, metadata_tree })
    }

    /// A text in `event`.
    #[must_use]
    pub fn text_in_event(&self, name: &str) -> Option<&str> {
        self.event_tree[name].as_str()
    }

    /// A text in `metadata`.
    #[must_use]
    pub fn text_in_metadata(&self, name: &str) -> Option<&str> {
        self.metadata_tree[name].as_str()
    }

    /// All reasons for which the body is not a delivery; none for one that is.
    #[must_use]
    pub fn refusals(&self) -> Vec<NotADelivery> {
        let Some(body) = &self.body else { return vec![NotADelivery::NotAnObject] };
        let mut refusals = Vec::new();
        let mut once = |members: Option<&Members>, name: &str, member| {
            if members.is_some_and(|members| members.count(name) > 1) {
                refusals.push(NotADelivery::Repeated { member });
            }
        };
        once(Some(body), "event", "event");
        once(Some(body), "metadata", "metadata");
        once(self.event.as_ref(), "eventId", "event.eventId");
        once(self.event.as_ref(), "eventType", "event.eventType");
        once(self.event.as_ref(), "targetName", "event.targetName");
        once(self.metadata.as_ref(), "deviceId", "metadata.deviceId");
        if self.event.is_none() {
            refusals.push(NotADelivery::EventMissing);
            return refusals;
        }
        let names = [
            ("eventId", "event.eventId", NotADelivery::EventIdMissing),
            ("eventType", "event.eventType", NotADelivery::EventTypeMissing),
        ];
        for (name, member, missing) in names {
            match self.text_in_event(name).map_or(0, str::len) {
                0 => refusals.push(missing),
                found if found > MAX_NAME_LEN => refusals.push(NotADelivery::TooLong { member, found }),
                _ => {}
            }
        }
        refusals
    }
}

/// The project of a `targetName`, by its parts.
#[must_use]
pub fn project(target_name: &str) -> Option<&str> {
    match target_name.split('/').collect::<Vec<_>>()[..] {
        ["projects", id, ..] if !id.is_empty() => Some(id),
        _ => None,
    }
}

/// The device of a `targetName`, by its parts.
#[must_use]
pub fn device(target_name: &str) -> Option<&str> {
    match target_name.split('/').collect::<Vec<_>>()[..] {
        [.., "devices", id] if !id.is_empty() => Some(id),
        _ => None,
    }
}

impl Members {
    fn read(object: &str) -> Self {
        serde_json::from_str(object).expect("an object that was read before")
    }

    fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|(found, _)| found == name).count()
    }

    fn last(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(found, _)| found == name).map(|(_, value)| value.get())
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Members, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = members.next_entry()? {
                    all.push(member);
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(All)
    }
}
