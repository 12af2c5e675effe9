//! Decides what has to be fetched from the event history.
//!
//! | what is found | what is fetched |
//! |---|---|
//! | DT has had an event of a device for 15 minutes, and it has not arrived ([`Gaps::compare`]) | that device, from its newest stored event |
//! | an event was answered 503, and has not come back within 13 hours | that device, around that time |
//! | the receiver could store nothing for more than 11 hours (`alive.rs`) | all devices, for that time |
//! | a Data Connector was not `ACTIVE` (`monitor.rs`) | all devices, since its last success |
//! | each night | 1 of 28 devices, for the last 31 days |
//! | a day after one of the windows above was fetched | the same window, since devices report some samples late |
//!
//! Events may still be in DT's queue: an event that is fetched and then delivered is a duplicate, which does no harm. Nothing is
//! fetched from before the first start with a monitor.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use dt_api::{Device, DeviceQuery};
use dt_log::Log;
use dt_verify::event::EventType;

use super::backfill::{HISTORY_MILLIS, INDEXING_DELAY_MILLIS};
use super::context::{Context, MonitorError};
use super::monitor::DeliveredTypes;
use super::store::{CloudError, CloudStore, DeliveredSince, MissingEvent, NewWindow};
use super::watched::Watched;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// How long an event may be known at DT before it has to have arrived, in milliseconds.
const LAG: i64 = 15 * 60_000;
/// The largest difference between `updateTime` and the `timestamp` of the same event, in milliseconds.
const TOLERANCE: i64 = 10_000;
/// How long DT has time to send an event again that was answered 503, in milliseconds: an hour more than it keeps it.
const RETRIED_FOR: i64 = 13 * HOUR;
/// The number of devices that are requested at once.
const PAGE: u32 = 100;
/// In so many nights, each device is part of the sample once. DT keeps some days more, so that samples leave out nothing.
const NIGHTS: i64 = 28;
/// The largest number of open windows of devices of a project that are behind.
const MAX_LAGGING: u32 = 100;
/// The largest number of missing events, and of windows, that are processed in one check.
const PART: u32 = 10_000;

/// The causes of windows.
const LAGGING: &str = "lag";
pub const MISSING: &str = "missing";
pub const SAMPLE: &str = "sample";

/// An event type of a device that is behind.
#[derive(Debug, Clone, Copy)]
struct Lag {
    /// The time of the event at DT that has to arrive, in Unix milliseconds.
    goal: i64,
    /// When that event was seen first.
    seen_at: i64,
    /// Up to which time a window was opened; `None` if none was.
    covered: Option<i64>,
}

/// What is known about a project.
#[derive(Debug, Default)]
struct Known {
    /// When it was watched first, in Unix milliseconds.
    baseline: i64,
    /// Since when each event type is delivered; `None` if that is not known.
    types: Option<DeliveredSince>,
    /// The open windows of all devices: from and until, in Unix milliseconds.
    spans: Vec<(i64, i64)>,
    /// Whether devices that are behind may get another window.
    has_room: bool,
    /// The day of the last nightly sample, in days since 1970-01-01; `None` if there was none.
    sampled_on: Option<i64>,
}

impl Known {
    fn read(store: &CloudStore, project: &str, now: i64) -> Result<Self, CloudError> {
        Ok(Self {
            baseline: store.baseline(project, now)?,
            types: store.delivered_types(project)?,
            spans: store.open_spans(project)?,
            has_room: store.has_room(project, LAGGING, MAX_LAGGING)?,
            sampled_on: store.sampled_on(project)?,
        })
    }

    /// Returns from when events of a type may be missed, in Unix milliseconds.
    fn first(&self, event_type: &EventType) -> i64 {
        let since = self.types.as_ref().and_then(|types| types.since(event_type.as_str()));
        since.map_or(self.baseline, |since| since.max(self.baseline))
    }

    /// Returns whether an open window of all devices contains a time.
    fn covers(&self, at: i64) -> bool {
        self.spans.iter().any(|(from, until)| (*from..=*until).contains(&at))
    }
}

/// A device, and an event type that it reports.
type Key = (String, String, EventType);

/// The newest event of each type of a device: at DT, and the stored one, in Unix milliseconds.
struct Compared {
    device: String,
    types: Vec<(EventType, i64, Option<i64>)>,
}

/// Decides what has to be fetched.
pub struct Gaps {
    context: Arc<Context>,
    log: Arc<Log>,
    lagging: HashMap<Key, Lag>,
}

impl Gaps {
    pub fn new(context: Arc<Context>, log: Arc<Log>) -> Self {
        Self { context, log, lagging: HashMap::new() }
    }

    /// Compares the devices of a project at DT with the stored events, and opens windows for those that are behind. Once a day,
    /// opens a window for the sample.
    ///
    /// # Errors
    ///
    /// [`MonitorError`] if they cannot be listed, or `cloud.db` fails.
    pub async fn compare(
        &mut self,
        project: &str,
        watched: &Watched,
        delivered: &DeliveredTypes,
    ) -> Result<(), MonitorError> {
        // What is missed meanwhile is fetched as a whole, once one is ACTIVE again.
        if delivered.is_empty() {
            return Ok(());
        }
        let client = self.context.account.client();
        let mut pages = client.devices(project, &DeviceQuery::new().page_size(PAGE))?;
        let name = project.to_owned();
        let now = self.context.now();
        let known = self.context.stored(move |store| Known::read(store, &name, now)).await?;
        // The clock was set back: each would be behind only once the wrong time is reached.
        if self.lagging.values().any(|lag| lag.seen_at.max(lag.covered.unwrap_or(lag.seen_at)) > now) {
            self.lagging.clear();
        }
        let today = now.div_euclid(DAY);
        let sampled_days = sampled_days(known.sampled_on, today);
        let mut sample = BTreeSet::new();
        let mut behind = BTreeMap::new();
        let mut seen = BTreeSet::new();
        while let Some(devices) = pages.next().await? {
            sample.extend(
                devices.iter().map(Device::id).filter(|id| is_sampled(id, &sampled_days)).map(str::to_owned),
            );
            let is_expected = |event_type: &EventType| {
                delivered.contain(event_type)
                    && watched.of_project(project).any(|connector| connector.wants(event_type))
            };
            let reported = devices.iter().map(|device| reported(device, &is_expected)).collect();
            let name = project.to_owned();
            let compared = self.context.stored(move |store| compare(store, &name, reported)).await?;
            for Compared { device, types } in compared {
                let since = self.behind_since(project, &device, &types, &known);
                seen.insert(device.clone());
                if let Some(from) = since {
                    behind.insert(device, from);
                }
            }
        }
        self.lagging.retain(|(of, device, _), _| of != project || seen.contains(device));
        // While no events can be stored, each of them is behind.
        if known.has_room && self.context.endpoint.readiness().ready {
            self.fetch_behind(project, behind).await?;
        }
        if known.sampled_on != Some(today) {
            self.fetch_sample(project, sample.into_iter().collect(), today).await?;
        }
        Ok(())
    }

    /// Opens a window for a nightly sample, which is that of `today` then (in days since 1970-01-01).
    async fn fetch_sample(
        &self,
        project: &str,
        devices: Vec<String>,
        today: i64,
    ) -> Result<(), MonitorError> {
        if !devices.is_empty() {
            // These devices are part of the next sample then.
            let Some(ids_since) = self.log.ids_complete_since() else { return Ok(()) };
            let now = self.context.now();
            let oldest = now.saturating_sub(HISTORY_MILLIS).saturating_add(HOUR);
            let window = NewWindow {
                project: project.to_owned(),
                // A window is fetched from a little before its start.
                from: oldest.max(ids_since.saturating_add(INDEXING_DELAY_MILLIS)),
                until: now,
                cause: SAMPLE.to_owned(),
                devices: Some(devices),
            };
            self.context.open_window(window).await?;
        }
        let name = project.to_owned();
        self.context.stored(move |store| store.set_sampled_on(&name, today)).await?;
        Ok(())
    }

    /// Returns from when a device has to be fetched; `None` if it is not behind, or not for long.
    fn behind_since(
        &mut self,
        project: &str,
        device: &str,
        types: &[(EventType, i64, Option<i64>)],
        known: &Known,
    ) -> Option<i64> {
        let now = self.context.now();
        // All of its types that are behind are fetched together.
        let (mut is_due, mut since) = (false, i64::MAX);
        for (event_type, reported, newest) in types {
            let key = (project.to_owned(), device.to_owned(), event_type.clone());
            let first = known.first(event_type);
            let stored = newest.map_or(first, |newest| newest.max(first));
            if reported.saturating_sub(stored) <= TOLERANCE {
                self.lagging.remove(&key);
                continue;
            }
            let lag = self.lagging.entry(key).or_insert(Lag { goal: *reported, seen_at: now, covered: None });
            let has_arrived = lag.goal.saturating_sub(stored) <= TOLERANCE;
            let is_covered = lag.covered.is_some_and(|covered| lag.goal <= covered) || known.covers(lag.goal);
            if (has_arrived || is_covered) && *reported > lag.goal {
                (lag.goal, lag.seen_at) = (*reported, now);
            } else if !has_arrived && !is_covered {
                is_due |= now.saturating_sub(lag.seen_at) >= LAG;
            }
            since = since.min(lag.covered.map_or(stored, |covered| covered.max(stored)));
        }
        is_due.then_some(since)
    }

    /// Opens windows for devices that are behind; those that are behind since the same day share one.
    async fn fetch_behind(
        &mut self,
        project: &str,
        behind: BTreeMap<String, i64>,
    ) -> Result<(), MonitorError> {
        let until = self.context.now();
        let mut by_day: BTreeMap<i64, (i64, Vec<String>)> = BTreeMap::new();
        for (device, from) in behind {
            let (earliest, devices) = by_day.entry(from.div_euclid(DAY)).or_insert((from, Vec::new()));
            *earliest = from.min(*earliest);
            devices.push(device);
        }
        for (from, devices) in by_day.into_values() {
            let window = NewWindow {
                project: project.to_owned(),
                from,
                until,
                cause: LAGGING.to_owned(),
                devices: Some(devices.clone()),
            };
            self.context.open_window(window).await?;
            let devices: BTreeSet<String> = devices.into_iter().collect();
            let lags = self
                .lagging
                .iter_mut()
                .filter(|((of, device, _), _)| of == project && devices.contains(device));
            lags.for_each(|(_, lag)| lag.covered = Some(until));
        }
        Ok(())
    }

    /// Opens windows for events that were answered 503 and have not come back, opens windows again that were fetched a day ago,
    /// and updates the metrics.
    ///
    /// # Errors
    ///
    /// [`CloudError`] if `cloud.db` fails.
    pub async fn follow_up(&self, watched: &Watched) -> Result<(), CloudError> {
        let now = self.context.now();
        let due = self.context.stored(move |store| {
            for window in store.windows_to_rewalk(now, PART)? {
                store.reopen_window(window.id)?;
            }
            store.missing_before(now.saturating_sub(RETRIED_FOR), PART)
        });
        let due = due.await?;
        if !due.is_empty() {
            let log = Arc::clone(&self.log);
            // The log may read its database for each id.
            let compared = self.context.stored(move |_| {
                let is_gone = |event: &&MissingEvent| !log.has_received(&event.connector, &event.event_id);
                let gone: Vec<MissingEvent> = due.iter().filter(is_gone).cloned().collect();
                Ok((due, gone))
            });
            let (due, gone) = compared.await?;
            let (windows, unwatched) = watched_windows(gone, &watched.projects);
            if unwatched > 0 {
                tracing::warn!(
                    events = unwatched,
                    "events that were answered 503 have not come back, and are not fetched: their projects are not watched"
                );
            }
            for window in windows {
                self.context.open_window(window).await?;
            }
            self.context.stored(move |store| store.remove_missing(&due)).await?;
        }
        let counted = self.context.stored(|store| Ok((store.count_open()?, store.count_missing()?)));
        let (windows, missing) = counted.await?;
        let metrics = &self.context.telemetry.metrics;
        metrics.backfill_windows.set(f64::from(windows));
        metrics.backfill_missing.set(missing as f64);
        Ok(())
    }
}

/// Returns the times of the newest events of a device at DT, of the types for which `is_expected` is true.
fn reported(device: &Device, is_expected: &impl Fn(&EventType) -> bool) -> (String, Vec<(EventType, i64)>) {
    let reported = device.reported.iter().flat_map(dt_api::Reported::iter);
    let time_of = |(event_type, event): (&EventType, &dt_api::ReportedEvent)| {
        let time = event.update_time.as_ref()?.instant()?.as_millisecond();
        is_expected(event_type).then(|| (event_type.clone(), time))
    };
    (device.id().to_owned(), reported.filter_map(time_of).collect())
}

/// Adds the time of the newest stored event to each event type of each device. Blocks.
fn compare(
    store: &CloudStore,
    project: &str,
    devices: Vec<(String, Vec<(EventType, i64)>)>,
) -> Result<Vec<Compared>, CloudError> {
    let compare = |(device, types): (String, Vec<(EventType, i64)>)| {
        let stored = store.newest_of_device(project, &device)?;
        let newest = |event_type: &EventType| {
            let stored = stored.iter().find(|stored| *stored.event_type == *event_type.as_str());
            stored.map(|stored| stored.timestamp)
        };
        let types = types.into_iter().map(|(event_type, reported)| {
            let newest = newest(&event_type);
            (event_type, reported, newest)
        });
        Ok(Compared { device, types: types.collect() })
    };
    devices.into_iter().map(compare).collect()
}

/// Returns windows for the missing events of the watched projects, and the number of the other events.
fn watched_windows(events: Vec<MissingEvent>, projects: &BTreeSet<String>) -> (Vec<NewWindow>, usize) {
    let (watched, others): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|event| projects.contains(&event.project));
    (windows_for(&watched), others.len())
}

/// Returns windows that contain the missing events: one for each project and day.
fn windows_for(events: &[MissingEvent]) -> Vec<NewWindow> {
    let mut by_day: BTreeMap<(&str, i64), (i64, i64, BTreeSet<&str>)> = BTreeMap::new();
    for event in events {
        let at = event.timestamp;
        let key = (&*event.project, at.div_euclid(DAY));
        let (from, until, devices) = by_day.entry(key).or_insert_with(|| (at, at, BTreeSet::new()));
        (*from, *until) = (at.min(*from), at.max(*until));
        devices.insert(&event.device);
    }
    let window =
        |((project, _), (from, until, devices)): ((&str, i64), (i64, i64, BTreeSet<&str>))| NewWindow {
            project: project.to_owned(),
            from: from.saturating_sub(TOLERANCE),
            until: until.saturating_add(TOLERANCE),
            cause: MISSING.to_owned(),
            devices: Some(devices.into_iter().map(str::to_owned).collect()),
        };
    by_day.into_iter().map(window).collect()
}

/// Returns the days whose samples are due, in days since 1970-01-01: all since the last one, so that none is left out while the
/// receiver does not run. None on the first day, when there is nothing to compare yet.
fn sampled_days(sampled_on: Option<i64>, today: i64) -> Range<i64> {
    let tomorrow = today.saturating_add(1);
    match sampled_on {
        None => tomorrow..tomorrow,
        Some(day) if day == today => tomorrow..tomorrow,
        // A later day is of a clock that was set back.
        Some(day) if day > today => today..tomorrow,
        Some(day) => day.saturating_add(1).max(tomorrow.saturating_sub(NIGHTS))..tomorrow,
    }
}

/// Returns whether a device is part of the sample of one of these days (in days since 1970-01-01).
fn is_sampled(device: &str, days: &Range<i64>) -> bool {
    // FNV-1a: the same on each machine and in each version.
    let hash = device.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let class = i64::try_from(hash >> 1).unwrap_or(0).rem_euclid(NIGHTS);
    days.clone().any(|day| day.rem_euclid(NIGHTS) == class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(device: &str, timestamp: i64) -> MissingEvent {
        MissingEvent {
            connector: "plant".to_owned(),
            event_id: format!("{device}-{timestamp}"),
            project: "p".to_owned(),
            device: device.to_owned(),
            timestamp,
            at: 0,
        }
    }

    #[test]
    fn missing_events_of_a_day_share_a_window() {
        let events =
            [missing("b", 5 * HOUR), missing("a", 2 * HOUR), missing("a", DAY), missing("b", 3 * HOUR)];
        let windows = windows_for(&events);
        let found: Vec<_> = windows
            .iter()
            .map(|window| (window.from, window.until, window.devices.clone().unwrap_or_default().join(" ")))
            .collect();
        assert_eq!(
            found,
            [
                (2 * HOUR - TOLERANCE, 5 * HOUR + TOLERANCE, "a b".to_owned()),
                (DAY - TOLERANCE, DAY + TOLERANCE, "a".to_owned()),
            ]
        );
    }

    #[test]
    fn missing_events_of_other_projects_are_counted() {
        let other = MissingEvent { project: "q".to_owned(), ..missing("c", 0) };
        let projects = BTreeSet::from(["p".to_owned()]);
        let (windows, unwatched) = watched_windows(vec![missing("a", 0), other.clone(), other], &projects);
        let projects: Vec<_> = windows.iter().map(|window| &*window.project).collect();
        assert_eq!((projects, unwatched), (vec!["p"], 2));
    }

    #[test]
    fn each_device_is_sampled_once_in_28_nights() {
        let mut nights = BTreeSet::new();
        for number in 0..500 {
            let device = format!("c0pppd1qdqebrvv1{number:04}");
            let sampled: Vec<i64> =
                (20_000..20_028).filter(|day| is_sampled(&device, &(*day..day + 1))).collect();
            assert_eq!(sampled.len(), 1, "{device}");
            nights.extend(sampled);
        }
        assert_eq!(nights.len(), 28, "all nights have some");
    }

    #[test]
    fn a_sample_contains_the_days_since_the_last_one() {
        assert!(sampled_days(None, 100).is_empty() && sampled_days(Some(100), 100).is_empty());
        assert_eq!(sampled_days(Some(99), 100), 100..101);
        assert_eq!(sampled_days(Some(90), 100), 91..101);
        assert_eq!(sampled_days(Some(0), 100), 73..101);
        assert_eq!(sampled_days(Some(200), 100), 100..101);
        assert!(is_sampled("c0pppd1qdqebrvv10001", &sampled_days(Some(0), 100)));
    }

    #[test]
    fn an_open_window_covers_only_its_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = CloudStore::open(folder.path()).expect("opened");
        store.baseline("p", 10).expect("stored");
        let window = |from, cause: &str, devices| NewWindow {
            project: "p".to_owned(),
            from,
            until: from + 100,
            cause: cause.to_owned(),
            devices,
        };
        for window in [
            window(50, "outage", None),
            window(500, super::super::backfill::MANUAL, None),
            window(700, SAMPLE, Some(vec!["d".to_owned()])),
        ] {
            store.add_window(&window, 0).expect("stored");
        }
        let known = || Known::read(&store, "p", 0).expect("read");
        let covered: Vec<i64> =
            [49, 50, 150, 151, 550, 750].into_iter().filter(|at| known().covers(*at)).collect();
        assert_eq!(covered, [50, 150]);
        assert!(known().has_room);
        store.add_window(&window(800, LAGGING, Some(Vec::new())), 0).expect("stored");
        assert!(!known().has_room);
        // A type that is delivered since later.
        assert_eq!(known().first(&EventType::Touch), 10);
        let types = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        store.set_delivered_types("p", &types(&["temperature"]), 20).expect("stored");
        store.set_delivered_types("p", &types(&["temperature", "touch"]), 30).expect("stored");
        assert_eq!(known().first(&EventType::Touch), 30);
        assert_eq!(known().first(&EventType::Temperature), 10);
    }
}
