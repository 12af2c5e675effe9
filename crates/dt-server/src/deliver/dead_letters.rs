//! Stores dead letters: in the database `dead.db`, or in mode `direct` elsewhere, such as in a Kafka topic.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::sink::DeadLetterSink;
use crate::telemetry::{DeadLetterFailed, DeadLetterStored, Telemetry};
use dt_log::dead::{DeadLetters, Dropped};
use dt_sink::record::{DeadLetter, Reason};

/// Why a dead letter is not durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DeadLetterError(String);

impl DeadLetterError {
    fn new(error: &impl ToString) -> Self {
        Self(error.to_string())
    }
}

/// Stores dead letters durably, and reports each to the telemetry.
#[derive(Debug)]
pub struct DeadLetterStore {
    backend: Backend,
    telemetry: Arc<Telemetry>,
}

#[derive(Debug)]
enum Backend {
    Database {
        dead_letters: Arc<DeadLetters>,
        /// The numbers of removed copies that are already counted in the metrics.
        counted: Mutex<Dropped>,
    },
    Elsewhere(Arc<dyn DeadLetterSink>),
}

impl DeadLetterStore {
    /// Creates a store that writes to `dead.db`. A copy of a stored dead letter is not stored again.
    #[must_use]
    pub fn database(dead_letters: Arc<DeadLetters>, telemetry: Arc<Telemetry>) -> Self {
        Self { backend: Backend::Database { dead_letters, counted: Mutex::default() }, telemetry }
    }

    /// Creates a store that writes to `target`.
    #[must_use]
    pub fn elsewhere(target: Arc<dyn DeadLetterSink>, telemetry: Arc<Telemetry>) -> Self {
        Self { backend: Backend::Elsewhere(target), telemetry }
    }

    /// Stores a dead letter. It is durable when this returns.
    ///
    /// # Errors
    ///
    /// Returns [`DeadLetterError`] if it is not durable. The delivery must not be acknowledged then.
    pub async fn add(&self, dead_letter: DeadLetter) -> Result<(), DeadLetterError> {
        let stored = match &self.backend {
            Backend::Database { dead_letters, .. } => {
                let added = dead_letters.add(dead_letter.clone()).await;
                added.map(|id| id.is_some()).map_err(|error| DeadLetterError::new(&error))
            }
            Backend::Elsewhere(target) => {
                let (target, copy) = (Arc::clone(target), dead_letter.clone());
                let stored = tokio::task::spawn_blocking(move || target.store(&copy)).await;
                match stored {
                    Ok(stored) => stored.map(|()| true).map_err(|error| DeadLetterError::new(&error)),
                    Err(error) => Err(DeadLetterError::new(&error)),
                }
            }
        };
        self.report(&dead_letter, stored)
    }

    /// Stores a dead letter. It is durable when this returns. It blocks, so async code must not call it.
    ///
    /// # Errors
    ///
    /// Returns [`DeadLetterError`] if it is not durable. The delivery must not be acknowledged then.
    pub fn add_blocking(&self, dead_letter: &DeadLetter) -> Result<(), DeadLetterError> {
        let stored = match &self.backend {
            Backend::Database { dead_letters, .. } => dead_letters
                .add_blocking(vec![dead_letter.clone()])
                .map(|ids| ids.iter().any(Option::is_some))
                .map_err(|error| DeadLetterError::new(&error)),
            Backend::Elsewhere(target) => {
                target.store(dead_letter).map(|()| true).map_err(|error| DeadLetterError::new(&error))
            }
        };
        self.report(dead_letter, stored)
    }

    /// Counts and logs the result of storing a dead letter. `Ok(false)` means that a copy of it was stored before.
    fn report(
        &self,
        dead_letter: &DeadLetter,
        stored: Result<bool, DeadLetterError>,
    ) -> Result<(), DeadLetterError> {
        let DeadLetter { reason, connector, error, .. } = dead_letter;
        match &stored {
            Ok(true) => {
                let is_copy = matches!(reason, Reason::Expired | Reason::Refused);
                self.telemetry.emit(&DeadLetterStored { reason: reason.code(), connector, error, is_copy });
            }
            Ok(false) => {}
            Err(DeadLetterError(error)) => {
                self.telemetry.emit(&DeadLetterFailed { reason: reason.code(), error });
            }
        }
        stored.map(|_| ())
    }

    /// Returns why dead letters cannot be stored; `None` while they can.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        let error = match &self.backend {
            Backend::Database { dead_letters, .. } => dead_letters.last_error(),
            Backend::Elsewhere(target) => target.last_error(),
        };
        error.map(|error| format!("dead letters: {error}"))
    }

    /// Updates the metrics of `dead.db`.
    pub fn measure(&self) {
        let Backend::Database { dead_letters, counted } = &self.backend else { return };
        let metrics = &self.telemetry.metrics;
        for count in dead_letters.counts() {
            metrics.spool_dead_letters.with_label_values(&[&count.reason]).set(count.dead_letters as f64);
        }
        let mut counted = counted.lock();
        let before = std::mem::replace(&mut *counted, dead_letters.dropped());
        for (reason, before, now) in [
            (Reason::Expired, before.expired, counted.expired),
            (Reason::Refused, before.refused, counted.refused),
        ] {
            let dropped = now.saturating_sub(before);
            metrics.dead_letters_dropped.with_label_values(&[reason.code()]).inc_by(dropped);
        }
    }
}
