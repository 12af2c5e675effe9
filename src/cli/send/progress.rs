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
    // What was done before the bar was there must not look like the work of its first moment.
    let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
    let shown = Shown(bar.with_position(done()).with_elapsed(PATIENCE));
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len}, {eta} left") {
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
