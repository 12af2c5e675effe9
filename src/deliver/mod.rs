//! Brings records to sinks, each with a thread of its own.
//!
//! There is one engine (`engine`), with two sources. In mode `spool` it reads the log (`from_log`), delivers in batches, and
//! moves the sink's cursor over what is done. In mode `direct` it takes what requests wait for (`from_requests`); a window of
//! ids (`window`) catches copies. What a sink rejects there goes to a folder
//! of dead letters (`dead`).

mod backoff;
mod dead;
mod direct;
mod engine;
mod from_log;
mod from_requests;
mod replace;
mod window;

pub use backoff::{Backoff, BadBackoff};
pub use dead::{DeadLetterError, DeadLetters};
pub use direct::{Direct, Stored};
pub use from_log::{WorkerHandle, WorkerParts};
pub use from_requests::{Lane, LaneEnd, LaneOptions, LaneParts, Undelivered};
pub use replace::ReplaceError;
