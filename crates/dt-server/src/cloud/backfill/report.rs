//! The progress and the result of a walk.

use std::collections::BTreeSet;

use serde::Serialize;

use super::super::store::{Counts, Piece};

/// The largest number of reasons, and of notes, in a report.
const MAX_REASONS: usize = 20;
/// The largest number of characters of a reason.
const MAX_TEXT: usize = 500;

/// The progress of a walk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The number of devices; 0 until they are listed.
    pub devices: u64,
    /// The number of all pieces.
    pub pieces: u64,
    /// The number of pieces that were visited.
    pub visited: u64,
    /// The counts of events so far.
    pub counts: Counts,
    /// Why the walk waits; `None` if it does not.
    pub waiting: Option<String>,
}

/// A reason why pieces are still missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Missing {
    /// The stable code of the reason.
    pub code: String,
    /// The first error of this kind, with its remedy.
    pub why: String,
    /// The device of that error.
    pub device: String,
    /// The number of days of devices that are missing for this reason.
    pub pieces: u64,
}

/// The result of a walk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Report {
    /// The number of devices.
    pub devices: u64,
    /// The number of pieces: one day of one device each.
    pub pieces: u64,
    /// The number of pieces that are done, also in earlier walks of the same window.
    pub pieces_done: u64,
    /// The counts of events, also of earlier walks of the same window.
    #[serde(flatten)]
    pub counts: Counts,
    /// What is still missing, by reason.
    pub missing: Vec<Missing>,
    /// Why the walk ended before its last piece; `None` if it did not.
    pub stopped: Option<String>,
    /// Why events were not stored, in words.
    pub notes: BTreeSet<String>,
}

impl Report {
    /// Returns whether every piece is done.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.pieces_done == self.pieces && self.missing.is_empty() && self.stopped.is_none()
    }

    /// Adds a piece that is done, or was not.
    pub(super) fn add(&mut self, piece: &Piece) {
        self.counts.add(&piece.counts);
        if piece.why.is_none() {
            self.pieces_done = self.pieces_done.saturating_add(1);
        }
    }

    /// Adds `pieces` pieces of a device that are missing for the same reason.
    pub(super) fn miss(&mut self, device: &str, pieces: u64, (code, why): (&str, &str)) {
        if let Some(missing) = self.missing.iter_mut().find(|missing| missing.code == code) {
            missing.pieces = missing.pieces.saturating_add(pieces);
        } else if self.missing.len() < MAX_REASONS {
            self.missing.push(Missing {
                code: code.to_owned(),
                why: why.chars().take(MAX_TEXT).collect(),
                device: device.to_owned(),
                pieces,
            });
        }
    }

    pub(super) fn note(&mut self, notes: BTreeSet<String>) {
        for note in notes {
            if self.notes.len() < MAX_REASONS {
                self.notes.insert(note.chars().take(MAX_TEXT).collect());
            }
        }
    }
}
