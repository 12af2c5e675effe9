//! Notifies the service manager of the state of the receiver (`sd_notify`): ready, reloading, stopping, alive. Without a
//! service manager (`NOTIFY_SOCKET` is not set) it does nothing.

use sd_notify::NotifyState;

/// Notifies that the listeners are open, or that a reload has ended.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Notifies that a reload begins; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now, NotifyState::Status("reloading the configuration")]),
        Err(error) => tracing::warn!(%error, "the time since boot cannot be read"),
    }
}

/// Notifies that the stop begins.
pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("finishing what is in flight")]);
}

/// Notifies the service manager that the receiver is alive, twice within its timeout (`WatchdogSec=`). If the runtime hangs, the
/// notifications stop, and the service manager restarts the receiver.
pub async fn keep_alive() {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval(timeout.checked_div(2).unwrap_or(timeout).max(MIN_INTERVAL));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

/// The shortest interval between two watchdog notifications.
const MIN_INTERVAL: std::time::Duration = std::time::Duration::from_millis(10);

fn notify(state: &[NotifyState<'_>]) {
    // The receiver keeps running: the service manager decides about a missing notification.
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot notify the service manager (NOTIFY_SOCKET)");
    }
}
