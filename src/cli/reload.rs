//! Reloads the configuration of `serve`: on SIGHUP, and when one of its files has changed and does not change further. All
//! signals during a reload cause one more reload.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::signal::unix::Signal;
use tokio::time::MissedTickBehavior;

use super::{notify, serve};
use dt_server::config::{Config, ConfigError, FileSnapshot, Recorder, Sources, SystemSources, Watch};
use dt_server::service::ReloadHandle;

/// The triggers of reloads, and the state that a reload changes.
pub struct Reloader {
    pub handle: ReloadHandle,
    /// The state of the files that were read at the start.
    pub files: FileSnapshot,
    /// The interval between two checks of the files; zero if they are not checked.
    pub interval: Duration,
    /// The stream of SIGHUP signals.
    pub hangup: Signal,
    /// The status text for the service manager after a reload.
    pub status: String,
}

/// Reloads the configuration, which `read` reads, at every trigger. Never ends by itself.
pub async fn keep_current<F>(reloader: Reloader, read: F)
where
    F: Fn(&dyn Sources) -> Result<Config, ConfigError> + Clone + Send + 'static,
{
    let Reloader { handle, files, interval, mut hangup, status } = reloader;
    let watch = Arc::new(Mutex::new(Watch::new(files)));
    // tokio panics at an interval of zero.
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let trigger = tokio::select! {
            Some(()) = hangup.recv() => "SIGHUP",
            _ = ticks.tick(), if !interval.is_zero() => {
                let watch = Arc::clone(&watch);
                let check = move || watch.lock().has_stable_change(&SystemSources);
                match tokio::task::spawn_blocking(check).await {
                    Ok(true) => "file changed",
                    Ok(false) | Err(_) => continue,
                }
            }
        };
        let (read, watch) = (read.clone(), Arc::clone(&watch));
        let read = move || {
            let recorder = Recorder::new(SystemSources).without_certificates();
            let config = read(&recorder);
            watch.lock().set_current(recorder.into_snapshot());
            if let Ok(config) = &config {
                serve::warn(config);
            }
            config
        };
        notify::reloading();
        // Log, metrics and `/readyz` report the result.
        let _reported = handle.reload(trigger, read).await;
        notify::ready(&status);
    }
}
