//! Brings records to sinks, each with a thread of its own.
//!
//! In mode `spool`, a worker (`worker`) reads the spool, delivers in batches, and moves its cursor over what is done.
//!
//! In mode `direct`, a request waits for the sinks themselves: a lane (`lane`) takes whatever has queued up as one batch, a
//! window of ids (`window`) catches copies, and what can never be delivered goes to a folder of dead letters (`dead`).

mod backoff;
mod dead;
mod direct;
mod lane;
mod redeliver;
mod replace;
mod window;
mod worker;

pub use backoff::{Backoff, BadBackoff};
pub use dead::{DeadLetterError, DeadLetters};
pub use direct::{Direct, Stored};
pub use lane::{Lane, LaneEnd, LaneOptions, Undelivered};
pub use replace::ReplaceError;
pub use worker::{Skips, WorkerHandle};
