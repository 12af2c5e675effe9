//! Tests with an issuer that answers, changes its keys, returns wrong documents and fails.

#![allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{FetchOutcome, Keys, LiveVerifier, RefreshOutcome};
use crate::telemetry::Telemetry;
use dt_sink::clock::{Clock, ManualClock};
use dt_verify::{KeySet, Verifier};

/// Returns a key set with the key of the committed vectors, under this id.
fn jwks(kid: &str) -> String {
    format!(
        r#"{{"keys":[{{"kty":"EC","crv":"P-256","use":"sig","kid":"{kid}","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}}]}}"#
    )
}

/// The answers of an issuer, and the number of its requests.
#[derive(Default)]
struct Issuer {
    discovery: Mutex<String>,
    keys: Mutex<String>,
    requests: AtomicUsize,
}

impl Issuer {
    /// Serves on a port of its own, until the runtime ends. Returns its URL.
    async fn serve(self: &Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}/data-connector", listener.local_addr().expect("an address"));
        *self.discovery.lock() = format!(r#"{{"issuer":"{address}","jwks_uri":"{address}/keys"}}"#);
        let issuer = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let issuer = Arc::clone(&issuer);
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n")
                        && stream.read_buf(&mut request).await.unwrap_or(0) > 0
                    {}
                    issuer.requests.fetch_add(1, Ordering::SeqCst);
                    let is_discovery = request.windows(11).any(|part| part == b".well-known");
                    let body = if is_discovery { &issuer.discovery } else { &issuer.keys }.lock().clone();
                    let status = if body.is_empty() { "500 Broken" } else { "200 OK" };
                    let length = body.len();
                    let answer = format!(
                        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                    );
                    let _sent = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        address
    }
}

fn keys(issuer: &str, folder: &Path, clock: &Arc<ManualClock>) -> Arc<Keys> {
    let clock: Arc<dyn dt_sink::clock::Clock> = Arc::clone(clock) as _;
    let telemetry = Arc::new(Telemetry::new(Arc::clone(&clock)));
    Arc::new(Keys::new(issuer, folder, clock, telemetry).expect("an issuer"))
}

fn ids(keys: &Keys) -> Vec<String> {
    keys.set().iter().flat_map(|set| set.ids().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn the_key_set_is_fetched_once_in_30_s_and_the_last_valid_one_stays() {
    let (folder, issuer) = (tempfile::tempdir().expect("a folder"), Arc::new(Issuer::default()));
    let address = issuer.serve().await;
    let clock = Arc::new(ManualClock::at(1_000_000));
    *issuer.keys.lock() = jwks("one");
    let first = keys(&address, folder.path(), &clock);
    assert_eq!(ids(&first), Vec::<String>::new());
    assert_eq!((first.refresh().await, ids(&first)), (FetchOutcome::Fresh, vec!["one".to_owned()]));
    assert_eq!(issuer.requests.load(Ordering::SeqCst), 2, "discovery and keys");
    // More calls cause no more fetches.
    *issuer.keys.lock() = jwks("two");
    for _ in 0..100 {
        assert_eq!(first.refresh().await, FetchOutcome::Fresh);
    }
    assert_eq!((issuer.requests.load(Ordering::SeqCst), ids(&first)), (2, vec!["one".to_owned()]));
    clock.set(1_029_999);
    assert_eq!((first.refresh().await, ids(&first)), (FetchOutcome::TooSoon, vec!["one".to_owned()]));
    clock.set(1_030_000);
    assert_eq!((first.refresh().await, ids(&first)), (FetchOutcome::Fresh, vec!["two".to_owned()]));
    // It fails: the set stays, and does not count as fresh.
    issuer.keys.lock().clear();
    clock.set(1_060_000);
    assert_eq!((first.refresh().await, ids(&first)), (FetchOutcome::Failed, vec!["two".to_owned()]));
    assert!(first.problem().is_some_and(|text| text.contains("found status 500")), "{:?}", first.problem());
    // A restart keeps the set.
    let again = keys(&address, folder.path(), &clock);
    assert_eq!(ids(&again), ["two"]);
    assert_eq!(again.refresh().await, FetchOutcome::Failed);
    assert_eq!(ids(&again), ["two"]);
    // It recovers.
    *issuer.keys.lock() = jwks("three");
    clock.set(1_090_000);
    assert_eq!(
        (again.refresh().await, again.problem(), ids(&again)),
        (FetchOutcome::Fresh, None, vec!["three".to_owned()])
    );
}

#[tokio::test]
async fn a_wrong_document_changes_nothing() {
    let (folder, issuer) = (tempfile::tempdir().expect("a folder"), Arc::new(Issuer::default()));
    let address = issuer.serve().await;
    let clock = Arc::new(ManualClock::at(0));
    *issuer.keys.lock() = jwks("good");
    let keys = keys(&address, folder.path(), &clock);
    assert_eq!(keys.refresh().await, FetchOutcome::Fresh);
    let good = issuer.discovery.lock().clone();
    for (at, (discovery, set, says)) in [
        (good.replace("data-connector\",", "other\","), jwks("bad"), "`issuer`: found"),
        (
            good.replace(&format!("{address}/keys"), "http://elsewhere.example/keys"),
            jwks("bad"),
            "`jwks_uri`",
        ),
        ("not JSON".to_owned(), jwks("bad"), "no discovery document"),
        (good.clone(), "{}".to_owned(), "not a JWK set"),
        // A single empty set may be an error.
        (good.clone(), r#"{"keys":[]}"#.to_owned(), "none of the 0 key(s)"),
        (good.clone(), "x".repeat(300_000), "length limit exceeded"),
    ]
    .into_iter()
    .enumerate()
    {
        (*issuer.discovery.lock(), *issuer.keys.lock()) = (discovery, set);
        clock.set(30_000_i64.saturating_mul(i64::try_from(at).expect("small").saturating_add(1)));
        assert_eq!(keys.refresh().await, FetchOutcome::Failed, "{says}");
        assert!(keys.problem().is_some_and(|text| text.contains(says)), "{says}: {:?}", keys.problem());
        assert_eq!(ids(&keys), ["good"], "{says}");
    }
}

#[tokio::test]
async fn an_issuer_that_returns_two_empty_sets_has_revoked_its_keys() {
    let (folder, issuer) = (tempfile::tempdir().expect("a folder"), Arc::new(Issuer::default()));
    let address = issuer.serve().await;
    let clock = Arc::new(ManualClock::at(0));
    *issuer.keys.lock() = jwks("good");
    let keys = keys(&address, folder.path(), &clock);
    assert_eq!(keys.refresh().await, FetchOutcome::Fresh);
    for (at, set, outcome, left) in [
        (1, r#"{"keys":[]}"#, FetchOutcome::Failed, 1),
        // Not twice in a row.
        (2, "{}", FetchOutcome::Failed, 1),
        (3, r#"{"keys":[]}"#, FetchOutcome::Failed, 1),
        (4, r#"{"keys":[]}"#, FetchOutcome::Fresh, 0),
    ] {
        set.clone_into(&mut issuer.keys.lock());
        clock.set(at * 30_000);
        assert_eq!((keys.refresh().await, ids(&keys).len()), (outcome, left), "{at}");
    }
    assert!(keys.problem().is_some_and(|text| text.contains("no keys any more")), "{:?}", keys.problem());
    *issuer.keys.lock() = jwks("new");
    clock.set(5 * 30_000);
    assert_eq!(
        (keys.refresh().await, ids(&keys), keys.problem()),
        (FetchOutcome::Fresh, vec!["new".to_owned()], None)
    );
}

#[tokio::test]
async fn an_old_key_set_is_reported_also_after_a_restart() {
    let (folder, issuer) = (tempfile::tempdir().expect("a folder"), Arc::new(Issuer::default()));
    let address = issuer.serve().await;
    let written = dt_sink::clock::SystemClock.unix_seconds();
    let clock = Arc::new(ManualClock::at(written * 1000));
    *issuer.keys.lock() = jwks("good");
    let first = keys(&address, folder.path(), &clock);
    assert_eq!(
        (first.refresh().await, first.fetched_at(), first.problem()),
        (FetchOutcome::Fresh, written, None)
    );
    let again = keys(&address, folder.path(), &clock);
    assert!((0..60).contains(&(again.fetched_at() - written)), "{}", again.fetched_at());
    clock.set((written + 8 * 86_400) * 1000);
    for keys in [&first, &again] {
        assert!(keys.problem().is_some_and(|text| text.contains("fetched")), "{:?}", keys.problem());
    }
    assert_eq!((again.refresh().await, again.problem()), (FetchOutcome::Fresh, None));
}

#[tokio::test]
async fn a_verifier_gets_new_keys_and_reports_why_it_gets_none() {
    let (folder, issuer) = (tempfile::tempdir().expect("a folder"), Arc::new(Issuer::default()));
    let address = issuer.serve().await;
    let clock = Arc::new(ManualClock::at(0));
    *issuer.keys.lock() = jwks("one");
    let keys = keys(&address, folder.path(), &clock);
    let verifier = Verifier::builder().key_set_of_issuer(KeySet::none(), "org", &*address);
    let live = LiveVerifier::with_keys(verifier.build().expect("a policy"), keys);
    let used = live.get();
    assert_eq!(live.refresh(&used).await, RefreshOutcome::New);
    let used = live.get();
    assert_eq!(live.refresh(&used).await, RefreshOutcome::Unchanged, "the set was fetched just now");
    clock.set(29_999);
    assert_eq!(live.refresh(&used).await, RefreshOutcome::TooSoon, "it was fetched before this call");
    issuer.keys.lock().clear();
    clock.set(30_000);
    assert_eq!(live.refresh(&used).await, RefreshOutcome::Unavailable);
    assert_eq!(live.refresh(&used).await, RefreshOutcome::Unavailable, "no fetch, and the last one failed");
    *issuer.keys.lock() = jwks("two");
    clock.set(60_000);
    assert_eq!(live.refresh(&used).await, RefreshOutcome::New);
    let fixed = LiveVerifier::fixed((*used).clone());
    assert_eq!(fixed.refresh(&used).await, RefreshOutcome::Unchanged);
}
