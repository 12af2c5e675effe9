//! The comparison of a sink's lines with the events that DT's cloud has.

use std::collections::{BTreeMap, BTreeSet};

use dt_receiver::emulator::HistoryEvent;

use crate::sink_file::Line;

/// The ids in which the sink and the cloud differ. All are empty if the sink has exactly what it should.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The expected events that the sink does not have.
    pub(crate) missing: BTreeSet<String>,
    /// The events that the sink has more than once.
    pub(crate) repeated: BTreeSet<String>,
    /// The events of the sink that the cloud never had.
    pub(crate) unknown: BTreeSet<String>,
}

impl Difference {
    /// Compares the lines of a sink with the `expected` events, a part of `all` events of the cloud.
    pub(crate) fn new(lines: &[Line], expected: &[HistoryEvent], all: &[HistoryEvent]) -> Self {
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for line in lines {
            *counts.entry(&line.event_id).or_default() += 1;
        }
        let all: BTreeSet<&str> = all.iter().map(|event| &*event.event_id).collect();
        let of = |ids: &mut dyn Iterator<Item = &str>| ids.map(str::to_owned).collect();
        Self {
            missing: of(&mut expected
                .iter()
                .map(|event| &*event.event_id)
                .filter(|id| !counts.contains_key(id))),
            repeated: of(&mut counts.iter().filter(|(_, count)| **count > 1).map(|(id, _)| *id)),
            unknown: of(&mut counts.keys().copied().filter(|id| !all.contains(id))),
        }
    }
}

/// Returns the first line whose `timestamp` is before that of an earlier line of the same device.
pub(crate) fn out_of_order<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Option<&'a Line> {
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    lines.into_iter().find(|line| {
        let newest = newest.entry(&line.device).or_insert(line.micros);
        let is_before = line.micros < *newest;
        *newest = line.micros.max(*newest);
        is_before
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event_id: &str, device: &str, micros: i64) -> Line {
        Line { event_id: event_id.to_owned(), device: device.to_owned(), micros, source: None }
    }

    #[tokio::test]
    async fn each_kind_of_difference_is_found() {
        // The cloud has four events, of which the last is not expected.
        let cloud = dt_receiver::emulator::Emulator::builder().start().await.expect("it starts");
        let body = serde_json::json!({"type": "touch"});
        let device = cloud.call("POST", "/v2/projects/p/devices", &body).expect("created");
        let path = format!("/v2/{}:publish", device["name"].as_str().expect("a name"));
        for _ in 0..4 {
            cloud.call("POST", &path, &serde_json::json!({"touch": {}})).expect("published");
        }
        let all = cloud.history();
        let ids: Vec<&str> = all.iter().map(|event| &*event.event_id).collect();
        let of = |ids: &[&str]| ids.iter().map(|id| line(id, "d", 0)).collect::<Vec<_>>();
        let difference = |sink: &[&str]| Difference::new(&of(sink), &all[..3], &all);
        assert_eq!(difference(&ids[..3]), Difference::default());
        assert_eq!(difference(&ids), Difference::default());
        let found = difference(&[ids[0], ids[2], ids[0], "other"]);
        let set = |id: &str| BTreeSet::from([id.to_owned()]);
        let expected = Difference { missing: set(ids[1]), repeated: set(ids[0]), unknown: set("other") };
        assert_eq!(found, expected);
    }

    #[test]
    fn order_is_that_of_each_device() {
        let lines = [line("1", "a", 5), line("2", "b", 3), line("3", "a", 5), line("4", "b", 4)];
        assert_eq!(out_of_order(&lines), None);
        let late = [line("1", "a", 5), line("2", "a", 7), line("3", "a", 6), line("4", "a", 8)];
        assert_eq!(out_of_order(&late), Some(&late[2]));
    }
}
