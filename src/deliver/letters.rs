//! Where dead letters go in mode `direct`: the database of dead letters, or somewhere else.

use std::sync::Arc;

use crate::log::dead::{DeadError, DeadLetters};
use crate::record::{DeadLetter, Record};
use crate::sink::LetterBox;
use crate::telemetry::{DeadLetterBuried, DeadLetterFailed, Telemetry};

/// A dead letter could not be stored durably.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LettersError {
    /// In the database.
    #[error(transparent)]
    Database(#[from] DeadError),
    /// Somewhere else, in its own words.
    #[error("{0}")]
    Elsewhere(String),
}

/// The place of dead letters.
#[derive(Debug)]
pub struct Letters {
    place: Place,
    telemetry: Arc<Telemetry>,
}

#[derive(Debug)]
enum Place {
    Database(Arc<DeadLetters>),
    Elsewhere(Arc<dyn LetterBox>),
}
