//! Delivers records to sinks, each on its own thread.
//!
//! One engine (`engine`) has two kinds of sources. In mode `spool` it reads the log (`from_log`), delivers in batches, and
//! advances the sink's cursor over the records that have a result. In mode `direct` it takes the records that requests wait
//! for (`from_requests`), and a window of ids (`dedup_window`) recognises copies. Records that a sink rejects become dead
//! letters (`dead_letters`). A reload replaces a sink while its worker runs (`sink_swap`).

mod backoff;
mod dead_letters;
mod dedup_window;
mod direct;
mod engine;
mod from_log;
mod from_requests;
mod sink_swap;

pub use backoff::{Backoff, BadBackoff};
pub use dead_letters::{DeadLetterError, DeadLetterStore};
pub use direct::{Direct, Submitted};
pub use from_log::{WorkerHandle, WorkerParts};
pub use from_requests::{
    DirectWorker, DirectWorkerOptions, DirectWorkerParts, DirectWorkerThread, Undelivered,
};
pub use sink_swap::ReplaceError;
