//! Sequence numbers: of events, of queue items, of entries of the ledger, of connectors.

use serde::{Deserialize, Serialize};

/// A counter that starts at 0. It is serialised as a plain number: the one that [`next`](Self::next) returns next.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sequence(u64);

impl Sequence {
    /// Returns the next number.
    #[expect(clippy::arithmetic_side_effects, reason = "2^64 numbers take longer than any run")]
    pub const fn next(&mut self) -> u64 {
        let number = self.0;
        self.0 = number + 1;
        number
    }
}
