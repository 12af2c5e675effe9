//! Brings records to sinks, each with a thread of its own.
//!
//! There is one engine (`engine`), with two sources. In mode `spool` it reads the log (`from_log`), delivers in batches, and
//! moves the sink's cursor over what is done. In mode `direct` it takes what requests wait for (`from_requests`); a window of
//! ids (`window`) catches copies. What a sink rejects goes to the dead
//! letters (`letters`).

mod backoff;
mod direct;
mod engine;
mod from_log;
mod from_requests;
mod letters;
mod replace;
mod window;

pub use backoff::{Backoff, BadBackoff};
pub use direct::{Direct, Stored};
pub use from_log::{WorkerHandle, WorkerParts};
pub use from_requests::{Lane, LaneEnd, LaneOptions, LaneParts, Undelivered};
pub use letters::DeadLetterStore;
pub use replace::ReplaceError;
