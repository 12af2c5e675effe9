//! A verifier whose keys may change while it is in use.

use std::sync::Arc;

use parking_lot::RwLock;

use super::{Asked, Keys};
use crate::verify::Verifier;

/// What came of asking for a key that was not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// There are other keys now.
    New,
    /// There are none but those that were known.
    Nothing,
    /// Nobody could be asked, or not again so soon.
    Unavailable,
}

/// The verifier of a connector.
#[derive(Debug)]
pub struct LiveVerifier {
    /// The verifier, and which set of keys it has.
    current: RwLock<(Arc<Verifier>, u64)>,
    keys: Option<Arc<Keys>>,
}

impl LiveVerifier {
    /// A verifier that stays as it is.
    #[must_use]
    pub fn fixed(verifier: Verifier) -> Self {
        Self { current: RwLock::new((Arc::new(verifier), 0)), keys: None }
    }

    /// A verifier that has whatever keys there are.
    #[must_use]
    pub fn with_keys(verifier: Verifier, keys: Arc<Keys>) -> Self {
        Self { current: RwLock::new((Arc::new(verifier), 0)), keys: Some(keys) }
    }

    /// The verifier as it is now.
    #[must_use]
    pub fn get(&self) -> Arc<Verifier> {
        let (current, generation) = {
            let current = self.current.read();
            (Arc::clone(&current.0), current.1)
        };
        let Some(keys) = &self.keys else { return current };
        let newest = keys.generation();
        if newest == generation {
            return current;
        }
        let Some(set) = keys.set() else { return current };
        let verifier = Arc::new(current.with_keys(set));
        *self.current.write() = (Arc::clone(&verifier), newest);
        verifier
    }

    /// The keys, if they can change.
    #[must_use]
    pub const fn keys(&self) -> Option<&Arc<Keys>> {
        self.keys.as_ref()
    }

    /// Asks for a key that was not known to `used`.
    pub async fn learn(&self, used: &Arc<Verifier>) -> Learned {
        let Some(keys) = &self.keys else { return Learned::Nothing };
        let asked = keys.ask().await;
        if Arc::ptr_eq(&self.get(), used) {
            match asked {
                Asked::Fresh => Learned::Nothing,
                Asked::TooSoon | Asked::Failed => Learned::Unavailable,
            }
        } else {
            Learned::New
        }
    }
}
