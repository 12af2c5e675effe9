//! A verifier whose keys may change while it is in use.

use std::sync::Arc;

use parking_lot::RwLock;

use super::{FetchOutcome, Keys};
use dt_verify::Verifier;

/// What came of asking for a key that was not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// There are other keys now.
    New,
    /// There are none but those that were known.
    Unchanged,
    /// The issuer was outcome a moment ago, and is not outcome again so soon.
    TooSoon,
    /// The issuer could not be outcome.
    Unavailable,
}

/// The verifier of a connector.
#[derive(Debug)]
pub struct LiveVerifier(Kind);

#[derive(Debug)]
enum Kind {
    Fixed(Arc<Verifier>),
    WithKeys {
        /// The verifier, and which set of keys it has.
        current: RwLock<(Arc<Verifier>, u64)>,
        keys: Arc<Keys>,
    },
}

impl LiveVerifier {
    /// A verifier that stays as it is.
    #[must_use]
    pub fn fixed(verifier: Verifier) -> Self {
        Self(Kind::Fixed(Arc::new(verifier)))
    }

    /// A verifier that has whatever keys there are.
    #[must_use]
    pub fn with_keys(verifier: Verifier, keys: Arc<Keys>) -> Self {
        Self(Kind::WithKeys { current: RwLock::new((Arc::new(verifier), 0)), keys })
    }

    /// The verifier, if it stays as it is: nothing is locked or counted for it.
    #[must_use]
    pub fn unchanging(&self) -> Option<&Verifier> {
        match &self.0 {
            Kind::Fixed(verifier) => Some(verifier),
            Kind::WithKeys { .. } => None,
        }
    }

    /// The verifier as it is now.
    #[must_use]
    pub fn get(&self) -> Arc<Verifier> {
        let (current, keys) = match &self.0 {
            Kind::Fixed(verifier) => return Arc::clone(verifier),
            Kind::WithKeys { current, keys } => (current, keys),
        };
        let (verifier, generation) = {
            let current = current.read();
            (Arc::clone(&current.0), current.1)
        };
        let newest = keys.generation();
        if newest == generation {
            return verifier;
        }
        let Some(set) = keys.set() else { return verifier };
        let verifier = Arc::new(verifier.with_keys(set));
        *current.write() = (Arc::clone(&verifier), newest);
        verifier
    }

    /// The keys, if they can change.
    #[must_use]
    pub const fn keys(&self) -> Option<&Arc<Keys>> {
        match &self.0 {
            Kind::Fixed(_) => None,
            Kind::WithKeys { keys, .. } => Some(keys),
        }
    }

    /// Asks for a key that was not known to `used`.
    pub async fn refresh(&self, used: &Arc<Verifier>) -> RefreshOutcome {
        let Some(keys) = self.keys() else { return RefreshOutcome::Unchanged };
        let outcome = keys.refresh().await;
        if Arc::ptr_eq(&self.get(), used) {
            match outcome {
                FetchOutcome::Fresh => RefreshOutcome::Unchanged,
                FetchOutcome::TooSoon => RefreshOutcome::TooSoon,
                FetchOutcome::Failed => RefreshOutcome::Unavailable,
            }
        } else {
            RefreshOutcome::New
        }
    }
}
