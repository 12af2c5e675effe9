//! Waiting for something to become true: it is looked at again and again, and the only clock is the patience after
//! which a test gives up. In a paused runtime the pauses cost nothing, and days may pass.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Waits until `what` gives something, for a minute at most.
pub(crate) async fn until<T>(what: impl FnMut() -> Option<T>) -> T {
    until_within(Duration::from_secs(60), Duration::from_millis(5), what).await
}

/// The same with another patience and another pause between looks.
pub(crate) async fn until_within<T>(
    patience: Duration,
    pause: Duration,
    mut what: impl FnMut() -> Option<T>,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(began.elapsed() < patience, "it did not happen in {patience:?}");
        sleep(pause).await;
    }
}
