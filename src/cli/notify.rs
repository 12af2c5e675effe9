//! Tells the service manager how we are (`sd_notify`): ready, reloading, stopping, still alive. Where nobody listens
//! (`NOTIFY_SOCKET` is not set), nothing is said.

use sd_notify::NotifyState;

/// Ready: the listeners are open. Also the end of a reload.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload begins; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reloading the configuration")]),
        Err(error) => tracing::warn!(%error, "the time since boot cannot be read"),
    }
}

/// The stop begins.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing what is in flight")]);
}

/// Says that we are alive, as often as the service manager wants it (`WatchdogSec=`), for as long as the runtime turns:
/// a runtime that hangs says nothing, and is restarted.
pub(super) async fn keep_alive() {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let mut often = tokio::time::interval(patience.checked_div(2).unwrap_or(patience).max(SHORTEST));
    often.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        often.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// More often than this would only cost.
const SHORTEST: std::time::Duration = std::time::Duration::from_millis(10);

fn tell(state: &[NotifyState<'_>]) {
    // The service runs all the same; its manager will say what it thinks of the silence.
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager (NOTIFY_SOCKET) was not told");
    }
}
