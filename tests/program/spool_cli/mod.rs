//! `spool` and `dead` against the real program: beside a running server, and with the spool's own lock when there is
//! none.

mod direct;
mod errors;
mod repairs;
mod setup;
