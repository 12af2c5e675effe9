//! To be written.

use super::Ended;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Ended {
    Err(super::usage("not built yet"))
}
