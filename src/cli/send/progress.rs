//! The progress bar: on standard error, on a terminal only, and only for what takes its time.

use std::convert::Infallible;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Runs shorter than this have none.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is drawn.
const REFRESH: Duration = Duration::from_millis(200);

/// Shows how far `done` has come towards `all`, for as long as it is awaited. It never ends by itself.
pub(super) async fn show(all: u64, done: impl Fn() -> u64) -> Infallible {
    tokio::time::sleep(PATIENCE).await;
    let shown = Shown(ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr()));
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} eta {eta}") {
        shown.0.set_style(style);
    }
    loop {
        shown.0.set_position(done());
        tokio::time::sleep(REFRESH).await;
    }
}

/// Takes the bar away in the end, so that the report does not stand behind it.
struct Shown(ProgressBar);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
