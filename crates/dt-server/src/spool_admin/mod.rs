//! Changes a spool at an operator's request: replays or drops dead letters, replays records to a sink, forgets a sink, stores
//! events that were fetched from DT's API.
//!
//! `repair.rs` and `fill.rs` make the changes. A running server takes requests on the socket of `control.rs`; if no server runs, the
//! command line opens the log and calls the same code.

mod accepting;
mod control;
mod fill;
pub mod record;
mod repair;

pub(crate) use control::Control;
pub use control::{ControlError, ask};
pub use fill::{FillReport, FillRequest, MAX_DELIVERY, MAX_FILL_EVENTS};
pub use repair::{Repair, RepairError, RepairReport, RepairRequest};

/// The name of the internal sink of the log, which keeps the newest event of each device. No configured sink can have it.
pub const NEWEST_SINK: &str = "@newest";
