//! Changes a spool at an operator's request: replays or drops dead letters, replays records to a sink, forgets a sink.
//!
//! `repair.rs` makes the changes. A running server takes requests on the socket of `control.rs`; if no server runs, the
//! command line opens the log and calls the same code.

mod control;
mod repair;

pub(crate) use control::Control;
pub use control::{ControlError, ask};
pub use repair::{Repair, RepairError, RepairReport, RepairRequest};
