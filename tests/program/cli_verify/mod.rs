//! `dt-receiver sign` and `dt-receiver verify`, as the real program: what they print, and how they exit.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests may fail loudly; clippy.toml allows it in `#[test]` functions only, not in their helpers"
)]

mod causes;
mod program;
mod signing;
mod verifying;
