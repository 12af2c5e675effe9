//! DT's key set for the header `DT-Asymmetric-Signature`. It is located by the issuer's discovery document, kept in memory and on
//! disk, and fetched again when a token names a key that it does not contain.
//!
//! The key set is fetched at most once in 30 s, so that forged tokens cannot cause a request to the issuer each. While the issuer
//! cannot be reached, the last valid key set stays in use, also after a restart. A request with a key that could not be looked up
//! is answered 503, so that DT sends it again.

mod cache;
mod fetch;
mod live;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use crate::telemetry::{KeysFailed, KeysFetched, Telemetry};
use dt_sink::clock::Clock;
use dt_verify::{KeySet, KeySetError};

pub use fetch::{BadIssuer, check_issuer};
use fetch::{FetchError, Fetcher};
pub(crate) use fetch::{causes, connector};
pub use live::{LiveVerifier, RefreshOutcome};

/// The shortest time between two fetches.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(30);
/// The time between two regular fetches of the key set. A key that the issuer revokes is rejected after the next one.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3600);

/// Why a new key set could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// Keys cannot be fetched from this issuer.
    #[error(transparent)]
    Issuer(#[from] BadIssuer),
    /// The issuer did not respond, or not as expected.
    #[error("{0}")]
    Fetch(#[from] FetchError),
    /// The issuer's response is not a key set.
    #[error("{url}: {source}")]
    KeySet {
        /// The URL of the key set.
        url: String,
        /// The problem of the key set.
        source: KeySetError,
    },
}

/// The age in seconds from which a key set is reported as a problem, since keys that were revoked meanwhile are still accepted.
const MAX_AGE_SECONDS: i64 = 7 * 86_400;

/// The largest number of callers that wait for the issuer's response.
const MAX_WAITING: usize = 256;

/// Counts a waiting caller until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn on(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The result of [`Keys::refresh`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchOutcome {
    /// The key set has just been fetched.
    Fresh,
    /// The key set was fetched less than 30 s ago, but before this call, so it may have changed since.
    TooSoon,
    /// The key set could not be fetched.
    Failed,
}

/// The key set of one issuer.
pub struct Keys {
    issuer: String,
    fetcher: Fetcher,
    file: PathBuf,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
    set: RwLock<Option<KeySet>>,
    /// The generation of the key set: a number that increases with every new one.
    generation: AtomicU64,
    /// The last fetch. It is locked during a fetch, so that all waiting callers share one.
    last_fetch: tokio::sync::Mutex<LastFetch>,
    /// When the key set was last fetched, in Unix seconds; 0 if it was never fetched.
    fetched_at: AtomicI64,
    /// The number of waiting callers. It is limited, since any client can send requests that wait.
    waiting: AtomicUsize,
    /// The problem of the keys: why the last fetch failed, or that the issuer has revoked all keys. `None` if there is no
    /// problem.
    problem: RwLock<Option<String>>,
}

/// The last fetch of a key set.
#[derive(Debug, Default)]
struct LastFetch {
    /// When the fetch began, in Unix milliseconds, and its result; `None` before the first fetch.
    outcome: Option<(i64, FetchOutcome)>,
    /// The JSON text of the key set that was fetched.
    json: Vec<u8>,
    /// Whether the last response was a key set without keys.
    was_empty: bool,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("issuer", &self.issuer).field("set", &self.set).finish_non_exhaustive()
    }
}

impl Keys {
    /// Creates the key set of an issuer, with the keys that an earlier process has stored in `folder`. Does not fetch the key
    /// set.
    ///
    /// # Errors
    ///
    /// Returns [`BadIssuer`] if keys cannot be fetched from this issuer.
    pub fn new(
        issuer: &str,
        folder: &Path,
        clock: Arc<dyn Clock>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, BadIssuer> {
        let fetcher = Fetcher::new(issuer)?;
        let file = cache::file(folder, issuer);
        let stored = cache::read(&file);
        let set = stored.as_deref().and_then(|json| KeySet::from_jwks(json).ok());
        let generation = AtomicU64::new(u64::from(set.is_some()));
        let last_fetch = LastFetch { json: stored.unwrap_or_default(), ..LastFetch::default() };
        let fetched_at = set.as_ref().and_then(|_| cache::written_at(&file)).unwrap_or(0);
        Ok(Self {
            issuer: issuer.to_owned(),
            fetcher,
            file,
            clock,
            telemetry,
            set: RwLock::new(set),
            generation,
            last_fetch: tokio::sync::Mutex::new(last_fetch),
            fetched_at: AtomicI64::new(fetched_at),
            waiting: AtomicUsize::new(0),
            problem: RwLock::new(None),
        })
    }

    /// Returns the key set; `None` if it was never fetched.
    #[must_use]
    pub fn set(&self) -> Option<KeySet> {
        self.set.read().clone()
    }

    /// Returns the generation of the current key set.
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the problem of the keys: the last fetch failed, the issuer has revoked all keys, or the key set is too old. `None`
    /// if there is no problem.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let age = self.clock.unix_seconds().saturating_sub(self.fetched_at());
        let is_old = self.fetched_at() > 0 && age > MAX_AGE_SECONDS;
        let old = is_old.then(|| {
            let days = age.checked_div(86_400).unwrap_or(0);
            format!(
                "keys of {}: fetched {days} days ago; keys revoked since then are still accepted",
                self.issuer
            )
        });
        let problems: Vec<String> = self.problem.read().iter().cloned().chain(old).collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }

    /// Returns the URL of the issuer.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Returns when the key set was last fetched, in Unix seconds; 0 if it was never fetched.
    #[must_use]
    pub fn fetched_at(&self) -> i64 {
        self.fetched_at.load(Ordering::Relaxed)
    }

    /// Fetches the key set, unless it was fetched less than 30 s ago. The fetch continues if the caller drops the future:
    /// otherwise requests that are cancelled early could start one fetch after another without a result.
    pub async fn refresh(self: &Arc<Self>) -> FetchOutcome {
        let keys = Arc::clone(self);
        tokio::spawn(async move { keys.refresh_once().await }).await.unwrap_or(FetchOutcome::Failed)
    }

    /// Fetches the key set, or waits for the fetch of another caller.
    async fn refresh_once(&self) -> FetchOutcome {
        let waiting = Waiting::on(&self.waiting);
        if waiting.0.load(Ordering::Relaxed) > MAX_WAITING {
            return FetchOutcome::TooSoon;
        }
        let called_at = self.clock.unix_millis();
        let mut last_fetch = self.last_fetch.lock().await;
        let now = self.clock.unix_millis();
        if let Some((at, outcome)) = last_fetch.outcome {
            let passed = now.saturating_sub(at);
            // A clock that was set back must not prevent fetches, so a negative time counts as passed.
            if (0..i64::try_from(MIN_REFRESH_INTERVAL.as_millis()).unwrap_or(i64::MAX)).contains(&passed) {
                let is_fetched_since = at >= called_at;
                let is_too_soon = outcome == FetchOutcome::Fresh && !is_fetched_since;
                return if is_too_soon { FetchOutcome::TooSoon } else { outcome };
            }
        }
        let outcome = match self.fetch(&mut last_fetch).await {
            Ok(()) => FetchOutcome::Fresh,
            Err(error) => {
                let text = format!("keys of {}: {error}", self.issuer);
                self.telemetry.emit(&KeysFailed { issuer: &self.issuer, error: &text });
                *self.problem.write() = Some(text);
                FetchOutcome::Failed
            }
        };
        last_fetch.outcome = Some((now, outcome));
        outcome
    }

    /// Fetches the key set and stores it in memory and on disk.
    async fn fetch(&self, LastFetch { json: known, was_empty, .. }: &mut LastFetch) -> Result<(), KeysError> {
        let (url, json) = self.fetcher.fetch().await?;
        let read = KeySet::from_jwks(&json);
        let is_empty = matches!(read, Err(KeySetError::NoUsableKey { found: 0 }));
        let was_empty = std::mem::replace(was_empty, is_empty);
        // An issuer that returns an empty set twice has revoked its keys; one empty answer may be an error.
        let set = if is_empty && was_empty {
            KeySet::none()
        } else {
            read.map_err(|source| KeysError::KeySet { url, source })?
        };
        self.fetched_at.store(self.clock.unix_seconds(), Ordering::Relaxed);
        let revoked = || {
            format!("keys of {}: the issuer has no keys any more; all signatures are rejected", self.issuer)
        };
        *self.problem.write() = is_empty.then(revoked);
        if json != *known || self.set.read().is_none() {
            let ids: Vec<&str> = set.ids().collect();
            self.telemetry.emit(&KeysFetched { issuer: &self.issuer, keys: &ids });
            *self.set.write() = Some(set);
            self.generation.fetch_add(1, Ordering::Release);
            known.clone_from(&json);
            let file = self.file.clone();
            // Without the copy, a restart needs the issuer.
            let stored = tokio::task::spawn_blocking(move || cache::write(&file, &json)).await;
            if let Ok(Err(error)) = stored {
                tracing::warn!(path = %self.file.display(), %error, "the key set cannot be stored on disk");
            }
        }
        Ok(())
    }

    /// Fetches the key set now and then every hour, or after 30 s if that failed. Never returns.
    pub async fn keep_fresh(self: &Arc<Self>) {
        loop {
            let pause = match self.refresh().await {
                FetchOutcome::Fresh | FetchOutcome::TooSoon => REFRESH_INTERVAL,
                FetchOutcome::Failed => MIN_REFRESH_INTERVAL,
            };
            tokio::time::sleep(pause).await;
        }
    }
}
