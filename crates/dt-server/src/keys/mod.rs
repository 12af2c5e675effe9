//! DT's key set for the scheme of `DT-Asymmetric-Signature`: found through the issuer's discovery document, kept in memory
//! and on disk, and asked for again when a token names a key that is not known.
//!
//! The issuer is asked at most once in 30 s, whatever comes in, so nobody can make us ask for every forged token. While it
//! cannot be reached the last good set holds, also over a restart. A key that nobody could ask for is our own fault, not
//! the sender's: the answer is 503 then, and DT tries again.

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
pub use live::{LiveVerifier, RefreshOutcome};

/// How long the issuer is left alone after it was asked.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How often it is asked although no unknown key came: a key that was withdrawn must not hold for ever.
const ASK_EVERY: Duration = Duration::from_secs(3600);

/// Why there is no new key set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The issuer is no URL that keys can be fetched from.
    #[error(transparent)]
    Issuer(#[from] BadIssuer),
    /// It did not answer, or not as it should.
    #[error("{0}")]
    Fetch(#[from] FetchError),
    /// What it answered is no key set.
    #[error("{url}: {source}")]
    KeySet {
        /// Where it came from.
        url: String,
        /// What is wrong with it.
        source: KeySetError,
    },
}

/// So old a set is an alert: what was revoked since still counts.
const MAX_AGE_SECONDS: i64 = 7 * 86_400;

/// How many may wait for an answer of the issuer.
const MAX_WAITING: usize = 256;

/// One of those who wait, also when it gives up.
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

/// What became of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchOutcome {
    /// The set is the issuer's own of just now.
    Fresh,
    /// The issuer was asked a moment ago; what has changed since then nobody knows.
    TooSoon,
    /// The issuer could not be asked.
    Failed,
}

/// The keys of one issuer.
pub struct Keys {
    issuer: String,
    fetcher: Fetcher,
    file: PathBuf,
    clock: Arc<dyn Clock>,
    telemetry: Arc<Telemetry>,
    set: RwLock<Option<KeySet>>,
    /// Grows with every new set.
    generation: AtomicU64,
    /// Held while the issuer is asked, so that it is asked once for all who wait.
    asking: tokio::sync::Mutex<Asking>,
    /// When the issuer gave its set last, in Unix seconds; 0 for never.
    fetched_at: AtomicI64,
    /// How many wait for the answer. Requests do, and anyone can send some.
    waiting: AtomicUsize,
    problem: RwLock<Option<String>>,
}

#[derive(Debug, Default)]
struct Asking {
    /// When the issuer was asked last, in Unix milliseconds, and what came of it.
    last: Option<(i64, FetchOutcome)>,
    /// The set as it was fetched.
    json: Vec<u8>,
    /// Whether the last answer was a set without any key.
    was_empty: bool,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("issuer", &self.issuer).field("set", &self.set).finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys of an issuer, with what an earlier run left in `folder`. Nobody is asked yet.
    ///
    /// # Errors
    ///
    /// [`BadIssuer`] when keys cannot be fetched from there.
    pub fn new(
        issuer: &str,
        folder: &Path,
        clock: Arc<dyn Clock>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, BadIssuer> {
        let fetcher = Fetcher::new(issuer)?;
        let file = cache::file(folder, issuer);
        let kept = cache::read(&file);
        let set = kept.as_deref().and_then(|json| KeySet::from_jwks(json).ok());
        let generation = AtomicU64::new(u64::from(set.is_some()));
        let asking = Asking { json: kept.unwrap_or_default(), ..Asking::default() };
        let fetched_at = set.as_ref().and_then(|_| cache::written_at(&file)).unwrap_or(0);
        Ok(Self {
            issuer: issuer.to_owned(),
            fetcher,
            file,
            clock,
            telemetry,
            set: RwLock::new(set),
            generation,
            asking: tokio::sync::Mutex::new(asking),
            fetched_at: AtomicI64::new(fetched_at),
            waiting: AtomicUsize::new(0),
            problem: RwLock::new(None),
        })
    }

    /// The set, if there ever was one.
    #[must_use]
    pub fn set(&self) -> Option<KeySet> {
        self.set.read().clone()
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What is wrong with the keys: the issuer could not be asked last, has none, or gave them long ago.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let age = self.clock.unix_seconds().saturating_sub(self.fetched_at());
        let is_old = self.fetched_at() > 0 && age > MAX_AGE_SECONDS;
        let old = is_old.then(|| {
            let days = age.checked_div(86_400).unwrap_or(0);
            format!(
                "keys of {}: fetched {days} days ago; a key that was revoked since still counts",
                self.issuer
            )
        });
        let problems: Vec<String> = self.problem.read().iter().cloned().chain(old).collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }

    /// The issuer.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// When the issuer gave its set last, in Unix seconds; 0 for never.
    #[must_use]
    pub fn fetched_at(&self) -> i64 {
        self.fetched_at.load(Ordering::Relaxed)
    }

    /// Asks the issuer, unless it was asked a moment ago. It is asked to the end, also when whoever wanted to know gives up:
    /// otherwise a stranger's requests that end early could make us ask again and again, and never learn anything.
    pub async fn refresh(self: &Arc<Self>) -> FetchOutcome {
        let keys = Arc::clone(self);
        tokio::spawn(async move { keys.refresh_once().await }).await.unwrap_or(FetchOutcome::Failed)
    }

    async fn refresh_once(&self) -> FetchOutcome {
        let waiting = Waiting::on(&self.waiting);
        if waiting.0.load(Ordering::Relaxed) > MAX_WAITING {
            return FetchOutcome::TooSoon;
        }
        let came = self.clock.unix_millis();
        let mut asking = self.asking.lock().await;
        let now = self.clock.unix_millis();
        if let Some((at, asked)) = asking.last {
            let passed = now.saturating_sub(at);
            // A clock that was set back must not keep us from asking.
            if (0..i64::try_from(ASK_AGAIN_AFTER.as_millis()).unwrap_or(i64::MAX)).contains(&passed) {
                let asked_since = at >= came;
                return if asked == FetchOutcome::Fresh && !asked_since {
                    FetchOutcome::TooSoon
                } else {
                    asked
                };
            }
        }
        let asked = match self.fetch(&mut asking).await {
            Ok(()) => FetchOutcome::Fresh,
            Err(error) => {
                let text = format!("keys of {}: {error}", self.issuer);
                self.telemetry.emit(&KeysFailed { issuer: &self.issuer, error: &text });
                *self.problem.write() = Some(text);
                FetchOutcome::Failed
            }
        };
        asking.last = Some((now, asked));
        asked
    }

    async fn fetch(&self, Asking { json: known, was_empty, .. }: &mut Asking) -> Result<(), KeysError> {
        let (url, json) = self.fetcher.fetch().await?;
        let read = KeySet::from_jwks(&json);
        let is_empty = matches!(read, Err(KeySetError::NoUsableKey { found: 0 }));
        let was_empty = std::mem::replace(was_empty, is_empty);
        // An issuer that says twice that it has no keys has revoked them; once may be an accident.
        let set = if is_empty && was_empty {
            KeySet::none()
        } else {
            read.map_err(|source| KeysError::KeySet { url, source })?
        };
        self.fetched_at.store(self.clock.unix_seconds(), Ordering::Relaxed);
        let revoked = || {
            format!("keys of {}: the issuer has no keys any more; all signatures are refused", self.issuer)
        };
        *self.problem.write() = is_empty.then(revoked);
        if json != *known || self.set.read().is_none() {
            let ids: Vec<&str> = set.ids().collect();
            self.telemetry.emit(&KeysFetched { issuer: &self.issuer, keys: &ids });
            *self.set.write() = Some(set);
            self.generation.fetch_add(1, Ordering::Release);
            known.clone_from(&json);
            let file = self.file.clone();
            // Without the copy a restart needs the issuer; events are verified all the same.
            let kept = tokio::task::spawn_blocking(move || cache::write(&file, &json)).await;
            if let Ok(Err(error)) = kept {
                tracing::warn!(path = %self.file.display(), %error, "the key set cannot be kept on disk");
            }
        }
        Ok(())
    }

    /// Asks the issuer now, and from time to time.
    pub async fn keep_fresh(self: &Arc<Self>) {
        loop {
            let pause = match self.refresh().await {
                FetchOutcome::Fresh | FetchOutcome::TooSoon => ASK_EVERY,
                FetchOutcome::Failed => ASK_AGAIN_AFTER,
            };
            tokio::time::sleep(pause).await;
        }
    }
}
