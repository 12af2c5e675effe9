//! Brings records to sinks. In mode `direct`, the only one so far, a request waits for the sinks themselves: a worker
//! per sink (`lane`) takes whatever has queued up as one batch, a `window` of ids catches copies, and what can
//! never be delivered goes to the dead letters (`dead`).

mod dead;
mod direct;
mod lane;
mod window;

pub use dead::{DeadLetterError, DeadLetters};
pub use direct::{Direct, Stored};
pub use lane::{Lane, LaneOptions, Undelivered};
