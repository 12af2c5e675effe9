//! A piece of a window: one day of one device.

use std::ops::Range;

use dt_api::{Client, Error, EventRecord, HistoryQuery};
use dt_verify::event::{EventType, Timestamp};

use super::super::store::DeliveredSince;
use super::DAY_MILLIS;
use crate::spool_admin::record::{DeviceFacts, delivery};

/// The largest number of events of a piece, and their largest size together in bytes.
const MAX_EVENTS: usize = 100_000;
const MAX_BYTES: usize = 64 << 20;

const NANOS_PER_MILLI: i128 = 1_000_000;

/// Why the events of a piece could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Api(#[from] Error),
    #[error("the day has more than {MAX_EVENTS} events, or more than 64 MiB; it is not fetched")]
    TooLarge,
}

/// Returns the days that a window touches, oldest first, each with its part of the window in Unix milliseconds.
pub fn days(window: &Range<i64>) -> impl Iterator<Item = (i64, Range<i64>)> + use<> {
    let Range { start, end } = *window;
    let days = match start < end {
        true => start.div_euclid(DAY_MILLIS)..end.saturating_sub(1).div_euclid(DAY_MILLIS).saturating_add(1),
        false => 0..0,
    };
    days.map(move |day| {
        let first = day.saturating_mul(DAY_MILLIS);
        (day, start.max(first)..end.min(first.saturating_add(DAY_MILLIS)))
    })
}

/// Fetches the events of a device in a period (Unix milliseconds), and returns them as deliveries, sorted by `timestamp`, then by
/// id. An event without a readable time comes first. With `types`, these are only events of these types, and from the time since
/// which each is delivered.
pub async fn fetch(
    client: &Client,
    project: &str,
    device: &DeviceFacts,
    period: &Range<i64>,
    types: Option<&DeliveredSince>,
) -> Result<Vec<String>, FetchError> {
    let time = |millis: i64| Timestamp::from_unix_micros(millis.saturating_mul(1000));
    let mut query = HistoryQuery::new().from(&time(period.start)).until(&time(period.end));
    if let Some(names) = types.and_then(DeliveredSince::names) {
        let names: Vec<EventType> = names.map(|name| EventType::from(name.to_owned())).collect();
        if names.is_empty() {
            // Without a type, the query would be for all.
            return Ok(Vec::new());
        }
        query = names.iter().fold(query, HistoryQuery::event_type);
    }
    let mut pages = client.history(project, &device.id, &query)?;
    let nanos = |millis: i64| i128::from(millis).saturating_mul(NANOS_PER_MILLI);
    // The end of a query belongs to it, and so would be part of two pieces.
    let wanted = nanos(period.start)..nanos(period.end);
    let (mut events, mut bytes) = (Vec::new(), 0_usize);
    while let Some(page) = pages.next().await? {
        for event in page {
            let at = event.timestamp.as_ref().and_then(Timestamp::unix_nanos);
            if at.is_some_and(|at| !wanted.contains(&at)) {
                continue;
            }
            if let Some(types) = types {
                let since = types.since(event.event_type.as_str()).map(nanos);
                if since.is_none_or(|since| at.is_some_and(|at| at < since)) {
                    continue;
                }
            }
            bytes = bytes.saturating_add(event.raw.get().len());
            events.push((at, event));
        }
        if events.len() > MAX_EVENTS || bytes > MAX_BYTES {
            return Err(FetchError::TooLarge);
        }
    }
    let key = |(at, event): &(Option<i128>, EventRecord)| (*at, event.event_id.clone());
    events.sort_by_cached_key(key);
    Ok(events.iter().map(|(_, event)| delivery(event, device)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_cover_a_window_without_gap_or_overlap() {
        let day = DAY_MILLIS;
        let days = |from, until| days(&(from..until)).collect::<Vec<_>>();
        assert_eq!(days(5, 5), []);
        assert_eq!(days(6, 5), []);
        assert_eq!(days(5, 6), [(0, 5..6)]);
        assert_eq!(days(0, day), [(0, 0..day)]);
        assert_eq!(days(-1, 1), [(-1, -1..0), (0, 0..1)]);
        assert_eq!(
            days(day - 5, 2 * day + 5),
            [(0, day - 5..day), (1, day..2 * day), (2, 2 * day..2 * day + 5)]
        );
    }
}
