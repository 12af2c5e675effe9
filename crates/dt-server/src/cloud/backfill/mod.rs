//! Fetches windows of time from the event history of DT, and stores what is missing.
//!
//! # How a window is fetched
//!
//! [`Backfill::walk`] lists the devices of the window first (`devices.rs`). Then it fetches the window in pieces: one day (UTC)
//! of one device, all pages, oldest day first (`pieces.rs`). The events of a piece are sorted by `timestamp`, compared with those
//! that were received, and appended to the log in that order ([`Fill`]). The piece is marked as done in `cloud.db` after its
//! events are synced. So a process that is killed continues with the piece at which it stopped; the events of that piece that are
//! in the log already are known by their ids.
//!
//! DT indexes events with a delay of up to 10 s, so each window is fetched from 10 s before its start.
//!
//! # What happens when something fails
//!
//! | failure | the piece | the walk |
//! |---|---|---|
//! | the API is unavailable, limits the rate, or does not answer, after the client's own retries | stays open, with its reason | goes on with the next device; ends after 3 such failures in a row |
//! | the device is not found | stays open | goes on with the next device |
//! | the credentials are wrong, or permit too little | stays open | ends |
//! | a piece has more than 100,000 events or 64 MiB | stays open | goes on with the next day |
//! | an event cannot be stored | stays open; its other events are stored | goes on |
//! | the log or `cloud.db` cannot be written | stays open | ends |
//! | the log is half full, the disk nearly full, a sink far behind | waits | waits |
//!
//! After a failure, later days of the same device are not fetched in this walk: a sink gets the events of a device in the order
//! of their `timestamp`. The [`Report`] says what is still missing, and why. The window stays open, and the next walk fetches
//! only what is open.
//!
//! # Limits
//!
//! One piece is in memory at a time. At most 100,000 devices are listed. The rate of requests is a setting of the client.

mod devices;
mod fill;
mod pieces;
mod report;
mod walk;

pub use fill::{ControlSocket, Fill, FillError};
pub use report::{Missing, Progress, Report};
pub use walk::{Backfill, BackfillError, WalkOptions};

pub use super::store::HISTORY_MILLIS;

/// The cause of the windows that a person requests. Only the command line walks them.
pub const MANUAL: &str = "manual";

/// The largest delay with which DT indexes events, in milliseconds.
pub const INDEXING_DELAY_MILLIS: i64 = 10_000;

/// The length of a day in milliseconds.
const DAY_MILLIS: i64 = 24 * 3600 * 1000;
