//! The progress bar: on standard error, if that is a terminal, and only for runs that take longer than a second.

use std::convert::Infallible;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The time after which the progress bar is shown.
const DELAY: Duration = Duration::from_secs(1);

/// The interval between two updates of the progress bar.
const REFRESH: Duration = Duration::from_millis(200);

/// Shows the progress of `done` towards `all` while the future is awaited. Never ends by itself.
pub async fn show(all: u64, done: impl Fn() -> u64) -> Infallible {
    tokio::time::sleep(DELAY).await;
    // Without its start position, the bar would compute its speed as if all previous requests were sent now.
    let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
    let shown = Shown(bar.with_position(done()).with_elapsed(DELAY));
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len}, {eta} left") {
        shown.0.set_style(style);
    }
    loop {
        shown.0.set_position(done());
        tokio::time::sleep(REFRESH).await;
    }
}

/// Removes the bar when it is dropped, so that the report starts on an empty line.
struct Shown(ProgressBar);

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
