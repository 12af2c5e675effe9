//! `/v2/projects/{p}/devices/{d}/events`: the event history of a device, sorted by `timestamp`: newest first, or with the fault
//! `history-oldest-first` oldest first.
//!
//! A page token is the position of the last event of its page, so that events that are indexed or published meanwhile neither
//! repeat nor hide others: those at positions after the token are on the next pages.

use std::collections::BTreeSet;

use http::Method;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Answered, ApiError, Call, pages};
use crate::cloud::Cloud;
use crate::state::{DeviceRef, Position, StoredEvent, position};
use dt_verify::event::Timestamp;

/// The default period of a history, in microseconds.
const DEFAULT_MICROS: i64 = 24 * 3_600 * 1_000_000;

pub fn history(cloud: &Cloud, call: &Call, project: &str, device: &str) -> Answered {
    if call.method != Method::GET {
        return Err(ApiError::method("GET"));
    }
    let query = call.query();
    let types: BTreeSet<&str> = query.all("eventTypes").collect();
    let time = |name: &str| match query.last(name) {
        None => Ok(None),
        Some(text) => match Timestamp::new(text).instant() {
            Some(instant) => Ok(Some(instant.as_microsecond())),
            None => Err(ApiError::bad_request(format!("{name} is not RFC 3339"))),
        },
    };
    let (start, end, size) = (time("startTime")?, time("endTime")?, pages::size(&query)?);
    let last = match query.last("pageToken") {
        None => None,
        Some(token) => Some(
            read_token(token)
                .ok_or_else(|| ApiError::bad_request("pageToken is not a token of this list"))?,
        ),
    };
    cloud.with_state(|state, now| {
        if state.device(DeviceRef { project, device }).is_none() {
            return Err(ApiError::not_found("there is no such device"));
        }
        let end = end.unwrap_or_else(|| now.micros());
        let start = start.unwrap_or_else(|| end.saturating_sub(DEFAULT_MICROS));
        if start > end {
            return Err(ApiError::bad_request("startTime is after endTime, which is now by default"));
        }
        let oldest_first = state.faults.history_oldest_first;
        let is_after = |event: &StoredEvent, last: Position| {
            if oldest_first { position(event) > last } else { position(event) < last }
        };
        let wanted = |event: &StoredEvent| {
            // Of any project: the history moves with the device.
            &*event.device == device
                && (start..=end).contains(&event.micros)
                && last.is_none_or(|last| is_after(event, last))
                && (types.is_empty() || types.contains(&*event.event_type))
        };
        let mut found = state.history.shown(now, wanted);
        if !oldest_first {
            found.reverse();
        }
        let (page, rest) = found.split_at_checked(size).unwrap_or((&found, &[]));
        let next = page.last().filter(|_| !rest.is_empty()).map(|event| token(event)).unwrap_or_default();
        let mut events = Vec::with_capacity(page.len());
        for event in page {
            let raw: &RawValue =
                serde_json::from_str(&event.json).map_err(|error| ApiError::internal(error.to_string()))?;
            events.push(raw);
        }
        Ok(json!({"events": events, "nextPageToken": next}).into())
    })
}

/// Returns the token of a page that ends with this event.
fn token(event: &StoredEvent) -> String {
    let (micros, number) = position(event);
    format!("{micros}_{number}")
}

fn read_token(token: &str) -> Option<Position> {
    let (micros, number) = token.split_once('_')?;
    Some((micros.parse().ok()?, number.parse().ok()?))
}
