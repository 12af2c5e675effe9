//! A verifier whose key set may change while it is in use.

use std::sync::Arc;

use parking_lot::RwLock;

use super::{FetchOutcome, Keys};
use dt_verify::Verifier;

/// The result of fetching the key set for a key that it does not contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// The key set was fetched, and it has changed.
    New,
    /// The key set was fetched, and it has not changed.
    Unchanged,
    /// The key set was fetched less than 30 s ago, so it was not fetched again.
    TooSoon,
    /// The key set could not be fetched.
    Unavailable,
}

/// The verifier of a connector, with fixed or changing keys.
#[derive(Debug)]
pub struct LiveVerifier(Kind);

#[derive(Debug)]
enum Kind {
    Fixed(Arc<Verifier>),
    WithKeys {
        /// The verifier, and the generation of the key set that it uses.
        current: RwLock<(Arc<Verifier>, u64)>,
        keys: Arc<Keys>,
    },
}

impl LiveVerifier {
    /// Creates a verifier that never changes.
    #[must_use]
    pub fn fixed(verifier: Verifier) -> Self {
        Self(Kind::Fixed(Arc::new(verifier)))
    }

    /// Creates a verifier that always uses the current key set.
    #[must_use]
    pub fn with_keys(verifier: Verifier, keys: Arc<Keys>) -> Self {
        Self(Kind::WithKeys { current: RwLock::new((Arc::new(verifier), 0)), keys })
    }

    /// Returns the verifier if it never changes, without a lock or a reference count; otherwise `None`.
    #[must_use]
    pub fn unchanging(&self) -> Option<&Verifier> {
        match &self.0 {
            Kind::Fixed(verifier) => Some(verifier),
            Kind::WithKeys { .. } => None,
        }
    }

    /// Returns the verifier, with the current key set.
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

    /// Returns the key set; `None` for a verifier that never changes.
    #[must_use]
    pub const fn keys(&self) -> Option<&Arc<Keys>> {
        match &self.0 {
            Kind::Fixed(_) => None,
            Kind::WithKeys { keys, .. } => Some(keys),
        }
    }

    /// Fetches the key set for a request that `used` could not verify because it names an unknown key.
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
