//! Takes a sink down for a while: events are still accepted, and wait on disk.

use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::screen::{self, Tone};
use super::sinks::Delivered;
use crate::cli::Failure;

/// The time limit for the archive to catch up. It is much longer than the pauses between attempts.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The result of the outage of a sink.
#[derive(Debug)]
pub struct Outage {
    /// The number of events that waited for the sink.
    pub waited: usize,
    /// The duration of the outage.
    pub length: Duration,
}

/// Takes the archive down until the screen has shown `until` events and at least one more than before, then waits until the
/// archive has caught up.
///
/// # Errors
///
/// [`Failure::Internal`] if the archive does not catch up within 60 s, or receives the events in another order than the screen.
pub async fn run(delivered: &Delivered, until: usize) -> Result<Outage, Failure> {
    let (began, before) = (Instant::now(), delivered.archive.count());
    delivered.take_archive_down();
    screen::report(Tone::Warning, "sink down", "archive; events are accepted, stored, and wait for it", "")?;
    let next = delivered.screen.count().saturating_add(1);
    delivered.screen.reach(until.max(next)).await;
    delivered.archive_failed().await;
    let length = began.elapsed();
    delivered.bring_archive_up();
    screen::report(Tone::Good, "sink up", "archive; it is tried again after growing pauses", "")?;
    let caught_up = tokio::time::timeout(TIMEOUT, catch_up(delivered)).await;
    caught_up.map_err(|_| anyhow!("the archive has not caught up after {} s", TIMEOUT.as_secs()))?;
    delivered.archive_caught_up();
    let archived = delivered.archive.ids();
    if archived.iter().zip(delivered.screen.ids()).any(|(archived, shown)| *archived != shown) {
        return Err(anyhow!("the archive has the events in another order than the screen").into());
    }
    let waited = archived.len().saturating_sub(before);
    let text = format!("archive has the {waited} events that waited, in their order");
    screen::report(Tone::Good, "caught up", &text, "0 lost")?;
    Ok(Outage { waited, length })
}

/// Waits until the archive has as many events as the screen.
async fn catch_up(delivered: &Delivered) {
    loop {
        let shown = delivered.screen.count();
        delivered.archive.reach(shown).await;
        if shown == delivered.screen.count() {
            return;
        }
    }
}
