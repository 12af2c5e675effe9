//! The key of an event in the dedup index.

use std::fmt;

use sha1::{Digest, Sha1};

/// The key of an event in the dedup index: 128 bits of the SHA-1 of its connector and its event id.
///
/// Events with equal keys count as the same event. With 20 million stored ids, the probability that a new id has the key of
/// another one is 10^-31.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u128);

impl Key {
    /// The length of a stored key in bytes.
    pub(super) const BYTES: usize = 16;

    /// Returns the key for an event id and the connector that received the event.
    #[must_use]
    pub fn new(connector: &str, event_id: &str) -> Self {
        // The length distinguishes `a`, `bc` from `ab`, `c`.
        let length = u64::try_from(connector.len()).unwrap_or(u64::MAX);
        let hash = Sha1::new().chain_update(length.to_le_bytes()).chain_update(connector);
        let hash = hash.chain_update(event_id).finalize();
        Self(hash.first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes)))
    }

    /// Returns the key in its stored form, whose bytes sort like the keys.
    pub(super) const fn to_bytes(self) -> [u8; Self::BYTES] {
        self.0.to_be_bytes()
    }

    /// Returns the key from its stored form.
    pub(super) const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// Returns the first 31 bits, which determine the page in a run.
    pub(super) const fn prefix(self) -> i64 {
        (self.0 >> 97) as i64
    }

    /// Returns the last 64 bits, which the filters use.
    pub(super) const fn low(self) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
        {
            self.0 as u64
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connector_and_id_do_not_run_into_each_other() {
        assert_ne!(Key::new("a", "bc"), Key::new("ab", "c"));
        assert_ne!(Key::new("a", "b"), Key::new("b", "a"));
        assert_eq!(Key::new("a", "b"), Key::new("a", "b"));
    }

    #[test]
    fn a_key_of_this_version_never_changes() {
        // Stored keys are compared with new ones: another result here requires another version of the format.
        let key = Key::new("default", "c82gg9catj3vmh4248og");
        assert_eq!(Key::from_bytes(key.to_bytes()), key);
        assert_eq!(format!("{key:?}"), "408f752703156d684e4cb431212fcd7a");
    }
}
