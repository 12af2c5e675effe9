//! Where the sink stands: which batch was the last, and how long its files were then. Stored by the worker together
//! with its position, as JSON.

use serde::{Deserialize, Serialize};

use crate::sink::MAX_CHECKPOINT;

/// What the worker stores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    /// Which series of batches it belongs to: another one begins whenever there is no checkpoint to go on from.
    pub(super) life: String,
    /// How many batches of this life were delivered.
    pub(super) generation: u64,
    /// Which path template the files are of.
    pub(super) template: String,
    /// The files that were used last, as many as there is room for.
    pub(super) files: Vec<Listed>,
}

/// A file in a checkpoint: path below the template's root, inode, length, begin of its stretch. The device is left out
/// on purpose: its number may change when a machine starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed(pub(super) String, pub(super) u64, pub(super) u64, pub(super) i64);

impl Checkpoint {
    /// Drops the last files until there is room for the others, and encodes the rest.
    pub(super) fn encode(&mut self) -> Option<Vec<u8>> {
        // Nearly always there is.
        let all = serde_json::to_vec(self).ok()?;
        if all.len() <= MAX_CHECKPOINT {
            return Some(all);
        }
        let files = std::mem::take(&mut self.files);
        let mut size = serde_json::to_vec(self).ok()?.len();
        for file in files {
            // With its comma.
            size = size.saturating_add(serde_json::to_vec(&file).ok()?.len()).saturating_add(1);
            if size > MAX_CHECKPOINT {
                break;
            }
            self.files.push(file);
        }
        serde_json::to_vec(self).ok()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_always_fits_and_is_read_back() {
        for path in ["a".to_owned(), "\"\\\u{1}é".repeat(20), "x".repeat(5000)] {
            let listed = |n| Listed(format!("{path}{n}"), u64::MAX, u64::MAX, i64::MIN);
            let mut checkpoint = Checkpoint {
                life: "f".repeat(16),
                generation: u64::MAX,
                template: "f".repeat(16),
                files: (0..200).map(listed).collect(),
            };
            let bytes = checkpoint.encode().expect("JSON");
            assert!(bytes.len() <= MAX_CHECKPOINT);
            assert_eq!(checkpoint.files.first(), (path.len() < 4000).then(|| listed(0)).as_ref());
            assert_eq!(Checkpoint::decode(&bytes), Some(checkpoint));
        }
        assert_eq!(Checkpoint::decode(b"{}"), None);
    }
}
