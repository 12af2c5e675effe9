//! When `serve` reads its configuration again: on SIGHUP, and when one of the files that it was read from has changed and
//! then stayed as it is. Signals that come meanwhile are one more reload, however many they are.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::signal::unix::Signal;
use tokio::time::MissedTickBehavior;

use super::{notify, serve};
use dt_server::config::{Config, ConfigError, Look, Recorder, Sources, SystemSources, Watch};
use dt_server::service::ReloadHandle;

/// Reads the configuration again whenever that is called for, and never ends by itself. `look` is what was read at the
/// start; files are looked at `every` so often, or never. `status` is what the service manager is told in the end.
pub(super) async fn keep_current<F>(
    handle: ReloadHandle,
    read: F,
    look: Look,
    every: Duration,
    mut hangup: Signal,
    status: String,
) where
    F: Fn(&dyn Sources) -> Result<Config, ConfigError> + Clone + Send + 'static,
{
    let watch = Arc::new(Mutex::new(Watch::new(look)));
    // An interval of nothing cannot be.
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let who = tokio::select! {
            Some(()) = hangup.recv() => "SIGHUP",
            _ = ticks.tick(), if !every.is_zero() => {
                let watch = Arc::clone(&watch);
                let look = move || watch.lock().has_settled(&SystemSources);
                match tokio::task::spawn_blocking(look).await {
                    Ok(true) => "file changed",
                    Ok(false) | Err(_) => continue,
                }
            }
        };
        let (read, watch) = (read.clone(), Arc::clone(&watch));
        let read = move || {
            let recorder = Recorder::new(SystemSources).without_certificates();
            let config = read(&recorder);
            watch.lock().take(recorder.into_look());
            if let Ok(config) = &config {
                serve::warn(config);
            }
            config
        };
        notify::reloading();
        // Log, metrics and `/readyz` say what became of it.
        let _told = handle.reload(who, read).await;
        notify::ready(&status);
    }
}
