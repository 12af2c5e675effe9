//! Where the server stores dead letters: the database `dead.db`, or in mode `direct` a place of its own such as a Kafka topic.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::sink::DeadLetterSink;
use crate::telemetry::{DeadLetterFailed, DeadLetterStored, Telemetry};
use dt_log::dead::{DeadLetters, Dropped};
use dt_sink::record::{DeadLetter, Reason};

/// Stores dead letters durably, and reports each to the telemetry.
#[derive(Debug)]
pub struct DeadLetterStore {
    place: Place,
    telemetry: Arc<Telemetry>,
}

#[derive(Debug)]
enum Place {
    Database {
        letters: Arc<DeadLetters>,
        /// How many dropped copies the metrics have.
        counted: Mutex<Dropped>,
    },
    Elsewhere(Arc<dyn DeadLetterSink>),
}

impl DeadLetterStore {
    /// Stores letters in `dead.db`, each once.
    #[must_use]
    pub fn database(letters: Arc<DeadLetters>, telemetry: Arc<Telemetry>) -> Self {
        Self { place: Place::Database { letters, counted: Mutex::default() }, telemetry }
    }

    /// Stores letters somewhere else.
    #[must_use]
    pub fn elsewhere(place: Arc<dyn DeadLetterSink>, telemetry: Arc<Telemetry>) -> Self {
        Self { place: Place::Elsewhere(place), telemetry }
    }

    /// Stores a letter; durable when it returns.
    ///
    /// # Errors
    ///
    /// Why it is not durable; the delivery must not be acknowledged then.
    pub async fn add(&self, letter: DeadLetter) -> Result<(), String> {
        let stored = match &self.place {
            Place::Database { letters, .. } => {
                letters.add(letter.clone()).await.map(|id| id.is_some()).map_err(|error| error.to_string())
            }
            Place::Elsewhere(place) => {
                let (place, letter) = (Arc::clone(place), letter.clone());
                let stored = tokio::task::spawn_blocking(move || place.store(&letter)).await;
                match stored {
                    Ok(stored) => stored.map(|()| true).map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            }
        };
        self.report(&letter, stored)
    }

    /// Stores a letter; durable when it returns. Not for async code.
    ///
    /// # Errors
    ///
    /// Why it is not durable; the delivery must not be acknowledged then.
    pub fn add_blocking(&self, letter: &DeadLetter) -> Result<(), String> {
        let stored = match &self.place {
            Place::Database { letters, .. } => letters
                .add_blocking(vec![letter.clone()])
                .map(|ids| ids.iter().any(Option::is_some))
                .map_err(|error| error.to_string()),
            Place::Elsewhere(place) => place.store(letter).map(|()| true).map_err(|error| error.to_string()),
        };
        self.report(letter, stored)
    }

    /// Counts and logs what became of a letter. `Ok(false)` is a copy of one that was stored before.
    fn report(&self, letter: &DeadLetter, stored: Result<bool, String>) -> Result<(), String> {
        let DeadLetter { reason, connector, error, .. } = letter;
        match &stored {
            Ok(true) => {
                let is_copy = matches!(reason, Reason::Expired | Reason::Refused);
                self.telemetry.emit(&DeadLetterStored { reason: reason.code(), connector, error, is_copy });
            }
            Ok(false) => {}
            Err(error) => self.telemetry.emit(&DeadLetterFailed { reason: reason.code(), error }),
        }
        stored.map(|_| ())
    }

    /// Why letters cannot be stored; `None` while they can.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let trouble = match &self.place {
            Place::Database { letters, .. } => letters.last_error(),
            Place::Elsewhere(place) => place.last_error(),
        };
        trouble.map(|trouble| format!("dead letters: {trouble}"))
    }

    /// Brings the metrics of `dead.db` up to date.
    pub fn measure(&self) {
        let Place::Database { letters, counted } = &self.place else { return };
        let metrics = &self.telemetry.metrics;
        for count in letters.counts() {
            metrics.spool_dead_letters.with_label_values(&[&count.reason]).set(count.dead_letters as f64);
        }
        let mut counted = counted.lock();
        let before = std::mem::replace(&mut *counted, letters.dropped());
        for (reason, before, now) in [
            (Reason::Expired, before.expired, counted.expired),
            (Reason::Refused, before.refused, counted.refused),
        ] {
            let dropped = now.saturating_sub(before);
            metrics.dead_letters_dropped.with_label_values(&[reason.code()]).inc_by(dropped);
        }
    }
}
