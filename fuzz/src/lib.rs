//! What the fuzz targets and the maker of their seeds share.
//!
//! | file | what |
//! |---|---|
//! | `body.rs` | a second opinion on bodies: `serde_json` alone |
//! | `setups.rs` | the verifiers of `tests/vectors/verify.json`, with their secrets |
//! | `request.rs` | a request as a text that a fuzzer can mutate, signed on the way in if it asks for that |
//! | `segments.rs` | folders of the log as a fuzzer can mutate them, and an independent reader of its format |
//! | `oracle.rs` | a second opinion on tokens: other code, another HMAC |

pub mod body;
pub mod oracle;
pub mod request;
pub mod segments;
pub mod setups;

/// The time of the vectors, in Unix seconds.
pub const NOW: i64 = 1_736_000_000;
