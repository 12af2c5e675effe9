//! The devices of a window.
//!
//! These are the devices that are in the project now, and those that were in it shortly before the window, according to the
//! events that were accepted. A device that has moved to another project is found there: DT shows its history in the project to
//! which it belongs now. That is an assumption; DT does not document it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dt_api::{Client, DeviceQuery, Error};

use super::super::store::{CloudStore, NewWindow};
use super::DAY_MILLIS;
use super::walk::{BackfillError, blocking};
use crate::spool_admin::record::DeviceFacts;

/// The largest number of devices of a window.
const MAX_DEVICES: usize = 100_000;
/// The number of device ids in one request, which is limited by the length of a URL.
const IDS_PER_REQUEST: usize = 50;
/// The number of devices that are read from the database at once.
const PART: u32 = 1000;

/// A device of a window: what deliveries say about it, or why it was not found.
pub type Target = (String, Result<DeviceFacts, Error>);

/// Returns the devices of a window, sorted by id. Of their labels, those with a key in `labels` are kept.
///
/// # Errors
///
/// [`BackfillError`] if they cannot be listed. A single device that is not found is not an error.
pub async fn of_window(
    client: &Client,
    store: Option<&Arc<CloudStore>>,
    window: &NewWindow,
    labels: Option<&BTreeSet<String>>,
) -> Result<Vec<Target>, BackfillError> {
    let mut found = BTreeMap::new();
    let queries: Vec<DeviceQuery> = match &window.devices {
        None => vec![DeviceQuery::new()],
        Some(ids) => ids
            .chunks(IDS_PER_REQUEST)
            .map(|ids| ids.iter().fold(DeviceQuery::new(), DeviceQuery::device))
            .collect(),
    };
    for query in queries {
        let mut pages = client.devices(&window.project, &query)?;
        while let Some(devices) = pages.next().await? {
            let facts = devices.iter().map(|device| DeviceFacts::of(device, labels));
            found.extend(facts.map(|facts| (facts.id.clone(), Ok(facts))));
            if found.len() > MAX_DEVICES {
                return Err(BackfillError::TooManyDevices);
            }
        }
    }
    let gone = match (&window.devices, store) {
        (Some(ids), _) => ids.iter().filter(|id| !found.contains_key(*id)).cloned().collect(),
        (None, None) => Vec::new(),
        (None, Some(store)) => moved_away(store, window, &found).await?,
    };
    for id in gone {
        let facts = client.device("-", &id).await.map(|device| DeviceFacts::of(&device, labels));
        if let Err(error @ (Error::Credentials { .. } | Error::ClockOff { .. })) = facts {
            return Err(error.into());
        }
        found.insert(id, facts);
    }
    Ok(found.into_iter().collect())
}

/// Returns the devices whose events were accepted for the project within a day before the window or later, and that are not
/// among the devices of the project.
async fn moved_away(
    store: &Arc<CloudStore>,
    window: &NewWindow,
    present: &BTreeMap<String, Result<DeviceFacts, Error>>,
) -> Result<Vec<String>, BackfillError> {
    let since = window.from.saturating_sub(DAY_MILLIS);
    let (mut gone, mut after) = (Vec::new(), String::new());
    loop {
        let (store, project) = (Arc::clone(store), window.project.clone());
        let part = blocking(move || store.devices_since(&project, since, &after, PART)).await??;
        let Some(last) = part.last().cloned() else { return Ok(gone) };
        after = last;
        gone.extend(part.into_iter().filter(|id| !present.contains_key(id)));
        if gone.len() > MAX_DEVICES {
            return Err(BackfillError::TooManyDevices);
        }
    }
}
