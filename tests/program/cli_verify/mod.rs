//! `dt-receiver sign` and `dt-receiver verify`, as the real program: what they print, and how they exit.

mod causes;
mod program;
mod signing;
mod verifying;
